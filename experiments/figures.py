"""The pictures an experiment leaves behind."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter


def learning_curve(epochs: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """Loss and error rate against the epoch, of the training and the test set.

    Args:
        epochs: the per-epoch metrics of `summary.json`.
        title: what was trained.
        path: the picture to write.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained", dpi=150)
    figure.suptitle(title)
    loss, error = figure.subplots(1, 2)
    number = [record["epoch"] for record in epochs]
    for split in ("train", "test"):
        loss.plot(number, [record[f"{split}_loss"] for record in epochs], ".-", label=split)
        error.plot(number, [100 * (1 - record[f"{split}_accuracy"]) for record in epochs], ".-", label=split)
    loss.set_yscale("log")
    error.set_yscale("symlog", linthresh=1, linscale=0.5)  # an error of zero has its place, too
    error.yaxis.set_major_formatter(ScalarFormatter())
    error.set_ylim(bottom=0)
    for axes, label in ((loss, "loss"), (error, "error / %")):
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    figure.savefig(path)


def filters(weights: np.ndarray, title: str, path: Path) -> None:
    """Every filter of a first layer, side by side.

    Filters on three channels are shown in colour, each stretched to the full range. Others are shown channel
    by channel, blue where the weight is negative and red where it is positive, on one scale for all.

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
    columns = min(8, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    figure = Figure(figsize=(6.2, 0.7 * rows + 0.5), layout="constrained", dpi=150)
    figure.suptitle(title, fontsize="medium")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, tile in zip(grid, tiles, strict=False):
        picture = axes.imshow(tile, **scale)
    if scale:
        figure.colorbar(picture, ax=grid, label="weight")
    figure.savefig(path)
