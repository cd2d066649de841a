"""Scale per channel, learned: the layer scale of deep residual nets.

Shapes.  x, y, dx, dy [*L, C];  gamma, dgamma [C].

Forward.  y = gamma x

Backward.  y' = gamma x' + gamma' x.  Requiring sum(dy y') = sum(dx x') + sum(dgamma gamma'):

    dx     = gamma dy
    dgamma = sum(x dy)        over all but the channels

Kinks.  None.
Reference.  Touvron et al. 2021, arXiv:2103.17239, section 3 (there with gamma = 1e-4 or less at first).
"""

from jaxtyping import Array, Float

from jcnn import check
from jcnn.kernels import widen
from jcnn.kernels.reduce import pixel_sum
from jcnn.residuals import residuals
from jcnn.rule import Rule

Values = Float[Array, "*l c"]
Channels = Float[Array, " c"]


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
