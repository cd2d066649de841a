"""The pictures an experiment leaves behind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
