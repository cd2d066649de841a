"""What people get wrong in the backwards of jcnn's dense layers, activations, norms, dropout and loss."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jcnn.activation import gelu, leaky_relu, log_softmax, relu, relu6, sigmoid, silu, softmax, tanh
from jcnn.kernels import widen
from jcnn.layer_norm import group_norm, instance_norm, layer_norm
from jcnn.layer_scale import layer_scale
from jcnn.linear import dense, flatten
from jcnn.loss import softmax_cross_entropy
from jcnn.norm import batch_norm, batch_norm_inference
from jcnn.regularize import dropout
from jcnn.rule import Rule
from jcnn.verify.semantic_errors import (
    Error,
    Parts,
    backward,
    channels_swapped,
    cotangent,
    kept,
    residual,
    rows,
)


def _over_all_axes(rule: Rule) -> Parts:
    def bwd(res, dy):
        return rule.bwd(dataclasses.replace(res, axis=tuple(range(dy.ndim))), dy)

    return {"bwd": bwd}


def _xhat(res: Any) -> Array:
    return (widen(res.x) - res.mean) * res.rstd


def _through_mean(res: Any, cotangents: Any) -> Array:
    dy = widen(cotangents[0]).astype(res.mean.dtype)
    return _counted(res) * widen(res.gamma) * res.rstd * dy.sum(range(dy.ndim - 1)) / res.count


def _through_variance(res: Any, cotangents: Any) -> Array:
    xhat, dy = _xhat(res), widen(cotangents[0]).astype(res.mean.dtype)
    sums = (dy * xhat).sum(range(dy.ndim - 1))
    return _counted(res) * widen(res.gamma) * res.rstd * xhat * sums / res.count


def _counted(res: Any) -> Array:
    mask = jnp.ones((1,)) if res.mask is None else res.mask
    mask = mask.reshape(mask.shape + (1,) * (res.x.ndim - mask.ndim))
    return mask.astype(bool).astype(res.mean.dtype)


def _paths(mean: int = 1, variance: int = 1) -> Error:
    """dx of a block norm with its paths through the mean and the variance times a factor."""

    def change(dx: Array, res: Any, dy: Array) -> Array:
        shape = (*dx.shape[:-1], res.blocks.groups, dx.shape[-1] // res.blocks.groups)
        axes, rstd = (*res.blocks.pixels, -1), res.rstd[..., None]
        xhat = (widen(res.x).reshape(shape) - res.mean[..., None]) * rstd
        g = (widen(res.gamma) * widen(dy)).reshape(shape)
        through_mean = rstd * g.mean(axes, keepdims=True)
        through_variance = rstd * xhat * (g * xhat).mean(axes, keepdims=True)
        return dx + ((1 - mean) * through_mean + (1 - variance) * through_variance).reshape(dx.shape)

    return cotangent(0, change)


def _gamma_outside(dx: Array, res: Any, dy: Array) -> Array:
    return widen(res.gamma) * layer_norm.bwd(dataclasses.replace(res, gamma=jnp.ones_like(res.gamma)), dy)[0]


def _from_centred(dgamma: Array, res: Any, dy: Array) -> Array:
    mean = jnp.repeat(res.mean, dy.shape[-1] // res.mean.shape[-1], -1)
    return (widen(dy) * (widen(res.x) - mean)).sum(range(dy.ndim - 1))


def _weights_forgotten(dz: Array, res: Any, dloss: Array) -> Array:
    return softmax_cross_entropy.bwd(dataclasses.replace(res, class_weights=None), dloss)[0]


def _probabilities(res: Any, dloss: Array) -> Array:
    """dloss p: all of dz but the labels, without smoothing, weights and z-loss."""
    return widen(dloss)[..., None] * jnp.exp(widen(res.logits) - res.lse[..., None])


DENSE: dict[str, Error] = {
    "weights not transposed": residual(w=channels_swapped),
    "dw transposed": cotangent(1, lambda dw, res, dy: channels_swapped(dw)),
    "dw a mean over examples": cotangent(1, lambda dw, res, dy: dw / rows(dy)),
    "db a mean over examples": cotangent(2, lambda db, res, dy: db / rows(dy)),
}
FLATTEN: dict[str, Error] = {
    "column-major": backward(
        lambda res, dy: (lax.transpose(dy.reshape(res.shape[0], *res.shape[:0:-1]),
                                       (0, *range(len(res.shape) - 1, 0, -1))),)
    ),
    "one value late": backward(lambda res, dy: (jnp.roll(dy, 1, -1).reshape(res.shape),)),
}  # fmt: skip
RELU: dict[str, Error] = {
    "derivative 1 at 0": kept(lambda res, x: {"mask": x >= 0}),
    "mask inverted": residual(mask=jnp.logical_not),
    "mask forgotten": residual(mask=jnp.ones_like),
    "guided": backward(lambda res, dy: relu.bwd(res, jnp.maximum(dy, 0))),
}
RELU6: dict[str, Error] = {
    "derivative 1 at 0": kept(lambda res, x: {"mask": (x >= 0) & (x < 6)}),
    "derivative 1 at 6": kept(lambda res, x: {"mask": (x > 0) & (x <= 6)}),
    "upper bound forgotten": kept(lambda res, x: {"mask": x > 0}),
    "lower bound forgotten": kept(lambda res, x: {"mask": x < 6}),
    "mask inverted": residual(mask=jnp.logical_not),
}
LEAKY_RELU: dict[str, Error] = {
    "derivative 1 at 0": kept(lambda res, x: {"mask": x >= 0}),
    "mask inverted": residual(mask=jnp.logical_not),
    "slope forgotten": residual(negative_slope=lambda slope: 1.0),
    "slope zero": residual(negative_slope=lambda slope: 0.0),
}
SIGMOID: dict[str, Error] = {
    "derivative taken at y": residual(y=lax.logistic),
    "y forgotten": backward(lambda res, dy: (dy * (1 - res.y),)),
    "1 - y forgotten": backward(lambda res, dy: (dy * res.y,)),
    "1 - y^2 as of tanh": backward(lambda res, dy: (dy * (1 - res.y**2),)),
}
TANH: dict[str, Error] = {
    "derivative taken at y": residual(y=jnp.tanh),
    "1 - y for 1 - y^2": backward(lambda res, dy: (dy * (1 - res.y),)),
    "y (1 - y) as of sigmoid": backward(lambda res, dy: (dy * res.y * (1 - res.y),)),
}
SILU: dict[str, Error] = {
    "x s' forgotten": backward(lambda res, dy: (widen(dy) * lax.logistic(widen(res.x)),)),
    "s forgotten": cotangent(
        0, lambda dx, res, dy: dx - widen(dy) * lax.logistic(widen(res.x))
    ),
    "derivative taken at y": residual(x=lambda x: x * lax.logistic(x)),
}  # fmt: skip
GELU: dict[str, Error] = {
    "exact and approximate confused": residual(approximate=lambda approximate: not approximate),
    "x p(x) forgotten": cotangent(0, lambda dx, res, dy: widen(dy) * jax.scipy.stats.norm.cdf(widen(res.x))),
    "factor 1 / sqrt(2 pi) forgotten": cotangent(
        0,
        lambda dx, res, dy: (
            dx
            + widen(dy) * widen(res.x) * jnp.exp(-(widen(res.x) ** 2) / 2) * (1 - 1 / math.sqrt(2 * math.pi))
        ),
    ),
}
SOFTMAX: dict[str, Error] = {
    "only the diagonal": backward(lambda res, dy: (dy * res.y * (1 - res.y),)),
    "sum(y dy) forgotten": backward(lambda res, dy: (dy * res.y,)),
    "sum(dy) for sum(y dy)": backward(lambda res, dy: (res.y * (dy - dy.sum(res.axis, keepdims=True)),)),
    "y forgotten outside": backward(lambda res, dy: (dy - (res.y * dy).sum(res.axis, keepdims=True),)),
    "sum over all axes": _over_all_axes,
}
LOG_SOFTMAX: dict[str, Error] = {
    "y for exp(y)": backward(lambda res, dy: (dy - res.y * dy.sum(res.axis, keepdims=True),)),
    "only the diagonal": backward(lambda res, dy: (dy - jnp.exp(res.y) * dy,)),
    "mean for sum": backward(lambda res, dy: (dy - jnp.exp(res.y) * dy.mean(res.axis, keepdims=True),)),
    "sum over all axes": _over_all_axes,
}
BATCH_NORM: dict[str, Error] = {
    "mean path forgotten": cotangent(0, lambda dx, res, dy: dx + _through_mean(res, dy)),
    "variance path forgotten": cotangent(0, lambda dx, res, dy: dx + _through_variance(res, dy)),
    "variance path doubled": cotangent(0, lambda dx, res, dy: dx - _through_variance(res, dy)),
    "mean path of the other sign": cotangent(0, lambda dx, res, dy: dx + 2 * _through_mean(res, dy)),
    "variance as if divided by m - 1": cotangent(
        0, lambda dx, res, dy: dx - _through_variance(res, dy) / (res.count - 1)
    ),
    "sums for means in both paths": cotangent(
        0,
        lambda dx, res, dy: dx - (res.count - 1) * (_through_mean(res, dy) + _through_variance(res, dy)),
    ),
    "gamma forgotten in dx": residual(gamma=jnp.ones_like),
    "cotangents of mean and var ignored": backward(
        lambda res, dy: batch_norm.bwd(res, (dy[0], jax.tree.map(jnp.zeros_like, dy[1])))
    ),
    "factor 2 of dvar forgotten": backward(
        lambda res, dy: batch_norm.bwd(res, (dy[0], dy[1]._replace(var=dy[1].var / 2)))
    ),
    "dgamma from x - mean": cotangent(1, lambda dgamma, res, dy: dgamma / res.rstd),
    "mask forgotten": residual(mask=lambda mask: None),
}
BATCH_NORM_INFERENCE: dict[str, Error] = {
    "mean and variance as of the batch": cotangent(0, lambda dx, res, dy: dx - dx.mean(range(dx.ndim - 1))),
    "gamma forgotten": residual(gamma=jnp.ones_like),
    "dgamma from x - mean": cotangent(1, lambda dgamma, res, dy: dgamma / widen(res.rstd)),
    "no gradient for mean and var": backward(
        lambda res, dy: (*batch_norm_inference.bwd(res, dy)[:3], *map(jnp.zeros_like, (res.mean, res.mean)))
    ),
    "factor 1/2 of dvar forgotten": cotangent(4, lambda dvar, res, dy: 2 * dvar),
}
INSTANCE_NORM: dict[str, Error] = {
    "mean path forgotten": _paths(mean=0),
    "mean path of the other sign": _paths(mean=-1),
    "variance path forgotten": _paths(variance=0),
    "variance path doubled": _paths(variance=2),
    "gamma forgotten in dx": residual(gamma=jnp.ones_like),
    "dgamma from x - mean": cotangent(1, _from_centred),
    "dgamma a mean over positions": cotangent(1, lambda dgamma, res, dy: dgamma / rows(dy)),
    "dbeta a mean over positions": cotangent(2, lambda dbeta, res, dy: dbeta / rows(dy)),
}
LAYER_NORM = INSTANCE_NORM | {"gamma outside of the means": cotangent(0, _gamma_outside)}
GROUP_NORM = LAYER_NORM | {"all channels in one block": residual(blocks=lambda b: b._replace(groups=1))}
LAYER_SCALE: dict[str, Error] = {
    "gamma forgotten": residual(gamma=jnp.ones_like),
    "dgamma from y": cotangent(1, lambda dgamma, res, dy: res.gamma * dgamma),
    "dgamma a mean over positions": cotangent(1, lambda dgamma, res, dy: dgamma / rows(dy)),
}
DROPOUT: dict[str, Error] = {
    "scale forgotten": cotangent(0, lambda dx, res, dy: dx * (1 - res.rate)),
    "scaled twice": cotangent(0, lambda dx, res, dy: dx / (1 - res.rate)),
    "mask forgotten": cotangent(0, lambda dx, res, dy: widen(dy) / (1 - res.rate)),
    "mask inverted": cotangent(0, lambda dx, res, dy: widen(dy) / (1 - res.rate) - dx),
    "another mask": residual(kept=lambda kept: jnp.roll(kept, 1)),
}
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
    dense: DENSE,
    flatten: FLATTEN,
    relu: RELU,
    relu6: RELU6,
    leaky_relu: LEAKY_RELU,
    sigmoid: SIGMOID,
    tanh: TANH,
    silu: SILU,
    gelu: GELU,
    softmax: SOFTMAX,
    log_softmax: LOG_SOFTMAX,
    batch_norm: BATCH_NORM,
    batch_norm_inference: BATCH_NORM_INFERENCE,
    layer_norm: LAYER_NORM,
    group_norm: GROUP_NORM,
    instance_norm: INSTANCE_NORM,
    layer_scale: LAYER_SCALE,
    dropout: DROPOUT,
    softmax_cross_entropy: SOFTMAX_CROSS_ENTROPY,
}
