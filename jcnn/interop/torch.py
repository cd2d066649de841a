"""Weights to and from PyTorch's state dicts, images to and from its layout.

What is where.  With C inputs, O outputs, g groups, a kernel K and per-channel vectors:

    convolution              w [*K, C/g, O]     weight [O, C/g, *K]
    transposed convolution   w [*K, O/g, C]     weight [C, O/g, *K]      the same move of axes
    dense                    w [C, O]           weight [O, C]
    norms                    gamma, beta        weight, bias
    batch norm, also         mean, var          running_mean, running_var
    layer scale              gamma [C]          layer_scale or gamma, [C] or [C, 1, 1]
    prelu                    slope [C] or []    weight [C] or [1]

A dense layer after `flatten` sees pixels and channels in another order: here (*S, C), there (C, *S).  Its
rows are permuted, and so is everything per channel between the two.

What is not in the weights:

- Padding.  With stride 2, "SAME" pads a 3x3 kernel on an even axis by (0, 1), and PyTorch's padding=1 by
  (1, 1).  A net that is to match has its padding written as a number, as `jcnn.models.resnet` does.
- Momentum of running statistics is the weight of the OLD value here, and of the new one there: `momentum`.
- PyTorch's running variance is unbiased, ours biased.  Converting does not change it; inference is the same,
  and so are outputs, gradients and weights in training.  But every step in training adds n / (n - 1) times as
  much to the running variance there, for n values per channel in the batch.
- PyTorch's average pooling counts padding; here `count_include_pad=True` does.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jcnn import check
from jcnn.geometry import Ints
from jcnn.interop.layers import Layer
from jcnn.interop.match import Call, Library, Modules, Names, pairs, to_ours, to_theirs
from jcnn.net import Net

COUNTER = "num_batches_tracked"  # of batch norm; jcnn has nothing like it and does not need it


def from_torch(
    net: Net, state_dict: Mapping[str, Any], image_shape: Ints, *, names: Names | None = None
) -> tuple[Any, Any]:
    """The values of a PyTorch state dict as (params, state) of `net`.

    Modules are paired with layers by order, the n-th convolution with the n-th convolution, and so on for
    every kind.  That is right if `__init__` defines the modules of a kind in the order in which `net` has its
    layers, a residual's body before its shortcut.  Otherwise `names` says which module a layer is;
    `torch_names` shows the pairs.

    Args:
        net: a net of the same layers.
        state_dict: `module.state_dict()`, or arrays by the same names.
        image_shape: (*S, C) of the images, as for `net.init`.
        names: {path of a layer: name of a module}, for all layers or some; the others go by order.

    Returns:
        (params, state) like those of `net.init`, in the dtypes of the state dict, as arrays of their own.

    Raises:
        ValueError: layers or modules without a partner; arrays missing, left over or of another shape.

    Example:
        >>> import numpy as np, jcnn
        >>> state_dict = {"fc.weight": np.arange(6.0).reshape(2, 3), "fc.bias": np.zeros(2)}
        >>> net = jcnn.chain(jcnn.net.global_avg_pool(), jcnn.net.dense(2))
        >>> params, state = jcnn.interop.from_torch(net, state_dict, (8, 8, 3))
        >>> params[1]["w"].tolist()
        [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """
    call = Call(TORCH, "from_torch", "state_dict")
    return to_ours(call, net, _modules(state_dict), image_shape, names)


def to_torch(
    net: Net,
    params: Any,
    state: Any,
    image_shape: Ints,
    *,
    like: Mapping[str, Any],
    names: Names | None = None,
) -> dict[str, Any]:
    """(params, state) of `net` as a PyTorch state dict: the inverse of `from_torch`.

    Args:
        net, image_shape, names: as for `from_torch`.
        params, state: those of `net`, or anything in their shape: gradients, or an optimizer's averages.
        like: a state dict of the module: its names, shapes, dtypes and kind of arrays are the result's.

    Returns:
        {name: array} ready for `load_state_dict`: tensors on the devices of like's, or NumPy arrays if it
        has those.  `num_batches_tracked` is like's.

    Raises:
        ValueError: as `from_torch`, or params and state are not those of `net`.
    """
    call = Call(TORCH, "to_torch", "like")
    modules = to_theirs(call, net, (params, state), image_shape, _modules(like), names)
    result = {}
    for name, old in like.items():
        module, _, key = name.rpartition(".")
        result[name] = _as(old, _numpy(old) if key == COUNTER else modules[module][key])
    return result


def torch_names(
    net: Net, state_dict: Mapping[str, Any], image_shape: Ints, *, names: Names | None = None
) -> dict[str, str]:
    """{path of a layer: name of the module} as `from_torch` pairs them: to look at, or to correct.

    Example:
        >>> import numpy as np, jcnn
        >>> net = jcnn.chain(jcnn.net.global_avg_pool(), jcnn.net.dense(2))
        >>> jcnn.interop.torch_names(net, {"fc.weight": np.ones((2, 3))}, (8, 8, 3))
        {'1': 'fc'}
    """
    call = Call(TORCH, "torch_names", "state_dict")
    found = pairs(call, net, _modules(state_dict), image_shape, names)
    return {layer.path: module for layer, module in found}


def images_from_torch(x: Any) -> Array:
    """Images [N, C, *S], a tensor or an array, as [N, *S, C]."""
    return jnp.array(np.moveaxis(_images("images_from_torch", x, "[N, C, *S]"), 1, -1))


def images_to_torch(x: Any) -> np.ndarray:
    """Images [N, *S, C] as a NumPy array [N, C, *S], ready for `torch.from_numpy`."""
    return np.array(np.moveaxis(_images("images_to_torch", x, "[N, *S, C]"), -1, 1), order="C")


def momentum(value: float | int) -> float | int:
    """The momentum of running statistics in the other convention: PyTorch's 0.1 is 0.9 here, and back."""
    check.number("interop.momentum", "value", value, 0, 1)
    return 1 - value


def _images(function: str, x: Any, layout: str) -> np.ndarray:
    x = _numpy(x)
    if x.ndim not in (3, 4, 5):
        check.fail(f"interop.{function}", "x", f"shape {x.shape}", f"{layout} with 1, 2 or 3 spatial axes")
    return x


def _modules(state_dict: Mapping[str, Any]) -> Modules:
    modules: Modules = {}
    for name, value in state_dict.items():
        module, _, key = name.rpartition(".")
        if key != COUNTER:
            modules.setdefault(module, {})[key] = _numpy(value)
    return modules


def _numpy(value: Any) -> np.ndarray:
    """A tensor, or anything that NumPy takes, as an array; it may share the tensor's memory."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()
    if str(value.dtype) == "torch.bfloat16":  # which NumPy does not have
        return value.float().numpy().astype(jnp.bfloat16)
    return value.numpy()


def _as(old: Any, array: np.ndarray) -> Any:
    """A copy of `array` in the dtype of `old`, a tensor if that is one."""
    if hasattr(old, "new_tensor"):
        return old.new_tensor(array.astype(np.float32) if array.dtype == jnp.bfloat16 else array)
    return np.array(array, np.asarray(old).dtype, order="C")


def _theirs(layer: Layer, name: str, a: np.ndarray) -> np.ndarray:
    if name == "w" and layer.kind == "convolution":
        return np.moveaxis(a, (-1, -2), (0, 1))
    if image := _flattened(layer, name, a):
        a = np.moveaxis(a.reshape(*image, -1), len(image) - 1, 0).reshape(a.shape)
    return a.T


def _ours(layer: Layer, name: str, a: np.ndarray) -> np.ndarray:
    if name == "w" and layer.kind == "convolution":
        return np.moveaxis(a, (0, 1), (-1, -2))
    a = a.T
    if image := _flattened(layer, name, a):
        a = np.moveaxis(a.reshape(image[-1], *image[:-1], -1), 0, len(image) - 1).reshape(a.shape)
    return a


def _flattened(layer: Layer, name: str, a: np.ndarray) -> Ints | None:
    """(*S, C) where the first axis of `a`, in jcnn's layout, is such an image."""
    concerned = a.ndim > 0 and (name == "w" or layer.kind != "dense")
    return layer.flattened if concerned else None


TORCH = Library(
    name="torch",
    arrays={
        "w": "weight",
        "b": "bias",
        "gamma": "weight",
        "beta": "bias",
        "mean": "running_mean",
        "var": "running_var",
        "slope": "weight",
    },
    channels_first=True,
    ours=_ours,
    theirs=_theirs,
)
