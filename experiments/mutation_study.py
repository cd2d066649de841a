"""How many wrong gradients a gradient checker finds.

Question: does `jcnn.verify` find every error, where `jax.test_util.check_grads` and differences with a
uniform cotangent do not (`experiments.checkers` says what each is), and does it leave correct rules alone?

Command: `python -m experiments.mutation_study`; `--help` lists what limits it: `--rules conv gelu`,
`--sets jcnn`, `--checkers verify`, `--cases 1`, `--limit 20`, `--level quick`.  With `--false-alarms 10` only
correct rules are looked at.

Method: the rules of jcnn and those of `experiments.classics`, each at two sets of small arguments.  The
errors are those planted in the classics, and all mutants that `jcnn.verify.mutate` makes of correct rules.
An error counts as found if a checker finds it at either set; sets at which it rejects the correct rule, too,
are left out.  A mutant that random probes cannot tell from the original at either set is listed as equivalent
and not counted.  A checker that raises has found the error; but `verify` must not raise.  Rounding to float32
is no error in float32: check_grads f32 cannot see it.

Result (verify only, 2026-11-23): rules of jcnn, all mutants at two argument sets each: 1137 of 1137 found
(411 equation, 638 generic, 88 semantic; 62 equivalent), 0 of 22 correct rules rejected, 1086 s beside other
work.  Classics: 186 of 187 planted errors found at float32 arguments and the last, which is one of bfloat16
only, at bfloat16 ones; of 25 mutants per rule all but one, which differs in second order at a kink
only; 0 of 28 correct rules rejected.  A cause that fits its description is named for 178 of the 187.

Hardware: 2 cores of a shared AMD EPYC with AVX-512.
Versions: jax 0.10.2, Python 3.11.7.
"""

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
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.checkers import CHECKERS, SURVIVED, UNUSABLE, Case, Outcome, cast
from jcnn.rule import Rule
from jcnn.verify import verify_vjp
from jcnn.verify.mutate import ERRORS, Equivalence, mutate

TWO_DEVICES = "--xla_force_host_platform_device_count=2"  # for verify's property shard_map
DTYPES = ("float64", "float32", "bfloat16")
KINDS = ("planted", "semantic", "generic", "equation")
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


class Subject(NamedTuple):
    """A correct rule, arguments, and errors planted in it."""

    set: str
    name: str
    rule: Any
    cases: list[Case]
    planted: list["Error"]


class Error(NamedTuple):
    """A broken rule, or with kind "correct" the rule itself; `cause` is what a diagnosis should match."""

    name: str
    kind: str
    rule: Any
    cause: str | None = None


@dataclass
class Record:
    """What became of an error: for each checker, one of the words of `experiments.checkers.Outcome`."""

    set: str
    rule: str
    name: str
    kind: str
    equivalent: bool = False
    outcomes: dict[str, str] = dataclasses.field(default_factory=dict)
    causes: list[str] = dataclasses.field(default_factory=list)
    cause_named: bool | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def counts(self) -> bool:
        return self.kind in KINDS and not self.equivalent


def subjects(config: Config) -> list[Subject]:
    """The rules that were asked for."""
    import jcnn
    from experiments.classics import CLASSICS
    from jcnn.verify.examples import EXAMPLES

    found = []
    if "jcnn" in config.sets:
        for name, cases in EXAMPLES.items():
            chosen = [Case(*case) for case in list(cases.values())[: config.cases]]
            found.append(Subject("jcnn", name, getattr(jcnn, name), chosen, []))
    if "classics" in config.sets:
        for name, classic in CLASSICS.items():
            draws = range(config.cases * config.seed, config.cases * (config.seed + 1))
            chosen = [Case(classic.args(np.random.default_rng(s), jnp.float64), {}) for s in draws]
            planted = [Error(what, "planted", p.rule, p.cause) for what, p in classic.planted.items()]
            found.append(Subject("classics", name, classic.rule, chosen, planted))
    if unknown := set(config.rules) - {s.name for s in found}:
        raise SystemExit(f"--rules: unknown: {', '.join(sorted(unknown))}")
    return [s for s in found if not config.rules or s.name in config.rules]


def errors(subject: Subject, limit: int) -> list[Error]:
    """The correct rule first, then what is planted, then its mutants, at most `limit` of them."""
    mutants = {m.name: m for case in subject.cases for m in mutate(subject.rule, *case.args, **case.static)}
    step = -(-len(mutants) // limit) if limit else 1
    known = ERRORS.get(subject.rule, {}) if isinstance(subject.rule, Rule) else {}
    found = [Error("", "correct", subject.rule), *subject.planted]
    for name, mutant in list(mutants.items())[::step]:
        what = name.partition(": ")[2]
        equation = re.search(r" of [\w-]+ #\d+", what)
        found.append(
            Error(what, "semantic" if what in known else "equation" if equation else "generic", mutant)
        )
    return found


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


def show(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def summarise(records: list[Record], names: Sequence[str]) -> None:
    """Kill rates by set and kind of error, then what was wrongly refused, not counted, or missed."""
    groups = collections.defaultdict(list)
    for r in filter(lambda r: r.counts, records):
        for key in ((r.set, r.kind), ("all", "")):
            groups[key].append(r)
    rows = []
    for (name, kind), members in sorted(groups.items(), key=lambda item: (item[0][0] == "all", *item[0])):
        killed = [sum(r.outcomes[c] == "killed" for r in members) for c in names]
        rates = [f"{k} ({100 * k / len(members):.1f}%)" for k in killed]
        named = [r.cause_named for r in members if r.cause_named is not None]
        rows.append((name, kind, len(members), *rates, f"{sum(named)}/{len(named)}" if named else ""))
    seconds = [f"{sum(r.seconds.get(c, 0) for r in records):.0f} s" for c in names]
    show(
        "Errors found",
        ("rules", "errors", "number", *names, "cause named"),
        [*rows, ("", "", "", *seconds, "")],
    )
    correct = [r for r in records if r.kind == "correct"]
    alarms = [sum(r.outcomes[c] != "survived" for r in correct) for c in names]
    show("Correct rules not accepted", ("number", *names), [(len(correct), *alarms)])
    listed("", [f"{r.rule}: {c}: {o}" for r in correct for c, o in r.outcomes.items() if o != "survived"])
    listed("Equivalent mutants, not counted", [f"{r.rule}: {r.name}" for r in records if r.equivalent])
    for c in names:
        missed = [
            f"{r.rule}: {r.name}: {r.outcomes[c]}" for r in records if r.counts and r.outcomes[c] != "killed"
        ]
        listed(f"Not found by {c}", missed, limit=None if c == "verify" else 20)
    unnamed = [f"{r.rule}: {r.name}: {'; '.join(r.causes[:2])}" for r in records if r.cause_named is False]
    listed("Found by verify, cause not named", unnamed)


def listed(title: str, lines: list[str], limit: int | None = None) -> None:
    print(f"\n{title}: {len(lines)}" if title else "", *lines[:limit], sep="\n  ")
    if limit is not None and len(lines) > limit:
        print(f"  and {len(lines) - limit} more, see --json")


def main(arguments: Sequence[str] | None = None) -> None:
    config = tyro.cli(Config, prog="python -m experiments.mutation_study", args=arguments)
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
