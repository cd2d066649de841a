"""Smooth activations, and those whose derivative takes more than two values.

Shapes.  x, y, dx, dy: any shape, all the same.

Forward y = f(x), elementwise.  Backward: y' = f'(x) x', so dx = f'(x) dy.  With s(x) = 1 / (1 + exp(-x)) and
e = exp(x):

    op             f(x)                          f'(x)
    sigmoid        s                             y (1 - y)
    tanh           tanh(x)                       (1 + y) (1 - y)
    softplus       log(1 + e)                    s
    elu            x if x > 0 else alpha (e - 1) 1 if x > 0 else alpha e
    selu           scale elu(x)                  scale elu'(x)
    hard_swish     x min(max(x + 3, 0), 6) / 6   0 if x <= -3, 1 if x >= 3, else x / 3 + 1 / 2
    the others     x g(x), x through a gate      g + x g'

                   g                             g'
    silu           s                             s (1 - s)
    gelu           (1 + erf(x / sqrt(2))) / 2    exp(-x^2 / 2) / sqrt(2 pi)
    gelu, approx.  (1 + u) / 2                   (1 - u^2) / 2 c (1 + 3 a x^2),      u = tanh(c (x + a x^3))
    mish           n / (n + 2)                   4 e (1 + e) / (n + 2)^2,            n = e (e + 2)

The gate of gelu is the normal distribution, or near it with c = sqrt(2 / pi) and a = 0.044715; that of mish
is tanh(softplus(x)) = ((1 + e)^2 - 1) / ((1 + e)^2 + 1), which from x = 20 on is 1 in every dtype.

Kept is y for sigmoid and tanh, whose derivative is a polynomial of it (a next op that keeps its input shares
that array); for all others f'(x), in place of x: as many bytes, and a backward that is one multiplication.
Where there is no backward, f' is dead code.

Kinks.  elu'(0) = alpha and selu'(0) = scale alpha, the slope from below, which for elu with alpha = 1 is that
from above; hard_swish'(-3) = 0 and hard_swish'(3) = 1, the slopes outside.

Reference.  Dugas et al. 2001 (softplus); Clevert et al. 2015, arXiv:1511.07289 (elu); Klambauer et al. 2017,
arXiv:1706.02515 (selu); Hendrycks & Gimpel 2016, arXiv:1606.08415 (gelu); Ramachandran et al. 2017,
arXiv:1710.05941 (silu); Misra 2019, arXiv:1908.08681 (mish); Howard et al. 2019, arXiv:1905.02244, section
5.2 (hard_swish).
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jcnn import check
from jcnn.activation.common import Values, activation
from jcnn.kernels import widen
from jcnn.kernels.softplus import softplus_of_both
from jcnn.residuals import residuals


@residuals
class Output:
    y: Values  # the output


def sigmoid_fwd(x: Values) -> tuple[Values, Output]:
    """1 / (1 + exp(-x)), elementwise.  Raises TypeError unless x is floating point."""
    y = lax.logistic(x)
    return y, Output(y)


def sigmoid_bwd(res: Output, dy: Values) -> tuple[Values]:
    return (dy * res.y * (1 - res.y),)


def sigmoid_reference(x):
    return jax.nn.sigmoid(x)


sigmoid = activation(sigmoid_fwd, sigmoid_bwd, sigmoid_reference)


def tanh_fwd(x: Values) -> tuple[Values, Output]:
    """Hyperbolic tangent, elementwise.  Raises TypeError unless x is floating point."""
    y = jnp.tanh(x)
    return y, Output(y)


def tanh_bwd(res: Output, dy: Values) -> tuple[Values]:
    return (dy * (1 + res.y) * (1 - res.y),)


def tanh_reference(x):
    return jnp.tanh(x)


tanh = activation(tanh_fwd, tanh_bwd, tanh_reference)


@residuals
class Slope:
    slope: Values  # f'(x)


def slope_bwd(res: Slope, dy: Values) -> tuple[Values]:
    return (widen(res.slope) * widen(dy),)


def _rounded(x: Values, y: Array, slope: Array) -> tuple[Values, Slope]:
    return y.astype(x.dtype), Slope(slope.astype(x.dtype))


def softplus_fwd(x: Values) -> tuple[Values, Slope]:
    """log(1 + exp(x)), elementwise; safe for large x.  Raises TypeError unless x is floating point."""
    wide = widen(x)
    return _rounded(x, softplus_of_both(wide)[1], lax.logistic(wide))


def softplus_reference(x):
    return jax.nn.softplus(x)


softplus = activation(softplus_fwd, slope_bwd, softplus_reference)


def _elu(x: Array, alpha: float) -> tuple[Array, Array]:
    """The function and its derivative."""
    below = jnp.where(x > 0, 0, x)
    return jnp.where(x > 0, x, alpha * jnp.expm1(below)), jnp.where(x > 0, 1, alpha * jnp.exp(below))


def elu_fwd(x: Values, *, alpha: float | int = 1.0) -> tuple[Values, Slope]:
    """x where x > 0, else alpha * (exp(x) - 1); its derivative at 0 is alpha.

    Raises TypeError unless x is floating point, ValueError unless alpha is a finite number.
    """
    return _rounded(x, *_elu(widen(x), alpha))


def elu_reference(x, *, alpha=1.0):
    return jax.nn.elu(x, alpha)


def _check_alpha(op, x, *, alpha):
    check.number(op, "alpha", alpha, -math.inf)


elu = activation(elu_fwd, slope_bwd, elu_reference, _check_alpha)

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def selu_fwd(x: Values) -> tuple[Values, Slope]:
    """1.0507 times elu with alpha = 1.67326, elementwise: keeps values near mean 0 and variance 1.

    Its derivative at 0 is 1.7581, that from below.  Raises TypeError unless x is floating point.
    """
    y, slope = _elu(widen(x), SELU_ALPHA)
    return _rounded(x, SELU_SCALE * y, SELU_SCALE * slope)


def selu_reference(x):
    return jax.nn.selu(x)


selu = activation(selu_fwd, slope_bwd, selu_reference)


def _gated(x: Values, gate: Array, dgate: Array) -> tuple[Values, Slope]:
    """y = x g(x), from g(x) and g'(x)."""
    wide = widen(x)
    return _rounded(x, wide * gate, gate + wide * dgate)


def silu_fwd(x: Values) -> tuple[Values, Slope]:
    """x sigmoid(x), elementwise; also called swish.  Raises TypeError unless x is floating point."""
    s = lax.logistic(widen(x))
    return _gated(x, s, s * (1 - s))


def silu_reference(x):
    return jax.nn.silu(x)


silu = activation(silu_fwd, slope_bwd, silu_reference)

TANH_SCALE, TANH_CUBIC = math.sqrt(2 / math.pi), 0.044715  # c and a


def gelu_fwd(x: Values, *, approximate: bool = False) -> tuple[Values, Slope]:
    """x P(x), elementwise, with the normal distribution P, or its tanh approximation.

    P is exact to a unit of rounding of 1, not of P itself: it is 0 where x is far below 0.

    Raises TypeError unless x is floating point, ValueError unless `approximate` is a bool.
    """
    wide = widen(x)
    if approximate:
        u = jnp.tanh(TANH_SCALE * (wide + TANH_CUBIC * wide**3))
        return _gated(x, (1 + u) / 2, (1 - u**2) / 2 * TANH_SCALE * (1 + 3 * TANH_CUBIC * wide**2))
    density = jnp.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
    return _gated(x, (1 + lax.erf(wide / math.sqrt(2))) / 2, density)


def gelu_reference(x, *, approximate=False):
    return jax.nn.gelu(x, approximate=approximate)


def _check_approximate(op, x, *, approximate):
    check.choice(op, "approximate", approximate, (True, False))


gelu = activation(gelu_fwd, slope_bwd, gelu_reference, _check_approximate)


def mish_fwd(x: Values) -> tuple[Values, Slope]:
    """x tanh(log(1 + exp(x))), elementwise.  Raises TypeError unless x is floating point."""
    wide = widen(x)
    e = jnp.exp(jnp.minimum(wide, 20))
    n = e * (e + 2)
    return _gated(x, n / (n + 2), jnp.where(wide > 20, 0, 4 * e * (1 + e) / (n + 2) ** 2))


def mish_reference(x):
    return x * jnp.tanh(jax.nn.softplus(x))


mish = activation(mish_fwd, slope_bwd, mish_reference)


def hard_swish_fwd(x: Values) -> tuple[Values, Slope]:
    """x min(max(x + 3, 0), 6) / 6, elementwise: the swish of MobileNetV3.

    Its derivative at -3 is 0 and at 3 is 1.  Raises TypeError unless x is floating point.
    """
    wide = widen(x)
    return _rounded(x, wide * _ramp(wide, wide / 6 + 1 / 2), _ramp(wide, wide / 3 + 1 / 2))


def _ramp(x: Array, between: Array) -> Array:
    """0 up to x = -3, 1 from x = 3 on, and `between` in between."""
    return jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, between))


def hard_swish_reference(x):
    return x * jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, (x + 3) / 6))


hard_swish = activation(hard_swish_fwd, slope_bwd, hard_swish_reference)
