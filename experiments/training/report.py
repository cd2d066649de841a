"""What a run leaves behind when it is complete: `summary.json` and pictures."""

import dataclasses
import statistics
from typing import Any

import jax
import numpy as np

from experiments import figures
from experiments.config import Config, command
from experiments.record import cannot_write, surroundings, write_json
from experiments.training.loop import Run
from experiments.training.steps import Evaluation
from jcnn.inspect import show

PACKAGES = ("jax", "jaxlib", "numpy", "optax", "orbax-checkpoint", "jcnn")


def about(config: Config) -> dict[str, Any]:
    """What was run, where and when."""
    return {
        "script": "experiments.train",
        "command": command(config),
        "config": dataclasses.asdict(dataclasses.replace(config, resume=None)),
    } | surroundings(*PACKAGES)


def summary_of(run: Run, test: Evaluation) -> dict[str, Any]:
    """The content of `summary.json` for one seed, which came out as `test` says."""
    return about(dataclasses.replace(run.config, seed=run.seed, seeds=1)) | {
        "seed": run.seed,
        "parameters": sum(p.size for p in jax.tree.leaves(run.train_state.params)),
        "epochs": run.records,
        "test_loss": test.loss,
        "test_accuracy": test.accuracy,
        "compile_seconds": run.program.compile_seconds,
        "seconds": sum(record["seconds"] for record in run.records),
    }


def summary_of_all(config: Config, summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of `summary.json` for several seeds: means, and standard deviations of the sample."""
    accuracies, seconds = ([s[key] for s in summaries] for key in ("test_accuracy", "seconds"))
    return about(config) | {
        "seeds": [s["seed"] for s in summaries],
        "parameters": summaries[0]["parameters"],
        "test_accuracies": accuracies,
        "test_accuracy": statistics.fmean(accuracies),
        "test_accuracy_std": statistics.stdev(accuracies),
        "compile_seconds": summaries[0]["compile_seconds"],
        "seconds": statistics.fmean(seconds),
        "seconds_std": statistics.stdev(seconds),
    }


def write_results(run: Run, test: Evaluation) -> dict[str, Any]:
    """Predictions and pictures, then at one stroke `summary.json`: where it is, the results are complete."""
    out, channels, summary = run.folder, run.data.train_images.shape[-1], summary_of(run, test)
    what = f"{summary['config']['model']} on {summary['config']['dataset']}"
    title = f"{what}: test accuracy {summary['test_accuracy']:.2%}"
    weights = jax.tree.leaves(run.train_state.average)
    first = next(w for w in weights if w.ndim == 4 and w.shape[2] == channels)
    try:
        np.save(out / "predictions.npy", test.logits.argmax(-1).astype(np.int32))
        figures.learning_curve(summary["epochs"], title, out / "learning_curve.png")
        picture = show.filters(np.moveaxis(np.asarray(first), -1, 0), title=f"first layer of {what}")
        picture.savefig(out / "filters.png")
    except OSError as error:
        raise cannot_write(out, error) from None
    write_json(out / "summary.json", summary)
    return summary
