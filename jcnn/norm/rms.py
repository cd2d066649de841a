"""Root-mean-square normalisation: layer norm without the mean and without the shift.

Shapes.  x, y, dx, dy [*L, C];  gamma, dgamma [C];  rstd [*L, 1].

Forward.  mean(a) is the mean over the channels of a position.
    rstd = (mean(x^2) + eps)^(-1/2)
    xhat = x rstd
    y    = gamma xhat

Backward.  Perturb x and gamma by x' and gamma':
    rstd' = -rstd^3 mean(x x') = -rstd^2 mean(xhat x')
    xhat' = rstd (x' - xhat mean(xhat x'))
    y'    = gamma xhat' + gamma' xhat
The map x' -> xhat' is symmetric.  Requiring sum(dy y') = sum(dx x') + sum(dgamma gamma'), with g = gamma dy
and the sum over all but the channels:
    dgamma = sum(dy xhat)
    dx     = rstd (g - xhat mean(g xhat))

Kinks.  None for eps > 0: at x = 0, rstd is eps^(-1/2) and dx = rstd g.
Reference.  Zhang & Sennrich 2019, arXiv:1910.07467, equation 4 (there without eps).
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jcnn.kernels import widen
from jcnn.kernels.reduce import channel_sum, pixel_sum
from jcnn.norm.arguments import Channels, Values, check_values
from jcnn.residuals import residuals
from jcnn.rule import Rule


@residuals
class RmsNormResiduals:
    x: Values  # the input; xhat is recomputed, it would take as much again
    gamma: Channels
    rstd: Float[Array, "*l 1"]


def rms_norm_fwd(x: Values, gamma: Channels, *, eps: float = 1e-5) -> tuple[Values, RmsNormResiduals]:
    """The channels of every position over their root mean square, times gamma.

    Args:
        x: values [..., C].
        gamma: scale, [C], in x's dtype or float32.
        eps: added to the mean square, > 0.

    Returns:
        An array like x.  Mean squares are computed in at least float32.

    Raises:
        TypeError: dtypes not as above.
        ValueError: shapes that do not fit together, or eps <= 0.
    """
    wide = widen(x)
    rstd = lax.rsqrt(jnp.sum(wide**2, -1, keepdims=True) / max(x.shape[-1], 1) + eps)
    return (widen(gamma) * (wide * rstd)).astype(x.dtype), RmsNormResiduals(x, gamma, rstd)


def rms_norm_bwd(res: RmsNormResiduals, dy: Values) -> tuple[Values, Channels]:
    xhat, dy = widen(res.x) * res.rstd, widen(dy)
    mean_g_xhat = channel_sum(dy * xhat, res.gamma) / max(dy.shape[-1], 1)
    dx = res.rstd * (widen(res.gamma) * dy - xhat * mean_g_xhat)
    return dx, pixel_sum(dy * xhat)


def rms_norm_reference(x, gamma, *, eps=1e-5):
    wide = widen(x)
    rms = jnp.sqrt(jnp.sum(wide**2, -1, keepdims=True) / max(x.shape[-1], 1) + eps)
    return (widen(gamma) * (wide / rms)).astype(x.dtype)


def _rms_norm_check(x, gamma, *, eps) -> None:
    check_values("rms_norm", x, eps, gamma=gamma)


rms_norm = Rule(rms_norm_fwd, rms_norm_bwd, rms_norm_reference, _rms_norm_check)
