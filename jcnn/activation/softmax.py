"""The softmax over one axis or several, and its logarithm.

Shapes.  x, y, e, p, dx, dy: any shape, all the same.

Forward, with sums and the maximum over `axis`: e = exp(x - max x), p = e / sum(e).

    softmax        y = p
    log_softmax    y = x - max x - log(sum(e))

Backward.  From log p = x - log(sum(exp(x))): (log p)' = x' - sum(p x'), so p' = p (x' - sum(p x')).
Requiring sum(dy y') = sum(dx x'):

    softmax        dx = p (dy - sum(p dy))                                               kept: y
    log_softmax    dx = dy - p sum(dy) = dy - e (sum(dy) / sum(e))                       kept: e, sum(e)

From log_softmax's y, p would be an exponential function once more, of what has been rounded to x's dtype.

Kinks.  None.
Reference.  Bridle 1990, "Training stochastic model recognition algorithms as networks".
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jcnn import check
from jcnn.activation.common import Values, activation
from jcnn.kernels import widen
from jcnn.residuals import residuals, static

Axis = int | tuple[int, ...]


@residuals
class SoftmaxResiduals:
    y: Values  # the output
    axis: Axis = static()


@residuals
class LogSoftmaxResiduals:
    e: Values  # exp(x - max x)
    total: Float[Array, "*rows"]  # its sum over the axis, in the accumulation dtype
    axis: Axis = static()


def softmax_fwd(x: Values, *, axis: Axis = -1) -> tuple[Values, SoftmaxResiduals]:
    """exp(x) / sum(exp(x)) over `axis`, an int or several; safe for large x.

    Raises TypeError unless x is floating point, ValueError if it has no such axis.
    """
    e = jnp.exp(widen(x) - jnp.max(widen(x), axis, keepdims=True))
    y = (e / jnp.sum(e, axis, keepdims=True)).astype(x.dtype)
    return y, SoftmaxResiduals(y, axis)


def softmax_bwd(res: SoftmaxResiduals, dy: Values) -> tuple[Values]:
    y, dy = widen(res.y), widen(dy)
    return (y * (dy - jnp.sum(y * dy, res.axis, keepdims=True)),)


def softmax_reference(x, *, axis=-1):
    return jax.nn.softmax(x, axis)


def log_softmax_fwd(x: Values, *, axis: Axis = -1) -> tuple[Values, LogSoftmaxResiduals]:
    """x - log(sum(exp(x))) over `axis`, an int or several; safe for large x.

    Raises TypeError unless x is floating point, ValueError if it has no such axis.
    """
    shifted = widen(x) - jnp.max(widen(x), axis, keepdims=True)
    e = jnp.exp(shifted)
    total = jnp.sum(e, axis, keepdims=True)
    return (shifted - jnp.log(total)).astype(x.dtype), LogSoftmaxResiduals(e.astype(x.dtype), total, axis)


def log_softmax_bwd(res: LogSoftmaxResiduals, dy: Values) -> tuple[Values]:
    dy = widen(dy)
    share = -jnp.sum(dy, res.axis, keepdims=True) / res.total
    return (dy + widen(res.e) * share,)  # on CPU, XLA subtracts products more slowly than it adds them


def log_softmax_reference(x, *, axis=-1):
    return jax.nn.log_softmax(x, axis)


def _check_axis(op, x, *, axis):
    axes = axis if isinstance(axis, tuple) else (axis,)
    if not all(isinstance(a, int) and -x.ndim <= a < x.ndim for a in axes):
        check.fail(op, "axis", repr(axis), f"an axis of x, which has shape {x.shape}")
    for a in axes:
        if x.shape[a] == 0:
            check.fail(op, "x", f"shape {x.shape}", f"at least one value on axis {a}")


softmax = activation(softmax_fwd, softmax_bwd, softmax_reference, _check_axis)
log_softmax = activation(log_softmax_fwd, log_softmax_bwd, log_softmax_reference, _check_axis)
