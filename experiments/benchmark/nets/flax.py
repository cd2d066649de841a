"""The twin of a net in flax (linen), with its defaults where they do not change what is computed."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from experiments.benchmark import nets

ACTIVATIONS = {
    "relu": nn.relu,
    "relu6": nn.relu6,
    "sigmoid": nn.sigmoid,
    "gelu": functools.partial(nn.gelu, approximate=False),
}
NAMES = {"w": "kernel", "b": "bias", "gamma": "scale", "beta": "bias"}


class Net(nn.Module):
    """The layers in sequence; those with weights are named layer000, layer001, ... in their order."""

    layers: nets.Layers

    @nn.compact
    def __call__(self, x: Array) -> Array:
        count = 0

        def name() -> str:
            nonlocal count
            count += 1
            return _name(count - 1)

        def run(layers: nets.Layers, x: Array) -> Array:
            for layer in layers:
                match layer:
                    case nets.Residual(body, shortcut):
                        x = run(body, x) + run(shortcut, x)
                    case nets.Conv(features, kernel, stride, _, groups, bias):
                        x = nn.Conv(
                            features,
                            (kernel, kernel),
                            (stride, stride),
                            layer.pads,
                            feature_group_count=groups,
                            use_bias=bias,
                            name=name(),
                        )(x)
                    case nets.Dense(features, bias):
                        x = nn.Dense(features, use_bias=bias, name=name())(x)
                    case nets.BatchNorm(eps):
                        x = nn.BatchNorm(False, momentum=nets.MOMENTUM, epsilon=eps, name=name())(x)
                    case nets.LayerNorm(eps):
                        x = nn.LayerNorm(eps, name=name())(x)
                    case nets.Scale():
                        x = _Scale(name=name())(x)
                    case nets.Activation(kind):
                        x = ACTIVATIONS[kind](x)
                    case nets.MaxPool(size):
                        x = nn.max_pool(x, (size, size), (size, size))
                    case nets.AvgPool(size):
                        x = nn.avg_pool(x, (size, size), (size, size))
                    case nets.GlobalAvgPool():
                        x = x.mean((1, 2))
                    case nets.Flatten():
                        x = x.reshape(len(x), -1)
                    case _:
                        raise TypeError(f"no such layer: {layer}")
            return x

        return run(self.layers, x)


class _Scale(nn.Module):
    @nn.compact
    def __call__(self, x: Array) -> Array:
        return x * self.param("scale", nn.initializers.ones, x.shape[-1:])


def _name(i: int) -> str:
    return f"layer{i:03d}"


def build(layers: nets.Layers, weights: nets.Weights, images: Array) -> nets.Twin:
    net = Net(layers)
    params, stats = {}, {}
    for i, (layer, w) in enumerate(nets.paired(layers, weights)):
        params[_name(i)] = {NAMES[name]: value for name, value in w.items()}
        if isinstance(layer, nets.BatchNorm):
            stats[_name(i)] = {"mean": jnp.zeros_like(w["gamma"]), "var": jnp.ones_like(w["gamma"])}

    def loss(params, stats, images, labels):
        variables = {"params": params, "batch_stats": stats}
        logits, after = net.apply(variables, images, mutable=["batch_stats"])
        return nets.mean_cross_entropy(logits, labels), after.get("batch_stats", {})

    def gradients(tree):
        of_layers = (tree[_name(i)] for i in range(len(weights)))
        return [{name: g[NAMES[name]] for name in w} for g, w in zip(of_layers, weights, strict=True)]

    return nets.Twin(loss, params, stats, images, gradients)
