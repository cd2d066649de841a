"""Nets as data: one description of a net, from which every framework builds its own in its own idiom.

A description is a tuple of layers and knows nothing of jcnn: jcnn's contestant is the model in `jcnn.models`,
and that both are the same net is seen from losses and gradients.  Weights are jcnn's: a list with a dict
of arrays for each layer that has any, in the order of the net; of a residual block, the body comes first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

Weights = list[dict[str, Any]]
MOMENTUM = 0.9  # weight of the old running statistics


@dataclass(frozen=True)
class Conv:
    features: int
    kernel: int
    stride: int = 1
    padding: int = 0  # on every side
    groups: int = 1
    bias: bool = False

    @property
    def pads(self) -> tuple[tuple[int, int], ...]:
        """(low, high) for each axis of the image."""
        return ((self.padding,) * 2,) * 2


@dataclass(frozen=True)
class Dense:
    features: int
    bias: bool = True
    flattened: int | None = None  # channels of the image whose pixels, flattened, come in


@dataclass(frozen=True)
class BatchNorm:
    eps: float = 1e-5


@dataclass(frozen=True)
class LayerNorm:
    """Over the channels of every pixel."""

    eps: float = 1e-5


@dataclass(frozen=True)
class Scale:
    """A factor per channel."""


@dataclass(frozen=True)
class Activation:
    name: str  # relu, relu6, sigmoid, gelu (exact)


@dataclass(frozen=True)
class MaxPool:
    size: int


@dataclass(frozen=True)
class AvgPool:
    size: int


@dataclass(frozen=True)
class GlobalAvgPool:
    pass


@dataclass(frozen=True)
class Flatten:
    pass


@dataclass(frozen=True)
class Residual:
    body: tuple
    shortcut: tuple = ()  # the identity


Layers = tuple[Any, ...]
WEIGHTED = (Conv, Dense, BatchNorm, LayerNorm, Scale)


class Twin(NamedTuple):
    """The same net in another framework of JAX: a loss, and what it is of."""

    loss: Callable[..., tuple[Array, Any]]  # (params, state, images, labels) -> (mean loss, new state)
    params: Any
    state: Any
    images: Array  # in the layout that the framework's users have
    gradients: Callable[[Any], Weights]  # gradients of params in jcnn's names and layout


def weighted(layers: Layers) -> Iterator[Any]:
    """The layers that have weights, in the order of the weights."""
    for layer in layers:
        if isinstance(layer, Residual):
            yield from weighted(layer.body)
            yield from weighted(layer.shortcut)
        elif isinstance(layer, WEIGHTED):
            yield layer


def weights_of(params: Any) -> Weights:
    """jcnn's parameters (nested tuples of dicts) as a flat list; layers without parameters are left out."""
    if isinstance(params, Mapping):
        if not any(isinstance(value, Mapping | tuple | list) for value in params.values()):
            return [dict(params)] if params else []
        params = tuple(params.values())
    return [weights for part in params for weights in weights_of(part)]


def mean_cross_entropy(logits: Array, labels: Array) -> Array:
    """As a user of JAX writes it."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


def channels_first(layer: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """The arrays as frameworks with channels first store them, under the names `weight` and `bias`."""
    match layer:
        case Conv():
            weight, bias = weights["w"].transpose(3, 2, 0, 1), weights.get("b")
        case Dense():
            weight, bias = _dense_rows(weights["w"], layer.flattened).T, weights.get("b")
        case Scale():
            weight, bias = weights["gamma"], None
        case _:
            weight, bias = weights["gamma"], weights["beta"]
    return {"weight": weight} | ({} if bias is None else {"bias": bias})


def channels_last(layer: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `channels_first`."""
    weight, bias = weights["weight"], weights.get("bias")
    match layer:
        case Conv():
            back = {"w": weight.transpose(2, 3, 1, 0), "b": bias}
        case Dense():
            rows = weight.T
            pixels = None if layer.flattened is None else len(rows) // layer.flattened
            back = {"w": _dense_rows(rows, pixels), "b": bias}
        case Scale():
            back = {"gamma": weight}
        case _:
            back = {"gamma": weight, "beta": bias}
    return {name: value for name, value in back.items() if value is not None}


def _dense_rows(w: Any, inner: int | None) -> Any:
    """Rows that count (outer, inner) reordered to count (inner, outer): pixels and channels change places."""
    if inner is None:
        return w
    return w.reshape(-1, inner, w.shape[-1]).swapaxes(0, 1).reshape(w.shape)


def paired(layers: Layers, weights: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each layer that has weights with what is given for it."""
    return list(zip(weighted(layers), weights, strict=True))
