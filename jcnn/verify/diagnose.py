"""From findings to causes: one line for each thing that is wrong, the most specific that fits.

A wrong cotangent is put to the hypotheses in order; the first that explains it to 1e-7 at three points and
cotangents is the cause.  Other failures explain themselves.
"""

from collections.abc import Callable

import numpy as np

from jcnn.verify import hypotheses, named, places, structure
from jcnn.verify.evidence import Evidence, axes_said, same, subsets
from jcnn.verify.kinks import AT
from jcnn.verify.report import Finding, Status
from jcnn.verify.sample import Point
from jcnn.verify.trial import Trial

HYPOTHESES = (
    hypotheses.precision,
    hypotheses.not_linear,
    hypotheses.ignored_output,
    hypotheses.zero,
    hypotheses.constant_factor,
    hypotheses.swapped,
    hypotheses.moved,
    structure.collapsed,
    structure.factors,
    structure.paths,
    places.places,
    structure.missing_term,
    structure.axis_factor,
    structure.repairs,
    places.offset,
    places.couplings,
    places.unexplained,
)
IMPLIED = ("differences", "adjoint", "edges", "kinks", "outputs", "linearity", "second_order")


def causes(trial: Trial, terms: Callable | None) -> list[str]:
    """One-line diagnoses, empty when nothing is wrong."""
    found = [f for f in trial.findings if f.status in (Status.FAIL, Status.INCONCLUSIVE)]
    wrong = [f for f in found if f.property == "autodiff" and f.status == Status.FAIL]
    explained = wrong or trial.failed("contract")
    lines = named.coefficients(trial, terms) if terms and wrong else []
    lines += _derivations(trial, wrong)
    for f in found:
        if f in wrong or (explained and (f.property in IMPLIED or (f.property == "jit" and f.argument))):
            continue
        lines.append(_said(trial, f))
    return list(dict.fromkeys(lines))


def _derivations(trial: Trial, wrong: list[Finding]) -> list[str]:
    """The cause for each wrong cotangent; arguments with the same one share a line."""
    by_cause: dict[str, list[str]] = {}
    for f in wrong:
        linear = not any(
            g.property == "linearity" and g.argument == f.argument
            for g in trial.findings
            if g.status == Status.FAIL
        )
        by_cause.setdefault(_cause(trial, f.argument, linear), []).append(f.argument)
    return [f"cotangent of {', '.join(map(repr, names))}: {cause}" for cause, names in by_cause.items()]


def _cause(
    trial: Trial, name: str, linear: bool, points: tuple[Point, ...] = (), among: tuple = HYPOTHESES
) -> str:
    try:
        evidence = Evidence(trial, trial.names.index(name), linear, points or trial.generic)
        for hypothesis in among:
            if cause := hypothesis(evidence):
                return cause
    except Exception as e:
        return f"wrong; the diagnosis itself failed with {type(e).__name__}: {e}"
    return "wrong"


def _said(trial: Trial, f: Finding) -> str:
    """A finding that is no wrong cotangent at generic arguments."""
    whose = f"cotangent of {f.argument!r}: " if f.argument else ""
    if f.property == "contract":
        return f"{whose}{f.detail}{_shape_hint(trial, f)}"
    if f.property in ("kinks", "edges"):
        return f"{whose}right at generic arguments, wrong {f.detail}: {_special_hint(trial, f)}"
    if f.property == "second_order" and f.error is not None:
        hidden = "bwd hides a dependence, by stop_gradient or a constant"
        return f"{whose}wrong in second order, right in first: {hidden}"
    if f.property == "precision":
        return f"{whose}in {f.dtype}: {f.detail}"
    if f.property == "residuals":
        return f"residuals: {f.detail}: fwd keeps too much memory"
    if f.property == "primal":
        return f"primal: {f.detail}"
    if f.property == "determinism":
        return f"not deterministic: {f.detail}"
    return f"{f.property}: {whose}{f.detail}"


def _shape_hint(trial: Trial, f: Finding) -> str:
    """What would turn a cotangent of a wrong shape into the right one."""
    if f.argument not in trial.names:
        return ""
    i = trial.names.index(f.argument)
    if not hasattr(trial.raw.get(i), "dtype"):
        return ""
    got = np.asarray(trial.raw[i], np.float64)
    wanted = trial.wanted(trial.points[0].arrays, trial.dys(0))[i]
    for axes in subsets(got.ndim):
        if same(got.sum(axes).reshape(-1), wanted.reshape(-1)):
            return f": not summed over {axes_said(axes)}"
    if got.shape == wanted.shape[::-1] and same(got.T, wanted):
        return ": transposed"
    if got.size == wanted.size and same(got.reshape(wanted.shape), wanted):
        return ": the right numbers in another shape, a reshape is missing"
    for axes in subsets(wanted.ndim):
        if same(got.reshape(-1), wanted.sum(axes).reshape(-1)):
            return f": summed over {axes_said(axes)}, which does not belong there"
    return ""


def _special_hint(trial: Trial, f: Finding) -> str:
    worst = f.worst
    if worst is None:
        return ""
    seen = f"{worst.hand:.6g} in place of {worst.reference:.6g} at {worst.index}"
    if not np.isfinite(worst.hand):
        return f"{seen}: an overflow or 0/0 (exp without the maximum subtracted?)"
    points = tuple(p for p in trial.points if f.detail == AT.format(p.kind))
    where = _cause(trial, f.argument, True, points, (places.places,))
    kink = "a kink or tie is decided otherwise than by the reference, " if f.property == "kinks" else ""
    return f"{where}; {kink}{seen}"
