"""Hypotheses about a cotangent h that should have been r, the most specific first.

Each looks at the `Evidence` and says in one line what would explain it at every point, or None.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from jcnn.verify.evidence import Evidence, Sample, axes_said, same, subsets
from jcnn.verify.judge import Array

Cause = str | None
SMALL = 4096  # entries of what is searched through whole

NONLINEAR = {
    "|dy|": np.abs,
    "dy**2": np.square,
    "relu(dy)": lambda g: np.maximum(g, 0),
    "min(dy, 0)": lambda g: np.minimum(g, 0),
    "sign(dy)": np.sign,
    "clip(dy, -1, 1)": lambda g: np.clip(g, -1, 1),
    "dy * |dy|": lambda g: g * np.abs(g),
    "dy**3": lambda g: g**3,
    "tanh(dy)": np.tanh,
}
FUNCTIONS = {
    "{0}": lambda u: u,
    "-{0}": lambda u: -u,
    "(1 - {0})": lambda u: 1 - u,
    "(1 + {0})": lambda u: 1 + u,
    "(1 - {0}**2)": lambda u: 1 - u**2,
    "(1 + {0}**2)": lambda u: 1 + u**2,
    "{0} * (1 - {0})": lambda u: u * (1 - u),
    "{0}**2": np.square,
    "{0}**3": lambda u: u**3,
    "sqrt({0})": lambda u: np.sqrt(np.abs(u)),
    "exp({0})": np.exp,
    "log({0})": lambda u: np.log(np.abs(u)),
    "sigmoid({0})": lambda u: 1 / (1 + np.exp(-u)),
    "sigmoid'({0})": lambda u: 1 / (2 + np.exp(u) + np.exp(-u)),
    "tanh({0})": np.tanh,
    "tanh'({0})": lambda u: 1 - np.tanh(u) ** 2,
    "({0} > 0)": lambda u: (u > 0) * 1.0,
}
PREDICATES = {
    "{} > 0": lambda u: u > 0,
    "{} < 0": lambda u: u < 0,
    "{} > 1": lambda u: u > 1,
    "{} < -1": lambda u: u < -1,
    "|{}| > 1": lambda u: np.abs(u) > 1,
    "|{}| < 1": lambda u: np.abs(u) < 1,
    "{} == 0": lambda u: u == 0,
    "{} != 0": lambda u: u != 0,
}


def not_linear(e: Evidence) -> Cause:
    if e.linear:
        return None
    if e.dys_changed(np.ones_like):
        return "the cotangent is ignored: bwd computes with ones in place of dy"
    for name, change in NONLINEAR.items():
        if e.dys_changed(change):
            return f"not linear in the cotangent: bwd computes with {name} in place of dy"
    first = e.samples[0]
    arrays = first.point.arrays
    zero, other = (e.hand(arrays, tuple(c * dy for dy in first.dys)) for c in (0.0, -1.7))
    if same(other, first.h):
        return "the cotangent is ignored: the result is the same for every dy"
    if zero.any():
        return "affine, not linear in the cotangent: bwd(0) is not 0, a term does not contain dy"
    return "not linear in the cotangent: bwd(a u + b v) is not a bwd(u) + b bwd(v)"


def ignored_output(e: Evidence) -> Cause:
    """Of several outputs, one whose cotangent changes nothing although it should."""
    for k in range(len(e.samples[0].dys)) if len(e.samples[0].dys) > 1 else ():

        def alone(s: Sample, f, k=k) -> Array:
            return f(s.point.arrays, tuple(dy * (j == k) for j, dy in enumerate(s.dys)))

        if e.everywhere(lambda s, a=alone: bool(not a(s, e.hand).any() and a(s, e.wanted).any())):
            return f"the cotangent of output {k} is ignored"
    return None


def zero(e: Evidence) -> Cause:
    if e.everywhere(lambda s: not s.r.any()):
        return "not zero, although the reference has no gradient here"
    if e.everywhere(lambda s: not s.h.any()):
        return "identically zero (None, zeros or stop_gradient) where there is a gradient"
    return None


def precision(e: Evidence) -> Cause:
    """Rounding scatters, breaks linearity, and keeps powers of two."""
    if e.linear or not e.everywhere(
        lambda s: _scatter(s) and same(e.hand(s.point.arrays, _times(4.0, s.dys)), 4 * s.h)
    ):
        return None
    worst = max(map(_relative, e.samples))
    if worst > 0.1:
        return None
    dtype = "float32" if worst < 1e-5 else "bfloat16 or float16"
    return f"low precision: right to {worst:.0e} only, a value is cast to {dtype} on the way"


def _times(c: float, dys: tuple) -> tuple:
    return tuple(c * dy for dy in dys)


def _relative(s: Sample) -> float:
    return float(np.abs(s.h - s.r).max() / np.abs(s.r).max())


def _scatter(s: Sample) -> bool:
    """Rounding errors have no common factor and both signs."""
    error = (s.h - s.r)[np.abs(s.r) > 1e-3 * np.abs(s.r).max()]
    factor = error / s.r[np.abs(s.r) > 1e-3 * np.abs(s.r).max()]
    return bool(error.size > 2 and factor.std() > 0.2 * np.abs(factor).max())


def constant_factor(e: Evidence) -> Cause:
    s = e.samples[0]
    factor = float(np.vdot(s.h, s.r)) / (float(np.vdot(s.r, s.r)) or 1.0)
    return factor_said(e, factor) if e.everywhere(lambda s: same(s.h, factor * s.r)) else None


def factor_said(e: Evidence, c: float) -> str:
    """A constant factor and what it equals."""
    if abs(c + 1) <= 1e-8:
        return "wrong sign: exactly -1 times the gradient"
    sign = "wrong sign and " if c < 0 else ""
    for value, meaning in _known_factors(e):
        if abs(abs(c) - value) <= 1e-8 * value:
            return f"{sign}constant factor {abs(c):.9g}: {meaning}"
    near = f" = 1 {abs(c) - 1:+.1e}" if abs(abs(c) - 1) < 0.01 else ""
    return f"{sign}constant factor {abs(c):.9g}{near}"


def _known_factors(e: Evidence) -> Iterator[tuple[float, str]]:
    """Numbers that derivations get wrong by, and how."""
    yield 2.0, "twice too large: a factor 2 too much or a missing 1/2"
    yield 0.5, "half of the gradient: a factor 2 is missing"
    for n, what in e.sizes.items():
        if n > 2:
            yield float(n), f"missing 1/{n} ({what}): a sum where a mean belongs"
            yield 1 / n, f"a superfluous 1/{n} ({what}): a mean where a sum belongs"
        if n > 3:
            yield n / (n - 1), f"n/(n-1) with n = {n} ({what}): n - 1 in place of n"
            yield (n - 1) / n, f"(n-1)/n with n = {n} ({what}): n in place of n - 1"
    for n, what in e.sizes.items():
        if n > 2:
            yield n / 2, f"n/2 with n = {n} ({what}): a missing 2/{n}"
            yield 2 / n, f"2/n with n = {n} ({what}): too much by that factor"
            yield n**0.5, f"sqrt({n}) ({what}): too much by that factor"
            yield n**-0.5, f"1/sqrt({n}) ({what}): too much by that factor"
    for name, value in e.trial.subject.numbers().items():
        for form, f in (("{}", lambda v: v), ("(1 - {})", lambda v: 1 - v)):
            if f(value) > 0:
                yield f(value), f"{form.format(name)}: too much by that factor"
                yield 1 / f(value), f"1/{form.format(name)}: missing the factor {form.format(name)}"


def swapped(e: Evidence) -> Cause:
    for j, other in enumerate(e.trial.names):
        if j != e.i and e.everywhere(lambda s, j=j: same(s.h, e.trial.wanted(s.point.arrays, s.dys)[j])):
            return f"this is the cotangent of {other!r}: two cotangents are swapped"
    return None


def moved(e: Evidence) -> Cause:
    """The right numbers in the wrong places."""
    for what, change in rearrangements(e.samples[0].r.shape):
        if e.everywhere(lambda s, change=change: same(s.h, change(s.r))):
            return f"the right numbers in the wrong places: {what}"
    return None


def rearrangements(shape: tuple[int, ...]):
    """Flips, transpositions, rolls by one, and flips after transpositions: (what, function of the array)."""
    ndim = len(shape)
    wide = [k for k in range(ndim) if shape[k] > 1]
    flips = [tuple(wide[k] for k in axes) for axes in subsets(len(wide))]
    turns = [
        p
        for p in itertools.permutations(range(ndim))
        if p != tuple(range(ndim)) and tuple(shape[k] for k in p) == shape
    ]
    for axes in flips:
        yield f"flipped along {axes_said(axes)}", lambda a, axes=axes: np.flip(a, axes)
    for p in turns:
        yield f"transposed by {p}", lambda a, p=p: np.transpose(a, p)
    for k, by in itertools.product(wide, (1, -1)):
        yield f"rolled by {by:+d} along axis {k}", lambda a, k=k, by=by: np.roll(a, by, k)
    for k, by in itertools.product(wide, (1, -1)):
        yield f"shifted by {by:+d} along axis {k}", lambda a, k=k, by=by: _shift(a, by, k)
    if len(wide) > 1:
        for by in itertools.product((0, 1, -1), repeat=len(wide)):
            if sum(map(abs, by)) > 1:
                yield (
                    f"shifted by {by} along {axes_said(tuple(wide))}",
                    lambda a, by=by: _shift_all(a, by, wide),
                )
    for p, axes in itertools.product(turns, flips):
        yield (
            f"transposed by {p} and flipped along {axes_said(axes)}",
            lambda a, p=p, axes=axes: np.flip(np.transpose(a, p), axes),
        )


def _shift(a: Array, by: int, axis: int) -> Array:
    """Rolled, zeros coming in."""
    rolled = np.roll(a, by, axis)
    index = [slice(None)] * a.ndim
    index[axis] = slice(0, by) if by > 0 else slice(by, None)
    rolled[tuple(index)] = 0
    return rolled


def _shift_all(a: Array, by: tuple[int, ...], axes: list[int]) -> Array:
    for k, step in zip(axes, by, strict=True):
        a = _shift(a, step, k) if step else a
    return a
