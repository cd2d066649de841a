"""jcnn against autodiff and against other libraries, on this machine.

Question: are the hand-derived backwards faster than what `jax.grad` makes of plain JAX, and than PyTorch,
how much memory do they need, and how long do they take to compile?

Command: `python -m experiments.benchmark` for ops; `steps` for training steps of whole nets, `memory` and
`compile` for what the names say; `--against autodiff,torch,torch-compile,flax,equinox`; `--quick` for a
first impression; `--only "depthwise|pool"`; `--help`. A run leaves JSON with every figure, a table in
Markdown and a bar chart in a folder of its own, also when it is interrupted.

Method: contestants take turns, each warmed up right before it is timed (`timing.py`); results are
compared before they are timed; ratios are medians over rounds, with quartiles. At first jcnn is timed
against itself. JAX's own contestants have JAX's default flags, as has the jcnn they are compared with;
PyTorch meets jcnn compiled with `jcnn.compiler_options()`.

Result: experiments/results/benchmark-*.md; README.md sums it up.
"""

import importlib
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import tyro

import jcnn
from experiments.benchmark import ops
from experiments.benchmark.report import Report
from experiments.benchmark.settings import DTYPES, Settings, Task, installed
from experiments.benchmark.timing import Budget
from experiments.data import UserError
from experiments.folder import result_folder
from experiments.options import command, ending, parse

SCRIPT = "experiments.benchmark"


@dataclass(frozen=True)
class Config:
    """Times jcnn against other ways to compute the same; ratios over 1 are in our favour."""

    what: tyro.conf.Positional[Literal["ops", "steps", "memory", "compile"]] = "ops"
    """Single ops, whole training steps, memory, or time to compile."""
    against: str = "autodiff,torch"
    """Peers, separated by commas: autodiff, torch, torch-compile, flax, equinox."""
    quick: bool = False
    """Few rounds, float32 only unless told otherwise."""
    only: str = ""
    """Regular expression that a case's name and dtype must contain."""
    rounds: int | None = None
    """Rounds per case and pass; by default as many as fit into a few seconds."""
    dtype: str | None = None
    """float32, bfloat16, or both separated by a comma; by default float32, and some cases in bfloat16."""
    keep_memory: bool = False
    """Lets the process keep freed memory (`jcnn.keep_memory`), of which all contestants profit."""
    out: Path | None = None
    """Folder of the results; runs/benchmark-WHAT-TIME if not given."""


class Setup(NamedTuple):
    """What a command line means."""

    settings: Settings
    tasks: list[Task]
    absent: tuple[str, ...]  # peers that are not installed


def prepare(config: Config) -> Setup:
    """The settings and the tasks.

    Raises:
        UserError: an option with a value that makes no sense.
    """
    against, absent = installed(_names(config.against))
    dtypes = None if config.dtype is None else _names(config.dtype)
    if unknown := [name for name in dtypes or () if name not in DTYPES]:
        raise UserError(f"--dtype: got {', '.join(unknown)}, expected some of {', '.join(DTYPES)}")
    budget = Budget.quick() if config.quick else Budget()
    if config.rounds is not None:
        if config.rounds < 1:
            raise UserError(f"--rounds: got {config.rounds}, expected a positive number")
        budget = replace(budget, fewest=config.rounds, most=config.rounds, longest=math.inf)
    try:
        pattern = re.compile(config.only)
    except re.error as error:
        raise UserError(f"--only: got {config.only!r}, expected a regular expression: {error}") from None
    settings = Settings(against, config.quick, budget, dtypes)
    module = importlib.import_module(f"experiments.benchmark.{config.what}")
    every = module.tasks(settings)
    tasks = [task for task in every if pattern.search(task.name)]
    if not tasks:
        raise UserError(
            f"--only: got {config.only!r}, expected to find one of: {'; '.join(t.name for t in every)}"
        )
    return Setup(settings, tasks, absent)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def run(config: Config, command: str) -> int:
    """Runs the benchmark and writes the results.

    Returns:
        1 if contestants disagree or a case failed, 0 otherwise.

    Raises:
        UserError: a bad option.
    """
    settings, tasks, absent = prepare(config)
    failures = 0
    with Report(
        config.what, settings, result_folder(config.out, f"benchmark-{config.what}"), command
    ) as report:
        for name in absent:
            report.note(f"{name}: not installed, skipped")
        if config.what in ("ops", "steps"):
            report.check(ops.against_itself(settings.budget))
        for task in report.track(tasks):
            try:
                for row in task.run():
                    report.add(row)
            except Exception as error:  # the other cases are worth having
                failures += 1
                report.note(f"ERROR: {task.name}: {ops.first_line(error)}")
        if failures:
            report.note(f"{failures} of {len(tasks)} cases failed")
    return int(failures > 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; exits with 2 and one line on a user's error, with 130 when interrupted."""
    with ending("interrupted: the results are what there was so far"):
        config = parse(Config(), SCRIPT, arguments)
        if config.keep_memory and not jcnn.keep_memory():
            raise UserError("--keep-memory: got True, expected False: malloc here is not that of glibc")
        sys.exit(run(config, command(config, Config(), f"{SCRIPT} {config.what}", ("what", "out"))))


if __name__ == "__main__":
    main()
