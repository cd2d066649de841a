"""Batch normalisation in inference, by statistics that are given.

Shapes.  x, y, dx, dy [N, *S, C];  gamma, beta, mean, var and their cotangents [C].  Sums run over N and S.

Forward.
    rstd = (var + eps)^(-1/2)
    xhat = (x - mean) rstd
    y    = gamma xhat + beta

Backward.  Perturb all five arguments:
    xhat' = rstd (x' - mean') - xhat rstd^2 var' / 2
    y'    = gamma xhat' + gamma' xhat + beta'
and match sum(dy y') with the products of cotangents and perturbations:
    dbeta  = sum(dy)                      dx    = gamma rstd dy
    dgamma = sum(dy xhat)                 dmean = -gamma rstd dbeta
                                          dvar  = -gamma rstd^2 dgamma / 2
For given statistics y is linear in x, and dx does not look at x: only dgamma and dvar do.

Kinks.  None for eps > 0 and var >= 0.
Reference.  Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2.
"""

import jax.numpy as jnp
from jax import lax

from jcnn.kernels import widen
from jcnn.kernels.reduce import pixel_sum
from jcnn.norm.arguments import Channels, Images, check_images
from jcnn.norm.batch import normalise
from jcnn.residuals import residuals
from jcnn.rule import Rule


@residuals
class BatchNormInferenceResiduals:
    x: Images  # the input
    gamma: Channels
    mean: Channels
    rstd: Channels


def batch_norm_inference_fwd(
    x: Images, gamma: Channels, beta: Channels, mean: Channels, var: Channels, *, eps: float = 1e-5
) -> tuple[Images, BatchNormInferenceResiduals]:
    """Normalisation of every channel by a given mean and variance (inference mode).

    Args:
        x: images [N, *S, C], or vectors [N, C].
        gamma, beta, mean, var: [C] each, in x's dtype or float32.
        eps: added to the variance, > 0.

    Returns:
        An array like x.

    Raises:
        TypeError: dtypes not as above.
        ValueError: shapes that do not fit together, or eps <= 0.
    """
    rstd = lax.rsqrt(widen(var) + eps)
    return normalise(x, gamma, beta, mean, rstd), BatchNormInferenceResiduals(x, gamma, mean, rstd)


def batch_norm_inference_bwd(res: BatchNormInferenceResiduals, dy: Images):
    scale = widen(res.gamma) * res.rstd
    dy = widen(dy)
    dbeta = pixel_sum(dy)
    dgamma = pixel_sum(dy * ((widen(res.x) - widen(res.mean)) * res.rstd))
    return scale * dy, dgamma, dbeta, -scale * dbeta, -scale * res.rstd * dgamma / 2


def batch_norm_inference_reference(x, gamma, beta, mean, var, *, eps=1e-5):
    return normalise(x, gamma, beta, mean, 1 / jnp.sqrt(widen(var) + eps))


def _batch_norm_inference_check(x, gamma, beta, mean, var, *, eps) -> None:
    check_images("batch_norm_inference", x, eps, gamma=gamma, beta=beta, mean=mean, var=var)


batch_norm_inference = Rule(
    batch_norm_inference_fwd,
    batch_norm_inference_bwd,
    batch_norm_inference_reference,
    _batch_norm_inference_check,
)
