"""Pooling: the maximum or the mean over windows, or over the whole image.

Shapes.  x, dx [N, *S, C];  y, dy [N, *M, C].  t runs over the window's taps, i over outputs, j over inputs;
r(i, t) = i s + t d - lo is the input that output i reads through tap t.

Maximum.  Padding is -infinity and is never chosen.

    forward     y[i] = max_t x[r(i, t)] = x[r(i, t*)]       t* = the tap that holds the maximum
    backward    for inputs near x the same t* wins, so y'[i] = x'[r(i, t*)] and
                dx[j] = sum of dy[i] over all i with r(i, t*) = j

Kinks: where q > 1 taps hold the maximum ("ties"),
    ties="first"    t* is the first of them in row-major order, as in PyTorch and XLA
    ties="split"    each of the q gets dy[i] / q, the mean of the one-sided choices, as in `jnp.max`
A NaN in the window is its maximum and takes the gradient.

Mean.  count[i] is the number of taps of the window, or (count_include_pad=False) of those inside x:

    forward     y[i] = sum_t x[r(i, t)] / count[i]          with zeros in the padding
    backward    linear, so dx[j] = sum over all (i, t) with r(i, t) = j of dy[i] / count[i]

Global pools take the maximum (first in row-major order) or the mean over all of S, and drop the axes.

Reference.  Goodfellow, Bengio & Courville 2016, Deep Learning, section 9.3; PyTorch's window conventions.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from jcnn import check
from jcnn.geometry import IntLike, Ints, PaddingLike, Window, window
from jcnn.kernels import accumulator, pool as kernel, taps, widen
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Images = Float[Array, "n *s c"]
Pooled = Float[Array, "n *m c"]


def _geometry(op: str, x: Array, size, stride, padding, dilation: IntLike = 1) -> Window:
    """The window of a pool over x; its stride is the window itself unless given."""
    stride = size if stride is None else stride
    return window(op, size, size=x.shape[1:-1], stride=stride, padding=padding, dilation=dilation)


def _check_images(op: str, x: Array) -> None:
    check.floating(op, x=x)
    check.ranks(op, "x", x, range(3, 6), "[N, *S, C] with 1, 2 or 3 spatial axes")


@residuals
class MaxPoolResiduals:
    winner: UInt8[Array, "n *m c"] | Int[Array, "n *m c"] | None  # ties="first": the tap of every maximum
    x: Images | None  # ties="split": the input, to find the taps that tie
    size: Ints = static()  # spatial shape of x
    window: Window = static()


def max_pool_fwd(
    x: Images,
    *,
    window: IntLike,
    stride: IntLike | None = None,
    padding: PaddingLike = "VALID",
    dilation: IntLike = 1,
    ties: str = "first",
) -> tuple[Pooled, MaxPoolResiduals]:
    """The maximum over every window.

    Args:
        x: images, [N, *S, C] with 1, 2 or 3 spatial axes S.
        window: size of the window, an int or one per spatial axis.
        stride: step of the window; by default the window itself, so that windows do not overlap.
        padding: as for `conv`; padding is -infinity.
        dilation: distance between neighbouring taps of the window.
        ties: where the gradient goes when several taps hold the maximum: "first" or "split".

    Returns:
        [N, *M, C] in x's dtype, with M = floor((S + low + high - dilation (window - 1) - 1) / stride) + 1.

    Raises:
        TypeError: x is not floating point.
        ValueError: shapes or configuration that do not fit together.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> jcnn.max_pool(jnp.arange(9.0).reshape(1, 3, 3, 1), window=2, stride=1)[0, :, :, 0]
        Array([[4., 5.],
               [7., 8.]], dtype=float32)
    """
    w = _geometry("max_pool", x, window, stride, padding, dilation)
    y, winner = kernel.argmax(x, w)
    first = ties == "first"
    return y, MaxPoolResiduals(winner if first else None, None if first else x, x.shape[1:-1], w)


def max_pool_bwd(res: MaxPoolResiduals, dy: Pooled) -> tuple[Images]:
    if res.winner is not None:
        return (kernel.put(dy, res.winner, res.window, res.size),)
    assert res.x is not None
    reads = taps.gather(res.x, res.window, fill=-jnp.inf)
    inside = taps.gather(jnp.ones((1, *res.size, 1), bool), res.window, fill=False)
    y = jnp.max(jnp.stack(reads), 0)
    wins = [((a == y) | jnp.isnan(a)) & real for a, real in zip(reads, inside, strict=True)]
    wide = widen(dy)
    share = wide / sum(win.astype(wide.dtype) for win in wins)
    parts = [jnp.where(win, share, 0) for win in wins]
    return (taps.scatter(parts, res.window, res.size),)


def max_pool_reference(x, *, window, stride=None, padding="VALID", dilation=1, ties="first"):
    w = _geometry("max_pool", x, window, stride, padding, dilation)
    reads = jnp.stack(taps.gather(x, w, fill=-jnp.inf))
    if ties == "split":
        return jnp.max(reads, 0)
    return jnp.take_along_axis(reads, jnp.argmax(reads, 0)[None], 0)[0]


def _max_pool_check(x, *, window, stride, padding, dilation, ties) -> None:
    _check_images("max_pool", x)
    check.choice("max_pool", "ties", ties, ("first", "split"))
    _geometry("max_pool", x, window, stride, padding, dilation)


max_pool = Rule(max_pool_fwd, max_pool_bwd, max_pool_reference, _max_pool_check)


@residuals
class AvgPoolResiduals:
    size: Ints = static()  # spatial shape of x
    window: Window = static()
    count_include_pad: bool = static()


def _counts(w: Window, size: Ints, include_pad: bool) -> np.ndarray:
    """Number of taps that each mean is over, [*M, 1]; 1 where a window sees nothing but padding."""
    counts = np.ones((), int)
    for axis, (n, k) in enumerate(zip(size, w.kernel, strict=True)):
        along = [k if include_pad else max(1, len(inside)) for inside in w.taps_inside(axis, n)]
        counts = counts[..., None] * np.array(along, int)
    return counts[..., None]


def avg_pool_fwd(
    x: Images,
    *,
    window: IntLike,
    stride: IntLike | None = None,
    padding: PaddingLike = "VALID",
    count_include_pad: bool = False,
) -> tuple[Pooled, AvgPoolResiduals]:
    """The mean over every window.

    Args:
        x: images, [N, *S, C] with 1, 2 or 3 spatial axes S.
        window: size of the window, an int or one per spatial axis.
        stride: step of the window; by default the window itself, so that windows do not overlap.
        padding: as for `conv`; padding is zero.
        count_include_pad: whether the mean is over all of the window (PyTorch's default), or only over its
            part inside the image.

    Returns:
        [N, *M, C] in x's dtype; sums are accumulated in at least float32.

    Raises:
        TypeError: x is not floating point.
        ValueError: shapes or configuration that do not fit together.
    """
    w, size = _geometry("avg_pool", x, window, stride, padding), x.shape[1:-1]
    total = kernel.window_sum(x, w)
    y = total / _counts(w, size, count_include_pad).astype(total.dtype)
    return y.astype(x.dtype), AvgPoolResiduals(size, w, count_include_pad)


def avg_pool_bwd(res: AvgPoolResiduals, dy: Pooled) -> tuple[Images]:
    wide = widen(dy)
    share = wide / _counts(res.window, res.size, res.count_include_pad).astype(wide.dtype)
    return (kernel.window_sum_adjoint(share, res.window, res.size),)


def avg_pool_reference(x, *, window, stride=None, padding="VALID", count_include_pad=False):
    w = _geometry("avg_pool", x, window, stride, padding)
    counted = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
    counts = sum(taps.gather(counted, w, fill=float(count_include_pad)))
    return sum(taps.gather(x, w)) / jnp.maximum(counts, 1)  # pyright: ignore


def _avg_pool_check(x, *, window, stride, padding, count_include_pad) -> None:
    _check_images("avg_pool", x)
    check.choice("avg_pool", "count_include_pad", count_include_pad, (True, False))
    _geometry("avg_pool", x, window, stride, padding)


avg_pool = Rule(avg_pool_fwd, avg_pool_bwd, avg_pool_reference, _avg_pool_check)


def _check_global(op: str, x: Array) -> None:
    _check_images(op, x)
    if 0 in x.shape[1:-1]:
        check.fail(op, "x", f"shape {x.shape}", "at least one pixel on every spatial axis")


@residuals
class GlobalMaxPoolResiduals:
    winner: Int[Array, "n 1 c"]  # where the maximum is, counted in row-major order over S
    size: Ints = static()  # spatial shape of x


def global_max_pool_fwd(x: Images) -> tuple[Float[Array, "n c"], GlobalMaxPoolResiduals]:
    """The maximum over all spatial axes: [N, *S, C] -> [N, C]; ties go to the first pixel, row by row.

    Raises:
        TypeError: x is not floating point.
        ValueError: x is not [N, *S, C], or has no pixels.
    """
    pixels = _pixels(x)
    y = jnp.max(pixels, 1, keepdims=True)
    positions = jnp.arange(pixels.shape[1], dtype=jnp.int32)[:, None]
    # The first pixel that holds the maximum: two plain reductions are 30 times as fast as an argmax on CPU.
    holds = (pixels == y) | jnp.isnan(pixels)
    winner = jnp.min(jnp.where(holds, positions, pixels.shape[1]), 1, keepdims=True)
    return y[:, 0], GlobalMaxPoolResiduals(winner, x.shape[1:-1])


def global_max_pool_bwd(res: GlobalMaxPoolResiduals, dy: Float[Array, "n c"]) -> tuple[Images]:
    positions = jnp.arange(math.prod(res.size), dtype=res.winner.dtype)[:, None]
    dx = jnp.where(positions == res.winner, dy[:, None], 0)
    return (dx.reshape(dy.shape[0], *res.size, dy.shape[1]),)


def global_max_pool_reference(x):
    pixels = _pixels(x)
    return jnp.take_along_axis(pixels, jnp.argmax(pixels, 1, keepdims=True), 1)[:, 0]


def _pixels(x: Array) -> Array:
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


global_max_pool = Rule(
    global_max_pool_fwd,
    global_max_pool_bwd,
    global_max_pool_reference,
    functools.partial(_check_global, "global_max_pool"),
)


@residuals
class GlobalAvgPoolResiduals:
    size: Ints = static()  # spatial shape of x


def global_avg_pool_fwd(x: Images) -> tuple[Float[Array, "n c"], GlobalAvgPoolResiduals]:
    """The mean over all spatial axes: [N, *S, C] -> [N, C], accumulated in at least float32.

    Raises:
        TypeError: x is not floating point.
        ValueError: x is not [N, *S, C], or has no pixels.
    """
    y = jnp.mean(x, range(1, x.ndim - 1), accumulator(x.dtype)).astype(x.dtype)
    return y, GlobalAvgPoolResiduals(x.shape[1:-1])


def global_avg_pool_bwd(res: GlobalAvgPoolResiduals, dy: Float[Array, "n c"]) -> tuple[Images]:
    n, c = dy.shape
    share = widen(dy) / math.prod(res.size)
    pixels = jnp.expand_dims(share, range(1, len(res.size) + 1))
    return (jnp.broadcast_to(pixels, (n, *res.size, c)),)


def global_avg_pool_reference(x):
    return jnp.mean(x, range(1, x.ndim - 1))


global_avg_pool = Rule(
    global_avg_pool_fwd,
    global_avg_pool_bwd,
    global_avg_pool_reference,
    functools.partial(_check_global, "global_avg_pool"),
)
