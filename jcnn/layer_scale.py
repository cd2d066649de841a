"""Scale per channel: learned, the layer scale of deep residual nets, or computed for every image, a gate.

Shapes.  layer_scale: x, y, dx, dy [*L, C];  gamma, dgamma [C].
scale_channels: x, y, dx, dy [N, *S, C];  gate, dgate [N, C].

Forward.  y = gamma x, or y = gate x with one gate for all pixels of an image.

Backward.  y' = gamma x' + gamma' x.  Requiring sum(dy y') = sum(dx x') + sum(dgamma gamma'):

    dx     = gamma dy         dx    = gate dy
    dgamma = sum(x dy)        dgate = sum(x dy)
             over all but the channels      over the pixels of each image

Kinks.  None.
Reference.  Touvron et al. 2021, arXiv:2103.17239, section 3 (layer_scale, there with gamma = 1e-4 or less at
first); Hu et al. 2018, arXiv:1709.01507, equation 4 (scale_channels, in squeeze-and-excitation).
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jcnn import check
from jcnn.kernels import widen
from jcnn.kernels.reduce import pixel_sum
from jcnn.residuals import residuals
from jcnn.rule import Rule

Values = Float[Array, "*l c"]
Channels = Float[Array, " c"]
Images = Float[Array, "n *s c"]
Gate = Float[Array, "n c"]


@residuals
class LayerScaleResiduals:
    x: Values  # the input
    gamma: Channels


def layer_scale_fwd(x: Values, gamma: Channels) -> tuple[Values, LayerScaleResiduals]:
    """Every channel times a number of its own.

    Args:
        x: values [..., C].
        gamma: scale [C], in x's dtype or float32.

    Returns:
        An array like x.

    Raises:
        TypeError: dtypes not as above.
        ValueError: shapes that do not fit together.
    """
    return (widen(x) * widen(gamma)).astype(x.dtype), LayerScaleResiduals(x, gamma)


def layer_scale_bwd(res: LayerScaleResiduals, dy: Values) -> tuple[Values, Channels]:
    dy = widen(dy)
    return widen(res.gamma) * dy, pixel_sum(widen(res.x) * dy)


def layer_scale_reference(x, gamma):
    return (widen(x) * widen(gamma)).astype(x.dtype)


def _layer_scale_check(x, gamma) -> None:
    check.floating("layer_scale", x=x)
    if x.ndim == 0:
        check.fail("layer_scale", "x", "shape ()", "[..., C]")
    check.per_channel("layer_scale", x, gamma=gamma)


layer_scale = Rule(layer_scale_fwd, layer_scale_bwd, layer_scale_reference, _layer_scale_check)


@residuals
class ScaleChannelsResiduals:
    x: Images  # the input
    gate: Gate


def scale_channels_fwd(x: Images, gate: Gate) -> tuple[Images, ScaleChannelsResiduals]:
    """Every channel of every image times a number of its own.

    Args:
        x: images, [N, *S, C] with 1, 2 or 3 spatial axes S.
        gate: scale, [N, C], for example a sigmoid's output.

    Returns:
        An array like x.

    Raises:
        TypeError: arrays that are not floating point or differ in dtype.
        ValueError: shapes that do not fit together.
    """
    return x * _at_every_pixel(gate, x.ndim), ScaleChannelsResiduals(x, gate)


def scale_channels_bwd(res: ScaleChannelsResiduals, dy: Images) -> tuple[Images, Gate]:
    dy = widen(dy)
    return _at_every_pixel(widen(res.gate), dy.ndim) * dy, jnp.sum(widen(res.x) * dy, range(1, dy.ndim - 1))


def _at_every_pixel(gate: Array, rank: int) -> Array:
    return jnp.expand_dims(gate, range(1, rank - 1))


def scale_channels_reference(x, gate):
    return jnp.einsum("n...c,nc->n...c", x, gate)


def _scale_channels_check(x, gate) -> None:
    check.floating("scale_channels", x=x, gate=gate)
    check.images("scale_channels", x)
    check.shape("scale_channels", "gate", gate, (x.shape[0], x.shape[-1]), "like x's first and last axis")


scale_channels = Rule(scale_channels_fwd, scale_channels_bwd, scale_channels_reference, _scale_channels_check)
