"""Judgement: how far two cotangents may lie apart, and how small an error would have shown.

An entry h of a cotangent is right if |h - r| <= RTOL scale + floor.  `scale` is the largest |r| of its
channel (last axis): a small channel cannot hide behind a large one.  `floor` is what rounding explains:
a few eps sqrt(n) times the largest |r| of all, n the longest reduction; a few eps times the largest dy (times
the largest output if that is below one), since 1 - y of a saturated y is no better; and sixteen times the
change of r that was measured when the arguments were moved by one unit in the last place.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jcnn.verify.report import Worst

RTOL = 1e-9
EPS = float(np.finfo(np.float64).eps)
if TYPE_CHECKING:
    Array = np.ndarray
else:
    Array = np.ndarray | np.generic  # NumPy's arithmetic turns arrays without axes into scalars
TINY = float(np.finfo(np.float64).tiny)


class Comparison(NamedTuple):
    """Two arrays compared; all three numbers are relative to the scale of the reference."""

    error: float
    tolerance: float
    resolution: float  # the smallest relative error that would have been seen
    worst: Worst | None  # None when all entries agree
    vacuous: bool  # the reference is nothing but rounding: no error of it could be told

    @property
    def ok(self) -> bool:
        return self.worst is None

    @property
    def excess(self) -> float:
        """Error in units of the tolerance."""
        return self.error / self.tolerance if self.tolerance else np.inf if self.error else 0.0


def compare(
    hand: Array,
    reference: Array,
    noise: Array | float = 0.0,
    length: int = 1,
    natural: float = 0.0,
    rtol: float = RTOL,
) -> Comparison:
    """Holds `hand` to `reference` where that is finite.

    Args:
        noise: by how much rounding of the arguments moves the reference, entry by entry.
        length: number of terms in the longest sum behind one entry.
        natural: the size of a cotangent that passes through unchanged.
    """
    finite = np.isfinite(reference)
    r, h = np.where(finite, reference, 0.0), np.where(finite, hand, 0.0)
    overall = float(np.abs(r).max(initial=0.0))
    scale = per_channel(np.abs(r))
    measured = per_channel(np.broadcast_to(np.where(finite & np.isfinite(noise), noise, 0.0), r.shape))
    rounding = 4 * EPS * (np.sqrt(length) * overall + natural)
    allowed = rtol * scale + 16 * measured + rounding
    resolution = float(allowed.max(initial=0.0)) / (overall or 1.0)
    vacuous = bool(overall <= 1e3 * (measured.max(initial=0.0) + EPS * natural))
    if not r.size:
        return Comparison(0.0, resolution, resolution, None, True)
    off = np.where(np.isfinite(h), np.abs(h - r), np.inf)
    differing = int((off > allowed).sum())
    at = tuple(map(int, np.unravel_index((off / np.maximum(allowed, TINY)).argmax(), r.shape)))
    worst = Worst(at, float(hand[at]), float(reference[at]), differing, r.size) if differing else None
    unit = float(scale[at]) or overall or natural or 1.0
    return Comparison(float(off[at]) / unit, float(allowed[at]) / unit, resolution, worst, vacuous)


def per_channel(a: Array) -> Array:
    """The maximum over all axes but the last, or of a vector over all, in the shape of `a`."""
    axes = tuple(range(a.ndim - 1)) if a.ndim > 1 else None
    return np.broadcast_to(a.max(axis=axes, keepdims=True, initial=0.0), a.shape)
