"""The bar chart of a benchmark's ratios."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from experiments.benchmark.settings import Row

INCH_PER_BAR = 0.14


def bars(kind: str, rows: Sequence[Row], path: Path) -> None:
    """One bar per row and peer on a logarithmic axis, with the quartiles; those under their bar are hatched.

    Args:
        kind: of benchmark, "ops" and so on.
        rows: the results.
        path: the picture to write.
    """
    peers = list(dict.fromkeys(peer for row in rows for peer in row.peers))
    if not peers:
        return
    height = 1 + INCH_PER_BAR * len(rows) * (len(peers) + 0.6)
    figure = Figure(figsize=(9, height), layout="constrained", dpi=120)
    axes = figure.subplots()
    thickness = 0.85 / len(peers)
    for number, peer in enumerate(peers):
        found = [(i, row.ratio(peer), row) for i, row in enumerate(rows) if peer in row.figures]
        shown = [(i, r, row) for i, r, row in found if 0 < r.median < math.inf]
        if not shown:
            continue
        drawn = axes.barh(
            [i + number * thickness for i, _, _ in shown],
            [r.median - 1 for _, r, _ in shown],
            thickness,
            left=1,
            label=peer,
            xerr=([r.median - r.low for _, r, _ in shown], [r.high - r.median for _, r, _ in shown]),
            error_kw={"elinewidth": 0.7, "alpha": 0.6},
        )
        for (_, _, row), patch in zip(shown, drawn, strict=True):
            if row.under(kind, peer):
                patch.set(hatch="////", edgecolor="black", linewidth=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(LogLocator(base=2))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks([i + (len(peers) - 1) * thickness / 2 for i in range(len(rows))])
    axes.set_yticklabels([f"{row.case}, {row.stage}{_short(row.dtype)}" for row in rows], fontsize=6)
    axes.set_ylim(len(rows) - 0.3, -0.7)
    axes.set_xlabel("theirs / ours: to the right of 1x we are better, hatched what is under its bar")
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(kind)
    if axes.containers:
        axes.legend(loc="best", fontsize=7)
    figure.savefig(path)


def _short(dtype: str) -> str:
    return "" if dtype == "float32" else f", {dtype}"
