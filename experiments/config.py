"""What `experiments.train` can be told, and the recipe for what it is not told."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import options
from experiments.data import UserError
from experiments.training.augment import KINDS, TTA, split
from experiments.training.optimizers import OPTIMIZERS, SCHEDULES
from jcnn import models

SCRIPT = "experiments.train"
MODELS = {
    "airbench": models.airbench,
    "lenet5": models.lenet5,
    "vgg_small": models.vgg_small,
    "vgg11_quarter": lambda num_classes: models.vgg_small(
        num_classes, widths=(16, 32, 64, 128), depths=(1, 1, 2, 2)
    ),
    "resnet": models.resnet,
    "resnet_imagenet": lambda num_classes: models.resnet(num_classes, stem="imagenet"),
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
    lookahead=False,
    tta="none",
    seed=0,
    seeds=1,
    dtype="float32",
    remat=False,
    backward="autodiff",
    save_every=30.0,
)
# For this model on any data set: Jordan 2024, arXiv:2404.00498, airbench94, but for 10 epochs instead of 9.9,
# and the bias of the first layer is trained to the end.
AIRBENCH = dict(
    optimizer="airbench",
    schedule="triangle",
    lr=11.5,
    weight_decay=0.0153,
    epochs=10,
    batch_size=1024,
    label_smoothing=0.2,
    ema=0.0,
    lookahead=True,
)
RECIPES: dict[str, dict[str, Any]] = {
    "digits": COMMON | dict(epochs=20, batch_size=64, lr=3e-3, augment="shift", ema=0.98),
    "mnist": COMMON
    | dict(
        epochs=10, batch_size=128, lr=5e-3, augment="shift", label_smoothing=0.1, ema=0.998, tta="translate"
    ),
    "fashion_mnist": COMMON
    | dict(epochs=9, batch_size=128, lr=5e-3, augment="flip", label_smoothing=0.1, ema=0.99, tta="flip"),
    "cifar10": COMMON
    | dict(
        model="airbench", epochs=20, batch_size=128, lr=5e-3, augment="flip_translate", tta="flip_translate"
    ),
}


@dataclass(frozen=True)
class Config:
    """Trains a network on a data set; what is None comes from the recipe of the data set and the model."""

    dataset: str | None = None
    """digits (if not given), mnist, fashion_mnist or cifar10."""
    model: str | None = None
    """airbench, lenet5, vgg_small, vgg11_quarter, resnet (18 layers), resnet_imagenet (the same with the stem
    for large images), resnext, mobilenet_v2 or convnext."""
    epochs: int | None = None
    """Passes over the training set."""
    batch_size: int | None = None
    """Images per step; what is left over of the training set is dropped, other images in each epoch."""
    lr: float | None = None
    """Learning rate, the highest one if it is scheduled."""
    optimizer: str | None = None
    """sgd (Nesterov momentum 0.9), adam, adamw, or airbench (Nesterov momentum 0.85; learning rate and decay
    per 1024 images, not multiplied by what momentum adds; 64 times the rate for the shifts of norms)."""
    schedule: str | None = None
    """Learning rate over the steps: constant, cosine (falling to zero), warmup_cosine (rising first, in 5 %
    of the steps), onecycle (rising from 1/25 of it, in 20 %) or triangle (linear, from 0.2 of it, in 23 %,
    and then to 0.07)."""
    weight_decay: float | None = None
    """Decay of the weights, not of biases and norms, but of all with airbench; decoupled with adamw and
    airbench, an L2 penalty with the others."""
    label_smoothing: float | None = None
    """Share of the label that is spread over all classes."""
    augment: str | None = None
    """none, or those wanted of flip (left and right, every other epoch), shift (by up to 1/14 of the height,
    zeros moving in), translate (the same with reflections), cutout (of a square of half the height) and mixup
    (of two images and of their labels), joined by _: flip_shift."""
    ema: float | None = None
    """Decay of the moving average of the weights that is evaluated; 0 evaluates the weights themselves."""
    lookahead: bool | None = None
    """Whether the weights are drawn back to their moving average every 5 steps; its decay rises to 0.77."""
    tta: str | None = None
    """How an image is evaluated: none, as it is, or by mean logits; flip, together with its mirror image;
    translate, also shifted by a pixel in two directions; flip_translate, both."""
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


def recipe(dataset: str, model: str | None) -> dict[str, Any]:
    """What a model, by default the data set's, is trained with unless something else is asked for."""
    found = RECIPES[dataset]
    return found | AIRBENCH if (model or found["model"]) == "airbench" else found


def resolve(config: Config) -> Config:
    """`config` completed from its recipe, every value checked."""

    def expect(good: bool, name: str, expected: str) -> None:
        if not good:
            raise UserError(f"--{name.replace('_', '-')}: got {getattr(config, name)!r}, expected {expected}")

    config = dataclasses.replace(config, dataset=config.dataset or "digits")
    expect(config.dataset in RECIPES, "dataset", f"one of {', '.join(RECIPES)}")
    given = {name for name, value in vars(config).items() if value is not None}
    others = {k: v for k, v in recipe(config.dataset, config.model).items() if k not in given}
    config = dataclasses.replace(config, **others)
    choices = {
        "model": MODELS,
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
        "dtype": DTYPES,
        "backward": BACKWARDS,
        "tta": TTA,
    }
    for name, allowed in choices.items():
        expect(getattr(config, name) in allowed, name, f"one of {', '.join(allowed)}")
    kinds = split(config.augment)
    good = len(set(kinds)) == len(kinds) and set(kinds) <= set(KINDS)
    expect(good, "augment", f"none or of {', '.join(KINDS)} those wanted, joined by _")
    expect(not (config.remat and config.backward == "explicit"), "remat", "False with --backward explicit")
    expect(not (config.lookahead and config.ema), "lookahead", "False unless --ema is 0")
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
    usual = resolve(Config(config.dataset, config.model))
    usual = dataclasses.replace(usual, dataset="digits", model=RECIPES[config.dataset]["model"])
    return options.command(config, usual, SCRIPT, (*FREE, *PLACES))


def parse(arguments: Sequence[str] | None) -> Config:
    """The configuration that the command line asks for.

    Raises:
        UserError: it asks for something that there is not.
    """
    return options.parse(Config(), SCRIPT, arguments)
