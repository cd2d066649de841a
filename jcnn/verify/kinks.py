"""Where the derivative jumps: which cotangents are right at a zero, a tie, a clipping value.

Autodiff of the reference decides, as everywhere, unless it splits the difference: `jnp.maximum(x, 0)` has
slope 0.5 at 0 in JAX, and `jnp.max` shares a tie evenly, which nobody chose.  Let L be the set of gradients
at points nearby.  There a backward may also give

    for a tie         any member of the hull of L with the right derivative along which all tied entries move
    for a slope       the one of L with the least size: relu'(0) = 0
"""

import numpy as np

from jcnn.verify.judge import Array, Comparison
from jcnn.verify.report import Finding, Status
from jcnn.verify.sample import Point
from jcnn.verify.subject import is_float
from jcnn.verify.trial import Arrays, Trial

AT = "at {} arguments"
NEAR = 1e-6  # how far away "nearby" is, and how well gradients from there are known


def look(trial: Trial, point: Point, name: str) -> list[Finding]:
    """The failures at one special point."""
    failures = []
    for number in range(2):
        dys = trial.dys(10 + number)
        hand, wanted = trial.hand(point.arrays, dys)[1], trial.wanted(point.arrays, dys)
        for i, c in enumerate(trial.compare(point, dys, hand, wanted)):
            tiny = c.vacuous and c.worst is not None and abs(c.worst.hand) <= NEAR
            if c.ok or tiny or i in trial.raw:
                continue
            if decides(trial, point, dys, i, c, hand[i], wanted[i]):
                continue
            fields = (c.error, c.tolerance, c.resolution, c.worst)
            failures.append(
                Finding(name, Status.FAIL, AT.format(point.kind), trial.names[i], "float64", *fields)
            )
        if failures:
            break
    return failures


def deviates(trial: Trial, point: Point) -> bool:
    """Whether what is declared differs from the gradient at this point."""
    if trial.expect is None:
        return False
    dys = trial.dys(10)
    pairs = zip(trial.wanted(point.arrays, dys), trial.true(point.arrays, dys)[1], strict=True)
    return any(differ(w, t) for w, t in pairs)


def differ(a: Array, b: Array) -> bool:
    return not np.allclose(a, b, rtol=1e-6, atol=0, equal_nan=True)


def decides(
    trial: Trial, point: Point, dys: Arrays, i: int, c: Comparison, hand: Array, wanted: Array
) -> bool:
    """Whether two cotangents, compared in `c`, differ only where the backward may decide; noted if so."""
    if c.ok or trial.expect is not None or not is_convention(trial, point, dys, i, hand, wanted):
        return False
    trial.note(f"at kinks of {trial.names[i]!r} autodiff splits the difference and the backward decides")
    return True


def is_convention(trial: Trial, point: Point, dys: Arrays, i: int, hand: Array, wanted: Array) -> bool:
    """Whether `hand` is a decision that autodiff left open."""
    at = [k for k, a in enumerate(point.arrays) if is_float(a)][i]
    a = point.arrays[at]
    rng = np.random.default_rng(trial.seed)

    def gradient(direction):
        moved = (*point.arrays[:at], a + NEAR * direction, *point.arrays[at + 1 :])
        return trial.wanted(moved, dys)[i]

    signs = [np.ones(a.shape), -np.ones(a.shape), *rng.choice([-1.0, 1.0], (10, *a.shape))]
    nearby = np.stack([gradient(s * rng.uniform(0.5, 1, a.shape)) for s in signs])
    low, high = nearby.min(0), nearby.max(0)
    slack = 1e-4 * np.abs(nearby).max(initial=0.0)
    differs = np.abs(hand - wanted) > slack
    split = (wanted > low + slack) & (wanted < high - slack)
    inside = (hand >= low - slack) & (hand <= high + slack)
    if not np.isfinite(hand).all() or not (split & inside)[differs].all() or not differs.any():
        return False
    values, which = np.unique(a, return_inverse=True)
    together = rng.standard_normal(values.size)[which.reshape(a.shape)]
    ahead, back = (np.vdot(gradient(s * together), together) for s in (1, -1))
    allowed = slack * np.abs(together).sum()
    if abs(ahead - back) <= allowed:
        return bool(abs(np.vdot(hand, together) - ahead) <= allowed)
    least = np.minimum(np.abs(low), np.abs(high)) + slack
    elementwise = any(y.shape == a.shape for y in trial.y)
    return not elementwise or bool((np.abs(hand) <= least)[differs].all())
