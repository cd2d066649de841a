"""Training a network on a real data set.

Question: do jcnn's hand-derived backwards train real networks to the accuracy these are known for?

Command: `python -m experiments.train` (handwritten digits, under a minute on two cores),
`python -m experiments.train --dataset fashion_mnist` and so on; `--help` lists the options. What is not given
comes from the data set's recipe in `experiments/config.py`. A run leaves in a folder of its own
`summary.json` (written last: where it is, the run is complete), `predictions.npy` (the classes of the test
images, int32 `[N]`), `metrics.jsonl`, `tensorboard/`, `checkpoints/` and pictures.
`--resume FOLDER` goes on with it after Ctrl-C, a crash or kill -9, to the same weights, bit by bit.

Result: test accuracy in percent at the end, mean ± standard deviation over seeds; the README has the flags.
    digits, vgg_small               99.04 ± 0.15 (n = 5), 21 s
    MNIST, vgg_small                99.64 ± 0.01 (n = 3), 10 min
    CIFAR-10, airbench              94.09 (n = 1), 67 min beside other work
    Fashion-MNIST, airbench         95.07 (n = 1), 74 min beside other work
    Fashion-MNIST, vgg11_quarter    93.62 (n = 1), 5 min
    Fashion-MNIST, resnet_imagenet  92.85 (n = 1), 33 min beside other work
    Fashion-MNIST, lenet5           87.21 ± 0.30 (n = 3), 1 min
There is no validation split: a few settings were compared on these test sets, so the figures are slightly
optimistic, but for CIFAR-10, which was run once by the paper's recipe.

Hardware: 2 cores of a shared AMD EPYC with AVX-512.
Versions: jax 0.10.2, optax 0.2.8, Python 3.11.7.
Date: 2026-11-23.
"""

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import jcnn
from experiments.config import MODELS, Config, parse, resolve, resumed, saved
from experiments.data import Dataset, UserError, load
from experiments.folder import result_folder
from experiments.options import ending
from experiments.record import write_json
from experiments.training.interrupt import Interrupted
from experiments.training.loop import Program, Run, initial, prepare
from experiments.training.report import summary_of_all, write_results
from experiments.training.steps import channel_statistics
from jcnn.net import Net


def train(config: Config) -> dict[str, Any]:
    """Trains, evaluates after every epoch and writes the results; the dict is the content of `summary.json`.

    Raises:
        UserError: an option, the data or the folder for the results is bad, or the loss is not finite.
        Interrupted: by Ctrl-C, or SIGTERM; all is saved.
    """
    config = resolve(config) if config.resume is None else resumed(config)
    data = load(config.dataset, config.data_dir)
    net = make_net(config, data)
    config = dataclasses.replace(config, out=folder_of(config))
    write_json(config.out / "config.json", saved(config))
    console = Console(highlight=False, soft_wrap=True)
    print(net.summary(data.train_images.shape[1:]))
    program = prepare(config, data, net)
    console.print(f"compiled in {program.compile_seconds:.1f} s")
    try:
        summary = train_seeds(program, console)
    except Interrupted as stop:
        command = f"python -m experiments.train --resume {shlex.quote(str(config.out))}"
        raise Interrupted(f"interrupted {stop}; go on with: {command}") from None
    spread = f" \u00b1 {summary['test_accuracy_std']:.2%}" if config.seeds > 1 else ""
    print(f"test accuracy {summary['test_accuracy']:.2%}{spread}, results are in {config.out}")
    return summary


def make_net(config: Config, data: Dataset) -> Net:
    """The model, after a look at whether it suits the data."""
    image_shape = data.train_images.shape[1:]
    if config.batch_size > (n := len(data.train_images)):
        raise UserError(
            f"--batch-size: got {config.batch_size}, expected at most {n}, the training set's size"
        )
    options = {"whiten": some_normalised(data.train_images)} if config.model == "airbench" else {}
    net = MODELS[config.model](len(data.classes), **options)
    try:
        jax.eval_shape(lambda: initial(net, 0, image_shape))
    except ValueError as error:
        raise UserError(f"--model: got {config.model} for images of shape {image_shape}: {error}") from None
    return net


def some_normalised(images: np.ndarray) -> jax.Array:
    """The first 5,000 images as the net will see them, but for augmentation."""
    mean, std = channel_statistics(images)
    return jnp.asarray((images[:5000] - mean) / std)


def folder_of(config: Config) -> Path:
    """The folder of the results; one that has a run in it is only taken to go on with that run."""
    last = f"-{config.seed + config.seeds - 1}" if config.seeds > 1 else ""
    out = result_folder(config.out, f"{config.dataset}-{config.model}-seed{config.seed}{last}")
    if config.resume is None and (out / "config.json").exists():
        raise UserError(
            f"--out: got {out} with a run in it, expected a new folder; --resume {out} goes on with that run"
        )
    return out


def train_seeds(program: Program, console: Console) -> dict[str, Any]:
    """Trains with each seed, in a folder of its own if there are several."""
    config = program.config
    if config.seeds == 1:
        return train_seed(program, config.seed, config.out, console)
    summaries = []
    for seed in range(config.seed, config.seed + config.seeds):
        console.print(f"seed {seed}")
        folder = config.out / f"seed{seed}"
        folder.mkdir(exist_ok=True)
        summaries.append(train_seed(program, seed, folder, console))
    summary = summary_of_all(config, summaries)
    write_json(config.out / "summary.json", summary)
    return summary


def train_seed(program: Program, seed: int, folder: Path, console: Console) -> dict[str, Any]:
    """Trains with one seed, or takes the result that is already there."""
    if (path := folder / "summary.json").exists():
        console.print(f"{path} is there: nothing left to do")
        return json.loads(path.read_text())
    run = Run(program, seed, folder, console)
    run.fit()
    test = run.evaluate(program.config.epochs, program.config.tta)
    return write_results(run, test)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; exits with 2 and one line on a user's error, with 130 when interrupted."""
    jcnn.keep_memory()
    with ending("interrupted: nothing more was saved"):
        try:
            train(parse(arguments))
        except Interrupted as stop:
            print(stop, file=sys.stderr)
            sys.exit(130)


if __name__ == "__main__":
    main()
