"""Activations that are linear piece by piece.

Shapes.  x, y, dx, dy: any shape, all the same.

Forward y = f(x), elementwise.  Backward: y' = f'(x) x', so dx = f'(x) dy, and f' has two values: kept is
where it has the first, a byte each where x would take four.

    op             f(x)                          f'(x)                                   kept
    relu           max(x, 0)                     1 if x > 0 else 0                       x > 0
    relu6          min(max(x, 0), 6)             1 if 0 < x < 6 else 0                   0 < x < 6
    leaky_relu     x if x > 0 else alpha x       1 if x > 0 else alpha                   x > 0
    hard_sigmoid   min(max(x + 3, 0), 6) / 6     1 / 6 if -3 < x < 3 else 0              -3 < x < 3

Kinks.  relu'(0) = 0, as everywhere in deep learning; relu6'(0) = relu6'(6) = 0 and hard_sigmoid'(-3) =
hard_sigmoid'(3) = 0, the slope of the flat side; leaky_relu'(0) = alpha, its slope from below.

Reference.  Howard et al. 2017, arXiv:1704.04861 (relu6); Maas et al. 2013 (leaky_relu); Howard et al. 2019,
arXiv:1905.02244, section 5.2 (hard_sigmoid).
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool

from jcnn import check
from jcnn.activation.common import Values, activation
from jcnn.kernels import widen
from jcnn.residuals import residuals, static


@residuals
class Pieces:
    mask: Bool[Array, "*shape"]  # where f' is `inside`
    inside: float | int = static()  # f' there
    outside: float | int = static()  # f' elsewhere


def piecewise_bwd(res: Pieces, dy: Values) -> tuple[Values]:
    return (jnp.where(res.mask, res.inside * dy, res.outside * dy if res.outside else 0),)


def relu_fwd(x: Values) -> tuple[Values, Pieces]:
    """max(x, 0), elementwise; its derivative at 0 is 0.  Raises TypeError unless x is floating point."""
    return jnp.maximum(x, 0), Pieces(x > 0, 1, 0)


def relu_reference(x):
    return jax.nn.relu(x)


relu = activation(relu_fwd, piecewise_bwd, relu_reference)


def relu6_fwd(x: Values) -> tuple[Values, Pieces]:
    """min(max(x, 0), 6), elementwise; its derivative at 0 and at 6 is 0.

    Raises TypeError unless x is floating point.
    """
    return jnp.clip(x, 0, 6), Pieces((x > 0) & (x < 6), 1, 0)


def relu6_reference(x):
    return jnp.where((x > 0) & (x < 6), x, lax.stop_gradient(jnp.clip(x, 0, 6)))


relu6 = activation(relu6_fwd, piecewise_bwd, relu6_reference)


def leaky_relu_fwd(x: Values, *, negative_slope: float | int = 0.01) -> tuple[Values, Pieces]:
    """x where x > 0, else negative_slope * x; its derivative at 0 is negative_slope.

    Raises TypeError unless x is floating point, ValueError unless the slope is a finite number.
    """
    mask = x > 0
    return jnp.where(mask, x, negative_slope * x), Pieces(mask, 1, negative_slope)


def leaky_relu_reference(x, *, negative_slope=0.01):
    return jnp.where(x > 0, x, negative_slope * x)


def _check_slope(op, x, *, negative_slope):
    check.number(op, "negative_slope", negative_slope, -math.inf)


leaky_relu = activation(leaky_relu_fwd, piecewise_bwd, leaky_relu_reference, _check_slope)


def hard_sigmoid_fwd(x: Values) -> tuple[Values, Pieces]:
    """min(max(x + 3, 0), 6) / 6, elementwise: the sigmoid of MobileNetV3; its derivative at -3 and 3 is 0.

    Raises TypeError unless x is floating point.
    """
    y = jnp.clip(widen(x) + 3, 0, 6) / 6
    return y.astype(x.dtype), Pieces((x > -3) & (x < 3), 1 / 6, 0)


def hard_sigmoid_reference(x):
    return (jnp.where((x > -3) & (x < 3), x, lax.stop_gradient(jnp.clip(x, -3, 3))) + 3) / 6


hard_sigmoid = activation(hard_sigmoid_fwd, piecewise_bwd, hard_sigmoid_reference)
