"""What the study looks at: correct rules, arguments, and errors in the rules."""

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.data import UserError
from experiments.mutation_study.checkers import Case
from jcnn.rule import Rule
from jcnn.verify.mutate import ERRORS, mutate

if TYPE_CHECKING:
    from experiments.mutation_study.__main__ import Config


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


def subjects(config: "Config") -> list[Subject]:
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
        raise UserError(
            f"--rules: got {', '.join(sorted(unknown))}, expected some of {', '.join(s.name for s in found)}"
        )
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
