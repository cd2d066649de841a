"""What people get wrong in the backwards of losses."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jcnn.kernels import widen
from jcnn.loss import binary_cross_entropy, focal_loss, huber, kl_divergence, mse, softmax_cross_entropy
from jcnn.rule import Rule
from jcnn.verify.semantic.errors import Error, backward, cotangent, residual, rows


def _weights_forgotten(dz: Array, res: Any, dloss: Array) -> Array:
    return softmax_cross_entropy.bwd(dataclasses.replace(res, class_weights=None), dloss)[0]


def _probabilities(res: Any, dloss: Array) -> Array:
    """dloss p: all of dz but the labels, without smoothing, weights and z-loss."""
    return widen(dloss)[..., None] * jnp.exp(widen(res.logits) - res.lse[..., None])


SOFTMAX_CROSS_ENTROPY: dict[str, Error] = {
    "labels not subtracted": cotangent(0, lambda dz, res, dloss: _probabilities(res, dloss)),
    "labels subtracted twice": cotangent(0, lambda dz, res, dloss: 2 * dz - _probabilities(res, dloss)),
    "logits for probabilities": cotangent(
        0,
        lambda dz, res, dloss: dz - _probabilities(res, dloss) + widen(dloss)[..., None] * widen(res.logits),
    ),
    "a mean over examples": cotangent(0, lambda dz, res, dloss: dz / rows(dz)),
    "smoothing forgotten": residual(label_smoothing=lambda smoothing: 0.0),
    "class weights forgotten in dz": cotangent(0, _weights_forgotten),
    "ignore_index forgotten": residual(ignore_index=lambda index: None),
    "z-loss forgotten": residual(z_loss=lambda zeta: 0.0),
    "factor 2 of z-loss forgotten": residual(z_loss=lambda zeta: zeta / 2),
}


def _soft(**changes: Callable[[Any], Any]) -> Error:
    """Other residuals, where the labels have a cotangent; of hard labels only a slope is kept."""

    def error(rule):
        broken = residual(**changes)(rule)["bwd"]
        kept = next(iter(changes))
        return {"bwd": lambda res, dloss: (broken if hasattr(res, kept) else rule.bwd)(res, dloss)}

    return error


def _sigmoid(res: Any) -> Array:
    return jax.nn.sigmoid(widen(res.logits if hasattr(res, "logits") else res.slope))


BINARY_CROSS_ENTROPY: dict[str, Error] = {
    "labels forgotten": _soft(labels=jnp.zeros_like),
    "logits for probabilities": _soft(logits=lambda z: jnp.log(jnp.abs(z) / (1 + jnp.abs(z)))),
    "derivative of the sigmoid multiplied in again": cotangent(
        0, lambda dz, res, dloss: dz * _sigmoid(res) * (1 - _sigmoid(res))
    ),
    "positive weight forgotten": _soft(pos_weight=lambda w: w if w is None else jnp.ones_like(w)),
    "smoothing forgotten": _soft(label_smoothing=lambda smoothing: 0.0),
    "a mean over elements": cotangent(0, lambda dz, res, dloss: dz / dz.size),
}
FOCAL_LOSS: dict[str, Error] = {
    "gamma forgotten": _soft(gamma=lambda gamma: 0),
    "gamma 1 too small": _soft(gamma=lambda gamma: max(gamma - 1, 0)),
    "modulating factor held constant": cotangent(
        0, lambda dz, res, dloss: dz - _through_modulation(res, dloss)
    ),
    "alpha forgotten": _soft(alpha=lambda alpha: None),
    "alpha for 1 - alpha": _soft(alpha=lambda alpha: alpha if alpha is None else 1 - alpha),
    "labels inverted": _soft(labels=lambda y: 1 - y),
}


def _through_modulation(res: Any, dloss: Array) -> Array:
    """The part of dz that comes from the derivative of r^gamma."""
    if not hasattr(res, "logits"):
        return jnp.zeros_like(dloss)
    z, y = widen(res.logits), widen(res.labels)

    def loss(moving: Array) -> Array:
        r = y * jax.nn.sigmoid(-moving) + (1 - y) * jax.nn.sigmoid(moving)
        ce = binary_cross_entropy.reference(z, y)
        a = 1 if res.alpha is None else res.alpha * y + (1 - res.alpha) * (1 - y)
        return jnp.sum(widen(dloss) * a * r**res.gamma * ce)

    return jax.grad(loss)(z)


KL_DIVERGENCE: dict[str, Error] = {
    "sign of dq": cotangent(0, lambda dq, res, dloss: -dq),
    "exp(q) for p": cotangent(
        0, lambda dq, res, dloss: -widen(dloss)[..., None] * jnp.exp(widen(res.log_predictions))
    ),
    "p - exp(q), as of logits": cotangent(
        0, lambda dq, res, dloss: dq + widen(dloss)[..., None] * jnp.exp(widen(res.log_predictions))
    ),
    "log targets for targets": residual(log_targets=lambda log_targets: not log_targets),
    "derivative of p log p without its 1": cotangent(
        1,
        lambda dp, res, dloss: (
            dp - widen(dloss)[..., None] * (jnp.exp(widen(res.targets)) if res.log_targets else 1)
        ),
    ),
    "targets held constant": cotangent(1, lambda dp, res, dloss: jnp.zeros_like(dp)),
    "a mean over classes": cotangent(0, lambda dq, res, dloss: dq / dq.shape[-1]),
}
MSE: dict[str, Error] = {
    "factor 2 forgotten": cotangent(0, lambda dy, res, dloss: dy / 2),
    "sign of the targets' cotangent": cotangent(1, lambda dt, res, dloss: -dt),
    "targets held constant": cotangent(1, lambda dt, res, dloss: jnp.zeros_like(dt)),
    "a mean over elements": cotangent(0, lambda dy, res, dloss: dy / dy.size),
    "sign for difference, as of absolute error": residual(difference=jnp.sign),
}
HUBER: dict[str, Error] = {
    "clipped at 1": residual(slope=lambda c: jnp.clip(c, -1, 1)),
    "sign for slope": residual(slope=jnp.sign),
    "factor 2 as of mse": cotangent(0, lambda dy, res, dloss: 2 * dy),
    "sign of the targets' cotangent": cotangent(1, lambda dt, res, dloss: -dt),
    "no gradient beyond delta": backward(
        lambda res, dloss: (
            jnp.where(jnp.abs(res.slope) < jnp.max(jnp.abs(res.slope)), res.slope * dloss, 0),
            -res.slope * dloss,
        )
    ),
}

ERRORS: dict[Rule, dict[str, Error]] = {
    softmax_cross_entropy: SOFTMAX_CROSS_ENTROPY,
    binary_cross_entropy: BINARY_CROSS_ENTROPY,
    focal_loss: FOCAL_LOSS,
    kl_divergence: KL_DIVERGENCE,
    mse: MSE,
    huber: HUBER,
}
