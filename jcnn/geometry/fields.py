"""Receptive fields: which inputs an output sees.

A stack of windows with extents e_l and strides s_l sees, per output, an interval of `size` inputs;
neighbouring outputs are `jump` inputs apart; the first one starts at input `start`:

    size <- size + (e_l - 1) jump,   start <- start - lo_l jump,   jump <- jump s_l

Reference: Araujo et al. 2019, Distill.
"""

from collections.abc import Iterable
from typing import NamedTuple

from jcnn import check
from jcnn.geometry.windows import Ints, Window


class ReceptiveField(NamedTuple):
    """What one output of a stack of windows sees, per spatial axis, in inputs (pixels)."""

    size: Ints
    jump: Ints
    start: Ints

    def interval(self, position: Ints) -> tuple[slice, ...]:
        """The inputs that the output at `position` sees; starts before 0 where it sees padding."""
        starts = [p * j + s for p, j, s in zip(position, self.jump, self.start, strict=True)]
        return tuple(slice(s, s + n) for s, n in zip(starts, self.size, strict=True))

    def then(self, w: Window) -> "ReceptiveField":
        """The receptive field after one more window on top."""
        axes = list(zip(self.size, self.jump, self.start, w.extent, w.stride, w.padding, strict=True))
        return ReceptiveField(
            size=tuple(n + (e - 1) * j for n, j, _, e, _, _ in axes),
            jump=tuple(j * s for _, j, _, _, s, _ in axes),
            start=tuple(b - lo * j for _, j, b, _, _, (lo, _) in axes),
        )


def pixel(rank: int) -> ReceptiveField:
    """The receptive field of the input itself: one pixel, one apart, the first at 0."""
    return ReceptiveField((1,) * rank, (1,) * rank, (0,) * rank)


def receptive_field(windows: Iterable[Window]) -> ReceptiveField:
    """The receptive field of a stack of windows, first layer first.

    Example:
        >>> from jcnn.geometry import receptive_field, window
        >>> receptive_field([window("conv", 3, size=(9,)), window("conv", 3, size=(7,))]).size
        (5,)
    """
    windows = list(windows)
    if not windows:
        check.fail("geometry.receptive_field", "windows", "none", "at least one window")
    field = pixel(len(windows[0].kernel))
    for w in windows:
        field = field.then(w)
    return field
