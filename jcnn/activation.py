"""Activations: elementwise functions, and the softmax over an axis.

Shapes.  x, y, dx, dy: any shape, all the same.

Elementwise.  Forward y = f(x).  Backward: y' = f'(x) x', so dx = f'(x) dy.  With s = sigmoid(x), P and p the
normal distribution and density, u = tanh(c (x + a x^3)), c = sqrt(2 / pi), a = 0.044715:

    op             f(x)                          f'(x)                                   kept
    relu           max(x, 0)                     1 if x > 0 else 0                       x > 0
    relu6          min(max(x, 0), 6)             1 if 0 < x < 6 else 0                   0 < x < 6
    leaky_relu     x if x > 0 else alpha x       1 if x > 0 else alpha                   x > 0
    sigmoid        1 / (1 + exp(-x))             y (1 - y)                               y
    tanh           tanh(x)                       1 - y^2                                 y
    silu           x s                           s (1 + x (1 - s))                       x
    gelu           x P(x)                        P(x) + x p(x)                           x
    gelu, approx.  x (1 + u) / 2                 (1 + u) / 2 + x (1 - u^2) c (1 + 3 a x^2) / 2

Softmax.  Forward, with sums over `axis`: y = exp(x - max x) / sum(exp(x - max x)).  From log y = x - log sum
exp x, (log y)' = x' - sum(y x') and y' = y (x' - sum(y x')).  Backward, from sum(dy y') = sum(dx x'):

    softmax        dx = y (dy - sum(y dy))                                               kept: y
    log_softmax    dx = dy - exp(y) sum(dy)                                              kept: y

Kinks.  relu'(0) = 0, as everywhere in deep learning, and relu6'(0) = relu6'(6) = 0; leaky_relu'(0) = alpha,
its slope from below.

Reference.  Ramachandran et al. 2017, arXiv:1710.05941 (silu); Hendrycks & Gimpel 2016, arXiv:1606.08415
(gelu); Maas et al. 2013 (leaky_relu); Howard et al. 2017, arXiv:1704.04861 (relu6).
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jcnn import check
from jcnn.kernels import widen
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Values = Float[Array, "*shape"]


@residuals
class Input:
    x: Values  # the input


@residuals
class Output:
    y: Values  # the output, where f' is simplest in terms of it


@residuals
class Positive:
    mask: Bool[Array, "*shape"]  # where x > 0 (relu6: and x < 6): a byte each, where x would take four
    negative_slope: float | int = static()


def _rule(forward, backward, reference, check_static=lambda op, x, **_: None) -> Rule:
    op = reference.__name__.removesuffix("_reference")

    def check_all(x, **config):
        check.floating(op, x=x)
        check_static(op, x, **config)

    return Rule(forward, backward, reference, check_all)


def relu_fwd(x: Values) -> tuple[Values, Positive]:
    """max(x, 0), elementwise; its derivative at 0 is 0.  Raises TypeError unless x is floating point."""
    return jnp.maximum(x, 0), Positive(x > 0, 0.0)


def relu_bwd(res: Positive, dy: Values) -> tuple[Values]:
    return (jnp.where(res.mask, dy, 0),)


def relu_reference(x):
    return jax.nn.relu(x)


relu = _rule(relu_fwd, relu_bwd, relu_reference)


def relu6_fwd(x: Values) -> tuple[Values, Positive]:
    """min(max(x, 0), 6), elementwise; its derivative at 0 and at 6 is 0.

    Raises TypeError unless x is floating point.
    """
    return jnp.clip(x, 0, 6), Positive((x > 0) & (x < 6), 0.0)


def relu6_reference(x):
    return jnp.minimum(jnp.maximum(x, 0), 6)


relu6 = _rule(relu6_fwd, relu_bwd, relu6_reference)


def leaky_relu_fwd(x: Values, *, negative_slope: float | int = 0.01) -> tuple[Values, Positive]:
    """x where x > 0, else negative_slope * x; its derivative at 0 is negative_slope.

    Raises TypeError unless x is floating point, ValueError unless the slope is a finite number.
    """
    mask = x > 0
    return jnp.where(mask, x, negative_slope * x), Positive(mask, negative_slope)


def leaky_relu_bwd(res: Positive, dy: Values) -> tuple[Values]:
    return (jnp.where(res.mask, dy, res.negative_slope * dy),)


def leaky_relu_reference(x, *, negative_slope=0.01):
    return jnp.where(x > 0, x, negative_slope * x)


def _check_slope(op, x, *, negative_slope):
    check.number(op, "negative_slope", negative_slope, -math.inf)


leaky_relu = _rule(leaky_relu_fwd, leaky_relu_bwd, leaky_relu_reference, _check_slope)


def sigmoid_fwd(x: Values) -> tuple[Values, Output]:
    """1 / (1 + exp(-x)), elementwise.  Raises TypeError unless x is floating point."""
    y = lax.logistic(x)
    return y, Output(y)


def sigmoid_bwd(res: Output, dy: Values) -> tuple[Values]:
    return (dy * res.y * (1 - res.y),)


def sigmoid_reference(x):
    return jax.nn.sigmoid(x)


sigmoid = _rule(sigmoid_fwd, sigmoid_bwd, sigmoid_reference)


def tanh_fwd(x: Values) -> tuple[Values, Output]:
    """Hyperbolic tangent, elementwise.  Raises TypeError unless x is floating point."""
    y = jnp.tanh(x)
    return y, Output(y)


def tanh_bwd(res: Output, dy: Values) -> tuple[Values]:
    return (dy * (1 + res.y) * (1 - res.y),)


def tanh_reference(x):
    return jnp.tanh(x)


tanh = _rule(tanh_fwd, tanh_bwd, tanh_reference)


def silu_fwd(x: Values) -> tuple[Values, Input]:
    """x sigmoid(x), elementwise; also called swish.  Raises TypeError unless x is floating point."""
    wide = widen(x)
    return (wide * lax.logistic(wide)).astype(x.dtype), Input(x)


def silu_bwd(res: Input, dy: Values) -> tuple[Values]:
    x = widen(res.x)
    s = lax.logistic(x)
    return (widen(dy) * s * (1 + x * (1 - s)),)


def silu_reference(x):
    return jax.nn.silu(x)


silu = _rule(silu_fwd, silu_bwd, silu_reference)

TANH_SCALE, TANH_CUBIC = math.sqrt(2 / math.pi), 0.044715  # c and a in the table


@residuals
class GeluResiduals:
    x: Values  # the input
    approximate: bool = static()


def _normal_cdf(x: Array) -> Array:
    return lax.erfc(-x / math.sqrt(2)) / 2


def gelu_fwd(x: Values, *, approximate: bool = False) -> tuple[Values, GeluResiduals]:
    """x P(x), elementwise, with the normal distribution P, or its tanh approximation.

    Raises TypeError unless x is floating point, ValueError unless `approximate` is a bool.
    """
    wide = widen(x)
    if approximate:
        y = wide * (1 + jnp.tanh(TANH_SCALE * (wide + TANH_CUBIC * wide**3))) / 2
    else:
        y = wide * _normal_cdf(wide)
    return y.astype(x.dtype), GeluResiduals(x, approximate)


def gelu_bwd(res: GeluResiduals, dy: Values) -> tuple[Values]:
    x = widen(res.x)
    if res.approximate:
        u = jnp.tanh(TANH_SCALE * (x + TANH_CUBIC * x**3))
        slope = (1 + u) / 2 + x * (1 - u**2) * TANH_SCALE * (1 + 3 * TANH_CUBIC * x**2) / 2
    else:
        slope = _normal_cdf(x) + x * jnp.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return (slope * widen(dy),)


def gelu_reference(x, *, approximate=False):
    return jax.nn.gelu(x, approximate=approximate)


def _check_approximate(op, x, *, approximate):
    check.choice(op, "approximate", approximate, (True, False))


gelu = _rule(gelu_fwd, gelu_bwd, gelu_reference, _check_approximate)

Axis = int | tuple[int, ...]


@residuals
class SoftmaxResiduals:
    y: Values  # the output
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


def log_softmax_fwd(x: Values, *, axis: Axis = -1) -> tuple[Values, SoftmaxResiduals]:
    """x - log(sum(exp(x))) over `axis`, an int or several; safe for large x.

    Raises TypeError unless x is floating point, ValueError if it has no such axis.
    """
    shifted = widen(x) - jnp.max(widen(x), axis, keepdims=True)
    y = (shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis, keepdims=True))).astype(x.dtype)
    return y, SoftmaxResiduals(y, axis)


def log_softmax_bwd(res: SoftmaxResiduals, dy: Values) -> tuple[Values]:
    wide = widen(dy)
    return (wide - jnp.exp(widen(res.y)) * jnp.sum(wide, res.axis, keepdims=True),)


def log_softmax_reference(x, *, axis=-1):
    return jax.nn.log_softmax(x, axis)


def _check_axis(op, x, *, axis):
    axes = axis if isinstance(axis, tuple) else (axis,)
    if not all(isinstance(a, int) and -x.ndim <= a < x.ndim for a in axes):
        check.fail(op, "axis", repr(axis), f"an axis of x, which has shape {x.shape}")
    for a in axes:
        if x.shape[a] == 0:
            check.fail(op, "x", f"shape {x.shape}", f"at least one value on axis {a}")


softmax = _rule(softmax_fwd, softmax_bwd, softmax_reference, _check_axis)
log_softmax = _rule(log_softmax_fwd, log_softmax_bwd, log_softmax_reference, _check_axis)
