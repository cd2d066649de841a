"""What people get wrong in the backwards of norms, `weight_standardize` and `layer_scale`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jcnn.kernels import widen
from jcnn.layer_scale import layer_scale
from jcnn.norm import (
    batch_norm,
    batch_norm_inference,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    rms_norm,
    weight_standardize,
)
from jcnn.norm.response import sum_of_squares
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


def _at_entries(statistic: Array, x: Array) -> Array:
    """A residual of layer norm [*L, 1] or group norm [N, G] as an array like x."""
    if statistic.shape[:-1] != x.shape[:-1]:
        statistic = statistic.reshape(len(x), *(1 for _ in x.shape[1:-1]), -1)
    return jnp.repeat(statistic, x.shape[-1] // statistic.shape[-1], -1) + jnp.zeros_like(x)


def _through(res: Any, dy: Array, groups: int) -> tuple[Array, Array]:
    """What dx of a layer or group norm loses to the mean and to the variance, of so many groups."""
    x = widen(res.x)
    rstd = _at_entries(res.rstd, x)
    xhat, g = (x - _at_entries(res.mean, x)) * rstd, widen(res.gamma) * widen(dy)
    pixels = () if res.mean.shape[:-1] == x.shape[:-1] else range(1, x.ndim - 1)

    def mean(a):
        blocks = a.reshape(*a.shape[:-1], groups, -1)
        return (blocks.mean((*pixels, -1), keepdims=True) + jnp.zeros_like(blocks)).reshape(a.shape)

    return rstd * mean(g), rstd * xhat * mean(g * xhat)


def _paths(mean: int = 1, variance: int = 1) -> Error:
    """dx of a layer or group norm with its paths through the mean and the variance times a factor."""

    def change(dx: Array, res: Any, dy: Array) -> Array:
        through_mean, through_variance = _through(res, dy, res.mean.shape[-1])
        return dx + (1 - mean) * through_mean + (1 - variance) * through_variance

    return cotangent(0, change)


def _in_one_block(dx: Array, res: Any, dy: Array) -> Array:
    return dx + sum(_through(res, dy, res.mean.shape[-1])) - sum(_through(res, dy, 1))


def _gamma_outside(rule: Rule) -> Error:
    def change(dx: Array, res: Any, dy: Array) -> Array:
        return widen(res.gamma) * rule.bwd(dataclasses.replace(res, gamma=jnp.ones_like(res.gamma)), dy)[0]

    return cotangent(0, change)


def _from_centred(dgamma: Array, res: Any, dy: Array) -> Array:
    return (widen(dy) * (widen(res.x) - _at_entries(res.mean, widen(res.x)))).sum(range(dy.ndim - 1))


def _of_rms(mean: int = 0, square: int = 1) -> Error:
    """dx of `rms_norm` with a path through a mean of x, and that through the mean square times a factor."""

    def change(dx: Array, res: Any, dy: Array) -> Array:
        xhat, g = widen(res.x) * res.rstd, widen(res.gamma) * widen(dy)
        through_square = res.rstd * xhat * (g * xhat).mean(-1, keepdims=True)
        return dx - mean * res.rstd * g.mean(-1, keepdims=True) + (1 - square) * through_square

    return cotangent(0, change)


def _of_weights(mean: int = 1, variance: int = 1) -> Error:
    """dw of `weight_standardize` with its paths through the mean and the variance times a factor."""

    def change(dw: Array, res: Any, dy: Array) -> Array:
        y, dy, axes = widen(res.y), widen(dy), range(dw.ndim - 1)
        through_mean, through_variance = dy.mean(axes), y * (dy * y).mean(axes)
        return dw + res.rstd * ((1 - mean) * through_mean + (1 - variance) * through_variance)

    return cotangent(0, change)


def _shared_path(factor: Callable[[Any], Any]) -> Error:
    """dx of `local_response_norm` with its path through the neighbours' denominators times a factor."""

    def bwd(res, dy):
        (dx,) = local_response_norm.bwd(res, dy)
        direct = widen(dy) * sum_of_squares(res) ** -res.beta
        return (direct + factor(res) * (widen(dx) - direct),)

    return backward(bwd)


def _mirrored(res: Any, dy: Array) -> tuple:
    """The backward with the channels in the other order: windows of even size reach to the other side."""
    mirrored = dataclasses.replace(res, x=res.x[..., ::-1])
    return (local_response_norm.bwd(mirrored, dy[..., ::-1])[0][..., ::-1],)


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
LAYER_NORM = INSTANCE_NORM | {"gamma outside of the means": _gamma_outside(layer_norm)}
GROUP_NORM = INSTANCE_NORM | {
    "gamma outside of the means": _gamma_outside(group_norm),
    "all channels in one block": cotangent(0, _in_one_block),
}
RMS_NORM: dict[str, Error] = {
    "mean square path forgotten": _of_rms(square=0),
    "mean square path doubled": _of_rms(square=2),
    "mean square path of the other sign": _of_rms(square=-1),
    "mean path as in layer norm": _of_rms(mean=1),
    "gamma forgotten in dx": residual(gamma=jnp.ones_like),
    "gamma outside of the mean": _gamma_outside(rms_norm),
    "dgamma from x": cotangent(1, lambda dgamma, res, dy: (widen(dy) * res.x).sum(range(dy.ndim - 1))),
    "dgamma a mean over positions": cotangent(1, lambda dgamma, res, dy: dgamma / rows(dy)),
}
LOCAL_RESPONSE_NORM: dict[str, Error] = {
    "denominator as if constant": _shared_path(lambda res: 0),
    "path through the sum of the other sign": _shared_path(lambda res: -1),
    "factor 2 of the square forgotten": _shared_path(lambda res: 1 / 2),
    "factor beta forgotten": _shared_path(lambda res: 1 / res.beta),
    "alpha not divided by size in the backward": _shared_path(lambda res: res.size),
    "window of the other alignment": backward(_mirrored),
    "sum over one channel": residual(size=lambda size: 1),
    "k forgotten": residual(k=lambda k: 0.0),
}
WEIGHT_STANDARDIZE: dict[str, Error] = {
    "mean path forgotten": _of_weights(mean=0),
    "mean path of the other sign": _of_weights(mean=-1),
    "variance path forgotten": _of_weights(variance=0),
    "variance path doubled": _of_weights(variance=2),
    "rstd forgotten": residual(rstd=jnp.ones_like),
    "rstd twice": residual(rstd=lambda rstd: rstd**2),
}
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
    rms_norm: RMS_NORM,
    local_response_norm: LOCAL_RESPONSE_NORM,
    weight_standardize: WEIGHT_STANDARDIZE,
    layer_scale: LAYER_SCALE,
}
