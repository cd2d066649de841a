"""Drawings that several sections share, in one style."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

BLUE, ORANGE, GREEN, GRAY = "#1f5fa8", "#d9730d", "#1b7a3d", "#8a93a1"
COLOURS = (BLUE, ORANGE, GREEN, "#8b3fa8")


def canvas(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def numbers(
    axes: Axes,
    array: Any,
    title: str,
    *,
    marked: Sequence[tuple[slice, slice]] = (),
    padding: int = 0,
) -> None:
    """A matrix as a grid of numbers, with windows marked in colour; the padding around it is faint."""
    array = np.atleast_2d(np.asarray(array))
    height, width = array.shape
    for (i, j), value in np.ndenumerate(array):
        outside = not (padding <= i < height - padding and padding <= j < width - padding)
        axes.add_patch(Rectangle((j, i), 1, 1, fill=False, ec="#d5dae2" if outside else GRAY, lw=0.8))
        axes.text(j + 0.5, i + 0.5, f"{value:g}", ha="center", va="center", color=GRAY if outside else "#111")
    for colour, (rows, columns) in zip(COLOURS, marked, strict=False):
        corner = columns.start, rows.start
        size = columns.stop - columns.start, rows.stop - rows.start
        axes.add_patch(Rectangle(corner, *size, fc=colour, alpha=0.2))
        axes.add_patch(Rectangle(corner, *size, fill=False, ec=colour, lw=2.2))
    axes.set(xlim=(-0.1, width + 0.1), ylim=(height + 0.1, -0.1), aspect="equal")
    axes.set_title(title, fontsize="medium")
    axes.axis("off")


def block(row: int, column: int, height: int = 1, width: int = 1) -> tuple[slice, slice]:
    """The window that begins at a place of a matrix."""
    return slice(row, row + height), slice(column, column + width)


def grids(*items: tuple[Any, str, dict[str, Any]], cell: float = 0.42) -> Figure:
    """Matrices of numbers side by side."""
    widths = [np.atleast_2d(array).shape[1] for array, _, _ in items]
    height = max(np.atleast_2d(array).shape[0] for array, _, _ in items)
    figure = canvas(cell * (sum(widths) + 1.5 * len(items)), cell * height + 0.6)
    row = figure.subplots(1, len(items), width_ratios=widths, squeeze=False)[0]
    for axes, (array, title, options) in zip(row, items, strict=True):
        numbers(axes, array, title, **options)
    return figure


def network(layers: Sequence[int], stride: int, kernel: int, cone: int) -> Figure:
    """Layers of neurons from the input at the bottom up, and in colour all that one output sees.

    Args:
        layers: neurons of each layer, the input first.
        stride, kernel: of every layer; the ends are padded by (kernel - 1) / 2.
        cone: which output.
    """
    figure = canvas(7, 0.8 + 0.75 * len(layers))
    axes = figure.subplots()
    seen = {cone}
    for level in range(len(layers) - 1, -1, -1):
        place = np.arange(layers[level]) * stride**level
        for neuron, x in enumerate(place):
            colour = BLUE if neuron in seen else "#d5dae2"
            axes.plot(x, level, "o", ms=15, mfc=colour, mec=GRAY, zorder=3)
        if level == 0:
            break
        below = set()
        for neuron, x in enumerate(place):
            for source in range(neuron * stride - kernel // 2, neuron * stride + kernel // 2 + 1):
                if not 0 <= source < layers[level - 1]:
                    continue
                strong = neuron in seen
                below |= {source} if strong else set()
                line = {"color": BLUE, "lw": 1.6, "zorder": 2} if strong else {"color": "#d5dae2", "lw": 0.8}
                axes.plot([source * stride ** (level - 1), x], [level - 1, level], **line)
        seen = below
    axes.set_yticks(range(len(layers)), ["input", *(f"layer {i}" for i in range(1, len(layers)))])
    axes.set(xlim=(-0.7, layers[0] - 0.3), ylim=(-0.4, len(layers) - 0.6))
    axes.set_xticks([])
    axes.set_frame_on(False)
    axes.tick_params(length=0)
    return figure


def bare(axes: Axes, image: Any, title: str = "", **options: Any) -> None:
    """An image without a frame."""
    axes.imshow(image, interpolation="nearest", **options)
    axes.set_title(title, fontsize="small")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color("#d5dae2")
