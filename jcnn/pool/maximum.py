"""Maximum over windows, and its inverse as far as it has one.

Shapes.  x, dx [N, *S, C];  y, dy, indices [N, *M, C].  t runs over the window's taps, i over outputs, j over
inputs;  r(i, t) = i s + t d - lo is the input that output i reads through tap t.  Padding is -infinity and is
never chosen.

Forward.    y[i] = max_t x[r(i, t)] = x[r(i, t*)]       t* = the tap that holds the maximum
            indices[i] = r(i, t*)                       in row-major order of S; -1 if i reads only padding

Backward.   For inputs near x the same t* wins, so y'[i] = x'[r(i, t*)] and
            dx[j] = sum of dy[i] over all i with r(i, t*) = j

Unpooling.  Every y[i] goes back to where it was: x[indices[i]] = y[i], and 0 elsewhere.  Overlapping windows
may share a winner; of several i with the same index the last in row-major order, i*, stays. Then

            x[j] = y[i*(j)]      and      dy[i] = dx[indices[i]] if i is the i* of its index, else 0

Kinks.  Where q > 1 taps hold the maximum ("ties"),
    ties="first"    t* is the first of them in row-major order, as in PyTorch and XLA
    ties="split"    each of the q gets dy[i] / q, the mean of the one-sided choices, as in `jnp.max`
A NaN in the window is its maximum and takes the gradient, the first one of several.  A window of nothing but
padding has the maximum -infinity and gives its gradient to nobody.  Unpooling has none: linear in y.

Reference.  Goodfellow, Bengio & Courville 2016, Deep Learning, section 9.3; PyTorch's window conventions;
unpooling: Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Int, UInt

from jcnn import check
from jcnn.geometry import IntLike, Ints, PaddingLike, Window, explicit_padding, sizes, window as window_of
from jcnn.kernels import maxima, taps
from jcnn.pool.windows import Images, Pooled, check_algorithm, check_images, geometry
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Indices = Int[Array, "n *m c"]
Indexed = tuple[Pooled, Indices]


@residuals
class MaxPoolResiduals:
    winner: UInt[Array, "n *m c"] | None  # ties="first": the tap of every maximum, a byte for up to 256 taps
    x: Images | None  # ties="split": the input, to find the taps that tie
    size: Ints = static()  # spatial shape of x
    window: Window = static()
    algorithm: str = static()  # "taps" or "axes"


def max_pool_fwd(
    x: Images,
    *,
    window: IntLike,
    stride: IntLike | None = None,
    padding: PaddingLike = "VALID",
    dilation: IntLike = 1,
    ceil_mode: bool = False,
    ties: str = "first",
    return_indices: bool = False,
    algorithm: str | None = None,
) -> tuple[Pooled | Indexed, MaxPoolResiduals]:
    """The maximum over every window.

    Args:
        x: images, [N, *S, C] with 1, 2 or 3 spatial axes S.
        window: size of the window, an int or one per spatial axis.
        stride: step of the window; by default the window itself, so that windows do not overlap.
        padding: as for `conv`; padding is -infinity, and may be wider than the window.
        dilation: distance between neighbouring taps of the window.
        ceil_mode: whether a last window counts that hangs over the high edge, if it starts before it.
        ties: where the gradient goes when several taps hold the maximum: "first" or "split".
        return_indices: whether to return where the maxima are, too (the first of those that tie).
        algorithm: "taps", all taps of a window (of at most 64) in one loop, or "axes", one axis of it after
            the other, forward and backward; by default what was measured to be faster.

    Returns:
        y [N, *M, C] in x's dtype, with M = floor((S + low + high - dilation (window - 1) - 1) / stride) + 1,
        or the ceiling of that; with `return_indices` the pair (y, indices), indices int32 like y: positions
        in row-major order of S, -1 for a window that lies in the padding.

    Raises:
        TypeError: x is not floating point.
        ValueError: shapes or configuration that do not fit together.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> jcnn.max_pool(jnp.arange(9.0).reshape(1, 3, 3, 1), window=2, stride=1)[0, :, :, 0]
        Array([[4., 5.],
               [7., 8.]], dtype=float32)
    """
    w, size = geometry("max_pool", x, window, stride, padding, dilation, ceil_mode), x.shape[1:-1]
    algorithm = maxima.choose(w, algorithm)
    y, winner = maxima.argmax(x, w, algorithm)
    first = ties == "first"
    res = MaxPoolResiduals(winner if first else None, None if first else x, size, w, algorithm)
    return ((y, maxima.positions(winner, w, size)) if return_indices else y), res


def max_pool_bwd(res: MaxPoolResiduals, dy: Pooled | tuple) -> tuple[Images]:
    dy = dy[0] if isinstance(dy, tuple) else dy
    if res.winner is not None:
        return (maxima.put(dy, res.winner, res.window, res.size, res.algorithm),)
    assert res.x is not None
    return (maxima.share(dy, res.x, res.window, res.algorithm),)


def max_pool_reference(
    x,
    *,
    window,
    stride=None,
    padding="VALID",
    dilation=1,
    ceil_mode=False,
    ties="first",
    return_indices=False,
    algorithm=None,
):
    w = geometry("max_pool", x, window, stride, padding, dilation, ceil_mode)
    reads = jnp.stack(taps.gather(x, w, fill=-jnp.inf))
    place = jnp.arange(math.prod(x.shape[1:-1]), dtype=jnp.int32).reshape(1, *x.shape[1:-1], 1)
    places = jnp.stack(taps.gather(place, w, fill=-1.0))
    # An input comes before the padding, even if it is -infinity, too.
    real = (jnp.max(reads, 0) == reads) & (places >= 0) | jnp.isnan(reads)
    winner = jnp.argmax(real, 0)[None]
    y = jnp.max(reads, 0) if ties == "split" else jnp.take_along_axis(reads, winner, 0)[0]
    if not return_indices:
        return y
    return y, jnp.take_along_axis(jnp.broadcast_to(places, reads.shape), winner, 0)[0]


def _max_pool_check(
    x, *, window, stride, padding, dilation, ceil_mode, ties, return_indices, algorithm
) -> None:
    check_images("max_pool", x)
    check.choice("max_pool", "ties", ties, ("first", "split"))
    check.choice("max_pool", "return_indices", return_indices, (True, False))
    w = geometry("max_pool", x, window, stride, padding, dilation, ceil_mode)
    check_algorithm("max_pool", algorithm, w)


max_pool = Rule(max_pool_fwd, max_pool_bwd, max_pool_reference, _max_pool_check)


def _unpooled_size(y: Array, size: IntLike, stride, padding: PaddingLike, output_size) -> Ints:
    """The spatial shape S of the images that were pooled to y."""
    op, pooled = "max_unpool", y.shape[1:-1]
    rank = len(pooled)
    if output_size is None:
        if isinstance(padding, str) and padding != "VALID":
            check.fail(op, "padding", repr(padding), "numbers or 'VALID', or else an output_size")
        pairs = explicit_padding(op, 0 if isinstance(padding, str) else padding, rank)
        tap = sizes(op, "window", size, rank)
        step = tap if stride is None else sizes(op, "stride", stride, rank)
        parts = zip(pooled, tap, step, pairs, strict=True)
        output_size = tuple(max(0, (m - 1) * s + k - lo - hi) for m, k, s, (lo, hi) in parts)
    wanted = sizes(op, "output_size", output_size, rank)
    step = size if stride is None else stride
    pools = [
        window_of(op, size, size=wanted, stride=step, padding=padding, ceil_mode=ceil).output_size(wanted)
        for ceil in (False, True)
    ]
    if any(m not in both for m, *both in zip(pooled, *pools, strict=True)):
        check.fail(op, "output_size", wanted, f"a shape that is pooled to y's {pooled}, not to {pools[0]}")
    return wanted


@residuals
class MaxUnpoolResiduals:
    kept: Indices  # the indices, -1 for every y that a later one replaces


def _kept(indices: Indices, size: Ints) -> Indices:
    """The indices, -1 for all but the last entry (in row-major order of the pooled plane) with its index."""
    plane = indices.shape[1:-1]
    order = jnp.arange(1, math.prod(plane) + 1, dtype=jnp.int32).reshape(1, *plane, 1)
    order = jnp.broadcast_to(order, indices.shape)
    last = maxima.put_at(order, indices, size, "max")
    return jnp.where(maxima.take_at(last, indices) == order, indices, -1)


def max_unpool_fwd(
    y: Pooled,
    indices: Indices,
    *,
    window: IntLike,
    stride: IntLike | None = None,
    padding: PaddingLike = "VALID",
    output_size: IntLike | None = None,
) -> tuple[Images, MaxUnpoolResiduals]:
    """Every maximum of a `max_pool` back in its place, zeros elsewhere.

    Args:
        y: what was pooled, [N, *M, C] with 1, 2 or 3 spatial axes M.
        indices: integers like y, as from `max_pool(..., return_indices=True)`: where each y[n, i, c] goes,
            in row-major order of S.  Of several y with one index the last (in row-major order of M) stays;
            those outside of the image are dropped.
        window: size of the pool's window, an int or one per spatial axis.
        stride: step of the pool's window; by default the window itself.
        padding: padding of the pool.
        output_size: spatial shape S, an int or one per axis, if it is not (M - 1) stride + window - padding:
            the stride may have left the last inputs unread, or the last window may have hung over.

    Returns:
        [N, *S, C] in y's dtype.

    Raises:
        TypeError: y is not floating point, or indices are not signed integers.
        ValueError: shapes or configuration that do not fit together.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> x = jnp.array([1.0, 5.0, 2.0, 3.0]).reshape(1, 4, 1)
        >>> jcnn.max_unpool(*jcnn.max_pool(x, window=2, return_indices=True), window=2).ravel()
        Array([0., 5., 0., 3.], dtype=float32)
    """
    size = _unpooled_size(y, window, stride, padding, output_size)
    kept = _kept(indices, size)
    return maxima.put_at(y, kept, size), MaxUnpoolResiduals(kept)


def max_unpool_bwd(res: MaxUnpoolResiduals, dx: Images) -> tuple[Pooled, None]:
    return maxima.take_at(dx, res.kept), None


def max_unpool_reference(y, indices, *, window, stride=None, padding="VALID", output_size=None):
    size = _unpooled_size(y, window, stride, padding, output_size)
    n, *plane, c = y.shape
    x = jnp.zeros((n, math.prod(size), c), y.dtype)
    place = jnp.arange(math.prod(size))[:, None]
    values, at = (a.reshape(n, math.prod(plane), c) for a in (y, indices))
    for i in range(values.shape[1]):
        x = jnp.where(at[:, i, None] == place, values[:, i, None], x)
    return x.reshape(n, *size, c)


def _max_unpool_check(y, indices, *, window, stride, padding, output_size) -> None:
    op = "max_unpool"
    check.floating(op, y=y)
    check.images(op, y, "y", "[N, *M, C]")
    if not jnp.issubdtype(indices.dtype, jnp.signedinteger):
        check.fail(op, "indices", f"dtype {indices.dtype}", "signed integers", TypeError)
    check.shape(op, "indices", indices, y.shape, "like y")
    _unpooled_size(y, window, stride, padding, output_size)


max_unpool = Rule(max_unpool_fwd, max_unpool_bwd, max_unpool_reference, _max_unpool_check)
