"""What `experiments.train` can be told, and the recipe of each data set for what it is not told."""

import contextlib
import dataclasses
import io
import itertools
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from experiments.data import UserError
from experiments.training.augment import KINDS, split
from experiments.training.optimizers import OPTIMIZERS, SCHEDULES
from jcnn import models

MODELS = {
    "lenet5": models.lenet5,
    "vgg_small": models.vgg_small,
    "resnet": models.resnet,
    "resnext": models.resnext,
    "mobilenet_v2": models.mobilenet_v2,
    "convnext": lambda num_classes: models.convnext(num_classes, patch=2),
}
DTYPES = ("float32", "bfloat16")
BACKWARDS = ("autodiff", "explicit")
COMMON = dict(
    model="vgg_small",
    optimizer="adamw",
    schedule="onecycle",
    weight_decay=0.05,
    label_smoothing=0.0,
    ema=0.0,
    tta=False,
    seed=0,
    seeds=1,
    dtype="float32",
    remat=False,
    backward="autodiff",
    save_every=30.0,
)
RECIPES: dict[str, dict[str, Any]] = {
    "digits": COMMON | dict(epochs=20, batch_size=64, lr=3e-3, augment="shift", ema=0.98),
    "mnist": COMMON | dict(epochs=5, batch_size=128, lr=5e-3, augment="shift"),
    "fashion_mnist": COMMON
    | dict(epochs=9, batch_size=128, lr=5e-3, augment="flip", label_smoothing=0.1, ema=0.99, tta=True),
    "cifar10": COMMON | dict(epochs=20, batch_size=128, lr=5e-3, augment="flip_shift"),
}


@dataclass(frozen=True)
class Config:
    """Trains a network on a data set; what is None comes from the data set's recipe."""

    dataset: str | None = None
    """digits (if not given), mnist, fashion_mnist or cifar10."""
    model: str | None = None
    """lenet5, vgg_small, resnet, resnext, mobilenet_v2 or convnext."""
    epochs: int | None = None
    """Passes over the training set."""
    batch_size: int | None = None
    """Images per step; what is left over of the training set is dropped, other images in each epoch."""
    lr: float | None = None
    """Learning rate, the highest one if it is scheduled."""
    optimizer: str | None = None
    """sgd (Nesterov momentum 0.9), adam or adamw."""
    schedule: str | None = None
    """Learning rate over the steps: constant, cosine (falling to zero), warmup_cosine (rising first, in 5 %
    of the steps) or onecycle (rising from 1/25 of it, in 20 %)."""
    weight_decay: float | None = None
    """Decay of the weights, not of biases and norms; decoupled with adamw, an L2 penalty with the others."""
    label_smoothing: float | None = None
    """Share of the label that is spread over all classes."""
    augment: str | None = None
    """none, or those wanted of flip (left and right), shift (by up to 1/14 of the height), cutout (of a
    square of half the height) and mixup (of two images and of their labels), joined by _: flip_shift."""
    ema: float | None = None
    """Decay of the moving average of the weights that is evaluated; 0 evaluates the weights themselves."""
    tta: bool | None = None
    """Whether an image is evaluated together with its mirror image, by their mean logits."""
    seed: int | None = None
    """Seed of initial weights, order of images and augmentation; the same seed gives the same result."""
    seeds: int | None = None
    """How many seeds to train with, one after the other from `seed` on; gives mean and standard deviation."""
    dtype: str | None = None
    """Of the computation, float32 or bfloat16; the weights are float32 either way."""
    remat: bool | None = None
    """Whether activations are computed again in the backward, which takes less memory and more time."""
    backward: str | None = None
    """autodiff (jax.grad over the rules) or explicit (the net's own backward, with no autodiff in it)."""
    save_every: float | None = None
    """Seconds between checkpoints; 0 saves after every step."""
    data_dir: Path | None = None
    """Folder with the data set's files, in it or in a subfolder named after the data set."""
    out: Path | None = None
    """Folder of the results; runs/DATASET-MODEL-seedSEED-TIME if not given."""
    resume: Path | None = None
    """Folder of a run to go on with, with all options that it was started with."""


def resolve(config: Config) -> Config:
    """`config` completed from the recipe of its data set, every value checked."""

    def expect(good: bool, name: str, expected: str) -> None:
        if not good:
            raise UserError(f"--{name.replace('_', '-')}: got {getattr(config, name)!r}, expected {expected}")

    config = dataclasses.replace(config, dataset=config.dataset or "digits")
    expect(config.dataset in RECIPES, "dataset", f"one of {', '.join(RECIPES)}")
    recipe = RECIPES[config.dataset].items()
    config = dataclasses.replace(config, **{k: v for k, v in recipe if getattr(config, k) is None})
    choices = {
        "model": MODELS,
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
        "dtype": DTYPES,
        "backward": BACKWARDS,
    }
    for name, allowed in choices.items():
        expect(getattr(config, name) in allowed, name, f"one of {', '.join(allowed)}")
    kinds = split(config.augment)
    good = len(set(kinds)) == len(kinds) and set(kinds) <= set(KINDS)
    expect(good, "augment", f"none or of {', '.join(KINDS)} those wanted, joined by _")
    expect(not (config.remat and config.backward == "explicit"), "remat", "False with --backward explicit")
    for name in ("epochs", "batch_size", "lr", "seeds"):
        expect(0 < getattr(config, name) < math.inf, name, "a positive number")
    for name in ("label_smoothing", "ema"):
        expect(0 <= getattr(config, name) < 1, name, "a number in [0, 1)")
    for name in ("weight_decay", "seed", "save_every"):
        expect(0 <= getattr(config, name) < math.inf, name, "a number that is not negative")
    return config


FREE = ("data_dir", "save_every")  # what may differ in a run that is resumed
PLACES = ("out", "resume")


def resumed(config: Config) -> Config:
    """The configuration of the run in the folder `config.resume`, which goes on there.

    Raises:
        UserError: there is none, or an option is given that was another one when the run was started.
    """
    path = config.resume / "config.json"
    try:
        saved = json.loads(path.read_text())
        run = Config(**{k: Path(v) if k == "data_dir" and v else v for k, v in saved.items()})
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"--resume: got {config.resume} without a readable config.json ({error}), expected a run's folder"
        ) from None
    for name, value in vars(config).items():
        if value is not None and name not in (*FREE, *PLACES) and value != getattr(run, name):
            raise UserError(
                f"--{name.replace('_', '-')}: got {value!r}, expected {getattr(run, name)!r}, with which "
                f"{config.resume} was started; leave it out, or start another run without --resume"
            )
    if config.out not in (None, config.resume):
        raise UserError(f"--out: got {config.out}, expected none: a resumed run goes on in its own folder")
    free = {name: value for name in FREE if (value := getattr(config, name)) is not None}
    return resolve(dataclasses.replace(run, out=config.resume, resume=config.resume, **free))


def saved(config: Config) -> dict[str, Any]:
    """What `resumed` reads: all but where it is."""
    return {name: value for name, value in vars(config).items() if name not in PLACES}


def command(config: Config) -> str:
    """The shortest command line that gives a configuration, wherever its files are."""
    recipe = vars(resolve(Config(config.dataset)))
    words = ["python", "-m", "experiments.train"]
    if config.dataset != "digits":
        words += ["--dataset", config.dataset]
    for name, value in saved(config).items():
        if value != recipe[name] and name not in FREE:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def parse(arguments: Sequence[str] | None) -> Config:
    """The configuration that the command line asks for.

    Raises:
        UserError: what tyro says in a box, less the title and all but the first paragraph.
    """
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(Config, prog="python -m experiments.train", args=arguments)
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = [line.strip("│ ") for line in message.getvalue().splitlines()[1:]]
        groups = itertools.groupby(lines, lambda line: bool(line.strip("─-")))
        raise UserError(" ".join(next(lines for is_text, lines in groups if is_text))) from None
