"""What people get wrong in the backwards of activations."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jcnn.activation import (
    elu,
    gelu,
    glu,
    hard_sigmoid,
    hard_swish,
    leaky_relu,
    log_softmax,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from jcnn.activation.smooth import SELU_ALPHA, SELU_SCALE
from jcnn.kernels import widen
from jcnn.rule import Rule
from jcnn.verify.semantic.errors import Error, Parts, backward, cotangent, kept, residual


def _over_all_axes(rule: Rule) -> Parts:
    def bwd(res, dy):
        return rule.bwd(dataclasses.replace(res, axis=tuple(range(dy.ndim))), dy)

    return {"bwd": bwd}


def _slope(of: Callable[[Array], Array]) -> Error:
    """Another derivative, a function of x."""
    return kept(lambda res, x: {"slope": of(widen(x)).astype(x.dtype)})


def _at_output(rule: Rule) -> Parts:
    """The derivative is taken at y."""

    def fwd(x, **static):
        y, _ = rule.fwd(x, **static)
        return y, rule.fwd(y, **static)[1]

    return {"fwd": fwd}


def _configured(**change: Callable[[Any], Any]) -> Error:
    """The residuals are those of another configuration."""

    def error(rule):
        def fwd(x, **static):
            others = static | {name: f(static[name]) for name, f in change.items()}
            return rule.fwd(x, **static)[0], rule.fwd(x, **others)[1]

        return {"fwd": fwd}

    return error


def _gate_errors(g: Callable[[Array], Array]) -> dict[str, Error]:
    """Of x g(x), whose derivative is g + x g'."""

    def dg(x):
        return jax.jvp(g, (x,), (jnp.ones_like(x),))[1]

    return {
        "derivative taken at y": _at_output,
        "x g' forgotten": _slope(g),
        "g forgotten": _slope(lambda x: x * dg(x)),
        "x forgotten": _slope(lambda x: g(x) + dg(x)),
    }


def _halves(of: Callable[[Any, Array], tuple[Array, Array]]) -> Error:
    """Other cotangents (da, db) of glu."""
    return backward(lambda res, dy: (jnp.concatenate(of(res, dy), res.axis),))


def _p(res: Any) -> Array:
    return widen(res.e) / res.total


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
    "slope forgotten": residual(outside=lambda slope: 1.0),
    "slope zero": residual(outside=lambda slope: 0.0),
}
PRELU: dict[str, Error] = {
    "slope forgotten": residual(slope=jnp.ones_like),
    "slope zero": residual(slope=jnp.zeros_like),
    "mask inverted": residual(x=jnp.negative),
    "mean over the batch for sum": cotangent(1, lambda ds, res, dy: ds / len(res.x)),
    "dslope summed where x > 0, too": cotangent(
        1, lambda ds, res, dy: ds + prelu.bwd(dataclasses.replace(res, x=-res.x), -dy)[1]
    ),
    "dslope of one slope for each channel": cotangent(1, lambda ds, res, dy: jnp.full_like(ds, ds.sum())),
    "x forgotten in dslope": cotangent(
        1, lambda ds, res, dy: prelu.bwd(dataclasses.replace(res, x=jnp.sign(res.x)), dy)[1]
    ),
}
HARD_SIGMOID: dict[str, Error] = {
    "derivative 1 / 6 at -3": kept(lambda res, x: {"mask": (x >= -3) & (x < 3)}),
    "derivative 1 / 6 at 3": kept(lambda res, x: {"mask": (x > -3) & (x <= 3)}),
    "bounds of relu6": kept(lambda res, x: {"mask": (x > 0) & (x < 6)}),
    "factor 1 / 6 forgotten": residual(inside=lambda slope: 1),
    "slope 1 / 5 of other definitions": residual(inside=lambda slope: 0.2),
    "mask forgotten": residual(mask=jnp.ones_like),
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
SOFTPLUS: dict[str, Error] = {
    "derivative taken at y": _at_output,
    "sigmoid(-x) for sigmoid(x)": _slope(lambda x: lax.logistic(-x)),
    "tanh for sigmoid": _slope(jnp.tanh),
    "derivative of sigmoid": _slope(lambda x: lax.logistic(x) * lax.logistic(-x)),
}
ELU: dict[str, Error] = {
    "alpha forgotten": _configured(alpha=lambda alpha: 1.0),
    "derivative taken at y": _at_output,
    "y below 0": _slope(lambda x: jnp.where(x > 0, 1, jnp.expm1(x))),
    "exp(x) above 0, too": _slope(jnp.exp),
    "relu's": _slope(lambda x: jnp.where(x > 0, 1.0, 0.0)),
}
SELU: dict[str, Error] = {
    "scale forgotten": _slope(lambda x: elu.fwd(x, alpha=SELU_ALPHA)[1].slope),
    "scale forgotten above 0": _slope(lambda x: jnp.where(x > 0, 1, selu.fwd(x)[1].slope)),
    "alpha forgotten": _slope(lambda x: SELU_SCALE * elu.fwd(x)[1].slope),
    "derivative taken at y": _at_output,
}
GELU: dict[str, Error] = _gate_errors(jax.scipy.stats.norm.cdf) | {
    "exact and approximate confused": _configured(approximate=lambda approximate: not approximate),
    "factor 1 / sqrt(2 pi) forgotten": _slope(
        lambda x: jax.scipy.stats.norm.cdf(x) + x * jnp.exp(-(x**2) / 2)
    ),
}
SILU: dict[str, Error] = _gate_errors(lax.logistic)
MISH: dict[str, Error] = _gate_errors(lambda x: jnp.tanh(jax.nn.softplus(x))) | {
    "derivative of softplus forgotten": _slope(
        lambda x: mish.fwd(x)[1].slope + x * (1 - jnp.tanh(jax.nn.softplus(x)) ** 2) * lax.logistic(-x)
    ),
}
HARD_SWISH: dict[str, Error] = _gate_errors(jax.nn.hard_sigmoid) | {
    "0 for 1 above 3": _slope(lambda x: jnp.where(x >= 3, 0, hard_swish.fwd(x)[1].slope)),
    "slope inside at 3": _slope(lambda x: jnp.where(x == 3, 1.5, hard_swish.fwd(x)[1].slope)),
    "slope inside at -3": _slope(lambda x: jnp.where(x == -3, -0.5, hard_swish.fwd(x)[1].slope)),
}
GLU: dict[str, Error] = {
    "halves exchanged": cotangent(0, lambda dx, res, dy: jnp.roll(dx, dy.shape[res.axis], res.axis)),
    "1 - s forgotten": _halves(lambda res, dy: (res.s * dy, res.y * dy)),
    "s forgotten": _halves(lambda res, dy: (dy, res.y * (1 - res.s) * dy)),
    "a forgotten": _halves(lambda res, dy: (res.s * dy, res.s * (1 - res.s) * dy)),
    "the gate is constant": _halves(lambda res, dy: (res.s * dy, 0 * dy)),
    "tanh's derivative": _halves(lambda res, dy: (res.s * dy, res.y * (1 - res.s**2) * dy)),
}
SOFTMAX: dict[str, Error] = {
    "only the diagonal": backward(lambda res, dy: (dy * res.y * (1 - res.y),)),
    "sum(y dy) forgotten": backward(lambda res, dy: (dy * res.y,)),
    "sum(dy) for sum(y dy)": backward(lambda res, dy: (res.y * (dy - dy.sum(res.axis, keepdims=True)),)),
    "y forgotten outside": backward(lambda res, dy: (dy - (res.y * dy).sum(res.axis, keepdims=True),)),
    "sum over all axes": _over_all_axes,
}
LOG_SOFTMAX: dict[str, Error] = {
    "y for exp(y)": backward(lambda res, dy: (dy - jnp.log(_p(res)) * dy.sum(res.axis, keepdims=True),)),
    "e for e / sum(e)": residual(total=jnp.ones_like),
    "only the diagonal": backward(lambda res, dy: (dy - _p(res) * dy,)),
    "mean for sum": backward(lambda res, dy: (dy - _p(res) * dy.mean(res.axis, keepdims=True),)),
    "sum over all axes": _over_all_axes,
}

ERRORS: dict[Rule, dict[str, Error]] = {
    relu: RELU,
    relu6: RELU6,
    leaky_relu: LEAKY_RELU,
    prelu: PRELU,
    sigmoid: SIGMOID,
    tanh: TANH,
    softplus: SOFTPLUS,
    elu: ELU,
    selu: SELU,
    gelu: GELU,
    silu: SILU,
    mish: MISH,
    hard_sigmoid: HARD_SIGMOID,
    hard_swish: HARD_SWISH,
    glu: GLU,
    softmax: SOFTMAX,
    log_softmax: LOG_SOFTMAX,
}
