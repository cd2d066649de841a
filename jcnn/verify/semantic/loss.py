"""What people get wrong in the backwards of losses."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array

from jcnn.kernels import widen
from jcnn.loss import softmax_cross_entropy
from jcnn.rule import Rule
from jcnn.verify.semantic.errors import Error, cotangent, residual, rows


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

ERRORS: dict[Rule, dict[str, Error]] = {
    softmax_cross_entropy: SOFTMAX_CROSS_ENTROPY,
}
