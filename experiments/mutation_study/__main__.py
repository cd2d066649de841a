"""The command line of the study."""

import collections
import dataclasses
import itertools
import json
import operator
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from experiments.mutation_study.checkers import CHECKERS, SURVIVED, UNUSABLE, Case, Outcome, cast
from experiments.mutation_study.report import Record, listed, show, summarise
from experiments.mutation_study.subjects import Subject, errors, subjects
from experiments.options import ending, parse
from jcnn.verify import verify_vjp
from jcnn.verify.mutate import Equivalence

TWO_DEVICES = "--xla_force_host_platform_device_count=2"  # for verify's property shard_map
DTYPES = ("float64", "float32", "bfloat16")
Checker = Literal["verify", "check_grads f32", "check_grads f64", "uniform"]
Progress = Callable[..., None]


@dataclass(frozen=True)
class Config:
    """Counts the errors that gradient checkers find in broken rules."""

    sets: tuple[Literal["jcnn", "classics"], ...] = ("jcnn", "classics")
    """Where the rules come from."""
    rules: tuple[str, ...] = ()
    """Names of the rules; all of the sets if none are given."""
    checkers: tuple[Checker, ...] = ("verify", "check_grads f32", "check_grads f64", "uniform")
    """Whom to look at; check_grads in first and in second order."""
    cases: int = 2
    """Sets of arguments per rule."""
    limit: int = 0
    """Mutants per rule, spread over all; 0 for all."""
    level: Literal["quick", "standard"] = "standard"
    """Of verify."""
    seed: int = 0
    """Of verify, and of the arguments of the classics."""
    false_alarms: int = 0
    """Seeds at which verify looks at correct rules, in three dtypes, instead of all else."""
    json: Path | None = None
    """File for every outcome."""


def study(subject: Subject, config: Config, progress: Progress) -> Iterator[Record]:
    """The outcome of every checker for every error in one rule, where it accepts the correct rule."""
    same = [Equivalence(subject.rule, *case.args, **case.static) for case in subject.cases]
    found = errors(subject, config.limit)
    usable: dict[str, list[bool]] = {}
    for number, error in enumerate(found):
        progress(f"{subject.name} {number}/{len(found)} {error.name}")
        record = Record(subject.set, subject.name, error.name, error.kind)
        differs = [True] * len(same)
        if error.kind not in ("correct", "planted"):
            differs = [not equivalent(error.rule) for equivalent in same]
            record.equivalent = not any(differs)
        for name, check in checkers(config).items() if any(differs) else ():
            started = time.perf_counter()
            if error.kind == "correct":
                outcomes = [check(error.rule, case, config.level, config.seed) for case in subject.cases]
                usable[name] = [outcome.word == "survived" for outcome in outcomes]
                outcome = next((outcome for outcome in outcomes if outcome.word != "survived"), SURVIVED)
            else:
                chosen = map(operator.and_, differs, usable[name])
                outcome = look(check, error.rule, itertools.compress(subject.cases, chosen), config)
            record.outcomes[name], record.seconds[name] = outcome.word, time.perf_counter() - started
            if name == "verify":
                record.causes = outcome.causes
                record.cause_named = (
                    None if error.cause is None else matches(error.cause, "\n".join(outcome.causes))
                )
                if record.counts and outcome.word != "killed":
                    progress(f"{subject.name}: {error.name}: {outcome.word}", stay=True)
        yield record
        if number % 40 == 39:
            jax.clear_caches()
    jax.clear_caches()


def matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.IGNORECASE) is not None


def look(check: Callable[..., Outcome], rule: Any, cases: Iterable[Case], config: Config) -> Outcome:
    """The outcome of one checker: "killed" if it is that for any of the cases, "survived" if for all."""
    outcomes = []
    for case in cases:
        outcomes.append(check(rule, case, config.level, config.seed))
        if outcomes[-1].word == "killed":
            return outcomes[-1]
    if not outcomes:
        return UNUSABLE
    return next((outcome for outcome in outcomes if outcome.word != "survived"), SURVIVED)


def checkers(config: Config) -> dict[str, Callable[..., Outcome]]:
    return {name: check for group in config.checkers for name, check in CHECKERS[group].items()}


def false_alarms(config: Config, progress: Progress) -> Iterator[tuple[str, str, list[str]]]:
    """(where, verdict, doubts) of verify for correct rules, for every seed and dtype."""
    for seed in range(config.seed, config.seed + config.false_alarms):
        for subject in subjects(dataclasses.replace(config, seed=seed)):
            for (number, case), dtype in itertools.product(enumerate(subject.cases), DTYPES):
                where = f"{subject.name} case {number} {dtype} seed {seed}"
                progress(where)
                args = cast(case.args, jnp.dtype(dtype))
                try:
                    report = verify_vjp(subject.rule, *args, level=config.level, seed=seed, **case.static)
                except Exception as error:  # a fault of verify's, to be listed
                    verdict, doubts = "RAISED", [f"{type(error).__name__}: {error}"]
                else:
                    doubtful = [f for f in report.findings if f.status not in ("pass", "skipped")]
                    doubts = [f"{f.property} {f.argument}: {f.detail}" for f in doubtful]
                    verdict = report.verdict
                yield where, verdict, doubts
                if verdict != "CORRECT":
                    progress(f"{where}: {verdict}", stay=True)
            jax.clear_caches()


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 2 and one line on a user's error; Ctrl-C ends the study early, with its tables."""
    with ending("interrupted: nothing was saved"):
        run(parse(Config(), "experiments.mutation_study", arguments))


def run(config: Config) -> None:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {TWO_DEVICES}".strip()
    jax.config.update("jax_enable_x64", True)
    started = time.perf_counter()

    def progress(text: str, stay: bool = False) -> None:
        """One line that is written over, or (if it stays, or to a file) a line of its own."""
        tty = sys.stderr.isatty()
        if tty or stay:
            line = f"{time.perf_counter() - started:6.0f} s  {text[:140]}"
            print("\x1b[2K" * tty + line, end="\n" if stay else "\r", file=sys.stderr, flush=True)

    found: list[Any] = []
    try:
        if config.false_alarms:
            found.extend(false_alarms(config, progress))
        else:
            for subject in subjects(config):
                found.extend(study(subject, config, progress))
    except KeyboardInterrupt:
        progress("interrupted: this is what there is so far", stay=True)
    if config.false_alarms:
        count = collections.Counter(verdict for _, verdict, _ in found)
        show("Verdicts on correct rules", ("verdict", "number"), count.items())
        listed("Others", [f"{w}: {v}: {'; '.join(d[:3])}" for w, v, d in found if v != "CORRECT"])
    else:
        summarise(found, list(checkers(config)))
    if config.json:
        records = found if config.false_alarms else [dataclasses.asdict(r) for r in found]
        config.json.write_text(json.dumps(records, indent=1), "utf-8")


if __name__ == "__main__":
    main()
