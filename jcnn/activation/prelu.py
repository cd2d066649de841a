"""Parametric rectifier: a rectifier whose slope below 0 is learned.

Shapes.  x, y, dx, dy [*L, C];  slope, dslope [C], or [] for one slope for all (x of any shape then).

Forward.  y = x if x > 0 else slope x

Backward.  y' = x' where x > 0, else slope x' + slope' x.  Requiring
sum(dy y') = sum(dx x') + sum(dslope slope'):

    dx     = dy if x > 0 else slope dy
    dslope = sum(0 if x > 0 else x dy)        over all but the channels; for one slope, over these too

Kinks.  At x = 0: dx = slope dy, the slope from below; dslope is 0 there on either side.
Reference.  He et al. 2015, arXiv:1502.01852, section 2.1.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jcnn import check
from jcnn.activation.common import Values
from jcnn.kernels import widen
from jcnn.kernels.reduce import pixel_sum
from jcnn.residuals import residuals
from jcnn.rule import Rule

Slope = Float[Array, " c"] | Float[Array, ""]


@residuals
class PreluResiduals:
    x: Values  # the input: its sign for dx, itself for dslope
    slope: Slope


def prelu_fwd(x: Values, slope: Slope) -> tuple[Values, PreluResiduals]:
    """x where x > 0, else slope * x; its derivative at 0 is slope.

    Args:
        x: values [..., C].
        slope: [C], one for each channel, or [], one for all; in x's dtype or float32.

    Returns:
        An array like x.

    Raises:
        TypeError: dtypes not as above.
        ValueError: shapes that do not fit together.
    """
    wide = widen(x)
    return jnp.where(x > 0, wide, widen(slope) * wide).astype(x.dtype), PreluResiduals(x, slope)


def prelu_bwd(res: PreluResiduals, dy: Values) -> tuple[Values, Slope]:
    x, slope, dy = widen(res.x), widen(res.slope), widen(dy)
    dslope = pixel_sum(jnp.where(x > 0, 0, x * dy))
    return jnp.where(x > 0, dy, slope * dy), dslope if slope.ndim else jnp.sum(dslope)


def prelu_reference(x, slope):
    return jnp.where(x > 0, x, widen(slope) * widen(x)).astype(x.dtype)


def _prelu_check(x, slope) -> None:
    check.floating("prelu", x=x)
    check.floating("prelu", slope=slope)
    if slope.shape not in ((), x.shape[-1:]):
        check.fail("prelu", "slope", f"shape {slope.shape}", f"shape () or {x.shape[-1:]} like x's last axis")
    check.as_x_or_wider("prelu", "slope", slope, x)


prelu = Rule(prelu_fwd, prelu_bwd, prelu_reference, _prelu_check)
