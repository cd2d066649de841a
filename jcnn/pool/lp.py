"""The p-norm of windows: between the sum (p = 1) and the maximum (p -> infinity) of absolute values.

Shapes.  x, dx [N, *S, C];  y, dy [N, *M, C].  t runs over the window's taps, i over outputs, j over inputs;
r(i, t) = i s + t d - lo is the input that output i reads through tap t, 0 in the padding.

Forward.    y[i] = (sum_t |x[r(i, t)]|^p)^(1/p)
                 = a (sum_t (|x[r(i, t)]| / a)^p)^(1/p)       a = max_t |x[r(i, t)]|

in the second form: there no power overflows, and only those underflow that do not count.

Backward.   d y / d x = y^(1-p) |x|^(p-1) sign(x), so
            dx[j] = sum over all (i, t) with r(i, t) = j of  dy[i] (|x[j]| / y[i])^(p-1) sign(x[j])

in which the ratio is at most 1.  A norm over two axes is the norm over one of them of the norms over the
other: a large window goes one axis at a time, forward and back.

Kinks.  At x[j] = 0 the derivative is 0: for p = 1 by sign(0) = 0 as for abs, for p > 1 it is, but where the
whole window is 0.  There the norm has a tip, of whose slopes 0 is the least.

Reference.  Sermanet, Chintala & LeCun 2012, arXiv:1204.3968, section 2.2; PyTorch's zero gradient at the tip.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jcnn import check
from jcnn.geometry import IntLike, PaddingLike, Window
from jcnn.kernels import taps, widen
from jcnn.pool.windows import Images, Pooled, check_algorithm, check_images, geometry
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

UNROLLED_TAPS = 32  # larger windows go one axis at a time


@residuals
class LpPoolResiduals:
    x: Images
    norms: tuple[Array, ...]  # over the windows of `passes` in turn, in the accumulation dtype; y the last
    passes: tuple[Window, ...] = static()
    p: int | float = static()


def _power(a: Array, p: int | float) -> Array:
    """a^p for a >= 0, with derivative 0 at a = 0."""
    if p == int(p):
        return a ** int(p)
    zero = a == 0
    return jnp.where(zero, 0, jnp.exp(p * jnp.log(jnp.where(zero, 1, a))))


def _norm(x: Array, w: Window, p: int | float) -> Array:
    sizes = [jnp.abs(read) for read in taps.gather(x, w)]
    a = functools.reduce(jnp.maximum, sizes)
    tiny = jnp.finfo(a.dtype).tiny
    # The norm does not depend on the scale, and neither does its derivative.
    scale = lax.stop_gradient(1 / jnp.where((a > tiny) & (a < jnp.inf), a, 1))
    total = functools.reduce(jnp.add, [_power(size * scale, p) for size in sizes])
    return _power(total, 1 / p) / scale


def _norm_adjoint(dy: Array, x: Array, y: Array, w: Window, p: int | float) -> Array:
    """The cotangent of x for that of y = _norm(x)."""

    def part(read: Array) -> Array:
        zero = (read == 0) | (y == 0)
        ratio = jnp.where(zero, 1, jnp.abs(read)) / jnp.where(zero, 1, y)
        return jnp.where(zero, 0, dy * jnp.sign(read) * _power(ratio, p - 1))

    return taps.scatter([part(read) for read in taps.gather(x, w)], w, x.shape[1:-1])


def lp_pool_fwd(
    x: Images,
    *,
    window: IntLike,
    p: int | float,
    stride: IntLike | None = None,
    padding: PaddingLike = "VALID",
    ceil_mode: bool = False,
    algorithm: str | None = None,
) -> tuple[Pooled, LpPoolResiduals]:
    """The p-norm of every window, (sum |x|^p)^(1/p).

    Args:
        x: images, [N, *S, C] with 1, 2 or 3 spatial axes S.
        window: size of the window, an int or one per spatial axis.
        p: a number >= 1; for infinity take the `max_pool` of |x|.
        stride: step of the window; by default the window itself, so that windows do not overlap.
        padding: as for `conv`; padding is zero.
        ceil_mode: whether a last window counts that hangs over the high edge, if it starts before it.
        algorithm: "taps", all taps of a window (of at most 64) in one loop, or "axes", one axis of it after
            the other, forward and backward; by default what was measured to be faster.

    Returns:
        [N, *M, C] in x's dtype; powers are summed in at least float32, and do not overflow if y does not.

    Raises:
        TypeError: x is not floating point.
        ValueError: shapes or configuration that do not fit together.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> jcnn.lp_pool(jnp.array([3.0, -4.0, 0.0, 0.0]).reshape(1, 4, 1), window=2, p=2).ravel()
        Array([5., 0.], dtype=float32)
    """
    w = geometry("lp_pool", x, window, stride, padding, ceil_mode=ceil_mode)
    passes = taps.passes(w, taps.choose(w, algorithm, UNROLLED_TAPS))
    norms = [widen(x)]
    for part in passes:
        norms.append(_norm(norms[-1], part, p))
    return norms[-1].astype(x.dtype), LpPoolResiduals(x, tuple(norms[1:]), passes, p)


def lp_pool_bwd(res: LpPoolResiduals, dy: Pooled) -> tuple[Images]:
    dx, values = widen(dy), (widen(res.x), *res.norms)
    for w, before, after in reversed(list(zip(res.passes, values[:-1], values[1:], strict=True))):
        dx = _norm_adjoint(dx, before, after, w, res.p)
    return (dx,)


def lp_pool_reference(x, *, window, p, stride=None, padding="VALID", ceil_mode=False, algorithm=None):
    w = geometry("lp_pool", x, window, stride, padding, ceil_mode=ceil_mode)
    total = sum((read * jnp.sign(read)) ** p for read in taps.gather(x, w))  # abs, with slope 0 at 0
    zero = total == 0
    return jnp.where(zero, 0, jnp.where(zero, 1, total) ** (1 / p))


def _lp_pool_check(x, *, window, p, stride, padding, ceil_mode, algorithm) -> None:
    check_images("lp_pool", x)
    check.number("lp_pool", "p", p, 1)
    check_algorithm(
        "lp_pool", algorithm, geometry("lp_pool", x, window, stride, padding, ceil_mode=ceil_mode)
    )


lp_pool = Rule(lp_pool_fwd, lp_pool_bwd, lp_pool_reference, _lp_pool_check)
