"""Pairs the layers of a net with the modules of another library, and converts their arrays either way.

A module is a named group of arrays: {"weight": ..., "bias": ...} of "layer1.0.conv2".  Layers and modules
are paired by the names that are given, and what is left by order, kind by kind: the n-th convolution with the
n-th convolution.  Every array is accounted for: what is missing, left over or of another shape is an error
that names both sides.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jcnn import check
from jcnn.geometry import Ints
from jcnn.interop.layers import Layer, arranged, layers, located
from jcnn.net import Net

Module = dict[str, np.ndarray]
Modules = dict[str, Module]
Names = Mapping[str, str]

KINDS = ("convolution", "dense", "batch norm", "per channel", "layer scale")
SCALES = ("layer_scale", "gamma")  # names of a layer scale, which no library has a module for


class Library(NamedTuple):
    """How another library names and lays out arrays."""

    name: str
    arrays: dict[str, str]  # its names of jcnn's arrays
    channels_first: bool  # the order of a flattened image
    ours: Callable[[Layer, str, np.ndarray], np.ndarray]  # the named array of a layer in jcnn's layout
    theirs: Callable[[Layer, str, np.ndarray], np.ndarray]  # its inverse


class Call(NamedTuple):
    """Who asks, for messages: the function, and its argument that holds the modules."""

    library: Library
    function: str
    argument: str

    def fail(self, got: str, expected: str, argument: str | None = None):
        check.fail(f"interop.{self.function}", argument or self.argument, got, expected)


def pairs(
    call: Call, net: Net, modules: Modules, image_shape: Ints, names: Names | None
) -> list[tuple[Layer, str]]:
    """Every layer with arrays and its module's name."""
    channels_first = call.library.channels_first
    all_layers = layers(f"interop.{call.function}", net, image_shape, channels_first=channels_first)
    given = dict(names or {})
    _check_names(call, given, all_layers, modules)
    result = dict(given)
    taken = set(given.values())
    for kind in KINDS:
        ours = [layer for layer in all_layers if layer.kind == kind and layer.path not in given]
        theirs = [name for name, m in modules.items() if _kind(call.library, m) == kind and name not in taken]
        if len(ours) != len(theirs):
            call.fail(
                f"{len(theirs)} modules of kind {kind!r} by order: {_listed(theirs)}",
                f"{len(ours)}, for {_listed(map(str, ours), '')}",
            )
        result |= {layer.path: name for layer, name in zip(ours, theirs, strict=True)}
    return [(layer, result[layer.path]) for layer in all_layers]


def to_ours(
    call: Call, net: Net, modules: Modules, image_shape: Ints, names: Names | None
) -> tuple[Any, Any]:
    """(params, state) of `net`, with the values of the modules."""
    leaves = {}
    for layer, module in pairs(call, net, modules, image_shape, names):
        for name, key in _keys(call, layer, module, modules[module]).items():
            array = modules[module][key]
            shaped = array.reshape(_expected_shape(call.library, layer, name))
            leaves[layer.path, name] = jnp.array(call.library.ours(layer, name, shaped))
    return arranged(net, image_shape, leaves)


def to_theirs(
    call: Call, net: Net, trees: tuple[Any, Any], image_shape: Ints, like: Modules, names: Names | None
) -> Modules:
    """The modules of `like`, with the values of (params, state)."""
    leaves, result = located(trees), {}
    for layer, module in pairs(call, net, like, image_shape, names):
        result[module] = {}
        for name, key in _keys(call, layer, module, like[module]).items():
            array, shape = leaves.pop((layer.path, name), None), layer.arrays[name]
            if array is None or array.shape != shape:
                got = "nothing" if array is None else f"shape {array.shape}"
                call.fail(f"{got} for {name!r} of {layer}", f"shape {shape}", "params, state")
            theirs = call.library.theirs(layer, name, np.asarray(array))
            result[module][key] = theirs.reshape(like[module][key].shape)
    if leaves:
        call.fail(f"arrays that net does not have: {sorted(leaves)}", "the trees of net", "params, state")
    return result


def _kind(library: Library, module: Module) -> str:
    if library.arrays["mean"] in module:
        return "batch norm"
    if any(name in module for name in SCALES):
        return "layer scale"
    axes = module[library.arrays["w"]].ndim if library.arrays["w"] in module else 0
    return "per channel" if axes < 2 else "dense" if axes == 2 else "convolution"


def _check_names(call: Call, names: dict[str, str], layers: Sequence[Layer], modules: Modules) -> None:
    at = {layer.path: layer for layer in layers}
    for path, module in names.items():
        if path not in at:
            call.fail(f"layer {path!r}", f"one of {_listed(at)}", "names")
        if module not in modules:
            call.fail(f"module {module!r} for {at[path]}", f"one of {_listed(modules)}", "names")
        kinds = {_kind(call.library, modules[module]), at[path].kind}
        if len(kinds) > 1 and kinds != {"dense", "convolution"}:  # of 1x1 pixels, or shapes will not fit
            got = f"module {module!r} of kind {_kind(call.library, modules[module])!r} for {at[path]}"
            call.fail(got, f"a module of kind {at[path].kind!r}", "names")
    twice = sorted({module for module in names.values() if list(names.values()).count(module) > 1})
    if twice:
        call.fail(f"{_listed(twice)} more than once", "a module of its own for every layer", "names")


def _keys(call: Call, layer: Layer, module_name: str, module: Module) -> dict[str, str]:
    """For each array of `layer`, the key of the array in `module` that belongs to it; shapes are checked."""
    keys = {}
    for name in layer.arrays:
        if name not in call.library.arrays:
            expected = f"arrays that {call.library.name} has, too: {_listed(call.library.arrays)}"
            call.fail(f"array {name!r} of {layer}", expected, "net")
        keys[name] = call.library.arrays[name]
    if layer.kind == "layer scale":
        keys = {"gamma": next(key for key in SCALES if key in module)}
    if set(keys.values()) != module.keys():
        got = f"module {module_name!r} with {_listed(sorted(module))} for {layer}"
        call.fail(got, f"{_listed(sorted(keys.values()))}: give `names`, or biases to the net as there")
    for name, key in keys.items():
        expected, shape = _expected_shape(call.library, layer, name), module[key].shape
        if not _same_but_for_ones(shape, expected):
            call.fail(
                f"shape {shape} of {key!r} of module {module_name!r}",
                f"{expected}, which is {name!r} {layer.arrays[name]} of {layer}",
            )
    return keys


def _expected_shape(library: Library, layer: Layer, name: str) -> Ints:
    return library.theirs(layer, name, np.broadcast_to(np.float32(0), layer.arrays[name])).shape


def _same_but_for_ones(*shapes: Ints) -> bool:
    """Whether one has more axes of size 1 at an end: a layer scale [C, 1, 1], a dense layer [O, C, 1, 1]."""
    short, long = sorted(shapes, key=len)
    ones = (1,) * (len(long) - len(short))
    return long in (short + ones, ones + short)


def _listed(items: Iterable[str], quote: str = "'") -> str:
    return ", ".join(f"{quote}{item}{quote}" for item in items) or "none"
