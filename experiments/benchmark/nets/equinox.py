"""The twin of a net in equinox: channels first and under `vmap`, as its users write it."""

import functools
import operator
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import nn
from jax import Array

from experiments.benchmark import nets

AXIS = "batch"
ACTIVATIONS = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "sigmoid": jax.nn.sigmoid,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


class _Residual(nn.StatefulLayer):
    body: nn.Sequential
    shortcut: nn.Sequential

    def __call__(self, x: Array, state: Any, *, key: Array | None = None) -> tuple[Array, Any]:
        y, state = self.body(x, state)
        shortcut, state = self.shortcut(x, state)
        return y + shortcut, state


class _Scale(eqx.Module):
    weight: Array

    def __call__(self, x: Array, *, key: Array | None = None) -> Array:
        return x * self.weight[:, None, None]


class _OfPixels(eqx.Module):
    """A layer of vectors, for the channels of every pixel of an image too."""

    layer: nn.LayerNorm | nn.Linear

    def __call__(self, x: Array, *, key: Array | None = None) -> Array:
        return jax.vmap(jax.vmap(self.layer, 1, 1), 1, 1)(x) if x.ndim == 3 else self.layer(x)


def _module(layer: Any, weights: dict[str, Array]) -> eqx.Module:
    """A layer of equinox that has these weights."""
    weights = nets.channels_first(layer, weights)
    module = _empty(layer, weights["weight"])
    for name, value in weights.items():
        shape = getattr(module, name).shape  # with axes of size 1 in the bias of a convolution
        module = eqx.tree_at(operator.attrgetter(name), module, value.reshape(shape))
    return _OfPixels(module) if isinstance(layer, nets.LayerNorm | nets.Dense) else module


def _empty(layer: Any, weight: Array) -> eqx.Module:
    """The same with weights that are yet to be replaced, or only their shapes."""
    channels, dtype = weight.shape[1:2], weight.dtype
    match layer:
        case nets.Conv(features, kernel, stride, padding, groups, bias):
            sizes = channels[0] * groups, features, kernel, stride, padding
            make = functools.partial(nn.Conv2d, *sizes, groups=groups, use_bias=bias, dtype=dtype)
        case nets.Dense(features, bias):
            make = functools.partial(nn.Linear, *channels, features, use_bias=bias, dtype=dtype)
        case nets.BatchNorm(eps):
            return nn.BatchNorm(len(weight), AXIS, eps, momentum=nets.MOMENTUM, dtype=dtype, mode="batch")
        case nets.LayerNorm(eps):
            return nn.LayerNorm(len(weight), eps, dtype=dtype)
        case nets.Scale():
            return _Scale(weight)
        case _:
            raise TypeError(f"no such layer: {layer}")
    return eqx.filter_eval_shape(make, key=jax.random.key(0))


def _sequence(layers: nets.Layers, weights: Iterator[dict[str, Array]]) -> nn.Sequential:
    modules = []
    for layer in layers:
        match layer:
            case nets.Residual(body, shortcut):
                modules.append(_Residual(_sequence(body, weights), _sequence(shortcut, weights)))
            case nets.Activation(name):
                modules.append(nn.Lambda(ACTIVATIONS[name]))
            case nets.MaxPool(size):
                modules.append(nn.MaxPool2d(size, size))
            case nets.AvgPool(size):
                modules.append(nn.AvgPool2d(size, size))
            case nets.GlobalAvgPool():
                modules.append(nn.Lambda(lambda x: x.mean((1, 2))))
            case nets.Flatten():
                modules.append(nn.Lambda(jnp.ravel))
            case _:
                modules.append(_module(layer, next(weights)))
    return nn.Sequential(modules)


def build(layers: nets.Layers, weights: nets.Weights, images: Array) -> nets.Twin:
    model, state = nn.make_with_state(lambda: _sequence(layers, iter(weights)))()
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params, state, images, labels):
        model = eqx.combine(params, static)
        logits, state = jax.vmap(model, axis_name=AXIS, in_axes=(0, None), out_axes=(0, None))(images, state)
        return nets.mean_cross_entropy(logits, labels), state

    def gradients(tree):
        leaves = iter(jax.tree.leaves(tree))  # of each module first the weight, then the bias
        found = []
        for layer, w in nets.paired(layers, weights):
            named = {name: next(leaves) for name in nets.channels_first(layer, w)}
            flat = {name: g.ravel() if name == "bias" else g for name, g in named.items()}
            found.append(nets.channels_last(layer, flat))
        return found

    return nets.Twin(loss, params, state, images.transpose(0, 3, 1, 2), gradients)
