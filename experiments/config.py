"""What `experiments.train` can be told, and the recipe of each data set for what it is not told."""

import contextlib
import dataclasses
import io
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optax
import tyro

from experiments.data import UserError
from jcnn import models

MODELS = {
    "lenet5": models.lenet5,
    "vgg_small": models.vgg_small,
    "resnet": models.resnet,
    "resnext": models.resnext,
    "mobilenet_v2": models.mobilenet_v2,
    "convnext": lambda num_classes: models.convnext(num_classes, patch=2),
}
SCHEDULES = {
    "constant": lambda lr, steps: optax.constant_schedule(lr),
    "cosine": lambda lr, steps: optax.cosine_decay_schedule(lr, steps),
    "onecycle": lambda lr, steps: optax.warmup_cosine_decay_schedule(lr / 25, lr, steps // 5, steps),
}
OPTIMIZERS = {
    "sgd": lambda lr, decay: optax.chain(decay, optax.sgd(lr, momentum=0.9, nesterov=True)),
    "adam": lambda lr, decay: optax.chain(decay, optax.adam(lr)),
    "adamw": lambda lr, decay: optax.chain(optax.scale_by_adam(), decay, optax.scale_by_learning_rate(lr)),
}
AUGMENTS = ("none", "flip", "shift", "flip_shift")
DTYPES = ("float32", "bfloat16")
COMMON = dict(
    model="vgg_small",
    optimizer="adamw",
    schedule="onecycle",
    weight_decay=0.05,
    label_smoothing=0.0,
    ema=0.0,
    tta=False,
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

    dataset: str = "digits"
    """digits, mnist, fashion_mnist or cifar10."""
    model: str | None = None
    """lenet5 or vgg_small."""
    epochs: int | None = None
    """Passes over the training set."""
    batch_size: int | None = None
    """Images per step; what is left over of the training set is dropped, other images in each epoch."""
    lr: float | None = None
    """Learning rate, the highest one if it is scheduled."""
    optimizer: str | None = None
    """sgd (Nesterov momentum 0.9), adam or adamw."""
    schedule: str | None = None
    """Learning rate over the steps: constant, cosine (falling to zero) or onecycle (first rising to it)."""
    weight_decay: float | None = None
    """Decay of the weights, not of biases and norms; decoupled with adamw, an L2 penalty with the others."""
    label_smoothing: float | None = None
    """Share of the label that is spread over all classes."""
    augment: str | None = None
    """none, flip (left and right), shift (by up to 1/14 of the height, zeros moving in) or flip_shift."""
    ema: float | None = None
    """Decay of the moving average of the weights that is evaluated; 0 evaluates the weights themselves."""
    tta: bool | None = None
    """Whether an image is evaluated together with its mirror image, by their mean logits."""
    seed: int = 0
    """Seed of initial weights, order of images and augmentation; the same seed gives the same result."""
    dtype: str = "float32"
    """Of the computation, float32 or bfloat16; the weights are float32 either way."""
    data_dir: Path | None = None
    """Folder with the data set's files, in it or in a subfolder named after the data set."""
    out: Path | None = None
    """Folder of the results; runs/DATASET-MODEL-seedSEED-TIME if not given."""


def resolve(config: Config) -> Config:
    """`config` completed from the recipe of its data set, every value checked."""

    def expect(good: bool, name: str, expected: str) -> None:
        if not good:
            raise UserError(f"--{name.replace('_', '-')}: got {getattr(config, name)!r}, expected {expected}")

    expect(config.dataset in RECIPES, "dataset", f"one of {', '.join(RECIPES)}")
    recipe = RECIPES[config.dataset].items()
    config = dataclasses.replace(config, **{k: v for k, v in recipe if getattr(config, k) is None})
    choices = {
        "model": MODELS,
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
        "augment": AUGMENTS,
        "dtype": DTYPES,
    }
    for name, allowed in choices.items():
        expect(getattr(config, name) in allowed, name, f"one of {', '.join(allowed)}")
    for name in ("epochs", "batch_size", "lr"):
        expect(0 < getattr(config, name) < math.inf, name, "a positive number")
    for name in ("label_smoothing", "ema"):
        expect(0 <= getattr(config, name) < 1, name, "a number in [0, 1)")
    for name in ("weight_decay", "seed"):
        expect(0 <= getattr(config, name) < math.inf, name, "a number that is not negative")
    return config


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
