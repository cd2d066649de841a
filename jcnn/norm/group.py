"""Group and instance normalisation: groups of channels of every image, by their mean and variance over it.

Shapes.  x, y, dx, dy [N, *S, C];  gamma, beta and their cotangents [C];  mean, var, rstd [N, G], one number
per block: all pixels of C / G neighbouring channels of an example, m entries.  Instance norm has G = C.

Forward.  mean(a) is the mean over a's block, at every entry of it.
    mean = mean(x)
    var  = mean((x - mean)^2)                biased, in two passes: E[x^2] - E[x]^2 would cancel
    rstd = (var + eps)^(-1/2)
    xhat = (x - mean) rstd
    y    = gamma xhat + beta

Backward.  As for layer norm, the block in the place of the channels of a position: with g = gamma dy and
sums over all but the channels
    dbeta  = sum(dy)
    dgamma = sum(dy xhat)
    dx     = rstd (g - mean(g) - xhat mean(g xhat))
As gamma is the same for all pixels of a channel, both means come from the sums over the pixels of an example
that dbeta and dgamma are made of, too:
    mean(g)      = sum over the block's channels of gamma (sum over pixels of dy) / m
    mean(g xhat) = sum over the block's channels of gamma (sum over pixels of dy xhat) / m

Kinks.  None for eps > 0.
Reference.  Wu & He 2018, arXiv:1803.08494 (group); Ulyanov et al. 2016, arXiv:1607.08022 (instance).
"""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jcnn import check
from jcnn.kernels import widen
from jcnn.kernels.reduce import added, deviation_times, squared_deviation
from jcnn.norm.arguments import Channels, Images, check_images
from jcnn.residuals import residuals
from jcnn.rule import Rule

PerGroup = Float[Array, "n g"]
PerChannel = Float[Array, "n c"]


@residuals
class GroupNormResiduals:
    x: Images  # the input; xhat is recomputed, it would take as much again
    gamma: Channels
    mean: PerGroup
    rstd: PerGroup


def _pixel_sums(a: Images) -> PerChannel:
    """Sums over the pixels of each example; the last spatial axis by itself, as in `pixel_sum`."""
    rows = jnp.sum(a, range(1, a.ndim - 2))
    return jnp.sum(rows, 1) if rows.ndim > 2 else rows


def _sums_of(f: Callable[..., Array], x: Images, *others: Array) -> PerChannel:
    """The pixel sums of f(x, *others), elementwise."""
    return _pixel_sums(added(f, x, *others, axis=1) if x.ndim > 2 else f(x, *others))


def _group_means(sums: PerChannel, groups: int, pixels: int) -> PerGroup:
    """Means over blocks, given the sums over the pixels of each channel."""
    n, c = sums.shape
    return jnp.sum(sums.reshape(n, groups, c // groups), -1) / max(pixels * c // groups, 1)


def _spread(a: PerGroup, like: Array) -> Array:
    """Each group's number at each of its channels, [N, *1, C] to go with `like` [N, *S, C]."""
    n, *s, c = like.shape
    return jnp.repeat(a, c // a.shape[-1], -1).reshape(n, *(1 for _ in s), c)


def _pixels(x: Array) -> int:
    return math.prod(x.shape[1:-1])


def _forward(x: Array, gamma: Array, beta: Array, eps: float, groups: int):
    wide, pixels = widen(x), _pixels(x)
    mean = _group_means(_pixel_sums(wide), groups, pixels)
    squares = _sums_of(squared_deviation, x, _spread(mean, x))
    rstd = lax.rsqrt(_group_means(squares, groups, pixels) + eps)
    y = widen(gamma) * ((wide - _spread(mean, x)) * _spread(rstd, x)) + widen(beta)
    return y.astype(x.dtype), GroupNormResiduals(x, gamma, mean, rstd)


def _backward(res: GroupNormResiduals, given: Images) -> tuple[Images, Channels, Channels]:
    x, gamma, dy, groups = widen(res.x), widen(res.gamma), widen(given), res.mean.shape[-1]
    mean, rstd = _spread(res.mean, x), _spread(res.rstd, x)
    sum_dy = _pixel_sums(dy)
    sum_dy_xhat = _sums_of(deviation_times, res.x, mean, given) * rstd.reshape(sum_dy.shape)
    mean_g, mean_g_xhat = (
        _spread(_group_means(gamma * sums, groups, _pixels(x)), x) for sums in (sum_dy, sum_dy_xhat)
    )
    dx = rstd * (gamma * dy - mean_g - (x - mean) * rstd * mean_g_xhat)
    return dx, jnp.sum(sum_dy_xhat, 0), jnp.sum(sum_dy, 0)


def _reference(x: Array, gamma: Array, beta: Array, eps: float, groups: int) -> Array:
    wide = widen(x).reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    axes = (*range(1, x.ndim - 1), -1)
    mean = jnp.mean(wide, axes, keepdims=True)
    xhat = (wide - mean) / jnp.sqrt(jnp.var(wide, axes, keepdims=True) + eps)
    return (widen(gamma) * xhat.reshape(x.shape) + widen(beta)).astype(x.dtype)


def group_norm_fwd(
    x: Images, gamma: Channels, beta: Channels, *, groups: int, eps: float = 1e-5
) -> tuple[Images, GroupNormResiduals]:
    """Normalisation of groups of channels of every example, by their mean and variance over the image.

    Args:
        x: images [N, *S, C], or vectors [N, C].
        gamma, beta: scale and shift, [C], in x's dtype or float32.
        groups: how many groups of neighbouring channels; divides C.
        eps: added to the variance, > 0.

    Returns:
        An array like x.  Statistics are computed in at least float32.

    Raises:
        TypeError: dtypes not as above.
        ValueError: shapes that do not fit together, groups that do not divide C, or eps <= 0.
    """
    return _forward(x, gamma, beta, eps, groups)


def group_norm_reference(x, gamma, beta, *, groups, eps=1e-5):
    return _reference(x, gamma, beta, eps, groups)


def _group_norm_check(x, gamma, beta, *, groups, eps) -> None:
    check_images("group_norm", x, eps, gamma=gamma, beta=beta)
    check.count("group_norm", "groups", groups)
    if x.shape[-1] % groups:
        check.fail("group_norm", "groups", groups, f"a divisor of x's {x.shape[-1]} channels")


group_norm = Rule(group_norm_fwd, _backward, group_norm_reference, _group_norm_check)


def instance_norm_fwd(
    x: Images, gamma: Channels, beta: Channels, *, eps: float = 1e-5
) -> tuple[Images, GroupNormResiduals]:
    """Normalisation of every channel of every example, by its mean and variance over the image.

    Args:
        x: images [N, *S, C]; without spatial axes, y would be beta.
        gamma, beta: scale and shift, [C], in x's dtype or float32.
        eps: added to the variance, > 0.

    Returns:
        An array like x.  Statistics are computed in at least float32.

    Raises:
        TypeError: dtypes not as above.
        ValueError: shapes that do not fit together, or eps <= 0.
    """
    return _forward(x, gamma, beta, eps, max(x.shape[-1], 1))


def instance_norm_reference(x, gamma, beta, *, eps=1e-5):
    return _reference(x, gamma, beta, eps, max(x.shape[-1], 1))


def _instance_norm_check(x, gamma, beta, *, eps) -> None:
    check_images("instance_norm", x, eps, gamma=gamma, beta=beta)


instance_norm = Rule(instance_norm_fwd, _backward, instance_norm_reference, _instance_norm_check)
