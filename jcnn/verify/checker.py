"""`verify_vjp`: a rule is put on trial, property after property, and a report is written."""

import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jcnn.verify import (
    diagnose,
    forms,
    law,
    named,
    oracles,
    precision,
    sample,
    script,
    sharding,
    transforms,
    values,
)
from jcnn.verify.expect import Expect
from jcnn.verify.report import ErrorMap, Report, Status
from jcnn.verify.subject import subject
from jcnn.verify.trial import Rejected, Trial, float64, said

LEVELS = ("quick", "standard")


def verify_vjp(
    rule: Any,
    *args: Any,
    reference: Callable | None = None,
    expect: Expect | None = None,
    terms: Callable | bool | None = None,
    level: str = "standard",
    dtypes: tuple[str, ...] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    **static: Any,
) -> Report:
    """Checks a backward against three oracles and everything else that can be wrong with it.

    It judges in float64 whatever `jax_enable_x64` says, and leaves every setting as it was.

    Args:
        rule: a `jcnn.Rule`, a `jax.custom_vjp` function, or a triple `(f, fwd, bwd)` in its convention.
        *args: the rule's arguments: arrays, floats, pytrees of them, `jax.ShapeDtypeStruct`s (sampled),
            or samplers `rng -> argument` of a NumPy Generator; a sampler that comes alone may return the
            tuple of all arguments.  Anything else (ints, strings) is held fixed.
        reference: plain JAX that the cotangents are held to; by default the rule's reference, or f itself.
        expect: a deliberate deviation, which is then verified to be exactly that.
        terms: `(res, dy) -> cotangents`, each a dict of named terms that add up to it (or an array, or None);
            True where the bwd itself returns such dicts.  The report gives each term's right coefficient.
        level: "quick" (float64 oracles, under a second) or "standard" (everything).
        dtypes: the low precisions to look at; by default float32, bfloat16 and float16.
        seed: of all that is random.
        progress: called with the name of each group of properties before it is looked at.
        **static: the rule's static configuration.

    Returns:
        The report; whatever the rule does wrong, raising included, is in it.

    Raises:
        TypeError: `rule` is no rule, or the arguments do not fit its signature.
        ValueError: unknown `level` or argument names.
    """
    if level not in LEVELS:
        raise ValueError(f"verify_vjp: level: got {level!r}, expected one of {', '.join(LEVELS)}")
    if unknown := set(dtypes or ()) - {"float64", *precision.DTYPES}:
        expected = ", ".join(precision.DTYPES)
        raise ValueError(f"verify_vjp: dtypes: got {', '.join(map(repr, unknown))}, expected of {expected}")
    started = time.perf_counter()
    x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    rule, terms = named.separated(rule, terms)
    made, leaves = subject(rule, sampled(rule, args, seed), static, reference)
    oracles.remember(made)
    report = Report(made.name, [], level, seed, versions=_versions())
    with float64():
        try:
            trial = Trial(made, leaves, seed, expect)
        except Rejected as e:
            report.findings, report.causes = [e.finding], [e.finding.detail]
        else:
            report.arguments = trial.described()
            _examine(trial, level, dtypes, x64, progress or (lambda text: None))
            report.findings, report.notes = trial.findings, trial.notes
            report.causes = diagnose.causes(trial, terms)
            report.maps = _maps(trial)
            report.script = script.reproduction(trial) if report.failures else ""
    report.seconds = time.perf_counter() - started
    return report


def assert_vjp(rule: Any, *args: Any, **options: Any) -> None:
    """`verify_vjp`, raising AssertionError with the report unless the rule is correct."""
    verify_vjp(rule, *args, **options).raise_if_failed()


def _examine(trial: Trial, level: str, dtypes: tuple[str, ...] | None, x64: bool, progress: Callable) -> None:
    """Adds the findings of all properties: first the numbers, and if they are right everything else."""
    numbers = {
        "contract": values.contract,
        "primal": values.primal,
        "determinism": transforms.determinism if level == "standard" else None,
        "differences": values.directional,
        "autodiff": values.autodiff,
        "kinks": values.special_points,
        "linearity": values.linearity,
        "outputs": values.outputs,
    }
    others = {
        "jit": transforms.transformations,
        "shard_map": sharding.shard_map,
        "switch": law.of_rules,
        "precision": lambda trial: precision.low_precision(trial, x64, dtypes) if trial.trusted else None,
        "non_finite": lambda trial: precision.non_finite(trial) if trial.trusted else None,
        "residuals": precision.residuals,
    }
    judged = _look(trial, numbers, progress) and (trial.trusted or not trial.differentiable)
    if level == "standard":
        if judged and not any(f.status == Status.FAIL for f in trial.findings):
            _look(trial, others, progress)
        else:
            trial.note(
                "transformations and low precision were not looked at: first, the numbers have to be right"
            )


def _look(trial: Trial, properties: dict[str, Callable[[Trial], None] | None], progress: Callable) -> bool:
    """Whether all properties could be looked at; what a rule raises later than at first is a finding too."""
    for name, look in properties.items():
        progress(name)
        try:
            if look is not None:
                look(trial)
        except Rejected as e:
            trial.findings.append(e.finding)
            return False
        except (Exception, SystemExit) as e:
            trial.add(name, Status.FAIL, f"raised {said(e)}")
    return True


def sampled(rule: Any, args: tuple, seed: int) -> tuple:
    """`args` with every sampler called; functions that are static arguments are none."""
    samplers = [sample.is_sampler(a) and i not in forms.nondiff(rule) for i, a in enumerate(args)]
    if samplers == [True]:
        drawn = sample.call_sampler(args[0], seed)
        return drawn if isinstance(drawn, tuple) else (drawn,)
    pairs = enumerate(zip(args, samplers, strict=True))
    return tuple(sample.call_sampler(a, seed + i) if called else a for i, (a, called) in pairs)


def _maps(trial: Trial) -> dict[str, ErrorMap]:
    failed = [f for f in trial.findings if f.property == "autodiff" and f.status == Status.FAIL]
    wrong = [f for f in failed if f.argument in trial.names]
    if not wrong:
        return {}
    arrays, dys = trial.points[0].arrays, trial.dys(0)
    hand, wanted = trial.hand(arrays, dys)[1], trial.wanted(arrays, dys)
    return {f.argument: ErrorMap(hand[i], wanted[i]) for f in wrong for i in [trial.names.index(f.argument)]}


def _versions() -> dict[str, str]:
    return {
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "backend": jax.default_backend(),
    }
