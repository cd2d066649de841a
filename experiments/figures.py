"""The pictures an experiment leaves behind."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def learning_curve(epochs: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Loss and error rate against the epoch, of the training and the test set, both on a log scale.

    Args:
        epochs: the per-epoch metrics of `summary.json`.
        title: what was trained.
        path: the picture to write.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=150)
    figure.suptitle(title)
    number = [record["epoch"] for record in epochs]
    panels = zip(figure.subplots(1, 2), ("loss", "accuracy"), ("loss", "error / %"), strict=True)
    for axes, metric, label in panels:
        for split, colour in (("train", "tab:blue"), ("test", "tab:orange")):
            values = np.array([record[f"{split}_{metric}"] for record in epochs])
            shown = values if metric == "loss" else 100 * (1 - values)
            # A log scale has no room for an error of zero: the curve has a gap there.
            axes.plot(number, np.where(shown > 0, shown, np.nan), ".-", color=colour, label=split)
        axes.set(xlabel="epoch", ylabel=label)
        if any(np.any(line.get_ydata() > 0) for line in axes.lines):
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.savefig(path)


def filters(weights: np.ndarray, title: str, path: Path) -> None:
    """Every filter of a first layer, side by side.

    Filters on three channels are shown in colour, each stretched to the full range. Others are shown channel by
    channel, blue where the weight is negative and red where it is positive, on one scale for all.

    Args:
        weights: `[kh, kw, C_in, C_out]`.
        title: what was trained.
        path: the picture to write.
    """
    if weights.shape[2] == 3:
        low, high = weights.min((0, 1, 2)), weights.max((0, 1, 2))
        tiles, scale = np.moveaxis((weights - low) / np.maximum(high - low, 1e-12), -1, 0), {}
    else:
        tiles = weights.reshape(*weights.shape[:2], -1).transpose(2, 0, 1)
        limit = np.abs(tiles).max()
        scale = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
    columns = min(len(tiles), 16)
    rows = math.ceil(len(tiles) / columns)
    figure = Figure(figsize=(0.6 * columns + 0.4, 0.6 * rows + 0.8), layout="constrained", dpi=150)
    figure.suptitle(title, fontsize="medium")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, tile in zip(grid, tiles, strict=False):
        picture = axes.imshow(tile, **scale)
    if scale:
        figure.colorbar(picture, ax=grid, label="weight")
    figure.savefig(path)
