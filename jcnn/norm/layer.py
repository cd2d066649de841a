"""Layer normalisation: the channels of every position, by their own mean and variance.

Shapes.  x, y, dx, dy [*L, C];  gamma, beta and their cotangents [C];  mean, var, rstd [*L, 1].

Forward.  mean(a) is the mean over the channels of a position.
    mean = mean(x)
    var  = mean((x - mean)^2)                biased, in two passes: E[x^2] - E[x]^2 would cancel
    rstd = (var + eps)^(-1/2)
    xhat = (x - mean) rstd
    y    = gamma xhat + beta

Backward.  Perturb x, gamma, beta by x', gamma', beta':
    rstd' = -rstd^3 mean((x - mean) x') = -rstd^2 mean(xhat x')           as mean(x - mean) = 0
    xhat' = rstd (x' - mean(x') - xhat mean(xhat x'))
    y'    = gamma xhat' + gamma' xhat + beta'
The map x' -> xhat' is symmetric.  Requiring sum(dy y') = sum(dx x') + sum(dgamma gamma') + sum(dbeta beta'),
with g = gamma dy and sums over all but the channels:
    dbeta  = sum(dy)
    dgamma = sum(dy xhat)
    dx     = rstd (g - mean(g) - xhat mean(g xhat))
Batch norm may take gamma out of the means; here it differs within them.

Kinks.  None for eps > 0.
Reference.  Ba et al. 2016, arXiv:1607.06450.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jcnn.kernels import widen
from jcnn.kernels.reduce import channel_sum, pixel_sum
from jcnn.norm.arguments import Channels, Values, check_values
from jcnn.residuals import residuals
from jcnn.rule import Rule

PerPosition = Float[Array, "*l 1"]


@residuals
class LayerNormResiduals:
    x: Values  # the input; xhat is recomputed, it would take as much again
    gamma: Channels
    mean: PerPosition
    rstd: PerPosition


def layer_norm_fwd(
    x: Values, gamma: Channels, beta: Channels, *, eps: float = 1e-5
) -> tuple[Values, LayerNormResiduals]:
    """Normalisation of the channels of every position, by their own mean and variance.

    Args:
        x: values [..., C].
        gamma, beta: scale and shift, [C], in x's dtype or float32.
        eps: added to the variance, > 0.

    Returns:
        An array like x.  Statistics are computed in at least float32.

    Raises:
        TypeError: dtypes not as above.
        ValueError: shapes that do not fit together, or eps <= 0.
    """
    wide, c = widen(x), max(x.shape[-1], 1)
    mean = jnp.sum(wide, -1, keepdims=True) / c
    centred = wide - mean
    rstd = lax.rsqrt(jnp.sum(centred**2, -1, keepdims=True) / c + eps)
    y = widen(gamma) * (centred * rstd) + widen(beta)
    return y.astype(x.dtype), LayerNormResiduals(x, gamma, mean, rstd)


def layer_norm_bwd(res: LayerNormResiduals, dy: Values) -> tuple[Values, Channels, Channels]:
    xhat, dy, c = (widen(res.x) - res.mean) * res.rstd, widen(dy), max(dy.shape[-1], 1)
    dy_xhat = dy * xhat
    mean_g, mean_g_xhat = (channel_sum(a, res.gamma) / c for a in (dy, dy_xhat))
    dx = res.rstd * (widen(res.gamma) * dy - mean_g - xhat * mean_g_xhat)
    return dx, pixel_sum(dy_xhat), pixel_sum(dy)


def layer_norm_reference(x, gamma, beta, *, eps=1e-5):
    wide = widen(x)
    mean, var = jnp.mean(wide, -1, keepdims=True), jnp.var(wide, -1, keepdims=True)
    return (widen(gamma) * ((wide - mean) / jnp.sqrt(var + eps)) + widen(beta)).astype(x.dtype)


def _layer_norm_check(x, gamma, beta, *, eps) -> None:
    check_values("layer_norm", x, eps, gamma=gamma, beta=beta)


layer_norm = Rule(layer_norm_fwd, layer_norm_bwd, layer_norm_reference, _layer_norm_check)
