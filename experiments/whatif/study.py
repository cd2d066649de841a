"""What the studies share: nets that differ in their backward, trained alike and compared.

A variant is a net. What it computes is `net.fwd`, what it learns from is `net.bwd`, and no autodiff stands
between them: a rule with another backward (`net.with_rules`) or a layer with another `bwd`
(`dataclasses.replace(layer, fwd=..., bwd=...)`) is all that it takes. `fwd` has the step's key, so a random
backward keeps what it needs of it in the residuals; what differs from seed to seed can be kept in the state.

For each seed all variants start from the same weights and see the same images in the same order, by Adam
with a learning rate that falls to 0 as a cosine, without augmentation, and are evaluated on the whole test
set after the last step.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import jcnn
from experiments import config as training, data as sets
from experiments.data import Dataset, UserError
from experiments.folder import result_folder
from experiments.options import command, ending, parse
from experiments.record import write_json
from experiments.training.loop import Program, keys, order, prepare
from experiments.training.report import about
from experiments.training.steps import channel_statistics, evaluate
from jcnn import net
from jcnn.net import Net

OWN = ("train_images", "out")  # options that experiments.train has not, or that are not for it


@dataclass(frozen=True)
class Config:
    """A study: trains every variant with every seed."""

    dataset: str = "fashion_mnist"
    """digits, mnist, fashion_mnist or cifar10."""
    train_images: int = 10_000
    """How many of the training images to use, the first ones."""
    epochs: int = 3
    """Passes over them."""
    batch_size: int = 64
    """Images per step."""
    lr: float = 2e-3
    """Learning rate of the first step."""
    seed: int = 0
    """The first seed, of initial weights and order of images."""
    seeds: int = 3
    """How many seeds."""
    data_dir: Path | None = None
    """Folder with the data set's files, in it or in a subfolder named after the data set."""
    out: Path | None = None
    """Folder of the result, `summary.json`; runs/whatif-NAME-TIME if not given."""


class Trained(NamedTuple):
    """A variant after training with one seed."""

    params: Any
    state: Any
    accuracy: float  # on the test set
    seconds: float


def load(config: Config) -> Dataset:
    """The data set with as many training images as are asked for.

    Raises:
        UserError: it is not there, or has not so many.
    """
    data = sets.load(config.dataset, config.data_dir)
    n, most = config.train_images, len(data.train_images)
    if not config.batch_size <= n <= most:
        at_least = f"from {config.batch_size}, the batch size, to {most}, all that there are"
        raise UserError(f"--train-images: got {n}, expected a number {at_least}")
    return data._replace(train_images=data.train_images[:n], train_labels=data.train_labels[:n])


def batch(data: Dataset, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The first training images, scaled as the nets get them, and their labels."""
    mean, std = channel_statistics(data.train_images)
    return (data.train_images[:size] - mean) / std, data.train_labels[:size]


def small_net(classes: int, pool: Net | None = None) -> Net:
    """Two convolutions, each with ReLU and pooling (of maxima in 2x2), and a fully connected layer."""
    pool = pool or net.max_pool(2)
    layers = [layer for width in (16, 32) for layer in (net.conv(width, 3), jcnn.relu, pool)]
    return net.chain(*layers, net.flatten(), net.dense(classes))


def settings(config: Config) -> training.Config:
    """The study as a configuration of `experiments.train`, every value checked."""
    plain = dict(optimizer="adam", schedule="cosine", weight_decay=0.0, augment="none", backward="explicit")
    shared = {name: value for name, value in vars(config).items() if name not in OWN}
    return training.resolve(training.Config(**training.COMMON | plain | shared))


def compare(config: Config, data: Dataset, variants: Mapping[str, Net]) -> dict[str, list[Trained]]:
    """Trains the variants; for each those of all seeds.

    Raises:
        UserError: an option is bad, or the loss of some variant is not finite.
    """
    checked = settings(config)
    programs = {name: prepare(checked, data, variant) for name, variant in variants.items()}
    trained: dict[str, list[Trained]] = {name: [] for name in variants}
    for seed in range(config.seed, config.seed + config.seeds):
        for name, program in programs.items():  # taking turns, so that a busy machine is busy for all
            trained[name].append(train(program, seed, name))
            print(f"seed {seed}, {name}: {100 * trained[name][-1].accuracy:.2f} %", flush=True)
    return trained


def train(program: Program, seed: int, name: str) -> Trained:
    """Trains and evaluates one variant with one seed."""
    began, config, data = time.perf_counter(), program.config, program.data
    train_set = jax.device_put((data.train_images, data.train_labels))
    state, metrics = program.fresh(seed), []
    for epoch in range(1, config.epochs + 1):
        for indices in order(seed, epoch, len(data.train_images), config.batch_size):
            step = np.int32(len(metrics))
            state, of_batch = program.steps.train_step(state, *train_set, indices, step, keys(seed)[1])
            metrics.append(of_batch)
    good = np.asarray(jax.device_get(metrics))[:, 2]
    if not good.all():
        where = f"step {good.argmin() + 1} of {len(good)}"
        raise UserError(
            f"{name}: got a loss or gradient that is not finite in {where}; a lower --lr may help"
        )
    test_set = jax.device_put((data.test_images, data.test_labels))
    accuracy = evaluate(program.steps, state.average, *test_set, "none").accuracy
    return Trained(state.params, state.state, accuracy, time.perf_counter() - began)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and, of several, standard deviation of the sample."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def findings(config: Config, trained: Mapping[str, Sequence[Trained]]) -> dict[str, Any]:
    """What `summary.json` says of the variants; shows it as a table."""
    table = Table("variant", "test accuracy, %", "seconds")
    parts, variants = [], {}
    for name, runs in trained.items():
        accuracies, seconds = [run.accuracy for run in runs], [run.seconds for run in runs]
        parts.append(f"{name} {spread([100 * a for a in accuracies])}")
        table.add_row(name, spread([100 * a for a in accuracies]), spread(seconds, 1))
        variants[name] = {
            "test_accuracies": accuracies,
            "test_accuracy": statistics.fmean(accuracies),
            "test_accuracy_std": statistics.stdev(accuracies) if len(runs) > 1 else None,
            "seconds": statistics.fmean(seconds),
        }
    Console().print(table)
    return {"result": f"{config.dataset}: {', '.join(parts)} % (n = {config.seeds})", "variants": variants}


def main(
    script: str,
    study: Callable[[Config], dict[str, Any]],
    arguments: Sequence[str] | None = None,
    default: Config = Config(),
) -> None:
    """The command line of a study; exits with 2 and one line on a user's error, with 130 when interrupted.

    Args:
        script: the study's module, as in `python -m script`.
        study: gives what it found: `result`, the cell of the table of results, and whatever else is to be
            kept in `summary.json`.
        arguments: of the command line; by default the program's.
        default: the configuration that the command line changes.
    """
    with ending("interrupted: nothing was saved"):
        config = parse(default, script, arguments)
        settings(config)
        config = dataclasses.replace(config, out=folder_of(config, script))
        began = time.perf_counter()
        found = study(config)
        about_it = {
            "script": script,
            "command": command(config, default, script, ("data_dir", "out")),
            "config": dataclasses.asdict(config),
        }
        seconds = time.perf_counter() - began
        write_json(
            config.out / "summary.json", about(settings(config)) | about_it | {"seconds": seconds} | found
        )
        print(f"{found['result']}; the summary is in {config.out}")


def folder_of(config: Config, script: str) -> Path:
    """The folder of the result, without another one in it."""
    out = result_folder(config.out, f"whatif-{script.rpartition('.')[2]}")
    if (out / "summary.json").exists():
        raise UserError(f"--out: got {out} with a summary.json in it, expected a new folder")
    return out
