"""Hypotheses about where a cotangent is wrong: among its own entries and among those of the Jacobian."""

import itertools

import numpy as np

from jcnn.verify.evidence import ROUNDING, Evidence, Sample, same
from jcnn.verify.hypotheses import PREDICATES, SMALL, Cause, factor_said
from jcnn.verify.judge import Array, per_channel


def _wrong(s: Sample) -> Array:
    size = np.abs(s.r)
    return np.abs(s.h - s.r) > 1e-9 * per_channel(size) + ROUNDING * size.max()


def places(e: Evidence) -> Cause:
    """Wrong only where some array is positive, at borders, in one channel, in one entry."""
    everywhere = np.logical_or.reduce([_wrong(s) for s in e.samples])
    for name, (form, f) in itertools.product(e.alike(), PREDICATES.items()):
        if e.everywhere(lambda s, n=name, f=f: _only(_wrong(s), f(s.around[n]))):
            return f"wrong only where {form.format(name)}{_there(e)}"
    for name, sign in itertools.product(e.alike(), (1, -1)):
        bounds = [_beyond(_wrong(s), sign * s.around[name]) for s in e.samples]
        if all(np.isfinite(bounds)):
            relation = ">=" if sign > 0 else "<="
            return f"wrong only where {name} {relation} {sign * min(bounds):.3g} or so{_there(e)}"
    where = located(everywhere)
    return f"wrong only {where}{_there(e)}" if where else None


def located(mask: Array) -> str:
    """Where along the axes a mask is set, if it is not all over the place."""
    for axis, n in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(tuple(k for k in range(mask.ndim) if k != axis)))
        if 0 < len(hit) < n:
            at_end = len(hit) <= n / 2 + 1 and (set(hit) == set(range(len(hit))) or hit[0] == n - len(hit))
            border = "the border, " if n > 2 and (at_end or set(hit) <= {0, n - 1}) else ""
            return f"at {border}index {_few(hit)} of axis {axis}"
    inner = tuple(slice(1, -1) if n > 2 else slice(None) for n in mask.shape)
    return "at the borders" if mask.any() and not mask[inner].any() else ""


def _only(wrong: Array, there: Array) -> bool:
    """Wrong nowhere else, and in most of those entries."""
    return bool(
        wrong.any() and not (wrong & ~there).any() and 0.7 * there.sum() < wrong.sum() and not there.all()
    )


def _beyond(wrong: Array, u: Array) -> float:
    """The least u among the wrong entries if all others have less, else infinity."""
    if not wrong.any() or wrong.all():
        return np.inf
    least = float(u[wrong].min())
    return least if least > u[~wrong].max() else np.inf


def _few(hit: Array) -> str:
    return ", ".join(map(str, hit[:6])) + (" ..." if len(hit) > 6 else "")


def _there(e: Evidence) -> str:
    """What is wrong with the entries that are."""
    s = next((s for s in e.samples if _wrong(s).any()), e.samples[0])
    h, r = s.h[_wrong(s)], s.r[_wrong(s)]
    if not h.any():
        return ": zero there"
    c = float(np.vdot(h, r) / np.vdot(r, r)) if r.any() else 0.0
    return f": {factor_said(e, c)}" if c and same(h, c * r) else ""


def offset(e: Evidence) -> Cause:
    """Right but for a shift, away from the borders: padding or an index is off."""
    shape = e.samples[0].r.shape
    middle = range(1, len(shape) - 1) if len(shape) > 2 else range(len(shape))
    steps = [range(-2, 3) if k in middle and shape[k] > 3 else (0,) for k in range(len(shape))]
    for margin, by in itertools.product((0, 1, 2), itertools.product(*steps)):
        if any(by) and e.everywhere(lambda s, by=by, m=margin: _shifted_inside(s, by, m)):
            return f"shifted by {by} along the axes, away from the borders: padding or an index is off"
    return None


def _shifted_inside(s: Sample, by: tuple[int, ...], margin: int) -> bool:
    low = [margin + max(b, 0) if b else 0 for b in by]
    high = [n - margin + min(b, 0) if b else n for n, b in zip(s.r.shape, by, strict=True)]
    if any(b - a < 1 for a, b in zip(low, high, strict=True)):
        return False
    here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    there = tuple(slice(a - k, b - k) for a, b, k in zip(low, high, by, strict=True))
    return s.h[here].size > 3 and bool(np.abs(s.r[there]).max() > 0) and same(s.h[here], s.r[there])


def couplings(e: Evidence) -> Cause:
    """The Jacobian, entry by entry: slopes, a weight per output, missing and extra couplings."""
    s = e.samples[0]
    dy = s.dys[0]
    if len(s.dys) > 1 or dy.size > 512 or dy.size * s.r.size > 16 * SMALL:
        return None
    units = np.eye(dy.size).reshape(-1, *dy.shape)
    hand, true = (
        np.stack([f(s.point.arrays, (u,)) for u in units]).reshape(dy.size, -1) for f in (e.hand, e.wanted)
    )
    if _diagonal(hand) and _diagonal(true):
        at = int(np.abs(np.diag(hand) - np.diag(true)).argmax())
        slopes = f"{hand[at, at]:.6g} in place of {true[at, at]:.6g}"
        return (
            f"elementwise, but the slope (local derivative, a factor of dy) is wrong: {slopes} at entry {at}"
        )
    if _diagonal(hand):
        return "only the diagonal of the Jacobian is there: the coupling between entries, a sum, is missing"
    weight = np.nan_to_num((hand * true).sum(1) / (true * true).sum(1))
    if same(hand, weight[:, None] * true):
        off = np.abs(weight - 1).reshape(dy.shape) > 1e-9
        seen = _few(np.unique(np.round(weight[off.ravel()], 9)))
        where = located(off) or "all over y"
        return f"outputs have factors of their own ({seen}), a count, mask or weight; {where}"
    scale = np.abs(true).max()
    there, given = np.abs(true) > 1e-9 * scale, np.abs(hand) > 1e-9 * scale
    lost, extra = there & ~given, given & ~there
    if lost.any() and same(hand * ~lost, true * ~lost):
        share = f"{lost.sum() / there.sum():.0%} of the Jacobian is zero where it should not be"
        return f"{share}: a sum leaves terms out, or only some entries are written (set in place of add)"
    if extra.any() and same(hand * ~extra, true * ~extra):
        return "dy reaches entries it should not: a sum runs too far, a mask is forgotten, padding is off"
    if lost.any() and extra.any():
        return "dy reaches other entries than it should: a wrong winner, index, window or order of axes"
    return None


def _diagonal(jacobian: Array) -> bool:
    rows, columns = jacobian.shape
    return rows == columns and not np.any(jacobian - np.diag(np.diag(jacobian)))


def unexplained(e: Evidence) -> Cause:
    s = e.samples[0]
    error = np.abs(s.h - s.r).max() / max(np.abs(s.r).max(), 1e-300)
    ratios = s.h[s.r != 0] / s.r[s.r != 0]
    if ratios.size and ratios.min() > 0:
        span = f"{ratios.min():.3g} to {ratios.max():.3g}"
        return f"of the right sign, but with a factor that varies from entry to entry, {span}"
    share = f"{_wrong(s).mean():.0%} of the entries"
    return f"the derivation is wrong: {share}, by up to {error:.1e} of the largest; no simple cause fits"
