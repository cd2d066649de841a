"""Mean over windows.

Shapes.  x, dx [N, *S, C];  y, dy [N, *M, C].  t runs over the window's taps, i over outputs, j over inputs;
r(i, t) = i s + t d - lo is the input that output i reads through tap t.

Forward.    y[i] = sum_t x[r(i, t)] / count[i]          with zeros in the padding

count[i] is the number of taps of window i inside x, or (count_include_pad) inside x and its padding: the part
of a last window that hangs over the edge (ceil_mode) never counts.  It is 1 where it would be 0.

Backward.   Linear, so
            dx[j] = sum over all (i, t) with r(i, t) = j of dy[i] / count[i]

Kinks.  None.  The mean of nothing but padding is 0.

Reference.  Goodfellow, Bengio & Courville 2016, Deep Learning, section 9.3; PyTorch's window conventions.
"""

import jax.numpy as jnp
import numpy as np

from jcnn import check
from jcnn.geometry import IntLike, Ints, PaddingLike, Pairs, Window, resolved_padding
from jcnn.kernels import sums, taps, widen
from jcnn.pool.windows import Images, Pooled, check_algorithm, check_images, geometry
from jcnn.residuals import residuals, static
from jcnn.rule import Rule


@residuals
class AvgPoolResiduals:
    size: Ints = static()  # spatial shape of x
    window: Window = static()
    counted: Pairs = static()  # the padding whose taps count
    algorithm: str = static()  # "taps" or "axes"


def _counts(w: Window, size: Ints, counted: Pairs) -> np.ndarray:
    """Number of taps that each mean is over, [*M, 1], at least 1."""
    counts = np.ones((), int)
    for axis, (n, m, (low, high)) in enumerate(zip(size, w.output_size(size), counted, strict=True)):
        first = np.arange(m)[:, None] * w.stride[axis] - w.padding[axis][0]
        reads = first + np.arange(w.kernel[axis]) * w.dilation[axis]
        along = np.sum((reads >= -low) & (reads < n + high), 1)
        counts = counts[..., None] * np.maximum(1, along)
    return counts[..., None]


def _counted(x, w: Window, padding: PaddingLike, include_pad: bool) -> Pairs:
    size = x.shape[1:-1]
    return resolved_padding("avg_pool", padding, size, w) if include_pad else ((0, 0),) * len(size)


def avg_pool_fwd(
    x: Images,
    *,
    window: IntLike,
    stride: IntLike | None = None,
    padding: PaddingLike = "VALID",
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    algorithm: str | None = None,
) -> tuple[Pooled, AvgPoolResiduals]:
    """The mean over every window.

    Args:
        x: images, [N, *S, C] with 1, 2 or 3 spatial axes S.
        window: size of the window, an int or one per spatial axis.
        stride: step of the window; by default the window itself, so that windows do not overlap.
        padding: as for `conv`; padding is zero.
        ceil_mode: whether a last window counts that hangs over the high edge, if it starts before it.
        count_include_pad: whether the mean is over all of the window but its overhang (PyTorch's default),
            or only over its part inside the image.
        algorithm: "taps", all taps of a window (of at most 64) in one loop, or "axes", one axis of it after
            the other, forward and backward; by default what was measured to be faster.

    Returns:
        [N, *M, C] in x's dtype; sums are accumulated in at least float32.

    Raises:
        TypeError: x is not floating point.
        ValueError: shapes or configuration that do not fit together.
    """
    w, size = geometry("avg_pool", x, window, stride, padding, ceil_mode=ceil_mode), x.shape[1:-1]
    counted = _counted(x, w, padding, count_include_pad)
    algorithm = sums.choose(w, algorithm)
    total = sums.window_sum(x, w, algorithm)
    y = total / _counts(w, size, counted).astype(total.dtype)
    return y.astype(x.dtype), AvgPoolResiduals(size, w, counted, algorithm)


def avg_pool_bwd(res: AvgPoolResiduals, dy: Pooled) -> tuple[Images]:
    wide = widen(dy)
    share = wide / _counts(res.window, res.size, res.counted).astype(wide.dtype)
    return (sums.window_sum_adjoint(share, res.window, res.size, res.algorithm),)


def avg_pool_reference(
    x, *, window, stride=None, padding="VALID", ceil_mode=False, count_include_pad=False, algorithm=None
):
    w = geometry("avg_pool", x, window, stride, padding, ceil_mode=ceil_mode)
    counted = _counted(x, w, padding, count_include_pad)
    ones = taps.pad(jnp.ones((1, *x.shape[1:-1], 1), x.dtype), counted, 1.0)
    rest = [(p[0] - c[0], p[1] - c[1]) for p, c in zip(w.padding, counted, strict=True)]
    counts = sum(taps.gather(ones, w._replace(padding=tuple(rest))))
    return sum(taps.gather(x, w)) / jnp.maximum(counts, 1)  # pyright: ignore


def _avg_pool_check(x, *, window, stride, padding, ceil_mode, count_include_pad, algorithm) -> None:
    check_images("avg_pool", x)
    check.choice("avg_pool", "count_include_pad", count_include_pad, (True, False))
    check_algorithm(
        "avg_pool", algorithm, geometry("avg_pool", x, window, stride, padding, ceil_mode=ceil_mode)
    )


avg_pool = Rule(avg_pool_fwd, avg_pool_bwd, avg_pool_reference, _avg_pool_check)
