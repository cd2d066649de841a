"""The command line of the lecture."""

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from experiments.data import UserError
from experiments.folder import result_folder
from experiments.lecture import features, fields, gradients, learned, page, sliding, training
from experiments.options import ending, parse
from experiments.record import surroundings, write_json

SCRIPT = "experiments.lecture"
PACKAGES = "jax", "numpy", "optax", "matplotlib", "jcnn"


@dataclass(frozen=True)
class Config:
    """Makes one page that walks through the CNN lecture with numbers computed in this run."""

    dataset: str | None = None
    """digits, mnist, fashion_mnist or cifar10; by default fashion_mnist if it is here, else digits."""
    steps: int = 600
    """Of training."""
    seed: int = 0
    """Of the initial weights, the order of images and the random numbers of examples."""
    data_dir: Path | None = None
    """Folder with the data set's files, in it or in a subfolder named after the data set."""
    out: Path | None = None
    """Folder of the page and its figures; runs/lecture-TIME if not given."""


def lecture(config: Config) -> tuple[Path, page.Counts]:
    """Computes everything and writes the page; gives its path and how its numbers compared."""
    for name, least in (("steps", 1), ("seed", 0)):
        if getattr(config, name) < least:
            raise UserError(f"--{name}: got {getattr(config, name)}, expected at least {least}")
    start = time.perf_counter()
    folder = result_folder(config.out, "lecture")
    data = training.dataset(config.dataset, config.data_dir)
    trained = training.train(data, config.steps, config.seed)
    with jax.enable_x64(True):
        worked = [f() for f in (sliding.one_dimension, sliding.two_dimensions, sliding.padding_and_stride)]
        worked.append(sliding.channels())
        pooling = sliding.pooling()
        slopes = gradients.softmax_cross_entropy(), gradients.backpropagation(trained, config.seed)
    sections = (
        *worked,
        fields.receptive_field(trained),
        pooling,
        fields.minibatch(config.seed),
        learned.batch_norm(trained),
        *slopes,
        learned.the_net(trained),
        learned.invariance(trained),
        features.hierarchy(trained),
    )
    about = surroundings(*PACKAGES)
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    seconds = time.perf_counter() - start
    lead = (
        "Every number below was computed by one run of <code>python -m experiments.lecture</code>, and "
        "compared with NumPy, the literature or autodiff: "
        f"data set {data.name}, test accuracy {trained.accuracy:.2%}, seed {config.seed}, "
        f"{config.steps:,} steps, {seconds:.0f} s, {about['date'][:10]}, {versions}."
    )
    counts = page.write(folder, "Convolutional networks, with live numbers", lead, sections)
    found = f"{counts.good} comparisons agree, {counts.bad} do not"
    result = f"{found}; {data.name}: {100 * trained.accuracy:.2f} % after {config.steps} steps (n = 1)"
    script = {"script": SCRIPT, "command": f"python -m {SCRIPT}", "config": dataclasses.asdict(config)}
    write_json(folder / "summary.json", script | about | {"seconds": seconds, "result": result})
    return folder / "index.html", counts


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 2 and one line on a user's error, with 1 when a number is not what it should be."""
    with ending("interrupted: there is no page"):
        path, counts = lecture(parse(Config(), SCRIPT, arguments))
        print(f"{counts.good} comparisons agree, {counts.bad} do not; the page is {path}")
    if counts.bad:
        sys.exit(1)


if __name__ == "__main__":
    main()
