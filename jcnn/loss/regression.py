"""Losses of numbers: squared error and the Huber loss.

Shapes.  predictions y, targets t, loss and their cotangents: any shape, all the same.

Forward.  With d = y - t,

    mse      loss = d^2
    huber    loss = d^2 / 2 where |d| <= delta, delta (|d| - delta / 2) beyond

Backward.  d' = y' - t'.  The slope of huber, d within and delta sign(d) beyond, is d clipped:

    mse      dy = 2 d dloss = -dt                                       kept: d
    huber    dy =   c dloss = -dt,  c = min(max(d, -delta), delta)      kept: c

One array is kept in place of two, and the backward reads no more than that and dloss.

Kinks.  None in the losses; the slope of huber, c, has one at |d| = delta.
Reference.  Huber 1964, Annals of Mathematical Statistics 35, section 6.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jcnn import check
from jcnn.kernels import widen
from jcnn.residuals import residuals
from jcnn.rule import Rule

Values = Float[Array, "*shape"]


@residuals
class MseResiduals:
    difference: Values  # d, which both cotangents are a multiple of


@residuals
class HuberResiduals:
    slope: Values  # c, which both cotangents are a multiple of


def mse_fwd(predictions: Values, targets: Values) -> tuple[Values, MseResiduals]:
    """Squared error, per element: their mean is the mean squared error (take it yourself).

    Args:
        predictions: any shape.
        targets: of the same shape and dtype; nothing is broadcast.

    Returns:
        (predictions - targets)^2, an array like predictions.

    Raises:
        TypeError: not floating point, or of two dtypes.
        ValueError: shapes that differ.
    """
    d = widen(predictions) - widen(targets)
    return (d * d).astype(predictions.dtype), MseResiduals(d.astype(predictions.dtype))


def mse_bwd(res: MseResiduals, dloss: Values) -> tuple[Values, Values]:
    dy = 2 * widen(res.difference) * widen(dloss)
    return dy, -dy


def mse_reference(predictions, targets):
    return jnp.square(predictions - targets)


def huber_fwd(
    predictions: Values, targets: Values, *, delta: float | int = 1.0
) -> tuple[Values, HuberResiduals]:
    """Huber loss, per element (take the mean yourself): squared error near 0, absolute error far away.

    Args:
        predictions: any shape.
        targets: of the same shape and dtype; nothing is broadcast.
        delta: > 0, the error beyond which the loss is linear.

    Returns:
        d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), for d = predictions - targets.

    Raises:
        TypeError: not floating point, or of two dtypes.
        ValueError: shapes that differ, or delta out of range.
    """
    d = widen(predictions) - widen(targets)
    loss = jnp.where(jnp.abs(d) <= delta, d * d / 2, delta * (jnp.abs(d) - delta / 2))
    slope = jnp.clip(d, -delta, delta)
    return loss.astype(predictions.dtype), HuberResiduals(slope.astype(predictions.dtype))


def huber_bwd(res: HuberResiduals, dloss: Values) -> tuple[Values, Values]:
    dy = widen(res.slope) * widen(dloss)
    return dy, -dy


def huber_reference(predictions, targets, *, delta=1.0):
    d = predictions - targets
    return jnp.where(jnp.abs(d) <= delta, jnp.square(d) / 2, delta * (jnp.abs(d) - delta / 2))


def _check_pair(op: str, predictions: Array, targets: Array) -> None:
    check.floating(op, predictions=predictions, targets=targets)
    check.shape(op, "targets", targets, predictions.shape, "like predictions")


def _mse_check(predictions, targets) -> None:
    _check_pair("mse", predictions, targets)


def _huber_check(predictions, targets, *, delta) -> None:
    _check_pair("huber", predictions, targets)
    check.positive("huber", "delta", delta)


mse = Rule(mse_fwd, mse_bwd, mse_reference, _mse_check)
huber = Rule(huber_fwd, huber_bwd, huber_reference, _huber_check)
