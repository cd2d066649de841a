"""Layer, group and instance normalisation: one formula, over different parts of an example.

Shapes.  x, y, dx, dy [*L, C];  gamma, beta and their cotangents [C];  mean, var, rstd one number per block,
m entries of x that are normalised together:

    op             x             a block                                                    blocks
    layer_norm     [*L, C]       the C channels of one position                             *L
    group_norm     [N, *S, C]    all pixels of C / groups neighbouring channels             N groups
    instance_norm  [N, *S, C]    all pixels of one channel: group_norm with groups = C      N C

Forward.  mean(a) is the mean over a's block, at every entry of it.
    mean = mean(x)
    var  = mean((x - mean)^2)                biased, in two passes: E[x^2] - E[x]^2 would cancel
    rstd = (var + eps)^(-1/2)
    xhat = (x - mean) rstd
    y    = gamma xhat + beta

Backward.  Perturb x, gamma, beta by x', gamma', beta':
    rstd' = -rstd^3 mean((x - mean) x') = -rstd^2 mean(xhat x')           as mean(x - mean) = 0
    xhat' = rstd (x' - mean(x') - xhat mean(xhat x'))
    y'    = gamma xhat' + gamma' xhat + beta'
The map x' -> xhat' is symmetric within a block.  Requiring sum(dy y') = sum(dx x') + sum(dgamma gamma') +
sum(dbeta beta'), with g = gamma dy and sums over all but the channels:
    dbeta  = sum(dy)
    dgamma = sum(dy xhat)
    dx     = rstd (g - mean(g) - xhat mean(g xhat))
Batch norm may take gamma out of the means; here it differs within a block.  It is the same for all pixels
of a channel, so that both means come from sums over pixels which dbeta and dgamma are made of, too:
    mean(g) = sum over the block's channels of gamma sum over pixels of dy / m,   mean(g xhat) alike

Kinks.  None for eps > 0.
Reference.  Ba et al. 2016, arXiv:1607.06450 (layer); Wu & He 2018, arXiv:1803.08494 (group); Ulyanov et al.
2016, arXiv:1607.08022 (instance).
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jcnn import check
from jcnn.kernels import widen
from jcnn.kernels.reduce import pixel_sum
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Values = Float[Array, "*l c"]
Images = Float[Array, "n *s c"]
Channels = Float[Array, " c"]
PerBlock = Float[Array, "*blocks g"]  # axes that a block spans are 1


class Blocks(NamedTuple):
    """What is normalised together: everything along `pixels`, a tuple of axes, in a group of channels."""

    pixels: tuple[int, ...]
    groups: int


def _pixel_sums(a: Array, pixels: tuple[int, ...]) -> Array:
    """Sums over the axes `pixels`, kept as 1; the last one by itself, for speed, as in `pixel_sum`."""
    for axes in (pixels[:-1], pixels[-1:]):
        a = jnp.sum(a, axes, keepdims=True) if axes else a
    return a


def _block_mean(sums: Array, like: Array, blocks: Blocks) -> PerBlock:
    """The mean over the entries of a block in `like`, given their sums over pixels."""
    *lead, c = like.shape
    m = math.prod(lead[axis] for axis in blocks.pixels) * c // blocks.groups
    grouped = sums.reshape(*sums.shape[:-1], blocks.groups, c // blocks.groups)
    return jnp.sum(grouped, -1) / max(m, 1)


def _spread(a: PerBlock, c: int) -> Array:
    """Each group's number at each of its channels."""
    return jnp.repeat(a, c // a.shape[-1], -1)


@residuals
class LayerNormResiduals:
    x: Values  # the input; xhat is recomputed, it would take as much again
    gamma: Channels
    mean: PerBlock
    rstd: PerBlock
    blocks: Blocks = static()


def _forward(x: Array, gamma: Array, beta: Array, eps: float, blocks: Blocks):
    wide, c = widen(x), x.shape[-1]
    mean = _block_mean(_pixel_sums(wide, blocks.pixels), x, blocks)
    centred = wide - _spread(mean, c)
    var = _block_mean(_pixel_sums(centred**2, blocks.pixels), x, blocks)
    rstd = lax.rsqrt(var + eps)
    y = widen(gamma) * (centred * _spread(rstd, c)) + widen(beta)
    return y.astype(x.dtype), LayerNormResiduals(x, gamma, mean, rstd, blocks)


def _backward(res: LayerNormResiduals, dy: Values) -> tuple[Values, Channels, Channels]:
    x, gamma, dy, c = widen(res.x), widen(res.gamma), widen(dy), dy.shape[-1]
    rstd = _spread(res.rstd, c)
    xhat = (x - _spread(res.mean, c)) * rstd
    sum_dy, sum_dy_xhat = (_pixel_sums(a, res.blocks.pixels) for a in (dy, dy * xhat))
    if res.blocks.pixels:
        sum_g, sum_g_xhat = gamma * sum_dy, gamma * sum_dy_xhat
    else:  # the same again, in an order in which XLA does not keep dy xhat for two sums over it
        sum_g, sum_g_xhat = gamma * dy, gamma * dy * xhat
    mean_g, mean_g_xhat = (_spread(_block_mean(sums, x, res.blocks), c) for sums in (sum_g, sum_g_xhat))
    dx = rstd * (gamma * dy - mean_g - xhat * mean_g_xhat)
    return dx, pixel_sum(sum_dy_xhat), pixel_sum(sum_dy)


def _reference(x: Array, gamma: Array, beta: Array, eps: float, blocks: Blocks) -> Array:
    wide = widen(x).reshape(*x.shape[:-1], blocks.groups, x.shape[-1] // blocks.groups)
    axes = (*blocks.pixels, -1)
    mean = jnp.mean(wide, axes, keepdims=True)
    xhat = (wide - mean) / jnp.sqrt(jnp.var(wide, axes, keepdims=True) + eps)
    return (widen(gamma) * xhat.reshape(x.shape) + widen(beta)).astype(x.dtype)


def _check_arrays(op: str, x: Array, eps: float, **channels: Array) -> None:
    check.floating(op, x=x)
    check.per_channel(op, x, **channels)
    check.epsilon(op, eps)


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
    return _forward(x, gamma, beta, eps, Blocks((), 1))


def layer_norm_reference(x, gamma, beta, *, eps=1e-5):
    return _reference(x, gamma, beta, eps, Blocks((), 1))


def _layer_norm_check(x, gamma, beta, *, eps) -> None:
    if x.ndim == 0:
        check.fail("layer_norm", "x", "shape ()", "[..., C]")
    _check_arrays("layer_norm", x, eps, gamma=gamma, beta=beta)


layer_norm = Rule(layer_norm_fwd, _backward, layer_norm_reference, _layer_norm_check)


def _of_image(x: Array, groups: int) -> Blocks:
    return Blocks(tuple(range(1, x.ndim - 1)), groups)


def group_norm_fwd(
    x: Images, gamma: Channels, beta: Channels, *, groups: int, eps: float = 1e-5
) -> tuple[Images, LayerNormResiduals]:
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
    return _forward(x, gamma, beta, eps, _of_image(x, groups))


def group_norm_reference(x, gamma, beta, *, groups, eps=1e-5):
    return _reference(x, gamma, beta, eps, _of_image(x, groups))


def _check_image(op: str, x: Array, eps: float, gamma: Array, beta: Array) -> None:
    check.ranks(op, "x", x, range(2, 6), "[N, *S, C]")
    _check_arrays(op, x, eps, gamma=gamma, beta=beta)


def _group_norm_check(x, gamma, beta, *, groups, eps) -> None:
    _check_image("group_norm", x, eps, gamma, beta)
    check.count("group_norm", "groups", groups)
    if x.shape[-1] % groups:
        check.fail("group_norm", "groups", groups, f"a divisor of x's {x.shape[-1]} channels")


group_norm = Rule(group_norm_fwd, _backward, group_norm_reference, _group_norm_check)


def instance_norm_fwd(
    x: Images, gamma: Channels, beta: Channels, *, eps: float = 1e-5
) -> tuple[Images, LayerNormResiduals]:
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
    return _forward(x, gamma, beta, eps, _of_image(x, max(x.shape[-1], 1)))


def instance_norm_reference(x, gamma, beta, *, eps=1e-5):
    return _reference(x, gamma, beta, eps, _of_image(x, max(x.shape[-1], 1)))


def _instance_norm_check(x, gamma, beta, *, eps) -> None:
    _check_image("instance_norm", x, eps, gamma, beta)


instance_norm = Rule(instance_norm_fwd, _backward, instance_norm_reference, _instance_norm_check)
