"""Where a cotangent is wrong, as pictures of an image axis pair: SVG for pages, PNG through matplotlib."""

import math
import os
from typing import NamedTuple

import numpy as np

from jcnn.verify.report import ErrorMap, Report

LARGEST = 32  # cells per axis; a cell of a larger array stands for a block of entries


class Plane(NamedTuple):
    """An array as a picture: at each cell the one of its entries where the error is largest.

    `axes` are those of the array that the picture's rows and columns run over; `size` its extents there.
    """

    hand: np.ndarray
    reference: np.ndarray
    error: np.ndarray
    axes: tuple[int, ...]
    size: tuple[int, int]

    @property
    def caption(self) -> str:
        """What the picture's rows and columns are."""
        said = ("a single number", "axis {} across", "axis {} down, axis {} across")[len(self.axes)]
        blocks = (
            "" if self.error.shape == self.size else f", {self.size[0]} x {self.size[1]} entries in blocks"
        )
        return said.format(*self.axes) + blocks


def plane(error_map: ErrorMap) -> Plane:
    """The picture of a cotangent of any rank."""
    hand, reference = (np.asarray(a, np.float64) for a in (error_map.hand, error_map.reference))
    axes = image_axes(hand.shape)
    error = difference(hand, reference)
    rows, columns = (1,) * (2 - len(axes)) + tuple(hand.shape[axis] for axis in axes)
    size = (rows, columns)
    cells = [_cells(a, axes, size) for a in (hand, reference, error)]
    pick = cells[2].argmax(-1)[..., None]
    hand, reference, error = (np.take_along_axis(a, pick, -1)[..., 0] for a in cells)
    return Plane(hand, reference, error, axes, size)


def image_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The two longest axes of `shape`; from rank 4 on, of those between the first and the last."""
    inner = range(1, len(shape) - 1) if len(shape) > 3 else range(len(shape))
    longest = sorted(inner, key=lambda axis: -shape[axis])[:2]
    return tuple(sorted(longest))


def difference(hand: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """|hand - reference|: 0 where both are the same NaN or infinity, infinite where only one of them is."""
    with np.errstate(invalid="ignore"):
        error = np.abs(hand - reference)
    same = (hand == reference) | (np.isnan(hand) & np.isnan(reference))
    return np.asarray(np.nan_to_num(np.where(same, 0, error), nan=np.inf, posinf=np.inf))


def _cells(a: np.ndarray, axes: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """`a` as [rows, columns, all entries of that cell]; a last block that is short repeats the last entry."""
    a = np.moveaxis(a, axes, range(len(axes))).reshape(*size, -1)
    blocks = [-(-n // LARGEST) for n in size]
    padding = [(0, -n % b) for n, b in zip(size, blocks, strict=True)]
    a = np.pad(a, [*padding, (0, 0)], mode="edge")
    rows, columns = (n // b for n, b in zip(a.shape, blocks, strict=False))
    a = a.reshape(rows, blocks[0], columns, blocks[1], -1)
    return np.moveaxis(a, 1, 2).reshape(rows, columns, -1)


def limits(picture: Plane) -> tuple[float, float]:
    """The largest finite |error|, and the largest finite |value| of hand and reference."""
    both = np.abs(np.stack([picture.hand, picture.reference]))
    return _largest(picture.error), _largest(both)


def _largest(a: np.ndarray) -> float:
    return float(a[np.isfinite(a)].max(initial=0.0))


def svg(a: np.ndarray, limit: float, title: str) -> str:
    """A map of `a` whose cells are as opaque as |a| is large, of class "pos", "neg" or, not finite, "nan"."""
    rows, columns = a.shape
    height = max(1.0, columns / (8 * rows))  # a strip is not too flat to be seen
    cells = [
        f'<rect class="{_kind(a[i, j])}" x="{j}" y="{i * height:g}" width="1" height="{height:g}"'
        f' fill-opacity="{_opacity(a[i, j], limit)}"><title>{i}, {j}: {a[i, j]:.4g}</title></rect>'
        for i in range(rows)
        for j in range(columns)
    ]
    return (
        f'<svg role="img" aria-label="{title}" viewBox="0 0 {columns} {rows * height:g}"'
        f' style="max-width:{28 * columns}px">{"".join(cells)}</svg>'
    )


def _kind(value: float) -> str:
    return "nan" if not math.isfinite(value) else "neg" if value < 0 else "pos"


def _opacity(value: float, limit: float) -> str:
    return f"{abs(value) / limit if limit else 0:.2g}" if math.isfinite(value) else "1"


def save_picture(report: Report, path: str | os.PathLike) -> None:
    """Writes error, hand and reference of each wrong argument to `path`, a PNG or what its name ends with.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no argument's cotangent is wrong.
    """
    try:
        from matplotlib import colormaps as colours
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("save_picture needs matplotlib: pip install matplotlib") from None
    if not report.maps:
        raise ValueError(f"{report.rule}: no argument has a wrong cotangent, there is nothing to draw")
    figure = Figure(figsize=(9.6, 2.8 * len(report.maps) + 0.6), layout="constrained", dpi=150)
    figure.suptitle(f"{report.verdict}  {report.rule}")
    grid = figure.subplots(len(report.maps), 3, squeeze=False)
    for row, (name, error_map) in zip(grid, report.maps.items(), strict=True):
        picture = plane(error_map)
        largest_error, largest = limits(picture)
        values = {"vmin": -largest, "vmax": largest, "cmap": colours["RdBu_r"].with_extremes(bad="gold")}
        errors = {"vmin": 0, "vmax": largest_error, "cmap": colours["Reds"].with_extremes(bad="gold")}
        _draw(row[0], picture.error, f"{name}: |hand - reference|", errors)
        _draw(row[1], picture.hand, "by hand", values)
        _draw(row[2], picture.reference, "reference", values)
        row[0].set_ylabel(picture.caption, fontsize="small")
    figure.savefig(path)


def _draw(axes, a: np.ndarray, title: str, scale: dict) -> None:
    image = axes.imshow(
        np.where(np.isfinite(a), a, np.nan),
        aspect="equal" if a.shape[0] > 1 else "auto",
        interpolation="nearest",
        **scale,
    )
    axes.set_title(title, fontsize="medium")
    axes.set(xticks=[], yticks=[])
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
