"""The gated linear unit: one half of the values, each times a gate that a value of the other half opens.

Shapes.  x, dx [..., 2 D, ...];  a, b, y, dy [..., D, ...], along `axis`.

Forward.  x = (a, b), s = 1 / (1 + exp(-b)), y = a s

Backward.  y' = s a' + a s (1 - s) b'.  Requiring sum(dy y') = sum(da a') + sum(db b'):

    dx = (da, db) = (s dy, y (1 - s) dy)        kept: y and s

Kinks.  None.
Reference.  Dauphin et al. 2016, arXiv:1612.08083, section 2.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jcnn import check
from jcnn.activation.common import Values, activation
from jcnn.kernels import widen
from jcnn.residuals import residuals, static

Half = Float[Array, "*half"]


@residuals
class GluResiduals:
    y: Half  # the output
    s: Half  # the gates
    axis: int = static()


def glu_fwd(x: Values, *, axis: int = -1) -> tuple[Half, GluResiduals]:
    """The first half of x along `axis`, times the sigmoid of the second.

    Args:
        x: values, an even number along `axis`.
        axis: an int.

    Returns:
        An array like x with half as many values along `axis`.

    Raises:
        TypeError: x is not floating point.
        ValueError: x has no such axis, or an odd number of values along it.
    """
    a, b = jnp.split(widen(x), 2, axis)
    s = lax.logistic(b)
    y = (a * s).astype(x.dtype)
    return y, GluResiduals(y, s.astype(x.dtype), axis)


def glu_bwd(res: GluResiduals, dy: Half) -> tuple[Values]:
    y, s, dy = widen(res.y), widen(res.s), widen(dy)
    return (jnp.concatenate([s * dy, y * (1 - s) * dy], res.axis),)


def glu_reference(x, *, axis=-1):
    a, b = jnp.split(x, 2, axis)
    return a * jax.nn.sigmoid(b)


def _check_halves(op, x, *, axis):
    if not isinstance(axis, int) or not -x.ndim <= axis < x.ndim:
        check.fail(op, "axis", repr(axis), f"an axis of x, which has shape {x.shape}")
    if x.shape[axis] % 2:
        check.fail(op, "x", f"shape {x.shape}", f"an even number of values on axis {axis}")


glu = activation(glu_fwd, glu_bwd, glu_reference, _check_halves)
