"""Pictures of what `jcnn.inspect` computes, for images with two spatial axes.

Every function returns a `matplotlib.figure.Figure`: `figure.savefig(path)`, or let a notebook show it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from jcnn.inspect.features import Patches
from jcnn.inspect.layers import fail

SIGNED = "RdBu_r"  # blue below 0, white at 0, red above
TILE, WIDTH = 0.75, 14.0  # inches: of a tile, and at most of all in a row


def filters(weights: Any, *, title: str = "") -> Figure:
    """Filters: in colour on 3 channels, else blue below 0 and red above, a column for each channel.

    Each filter in colour is stretched to the full range; others are on one scale.

    Args:
        weights: [O, kh, kw, C], from `inspect.filters`.
        title: above the picture.
    """
    weights = _array("filters", "weights", weights, "O kh kw C")
    count, *size, channels = weights.shape
    if channels == 3:
        return _figure(np.stack([_colours(w, w.min(), w.max()) for w in weights]), title=title)
    tiles = np.moveaxis(weights, -1, 1).reshape(count * channels, *size)
    limit = np.abs(tiles).max()
    scale = {"cmap": SIGNED, "vmin": -limit, "vmax": limit}
    return _figure(tiles, channels if channels > 1 else 0, title=title, label="weight", **scale)


def feature_maps(maps: Any, *, title: str = "") -> Figure:
    """The feature maps of one image, on one scale.

    Args:
        maps: [H, W, C], from `inspect.feature_maps`, of one image.
        title: above the picture.
    """
    maps = _array("feature_maps", "maps", maps, "H W C")
    return _figure(np.moveaxis(maps, -1, 0), title=title, label="activation", cmap="viridis")


def images(pictures: Any, *, title: str = "") -> Figure:
    """Images, each stretched to the full range: gray, in colour on 3 channels, else their mean over channels.

    Args:
        pictures: [N, H, W, C], for example from `inspect.visualize_features`.
        title: above the picture.
    """
    pictures = _array("images", "pictures", pictures, "N H W C")
    return _figure(np.stack([_colours(image, image.min(), image.max()) for image in pictures]), title=title)


def patches(found: Patches, *, title: str = "") -> Figure:
    """A row of patches for each channel, the most exciting first, all on one scale.

    Args:
        found: from `inspect.top_patches`.
        title: above the picture.
    """
    every = _array("patches", "found", found.patches, "channels k H W C")
    tiles = _colours(every.reshape(-1, *every.shape[2:]), every.min(), every.max())
    rows = [f"channel {c}" for c in found.channels]
    return _figure(tiles, every.shape[1], title=title, rows=rows)


def attributions(
    pictures: Any, maps: Mapping[str, Any], *, names: Sequence[str] = (), title: str = ""
) -> Figure:
    """A row for each image: the image, and over a faint copy of it what each method attributes.

    Red is for, blue against, and every map is on a scale of its own.

    Args:
        pictures: images [N, H, W, C].
        maps: the name of each method and its [N, H, W, C], of which the sum over channels is shown, or
            [N, H, W].
        names: of the rows.
        title: above the picture.
    """
    pictures = _array("attributions", "pictures", pictures, "N H W C")
    columns = [np.stack([_colours(image, image.min(), image.max()) for image in pictures])]
    faint = 1 - 0.35 * (1 - columns[0])
    for name, values in maps.items():
        values = np.asarray(values, np.float64)
        values = values.sum(-1) if values.ndim == 4 else values
        if values.shape != pictures.shape[:3]:
            fail(
                "show.attributions",
                f"maps[{name!r}]",
                f"{values.shape}",
                f"{pictures.shape[:3]} like pictures",
            )
        limit = np.maximum(np.abs(values).max((1, 2), keepdims=True), np.finfo(float).tiny)
        columns.append(faint * colormaps[SIGNED]((values / limit + 1) / 2)[..., :3])
    tiles = np.stack(columns, 1).reshape(-1, *columns[0].shape[1:])
    return _figure(tiles, len(columns), title=title, rows=names, heads=("image", *maps))


def _array(function: str, argument: str, value: Any, layout: str) -> np.ndarray:
    value = np.asarray(value, np.float64)
    if value.ndim != len(layout.split()) or not value.size:
        fail(
            f"show.{function}", argument, f"shape {value.shape}", f"[{layout.replace(' ', ', ')}], not empty"
        )
    return value


def _colours(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """[..., C] as [..., 3] in 0 ... 1."""
    image = (image - low) / (high - low if high > low else 1)
    return image if image.shape[-1] == 3 else np.repeat(image.mean(-1, keepdims=True), 3, -1)


def _figure(
    tiles: np.ndarray,
    columns: int = 0,
    *,
    title: str,
    label: str = "",
    rows: Sequence[str] = (),
    heads: Sequence[str] = (),
    **scale: Any,
) -> Figure:
    """Tiles [n, H, W] on a colour scale, or [n, H, W, 3], row by row in one picture with gaps between."""
    count, height, width = tiles.shape[:3]
    columns = columns or min(count, max(8, math.isqrt(count)))
    lines = math.ceil(count / columns)
    gap = max(1, round(0.06 * max(height, width)))
    down, right = height + gap, width + gap
    mosaic = np.full((lines * down - gap, columns * right - gap, *tiles.shape[3:]), np.nan if scale else 1.0)
    for i, tile in enumerate(tiles):
        y, x = i // columns * down, i % columns * right
        mosaic[y : y + height, x : x + width] = tile
    size = min(TILE, WIDTH / columns) / max(height, width)
    margin = 0.9 if rows or scale else 0.2
    wide, high = size * mosaic.shape[1] + margin, size * mosaic.shape[0] + 0.3 * bool(title) + 0.3
    figure = Figure(figsize=(max(1.8, wide), max(1.8, high)), layout="constrained", dpi=150)
    figure.suptitle(title, fontsize="medium")
    axes = figure.subplots()
    picture = axes.imshow(mosaic, interpolation="nearest", **scale)
    axes.set_frame_on(False)
    axes.tick_params(length=0, labelsize="x-small", labeltop=True, labelbottom=False)
    axes.set_xticks([i * right + (width - 1) / 2 for i in range(len(heads))], heads)
    axes.set_yticks([i * down + (height - 1) / 2 for i in range(len(rows))], rows)
    if scale:
        figure.colorbar(picture, ax=axes, label=label)
    return figure
