"""Properties of the numbers in float64: what a derivation can get wrong at one set of arguments."""

import jax
import jax.numpy as jnp
import numpy as np

from jcnn.verify import kinks, oracles, sample
from jcnn.verify.judge import EPS, Array, Comparison, compare
from jcnn.verify.report import Finding, Status
from jcnn.verify.subject import ContractError
from jcnn.verify.trial import Arrays, Rejected, Trial, said

DIRECTIONAL = 1e-8  # relative; what extrapolated differences are trusted to
HIDDEN = (
    "autodiff of the reference is not the derivative of the forward (stop_gradient or a custom rule in it?)"
)
DECLARED = "not the gradient, but exactly what was declared"
LARGEST = 2**21  # outputs; differences keep them at 32 points
COMBINATIONS = ((2.5, -0.75), (1e4, 0.0), (-1e-4, 0.0), (0.0, 0.0))


def contract(trial: Trial) -> None:
    """Runs fwd and bwd, jitted or else eagerly: count, trees, shapes and dtypes of what comes back."""
    if not trial.names or not trial.y:
        missing = "output" if trial.names else "argument"
        detail = f"no floating-point {missing}: there is nothing to differentiate"
        raise Rejected(Finding("contract", Status.INCONCLUSIVE, detail))
    arrays, dys = trial.points[0].arrays, trial.dys(0)
    try:
        y, cts = trial.first_run(arrays, dys)
    except ContractError as e:
        raise Rejected(Finding("contract", Status.FAIL, str(e))) from e
    except (Exception, SystemExit) as e:
        _hold_outputs(trial, trial.fwd_shapes(arrays))
        raise Rejected(Finding("contract", Status.FAIL, f"fwd or bwd raised {said(e)}")) from e
    _hold_outputs(trial, [np.shape(a) for a in y])
    try:
        wanted = trial.wanted(arrays, dys)
    except (Exception, SystemExit) as e:
        trial.differentiable = trial.trusted = False
        asked = trial.subject.override or trial.expect
        status = Status.INCONCLUSIVE if asked else Status.SKIPPED
        trial.add("autodiff", status, f"JAX cannot differentiate the reference: {said(e)}")
        wanted = tuple(np.zeros(a.shape) for a in oracles.floats(arrays))
    for i, (name, ct, true) in enumerate(zip(trial.names, cts, wanted, strict=True)):
        if detail := _complaint(trial, ct, true):
            trial.add("contract", Status.FAIL, detail, name)
            trial.raw[i] = ct
    if not trial.failed("contract"):
        trial.add("contract", Status.PASS)


def _hold_outputs(trial: Trial, got: list[tuple] | None) -> None:
    expected = [y.shape for y in trial.y]
    if got is not None and got != expected:
        detail = f"fwd's outputs have shapes {got}, the forward's {expected}"
        raise Rejected(Finding("primal", Status.FAIL, detail))


def _complaint(trial: Trial, ct, wanted: Array) -> str:
    if ct is None:
        return "None where there is a gradient" if wanted.any() else ""
    if not isinstance(ct, jax.Array | np.ndarray | np.generic | int | float):
        return f"cotangent is a {type(ct).__name__}, expected an array"
    if np.shape(ct) != wanted.shape:
        return f"cotangent of shape {np.shape(ct)}, expected {wanted.shape}"
    dtype = jnp.asarray(ct).dtype
    held = np.dtype("float64") in trial.dtypes
    right = dtype == wanted.dtype if held else jnp.issubdtype(dtype, jnp.floating)
    return "" if right else f"cotangent of dtype {dtype}, expected {wanted.dtype}"


def primal(trial: Trial) -> None:
    worst = compare(np.zeros(1), np.zeros(1))
    for point in trial.points:
        y = trial.hand(point.arrays, trial.dys(0))[0]
        others = [(trial.forward, "the forward's"), (trial.reference, "the reference's")]
        for other, whose in others if trial.differentiable else others[:1]:
            for got, expected in zip(y, other(point.arrays), strict=True):
                c = compare(got, expected, length=trial.length, natural=np.abs(expected).max(initial=0.0))
                if not c.ok or not np.array_equal(np.isnan(got), np.isnan(expected)):
                    detail = f"fwd's output is not {whose}, at {point.kind} arguments"
                    return trial.record("primal", Status.FAIL, c, detail)
                worst = max(worst, c, key=lambda c: c.excess)
    return trial.record("primal", Status.PASS, worst)


def autodiff(trial: Trial) -> None:
    """Each cotangent against what is wanted, at generic points, for two random dy."""
    if not trial.trusted:
        return
    seen: list[list[Comparison]] = [[] for _ in trial.names]
    deviates = [False] * len(trial.names)
    for point in trial.generic:
        for number in range(2):
            dys = trial.dys(number)
            hand, wanted = trial.hand(point.arrays, dys)[1], trial.wanted(point.arrays, dys)
            for i, c in enumerate(trial.compare(point, dys, hand, wanted)):
                if not kinks.decides(trial, point, dys, i, c, hand[i], wanted[i]):
                    seen[i].append(c)
            if trial.expect is not None:
                true = trial.true(point.arrays, dys)[1]
                for i, (w, t) in enumerate(zip(wanted, true, strict=True)):
                    deviates[i] |= kinks.differ(w, t)
    depends = trial.depends_on_cotangent()
    for i, name in enumerate(trial.names):
        if i not in trial.raw:
            _judge(trial, name, seen[i], deviates[i], depends[i])


def _judge(trial: Trial, name: str, seen: list[Comparison], deviates: bool, depends: bool) -> None:
    informative = [c for c in seen if not c.vacuous]
    wrong = [c for c in informative if not c.ok]
    wrong += [c for c in seen if c.vacuous and c.worst and abs(c.worst.hand) > DIRECTIONAL]
    if wrong:
        trial.record("autodiff", Status.FAIL, max(wrong, key=lambda c: c.excess), "", name)
    elif deviates:
        trial.record("autodiff", Status.EXPECTED, max(seen, key=lambda c: c.excess), DECLARED, name)
    elif informative:
        trial.record("autodiff", Status.PASS, max(informative, key=lambda c: c.excess), "", name)
    elif not depends:
        trial.add("autodiff", Status.PASS, "no gradient, in the reference neither", name)
    else:
        detail = "the gradient is zero to rounding, or empty, wherever tried: no error in it could have shown"
        trial.add("autodiff", Status.INCONCLUSIVE, detail, name)


def special_points(trial: Trial) -> None:
    """The properties `kinks` and `edges`."""
    if not trial.trusted:
        return
    for name, kinds in (("kinks", sample.KINKS), ("edges", sample.EDGES)):
        wrong = [found for p in trial.points if p.kind in kinds if (found := kinks.look(trial, p, name))]
        deviates = any(kinks.deviates(trial, p) for p in trial.points if p.kind in kinds)
        passed = Finding(name, Status.EXPECTED, DECLARED) if deviates else Finding(name, Status.PASS)
        trial.findings += wrong[0] if wrong else [passed]


def linearity(trial: Trial) -> None:
    """bwd(a u + b v) = a bwd(u) + b bwd(v), at the given point."""
    if trial.expect is not None and trial.expect.cotangent is not None:
        return
    arrays, u, v = trial.points[0].arrays, trial.dys(2), trial.dys(3)
    at_u, at_v = trial.hand(arrays, u)[1], trial.hand(arrays, v)[1]
    worst: dict[str, Comparison] = {}
    for a, b in COMBINATIONS:
        mixed = trial.hand(arrays, tuple(a * p + b * q for p, q in zip(u, v, strict=True)))[1]
        for name, m, p, q in zip(trial.names, mixed, at_u, at_v, strict=True):
            size = abs(a) * np.abs(p).max(initial=0.0) + abs(b) * np.abs(q).max(initial=0.0)
            c = compare(m, a * p + b * q, length=trial.length, natural=size or 1e-3)
            worst[name] = max(worst.get(name, c), c, key=lambda c: c.excess)
    for name, c in worst.items():
        if not c.ok:
            trial.record("linearity", Status.FAIL, c, "bwd(a u + b v) is not a bwd(u) + b bwd(v)", name)
    if not trial.failed("linearity"):
        trial.record("linearity", Status.PASS, max(worst.values(), key=lambda c: c.excess))


def outputs(trial: Trial) -> None:
    """The cotangent of one output at a time, the others zero."""
    if len(trial.y) < 2 or not trial.trusted:
        return
    point = trial.points[1]
    for k in range(len(trial.y)):
        dys = tuple(dy * (j == k) for j, dy in enumerate(trial.dys(4)))
        comparisons = trial.compare(
            point, dys, trial.hand(point.arrays, dys)[1], trial.wanted(point.arrays, dys)
        )
        for i, (name, c) in enumerate(zip(trial.names, comparisons, strict=True)):
            if not c.ok and not c.vacuous and i not in trial.raw:
                trial.record("outputs", Status.FAIL, c, f"with the cotangent of output {k} alone", name)
    if not trial.failed("outputs"):
        trial.add("outputs", Status.PASS)


def directional(trial: Trial) -> None:
    """The properties `differences` and `adjoint`: <dy, J v> = <ct, v>, J v by differences and by jvp."""
    _differences(trial)
    if trial.trusted and trial.expect is None:
        _adjoint(trial)


def _differences(trial: Trial) -> None:
    point = trial.points[1]
    if sum(y.size for y in trial.y) > LARGEST:
        return trial.add("differences", Status.SKIPPED, "too many outputs: verify at smaller arguments")
    largest = max(np.abs(y[np.isfinite(y)]).max(initial=0.0) for y in trial.y)
    error = {"hand": 0.0, "autodiff": 0.0}
    tolerance = DIRECTIONAL
    for v in _directions(trial, 0):
        jv, uncertain = zip(*map(oracles.extrapolated, trial.along(point.arrays, v)), strict=True)
        known = [
            e <= 1e-7 * max(largest, np.abs(a[e < np.inf]).max(initial=0.0))
            for a, e in zip(jv, uncertain, strict=True)
        ]
        if sum(k.sum() for k in known) < 0.5 * sum(k.size for k in known):
            return trial.add("differences", Status.SKIPPED, "differences of the forward do not converge")
        dys, jv, uncertain = (
            tuple(np.where(k, a, 0.0) for k, a in zip(known, arrays, strict=True))
            for arrays in (trial.dys(5), jv, uncertain)
        )
        hand = trial.hand(point.arrays, dys)[1]
        true = trial.true(point.arrays, dys)[1] if trial.differentiable else hand
        scale = norm(dys) * norm(jv) + norm(true) * norm(v) or 1.0
        tolerance = max(tolerance, 10 * inner(tuple(map(np.abs, dys)), uncertain) / scale)
        for whose, cts in (("hand", hand), ("autodiff", true)):
            error[whose] = max(error[whose], abs(inner(dys, jv) - inner(cts, v)) / scale)
    _conclude(trial, error, tolerance)
    return None


def _conclude(trial: Trial, error: dict[str, float], tolerance: float) -> None:
    c = Comparison(error["hand"], tolerance, tolerance, None, False)
    right, trusted = (error[whose] <= tolerance for whose in ("hand", "autodiff"))
    if trial.expect is not None:
        trial.record(
            "differences", Status.SKIPPED, c, "not held to the true gradient: a deviation is declared"
        )
    elif right and trusted:
        trial.record("differences", Status.PASS, c)
    elif not trial.differentiable:
        trial.record("differences", Status.FAIL, c, "the backward is not the derivative of the forward")
    elif trusted:
        trial.record("differences", Status.FAIL, c, "differences agree with autodiff, not with the backward")
    elif right:
        trial.trusted = False
        trial.record("differences", Status.INCONCLUSIVE, c, f"{HIDDEN}; the backward is the derivative")
    else:
        trial.record("differences", Status.FAIL, c, f"{HIDDEN}, and neither is the backward")


def _adjoint(trial: Trial) -> None:
    point, worst = trial.points[1], 0.0
    for v in _directions(trial, 1):
        try:
            jv = trial.tangent(point.arrays, v)
        except Exception as e:
            return trial.add("adjoint", Status.SKIPPED, f"the forward has no forward mode: {said(e, 80)}")
        dys = trial.dys(6)
        hand = trial.hand(point.arrays, dys)[1]
        rounding = 1e3 * EPS * norm(dys) * norm(trial.y)
        scale = norm(dys) * norm(jv) + norm(hand) * norm(v) + rounding / DIRECTIONAL or 1.0
        worst = max(worst, abs(inner(dys, jv) - inner(hand, v)) / scale)
    status = Status.PASS if worst <= DIRECTIONAL else Status.FAIL
    return trial.record("adjoint", status, Comparison(worst, DIRECTIONAL, DIRECTIONAL, None, False))


def _directions(trial: Trial, number: int) -> list[Arrays]:
    """One in all arguments, and one in each; a few more where there is no other oracle."""
    v = trial.directions(trial.points[1], number)
    alone = [tuple(d * (i == k) for i, d in enumerate(v)) for k in range(len(v))] if len(v) > 1 else []
    more = [] if trial.differentiable else [trial.directions(trial.points[1], 10 + k) for k in range(6)]
    return [v, *alone, *more]


def inner(p: Arrays, q: Arrays) -> float:
    return float(sum(np.vdot(a, b) for a, b in zip(p, q, strict=True)))


def norm(p: Arrays) -> float:
    return float(np.sqrt(inner(p, p)))
