"""Hypotheses about how a cotangent was computed: sums, paths, factors, arguments and residuals."""

import functools
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from jcnn.verify.evidence import Evidence, Sample, axes_said, same, subsets
from jcnn.verify.hypotheses import FUNCTIONS, SMALL, Cause, rearrangements
from jcnn.verify.judge import Array
from jcnn.verify.oracles import floats, merged


def collapsed(e: Evidence) -> Cause:
    """Averaged, summed or broadcast over axes."""
    for axes in subsets(e.samples[0].r.ndim):
        said = axes_said(axes)
        for what, f in ((f"averaged over {said}", np.mean), (f"summed over {said}", np.sum)):
            if e.everywhere(lambda s, f=f, axes=axes: _same_broadcast(s.h, f(s.r, axes, keepdims=True))):
                return f"the gradient {what}, then spread over it again"
        if e.everywhere(lambda s, axes=axes: _same_broadcast(s.h, s.r - s.r.mean(axes, keepdims=True))):
            return f"the mean over {said} is subtracted, which does not belong there"
    return None


def _same_broadcast(a: Array, b: Array) -> bool:
    return same(a, np.broadcast_to(b, a.shape))


def paths(e: Evidence) -> Cause:
    """The difference is a constant, or a known array times a constant, along some axes."""
    shape = e.samples[0].r.shape
    sets = sorted(subsets(len(shape)), key=lambda axes: -np.prod([shape[k] for k in axes]))
    for axes in sets:
        if e.everywhere(lambda s, axes=axes: s.r.size > 1 and _is_constant(s.r - s.h, axes)):
            return f"mean path: the difference is constant along {axes_said(axes)}; {_MEAN}"
    for axes, name in itertools.product(sets, e.alike()):
        if np.prod([shape[k] for k in axes]) < 3 or name == "dy":
            continue
        along = f"times a value constant along {axes_said(axes)}; {_VARIANCE}"
        for form, f in FUNCTIONS.items():
            if e.everywhere(lambda s, n=name, f=f, axes=axes: _explained(s, [f(s.around[n])], axes)):
                centred = e.everywhere(lambda s, n=name, f=f, axes=axes: _is_centred(f(s.around[n]), axes))
                return f"{'variance path: ' * centred}the difference is {form.format(name)} {along}"
        if e.everywhere(lambda s, n=name, axes=axes: _explained(s, [_centred(s.around[n], axes)], axes)):
            return f"variance path: the difference is ({name} - mean) {along}"
        if e.everywhere(lambda s, n=name, axes=axes: _explained(s, [s.around[n], np.ones_like(s.r)], axes)):
            return f"mean path and variance path: the difference is (a {name} + b) {along}"
    return None


_MEAN = "the term through the mean, mean(dy ...), is missing, doubled, mis-scaled or of the wrong sign"
_VARIANCE = "that term, a sum over these axes, is missing, doubled, mis-scaled or of the wrong sign"


def _is_constant(d: Array, axes: tuple[int, ...]) -> bool:
    return bool(np.prod([d.shape[k] for k in axes]) > 1) and _same_broadcast(d, d.mean(axes, keepdims=True))


def _centred(u: Array, axes: tuple[int, ...]) -> Array:
    return u - u.mean(axes, keepdims=True)


def _is_centred(u: Array, axes: tuple[int, ...]) -> bool:
    return same(u + np.abs(u).max(), _centred(u, axes) + np.abs(u).max())


def _explained(s: Sample, columns: list[Array], axes: tuple[int, ...]) -> bool:
    """Whether r - h = sum_k c_k columns_k with c constant along `axes`, which hold enough entries to tell."""
    d = s.r - s.h
    rest = tuple(k for k in range(d.ndim) if k not in axes)
    order = (*rest, *axes)
    count = int(np.prod([d.shape[k] for k in axes]))
    if count < len(columns) + 2 or not all(np.isfinite(c).all() for c in columns):
        return False
    target = d.transpose(order).reshape(-1, count)
    matrix = np.stack([np.broadcast_to(c, d.shape).transpose(order).reshape(-1, count) for c in columns], -1)
    fit = np.einsum("gkn,gn->gk", np.linalg.pinv(matrix), target)
    return same(np.einsum("gnk,gk->gn", matrix, fit), target)


def factors(e: Evidence) -> Cause:
    """h / r is constant along some axes, or a function of an array that is around."""
    if not e.everywhere(lambda s: bool(np.all(s.h[np.abs(s.r) < 1e-12] == 0))):
        return None
    for name, (form, f) in itertools.product(e.samples[0].around, FUNCTIONS.items()):
        for power, wording in ((1, "a factor {} too much"), (-1, "a missing factor {}")):
            if e.everywhere(lambda s, n=name, f=f, p=power: _ratio_is(s, _aligned(s.around[n], s.r), f, p)):
                ratio = ("" if power > 0 else "1 / ") + form.format(name)
                return f"{wording.format(form.format(name))}: hand / reference is {ratio}"
    return None


def missing_term(e: Evidence) -> Cause:
    """Of an elementwise backward: r - h is dy times a product of two functions of what is around."""
    s = e.samples[0]
    if len(s.dys) != 1 or s.dys[0].shape != s.r.shape:
        return None
    parts = [("1", lambda s: np.ones_like(s.r))] + [
        (form.format(name), lambda s, n=name, f=f: f(s.around[n]))
        for name, (form, f) in itertools.product(e.alike(), FUNCTIONS.items())
        if name != "dy" and not form.startswith("-")
    ]
    for (left, f), (right, g) in itertools.combinations_with_replacement(parts, 2):
        for sign, what in ((1, "is missing"), (-1, "does not belong there, or comes twice")):
            if e.everywhere(lambda s, f=f, g=g, sign=sign: same(sign * s.dys[0] * f(s) * g(s), s.r - s.h)):
                term = " * ".join(["dy", *(p for p in (left, right) if p != "1")])
                return f"a term of a sum or product rule: {term} {what}"
    return None


def axis_factor(e: Evidence) -> Cause:
    """h / r depends on some axes only."""
    ndim = e.samples[0].r.ndim
    for axes in subsets(ndim):
        kept = tuple(k for k in range(ndim) if k not in axes)
        if kept and e.everywhere(lambda s, axes=axes: _constant_ratio(s, axes)):
            s = e.samples[0]
            with np.errstate(all="ignore"):
                factor = np.nan_to_num((s.h * s.r).sum(axes) / (s.r * s.r).sum(axes))
            seen = ", ".join(f"{v:g}" for v in np.unique(np.round(factor, 9))[:5])
            return f"a factor that depends on {axes_said(kept)} only ({seen} ...)"
    return None


def _aligned(u: Array, r: Array) -> Array | None:
    """`u` broadcast to `r`, by its trailing or its leading axes."""
    for shape in (u.shape, u.shape + (1,) * (r.ndim - u.ndim)):
        try:
            return np.broadcast_to(u.reshape(shape), r.shape)
        except ValueError:
            continue
    return None


def _ratio_is(s: Sample, u: Array | None, f, power: int) -> bool:
    if u is None or not np.ptp(u):
        return False
    g = f(u)
    return bool(np.isfinite(g).all()) and (same(s.h, s.r * g) if power > 0 else same(s.h * g, s.r))


def _constant_ratio(s: Sample, axes: tuple[int, ...]) -> bool:
    scale = (s.h * s.r).sum(axes, keepdims=True) / (s.r * s.r).sum(axes, keepdims=True)
    return s.r.size > scale.size and same(s.h, s.r * np.nan_to_num(scale))


def repairs(e: Evidence) -> Cause:
    """With another dy, argument or residual the backward would be right, or is right for."""
    dy = e.samples[0].dys[0]
    for what, change in rearrangements(dy.shape) if dy.size <= SMALL else ():
        if len(e.samples[0].dys) == 1 and e.dys_changed(change):
            return f"right for dy {what}: the cotangent is taken in the wrong order"
    for k, (name, a) in enumerate(zip(e.trial.names, floats(e.samples[0].point.arrays), strict=True)):
        if e.argument_changed(k, lambda a, s: np.ones_like(a)):
            return f"{name} is forgotten: right only where {name} is 1, a constant factor stands for it"
        if e.argument_changed(k, lambda a, s: np.zeros_like(a)):
            return (
                f"{name} is forgotten: right only where {name} is 0, a constant factor or slope stands for it"
            )
        if e.everywhere(lambda s, k=k, n=name: _outside(e, s, k, s.around[n])):
            return (
                f"{name} is applied in the wrong place: it multiplies the cotangent, not dy before the rest"
            )
        for what, change in rearrangements(a.shape):
            if e.argument_changed(k, lambda a, s, change=change: change(a)):
                return f"right for {name} {what}: {name} is not {what.split(' ')[0]} where it has to be"
        for other in _alike_to(e, a):
            if other != name and e.argument_changed(k, lambda a, s, other=other: s.around[other]):
                return f"{other} stands where {name} belongs"
    return residual_repair(e)


def _alike_to(e: Evidence, a: Array) -> list[str]:
    return [n for n, b in e.samples[0].around.items() if b.shape == a.shape and b.ndim]


def _outside(e: Evidence, s: Sample, k: int, factor: Array) -> bool:
    """Whether the backward is `factor` times the gradient for an argument of ones."""
    u = _aligned(factor, s.r)
    values = list(floats(s.point.arrays))
    values[k] = np.ones_like(values[k])
    return u is not None and same(s.h, u * e.wanted(merged(s.point.arrays, tuple(values)), s.dys))


def residual_repair(e: Evidence) -> Cause:
    """The backward becomes right if one residual is changed."""
    for path, u in e.residuals(e.samples[0].point.arrays).items():
        if not 0 < u.size <= SMALL or not _reacts(e, path):
            continue
        for what, change in _changes(e, u):

            def fits(s: Sample, path=path, change=change) -> bool:
                got = e.with_residual(s, path, functools.partial(change, s=s))
                return got is not None and same(got, s.r)

            if e.everywhere(fits):
                return f"the backward is right if {path} is {what}: it uses another value than it should"
    return None


def _changes(e: Evidence, u: Array) -> Iterator[tuple[str, Callable]]:
    """What a residual might have to be instead: (what, function of it and the sample)."""
    for form, f in FUNCTIONS.items():
        yield f"replaced by {form.format('itself')}", lambda u, s, f=f: f(u)
    yield "inverted", lambda u, s: 1 / u
    yield "replaced by 1/sqrt(itself)", lambda u, s: 1 / np.sqrt(np.abs(u))
    for what, f in rearrangements(u.shape):
        yield what, lambda u, s, f=f: f(u)
    for other in _alike_to(e, u):
        yield f"replaced by {other}", lambda u, s, other=other: s.around[other]


def _reacts(e: Evidence, path: str) -> bool:
    """Whether the cotangent depends on that residual at all."""
    s = e.samples[0]
    got = e.with_residual(s, path, lambda u: u * 1.5 + 0.1)
    return got is not None and not same(got, s.h)
