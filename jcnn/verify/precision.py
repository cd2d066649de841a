"""float32, bfloat16 and float16, values that are not finite, and memory."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jcnn.verify import oracles
from jcnn.verify.oracles import floats, merged
from jcnn.verify.report import Finding, Status
from jcnn.verify.subject import is_float
from jcnn.verify.trial import Arrays, Trial, said

DTYPES = ("float32", "bfloat16", "float16")
AGAINST_AUTODIFF = 2.0  # a backward may lose this many times what autodiff loses,
UNITS = 4.0  # and this many units of rounding besides, in the result or in the arguments


def low_precision(trial: Trial, x64: bool, dtypes: tuple[str, ...] | None) -> None:
    """The root-mean-square error of each cotangent in units of eps, beside autodiff's in the same dtype.

    The truth is autodiff in float64 at the rounded arguments.  Where these are ill-conditioned, moving them
    by eps says how much error cannot be helped.  A jcnn rule answers for every dtype, others
    for those of their arguments and those asked for; what is wrong elsewhere is noted.
    """
    given = {str(d) for d in trial.dtypes}
    for dtype in dtypes or DTYPES:
        if dtype == "float64":
            continue
        answers = trial.subject.is_rule or dtype in given or bool(dtypes)
        try:
            finding = _in_dtype(trial, jnp.dtype(dtype), x64)
        except Exception as e:
            finding = _raised(trial, dtype, x64, e)
        if finding.status == Status.FAIL and not answers:
            about = f" of {finding.argument!r}" if finding.argument else ""
            trial.note(f"in {dtype}{about}: {finding.detail}")
        else:
            trial.findings.append(finding)


def _in_dtype(trial: Trial, dtype: np.dtype, x64: bool) -> Finding:
    """The worst argument in one dtype."""
    eps = float(jnp.finfo(dtype).eps)
    rng = np.random.default_rng(trial.seed)
    errors = {name: np.zeros(4) for name in trial.names}  # squares: hand, autodiff, moved arguments; entries
    for point, number in itertools.product(trial.generic, range(2)):
        low, dys = _rounded(point.arrays, dtype), _rounded(trial.dys(30 + number), dtype)
        with jax.enable_x64(x64):
            (y, hand), (expected, auto) = oracles.both_program(trial.subject, low, dys)
        wide = _widened(low), _widened(dys)
        true = trial.wanted(*wide)
        moved = trial.wanted(*(tuple(_moved(a, eps, rng) for a in arrays) for arrays in wide))
        auto = auto if trial.expect is None else true
        if detail := _dtypes_differ("fwd's outputs", y, expected):
            return Finding("precision", Status.FAIL, detail, "", str(dtype))
        for name, h, a, m, t in zip(trial.names, hand, auto, moved, true, strict=True):
            h = np.zeros(t.shape, dtype) if h is None else h
            if detail := _dtypes_differ("the cotangent", [h], [np.zeros(0, dtype)]):
                return Finding("precision", Status.FAIL, detail, name, str(dtype))
            h, a = np.asarray(h, np.float64), np.asarray(a, np.float64)
            known = np.isfinite(a) & np.isfinite(t) & np.isfinite(m)
            if not np.isfinite(h[known]).all():
                return Finding("precision", Status.FAIL, "not finite where autodiff is", name, str(dtype))
            scale = max(np.abs(t[known]).max(initial=0.0), float(jnp.finfo(dtype).tiny))
            squares = [np.sum(((v - t)[known] / scale) ** 2) for v in (h, a, m)]
            errors[name] += [*squares, known.sum()]
    found = [_judged(name, dtype, *np.sqrt(e[:3] / max(e[3], 1)) / eps) for name, e in errors.items()]
    return max(found, key=lambda pair: pair[0])[1]


def _moved(a: Any, eps: float, rng: np.random.Generator) -> Any:
    """`a` with each entry up or down by one unit of rounding."""
    return a * (1 + eps * rng.choice([-1.0, 1.0], a.shape)) if is_float(a) else a


def _dtypes_differ(what: str, got: Sequence, expected: Sequence) -> str:
    theirs, ours = ([str(a.dtype) for a in arrays] for arrays in (got, expected))
    return "" if theirs == ours else f"{what}: dtype {', '.join(theirs)}, expected {', '.join(ours)}"


def _judged(name: str, dtype: np.dtype, own: float, auto: float, moved: float) -> tuple[float, Finding]:
    """How near to its tolerance an argument is, and the finding; errors in units of eps."""
    eps = float(jnp.finfo(dtype).eps)
    tolerance = AGAINST_AUTODIFF * auto + UNITS * max(1.0, moved)
    status = Status.PASS if own <= tolerance else Status.FAIL
    detail = f"{own:.1f} eps of error, autodiff's {auto:.1f}"
    found = Finding("precision", status, detail, name, str(dtype), float(own * eps), float(tolerance * eps))
    return own / tolerance, found


def _raised(trial: Trial, dtype: str, x64: bool, error: Exception) -> Finding:
    low = _rounded(trial.points[0].arrays, jnp.dtype(dtype))
    try:
        with jax.enable_x64(x64):
            oracles.autodiff_program(trial.subject, low, _rounded(trial.dys(30), jnp.dtype(dtype)))
    except Exception as own:
        detail = f"the reference alone raises {said(own, 100)}"
        return Finding("precision", Status.SKIPPED, detail, "", dtype)
    return Finding("precision", Status.FAIL, f"raised {said(error)}", "", dtype)


def _rounded(arrays: tuple, dtype: np.dtype) -> tuple:
    with np.errstate(over="ignore"):
        return tuple(np.asarray(a).astype(dtype) if is_float(a) else a for a in arrays)


def _widened(arrays: tuple) -> tuple:
    return tuple(np.asarray(a, np.float64) if is_float(a) else a for a in arrays)


def non_finite(trial: Trial) -> None:
    """A NaN in one entry of each argument: in the outputs as in the forward's, and in the cotangents."""
    point, dys = trial.points[0], trial.dys(0)
    values = floats(point.arrays)
    for i, (name, a) in enumerate(zip(trial.names, values, strict=True)):
        if not a.size:
            continue
        with_nan = a.copy()
        with_nan.flat[a.size // 2] = np.nan
        arrays = merged(point.arrays, (*values[:i], with_nan, *values[i + 1 :]))
        y, hand = trial.hand(arrays, dys)
        if not _same_nans(y, trial.forward(arrays)):
            return trial.add("non_finite", Status.FAIL, f"a NaN in {name!r} comes out of fwd otherwise", name)
        if not _same_nans(hand, trial.wanted(arrays, dys)):
            trial.note(f"a NaN in {name!r} reaches other entries of the cotangents than in the reference")
    return trial.add("non_finite", Status.PASS)


def _same_nans(these: Arrays, those: Arrays) -> bool:
    return all(np.array_equal(np.isnan(a), np.isnan(b)) for a, b in zip(these, those, strict=True))


def residuals(trial: Trial) -> None:
    """Bytes that fwd keeps beside those that autodiff keeps, in float32; only shapes are computed."""
    arrays = _rounded(trial.points[0].arrays, jnp.dtype("float32"))
    subject = trial.subject

    def autodiffs(arrays):
        return jax.vjp(lambda *v: subject.reference(merged(arrays, v)), *floats(arrays))[1]

    try:
        own = _bytes(jax.eval_shape(lambda a: subject.fwd(a)[1], arrays))
        theirs = _bytes(jax.eval_shape(autodiffs, arrays))
        around = _bytes((arrays, jax.eval_shape(subject.f, arrays)))
    except Exception as e:
        return trial.add("residuals", Status.SKIPPED, f"could not be traced: {said(e, 100)}")
    allowed = theirs + 64 if subject.is_rule else 8 * theirs + 4 * around + 256
    detail = f"keeps {own} bytes, autodiff {theirs}, arguments and outputs are {around}"
    return trial.add("residuals", Status.PASS if own <= allowed else Status.FAIL, detail)


def _bytes(tree: Any) -> int:
    arrays = [a for a in jax.tree.leaves(tree) if hasattr(getattr(a, "dtype", None), "itemsize")]
    return sum(a.size * a.dtype.itemsize for a in arrays)
