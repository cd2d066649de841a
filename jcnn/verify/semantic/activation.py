"""What people get wrong in the backwards of activations."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import lax

from jcnn.activation import gelu, leaky_relu, log_softmax, relu, relu6, sigmoid, silu, softmax, tanh
from jcnn.kernels import widen
from jcnn.rule import Rule
from jcnn.verify.semantic.errors import Error, Parts, backward, cotangent, kept, residual


def _over_all_axes(rule: Rule) -> Parts:
    def bwd(res, dy):
        return rule.bwd(dataclasses.replace(res, axis=tuple(range(dy.ndim))), dy)

    return {"bwd": bwd}


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

ERRORS: dict[Rule, dict[str, Error]] = {
    relu: RELU,
    relu6: RELU6,
    leaky_relu: LEAKY_RELU,
    sigmoid: SIGMOID,
    tanh: TANH,
    silu: SILU,
    gelu: GELU,
    softmax: SOFTMAX,
    log_softmax: LOG_SOFTMAX,
}
