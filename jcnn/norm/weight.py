"""Weight standardisation: every filter of a layer gets mean 0 and variance 1.

Shapes.  w, y, dw, dy [*K, C/groups, O];  mean, var, rstd [O].  Means run over all axes but the last.

Forward.
    mean = mean(w)
    var  = mean((w - mean)^2)                biased, in two passes
    rstd = (var + eps)^(-1/2)
    y    = (w - mean) rstd

Backward.  Perturb w by w':
    rstd' = -rstd^3 mean((w - mean) w') = -rstd^2 mean(y w')                 as mean(w - mean) = 0
    y'    = rstd (w' - mean(w') - y mean(y w'))
The map w' -> y' is symmetric, so sum(dy y') = sum(dw w') gives
    dw = rstd (dy - mean(dy) - y mean(dy y))
dw has mean 0, and (with eps -> 0) is orthogonal to w: the layer sees neither shift nor scale of a filter.

Kinks.  None for eps > 0: a constant filter becomes 0.
Reference.  Qiao et al. 2019, arXiv:1903.10520, equations 5 and 6.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jcnn import check
from jcnn.kernels import widen
from jcnn.kernels.reduce import pixel_sum
from jcnn.residuals import residuals
from jcnn.rule import Rule

Weights = Float[Array, "*k i o"]
Filters = Float[Array, " o"]


@residuals
class WeightStandardizeResiduals:
    y: Weights  # the output, which the layer that uses it keeps, too
    rstd: Filters


def _mean(a: Array) -> Filters:
    return pixel_sum(a) / max(a[..., :1].size, 1)


def weight_standardize_fwd(w: Weights, *, eps: float = 1e-5) -> tuple[Weights, WeightStandardizeResiduals]:
    """Every filter of w less its mean, over its standard deviation.

    Args:
        w: weights [*K, C/groups, O] of a convolution, or [C, O] of a dense layer.
        eps: added to the variance, > 0.

    Returns:
        An array like w.  Statistics are computed in at least float32.

    Raises:
        TypeError: w is not floating point.
        ValueError: w has fewer than two axes, or eps <= 0.
    """
    centred = widen(w) - _mean(w)
    rstd = lax.rsqrt(_mean(centred**2) + eps)
    y = (centred * rstd).astype(w.dtype)
    return y, WeightStandardizeResiduals(y, rstd)


def weight_standardize_bwd(res: WeightStandardizeResiduals, dy: Weights) -> tuple[Weights]:
    y, dy = widen(res.y), widen(dy)
    return (res.rstd * (dy - _mean(dy) - y * _mean(dy * y)),)


def weight_standardize_reference(w, *, eps=1e-5):
    wide, axes = widen(w), range(w.ndim - 1)
    return ((wide - jnp.mean(wide, axes)) / jnp.sqrt(jnp.var(wide, axes) + eps)).astype(w.dtype)


def _weight_standardize_check(w, *, eps) -> None:
    check.floating("weight_standardize", w=w)
    check.ranks("weight_standardize", "w", w, range(2, 6), "[*K, C/groups, O]")
    check.epsilon("weight_standardize", eps)


weight_standardize = Rule(
    weight_standardize_fwd, weight_standardize_bwd, weight_standardize_reference, _weight_standardize_check
)
