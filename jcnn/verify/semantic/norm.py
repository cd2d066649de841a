"""What people get wrong in the backwards of norms and `layer_scale`."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jcnn.kernels import widen
from jcnn.layer_norm import group_norm, instance_norm, layer_norm
from jcnn.layer_scale import layer_scale
from jcnn.norm import batch_norm, batch_norm_inference
from jcnn.rule import Rule
from jcnn.verify.semantic.errors import Error, backward, cotangent, residual, rows


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

ERRORS: dict[Rule, dict[str, Error]] = {
    batch_norm: BATCH_NORM,
    batch_norm_inference: BATCH_NORM_INFERENCE,
    instance_norm: INSTANCE_NORM,
    layer_norm: LAYER_NORM,
    group_norm: GROUP_NORM,
    layer_scale: LAYER_SCALE,
}
