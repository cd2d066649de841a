"""The layers of a net that have arrays, in order, with what other libraries need to know of them.

A path says where a layer's arrays are: "4.0.1" is `params[4][0][1]`.  In a chain, children are numbered; of a
residual, 0 is the body and 1 the shortcut.  A net that is a single layer has the path "".

Flattening.  A vector that was an image is ordered (*S, C) here, and (C, *S) where channels come first.  The
weights that meet it have to be permuted, so the walk through the net remembers the shape of the image as long
as the vector keeps its order: through layers that treat all values alike, up to the dense layer.
"""

import functools
import math
from typing import Any, NamedTuple

import jax

from jcnn import check
from jcnn.geometry import Ints
from jcnn.net import Net, output_shape

MIX_NEIGHBOURS = ("group_norm", "local_response_norm")  # for which the order of channels matters


class Layer(NamedTuple):
    """One layer with parameters."""

    path: str  # where its arrays are in params and state
    name: str  # of the net, for example "conv 3, stride 2"
    operation: str  # what it does, for example "conv"
    arrays: dict[str, Ints]  # shapes of parameters and statistics by name, for example {"w": (3, 3, 1, 8)}
    flattened: Ints | None  # (*S, C), where the input is that image as a vector

    @property
    def kind(self) -> str:
        """What a module of another library has to be, as far as its arrays tell."""
        if "mean" in self.arrays:
            return "batch norm"
        if self.operation == "layer_scale":
            return "layer scale"
        axes = len(self.arrays.get("w", ()))
        return "per channel" if axes == 0 else "dense" if axes == 2 else "convolution"

    def __str__(self) -> str:
        return f"layer {self.path!r} ({self.name})"


def layers(op: str, net: Net, image_shape: Ints, *, channels_first: bool) -> tuple[Layer, ...]:
    """The layers of `net` with arrays; `channels_first` is the order of the other library's flattening."""
    trees = jax.eval_shape(functools.partial(net.init, image_shape=image_shape), jax.random.key(0))
    arrays: dict[str, dict[str, Ints]] = {}
    for (path, name), array in located(trees).items():
        arrays.setdefault(path, {})[name] = array.shape
    found: dict[str, Layer] = {}
    _walk(op, net, tuple(image_shape), "", None, channels_first, arrays, found)
    if lost := arrays.keys() - found.keys():
        check.fail(op, "net", f"arrays at {sorted(lost)}", "arrays of layers only, not of their composition")
    return tuple(layer for layer in found.values() if layer.arrays)


def located(trees: tuple[Any, Any]) -> dict[tuple[str, str], Any]:
    """The leaves of (params, state), each by the path of its layer and its name."""
    return {_place(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(trees)}


def arranged(net: Net, image_shape: Ints, leaves: dict[tuple[str, str], Any]) -> tuple[Any, Any]:
    """(params, state) of `net` with these leaves: the inverse of `located`."""
    trees = jax.eval_shape(functools.partial(net.init, image_shape=image_shape), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(lambda keys, _: leaves[_place(keys)], trees)


def _place(keys: tuple) -> tuple[str, str]:
    """Path and name, from keys that start with 0 for params and 1 for state."""
    path = [str(k.idx) for k in keys[1:] if isinstance(k, jax.tree_util.SequenceKey)]
    name = [str(k.key) for k in keys[1:] if isinstance(k, jax.tree_util.DictKey)]
    return ".".join(path), ".".join(name)


def _walk(op, net, shape, path, flattened, channels_first, arrays, found) -> Ints | None:
    """Adds the layers of `net`, on images of `shape`, to `found`; what its output is a flattening of."""
    if not net.children:
        operation = net.rule.name if net.rule is not None else net.name
        layer = found[path] = Layer(path, net.name, operation, arrays.get(path, {}), flattened)
        return _flattened_after(op, net, layer, shape) if channels_first else None
    after = set()
    for i, child in enumerate(net.children):
        below = f"{path}.{i}" if path else str(i)
        result = _walk(op, child, shape, below, flattened, channels_first, arrays, found)
        if net.name == "chain":
            shape, flattened, after = output_shape(child, shape), result, {result}
        else:
            after.add(result)
    if len(after) > 1:
        expected = "branches that keep, or all end, the order of the flattened image that they get"
        check.fail(op, "net", f"{net.name} {path!r}", expected)
    return after.pop() if after else flattened


def _flattened_after(op: str, net: Net, layer: Layer, shape: Ints) -> Ints | None:
    if layer.operation == "flatten":
        trivial = 1 in (math.prod(shape[:-1]), shape[-1])
        return layer.flattened or (None if trivial else shape)
    if layer.flattened is None or layer.kind == "dense":
        return None
    if layer.operation in MIX_NEIGHBOURS or output_shape(net, shape) != shape:
        expected = "only layers that treat all values alike between a flattened image and a dense layer"
        check.fail(op, "net", str(layer), expected)
    return layer.flattened
