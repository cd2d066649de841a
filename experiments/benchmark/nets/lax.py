"""The twin of a net in `jax.lax` and `jax.numpy`, for autodiff: what users without a library write."""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from experiments.benchmark import nets

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "sigmoid": jax.nn.sigmoid,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}


def build(layers: nets.Layers, weights: nets.Weights, images: Array) -> nets.Twin:
    state = [
        {"mean": jnp.zeros_like(w["gamma"]), "var": jnp.ones_like(w["gamma"])}
        for layer, w in zip(nets.weighted(layers), weights, strict=True)
        if isinstance(layer, nets.BatchNorm)
    ]

    def loss(params, state, images, labels):
        logits, state = forward(layers, params, state, images)
        return nets.mean_cross_entropy(logits, labels), state

    return nets.Twin(loss, weights, state, images, lambda gradients: gradients)


def forward(layers: nets.Layers, params: nets.Weights, state: list, x: Array) -> tuple[Array, list]:
    """Logits in training mode, and the running statistics after it."""
    weights, running, after = iter(params), iter(state), []

    def run(layers: nets.Layers, x: Array) -> Array:
        for layer in layers:
            match layer:
                case nets.Residual(body, shortcut):
                    x = run(body, x) + run(shortcut, x)
                case nets.Conv():
                    x = conv(x, **next(weights), layer=layer)
                case nets.Dense():
                    x = dense(x, **next(weights))
                case nets.BatchNorm(eps):
                    x, stats = batch_norm(x, **next(weights), eps=eps)
                    old = next(running)
                    after.append({n: nets.MOMENTUM * old[n] + (1 - nets.MOMENTUM) * stats[n] for n in old})
                case nets.LayerNorm(eps):
                    x = layer_norm(x, **next(weights), eps=eps)
                case nets.Scale():
                    x = x * next(weights)["gamma"]
                case nets.Activation(name):
                    x = ACTIVATIONS[name](x)
                case nets.MaxPool(size):
                    x = windows(x, -jnp.inf, lax.max, size)
                case nets.AvgPool(size):
                    x = windows(x, 0.0, lax.add, size) / size**2
                case nets.GlobalAvgPool():
                    x = x.mean((1, 2))
                case nets.Flatten():
                    x = x.reshape(len(x), -1)
                case _:
                    raise TypeError(f"no such layer: {layer}")
        return x

    return run(layers, x), after


def conv(x: Array, w: Array, b: Array | None = None, *, layer: nets.Conv) -> Array:
    y = lax.conv_general_dilated(
        x,
        w,
        (layer.stride, layer.stride),
        layer.pads,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=layer.groups,
    )
    return y if b is None else y + b


def dense(x: Array, w: Array, b: Array | None = None) -> Array:
    return x @ w if b is None else x @ w + b


def batch_norm(x: Array, gamma: Array, beta: Array, *, eps: float) -> tuple[Array, dict[str, Array]]:
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) * lax.rsqrt(var + eps) * gamma + beta, {"mean": mean, "var": var}


def layer_norm(x: Array, gamma: Array, beta: Array, *, eps: float) -> Array:
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(var + eps) * gamma + beta


def windows(x: Array, start: float, combine, size: int) -> Array:
    shape = (1, size, size, 1)
    return lax.reduce_window(x, start, combine, shape, shape, "VALID")
