"""Weights to and from Flax: the variables of linen, or the pure dicts of an nnx state.

What is where.  Layouts are jcnn's own but for the transposed convolution:

    convolution              w [*K, C/g, O]     kernel [*K, C/g, O]
    transposed convolution   w [*K, O, C]       kernel [*K, C, O] with the spatial axes flipped, or
                                                [*K, O, C] as it is with transpose_kernel=True
    dense                    w [C, O]           kernel [C, O]
    norms                    gamma, beta        scale, bias
    batch norm, also         mean, var          mean, var, in "batch_stats"
    layer scale              gamma              layer_scale or gamma
    prelu                    slope              negative_slope

What is not in the weights: Flax's convolutions pad "SAME" unless told otherwise, as the layers of `jcnn.net`
do, but its `max_pool` and `avg_pool` have stride 1; its `avg_pool` counts padding; eps is 1e-6 in its layer,
group, instance and RMS norm, and momentum 0.99 in its batch norm, the weight of the old value as here.
Running variances are biased in both, and flattened images have the same order.
"""

import functools
import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jcnn.geometry import Ints
from jcnn.interop.layers import Layer
from jcnn.interop.match import Call, Library, Modules, Names, pairs, to_ours, to_theirs
from jcnn.net import Net

COLLECTIONS = ("params", "batch_stats")


def from_flax(
    net: Net,
    variables: Mapping[str, Any],
    image_shape: Ints,
    *,
    names: Names | None = None,
    transpose_kernel: bool = False,
) -> tuple[Any, Any]:
    """The values of Flax's variables as (params, state) of `net`.

    Modules are paired with layers by order, the n-th convolution with the n-th convolution, and so on for
    every kind.  Their order is that of their names with numbers read as such, Conv_2 before Conv_10: Flax
    numbers modules as they are made, and JAX sorts dicts.  Where names tell nothing, `names` says which
    module a layer is; `flax_names` shows the pairs.

    Args:
        net: a net of the same layers.
        variables: {"params": ..., "batch_stats": ...}, nested dicts of arrays.
        image_shape: (*S, C) of the images, as for `net.init`.
        names: {path of a layer: "Outer_0/Conv_1"}, for all layers or some; the others go by order.
        transpose_kernel: what the transposed convolutions were made with.

    Returns:
        (params, state) like those of `net.init`, in the dtypes of the variables.

    Raises:
        ValueError: layers or modules without a partner; arrays missing, left over or of another shape.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> variables = {"params": {"Dense_0": {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}}}
        >>> net = jcnn.chain(jcnn.net.global_avg_pool(), jcnn.net.dense(2))
        >>> params, state = jcnn.interop.from_flax(net, variables, (8, 8, 3))
        >>> params[1]["w"].shape
        (3, 2)
    """
    call = Call(_library(transpose_kernel), "from_flax", "variables")
    return to_ours(call, net, _modules(call, variables), image_shape, names)


def to_flax(
    net: Net,
    params: Any,
    state: Any,
    image_shape: Ints,
    *,
    like: Mapping[str, Any],
    names: Names | None = None,
    transpose_kernel: bool = False,
) -> dict[str, Any]:
    """(params, state) of `net` as Flax's variables: the inverse of `from_flax`.

    Args:
        net, image_shape, names, transpose_kernel: as for `from_flax`.
        params, state: those of `net`, or anything in their shape.
        like: variables of the module: their names, shapes and dtypes are the result's.

    Returns:
        Nested dicts of arrays, as `like`.

    Raises:
        ValueError: as `from_flax`, or params and state are not those of `net`.
    """
    call = Call(_library(transpose_kernel), "to_flax", "like")
    modules = to_theirs(call, net, (params, state), image_shape, _modules(call, like), names)

    def filled(tree: Mapping, path: tuple[str, ...]) -> dict:
        return {
            key: filled(value, (*path, str(key)))
            if isinstance(value, Mapping)
            else jnp.array(modules["/".join(path)][str(key)], value.dtype)
            for key, value in tree.items()
        }

    return {collection: filled(tree, ()) for collection, tree in like.items()}


def flax_names(
    net: Net, variables: Mapping[str, Any], image_shape: Ints, *, names: Names | None = None
) -> dict[str, str]:
    """{path of a layer: name of the module} as `from_flax` pairs them: to look at, or to correct."""
    call = Call(_library(False), "flax_names", "variables")
    found = pairs(call, net, _modules(call, variables), image_shape, names)
    return {layer.path: module for layer, module in found}


def _modules(call: Call, variables: Mapping[str, Any]) -> Modules:
    arrays: dict[tuple[str, ...], dict[str, np.ndarray]] = {}

    def collect(tree: Mapping, path: tuple[str, ...]) -> None:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                collect(value, (*path, str(key)))
            else:
                arrays.setdefault(path, {})[str(key)] = np.asarray(value)

    if "params" not in variables or not set(variables) <= set(COLLECTIONS):
        call.fail(f"collections {sorted(variables)}", "'params' and, with batch norm, 'batch_stats'")
    for collection in COLLECTIONS:
        collect(variables.get(collection, {}), ())
    return {"/".join(path): arrays[path] for path in sorted(arrays, key=_numbered)}


def _numbered(path: tuple[str, ...]) -> list[list[tuple[int, int, str]]]:
    """A key to sort by, for which Conv_2 comes before Conv_10."""
    parts = (re.split(r"(\d+)", name) for name in path)
    return [[(0, int(s), "") if s.isdigit() else (1, 0, s) for s in part if s] for part in parts]


def _convert(layer: Layer, name: str, a: np.ndarray, *, transpose_kernel: bool) -> np.ndarray:
    """Either way: what is done to a kernel is its own inverse."""
    if name == "w" and layer.operation == "conv_transpose" and not transpose_kernel:
        return np.flip(a, tuple(range(a.ndim - 2))).swapaxes(-1, -2)
    return a


@functools.cache
def _library(transpose_kernel: bool) -> Library:
    convert = functools.partial(_convert, transpose_kernel=transpose_kernel)
    return Library(
        name="flax",
        arrays={
            "w": "kernel",
            "b": "bias",
            "gamma": "scale",
            "beta": "bias",
            "mean": "mean",
            "var": "var",
            "slope": "negative_slope",
        },
        channels_first=False,
        ours=convert,
        theirs=convert,
    )
