"""Finding a layer in a net, cutting the net there, watching what goes through it, and what it sees.

A layer is named by its row in `net.summary(...)`, an int counted from 0 (from the end if negative), or by its
path: the indices of the children on the way to it, which also reaches what has no row of its own, such as the
sum of a residual block.  `()` is the net.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
from jaxtyping import Array

from jcnn import check
from jcnn.geometry import Ints
from jcnn.net import Net, output_shape

LayerLike: TypeAlias = int | tuple[int, ...]
COMPOSITIONS = ("chain", "residual", "gated")


class Layer(NamedTuple):
    """A row of `net.summary(...)`."""

    path: Ints
    name: str
    net: Net


def layers(net: Net) -> tuple[Layer, ...]:
    """The layers of a net, in the order of the rows of its summary."""
    return tuple(_layers(net, ()))


def _layers(net: Net, path: Ints):
    if not net.children:
        yield Layer(path, net.name, net)
    for i, child in enumerate(net.children):
        yield from _layers(child, (*path, i))


def find(op: str, net: Net, layer: LayerLike) -> Ints:
    """The path to a layer of `net`; refuses, in the name of `op`, one that does not exist."""
    rows = layers(net)
    if isinstance(layer, tuple):
        path = layer
    elif isinstance(layer, int) and not isinstance(layer, bool) and -len(rows) <= layer < len(rows):
        path = rows[layer].path
    else:
        names = ", ".join(f"{i}: {row.name}" for i, row in enumerate(rows))
        fail(op, "layer", repr(layer), f"one of {{{names}}}, or a path")
    for i in path:
        if not (isinstance(i, int) and 0 <= i < len(net.children)):
            children = f"{len(net.children)} children" if net.children else "no children"
            fail(op, "layer", repr(layer), f"a path in the net: {net.name!r} there has {children}")
        check.choice(f"inspect.{op}", "layer: the composition around it", net.name, COMPOSITIONS)
        net = net.children[i]
    return path


def fail(op: str, argument: str, got: Any, expected: str, error: type[Exception] = ValueError) -> NoReturn:
    check.fail(f"inspect.{op}", argument, got, expected, error)


def below(net: Net, path: Ints) -> Net:
    """The part of a net that computes the output of one layer."""
    if not path or _makes_the_output(net, path[0]):
        return net
    i, inner = path[0], below(net.children[path[0]], path[1:])
    return net.rebuild(*net.children[:i], inner) if net.name == "chain" else inner  # pyright: ignore


def entries(net: Net, tree: Any, path: Ints) -> Any:
    """The parameters, or the state, of that part."""
    if not path or _makes_the_output(net, path[0]):
        return tree
    i, inner = path[0], entries(net.children[path[0]], tree[path[0]], path[1:])
    return (*tree[:i], inner) if net.name == "chain" else inner


def _makes_the_output(net: Net, child: int) -> bool:
    """Whether the child, by itself, needs what its siblings compute: the product behind a gate does."""
    return net.name == "gated" and child == 1


def watch(net: Net, path: Ints) -> tuple[Net, dict]:
    """The same net, and a dict in which `fwd` notes the "output" and `bwd` the "cotangent" of one layer."""
    seen = {}

    def put(net: Net, path: Ints) -> Net:
        if not path:
            return noting(net, seen.__setitem__)
        children = list(net.children)
        children[path[0]] = put(children[path[0]], path[1:])
        return net.rebuild(*children)  # pyright: ignore

    return put(net, path), seen


def noting(net: Net, note: Callable[[str, Any], None]) -> Net:
    """The same net, which notes "params" and "output" in `fwd`, "cotangent", "dparams" and "dx" in `bwd`."""

    def fwd(params, state, x, *, train, key=None):
        note("params", params)
        (y, state), res = net.fwd(params, state, x, train=train, key=key)
        note("output", y)
        return (y, state), res

    def bwd(res, dy):
        note("cotangent", dy)
        dparams, dx = net.bwd(res, dy)
        note("dparams", dparams)
        note("dx", dx)
        return dparams, dx

    return dataclasses.replace(net, fwd=fwd, bwd=bwd)


def pull_back(net: Net, params: Any, state: Any, x: Array, cotangent_of: Callable[[Array], Array]) -> Array:
    """The cotangent of x for that of the output y, `cotangent_of(y)`, in inference."""
    (y, _), res = net.fwd(params, state, x, train=False)
    return net.bwd(res, cotangent_of(y))[1]


def receptive_field(net: Net, image_shape: Ints, layer: LayerLike) -> tuple[np.ndarray, ...]:
    """Which pixels the outputs of a layer see.

    Args:
        net: the net.
        image_shape: (*S, C), without the batch axis.
        layer: a row of the summary, or a path.

    Returns:
        For each spatial axis ints [M, 2]: row p is start and stop of the pixels that outputs with index p on
        that axis see.  They may lie outside of the image, in the padding, but where every output sees all of
        the image, they are the image's.  A vector has M = 1.

    Raises:
        ValueError: the layer does not exist.

    Example:
        >>> from jcnn import inspect, net
        >>> model = net.chain(net.conv(8, 3), net.max_pool(2), net.conv(8, 3), net.global_avg_pool())
        >>> rows, columns = inspect.receptive_field(model, (28, 28, 1), 2)
        >>> rows[:3].tolist()
        [[-3, 5], [-1, 7], [1, 9]]
        >>> inspect.receptive_field(model, (28, 28, 1), 3)[0].tolist()
        [[0, 28]]
    """
    part, shape = below(net, find("receptive_field", net, layer)), tuple(image_shape)
    outputs = map(np.arange, output_shape(part, shape)[:-1] or (1,) * len(shape[:-1]))
    spans = _seen(part, shape, [np.stack([p, p + 1], 1) for p in outputs])
    return tuple(np.clip(a, 0, n) if _see_all(a, n) else a for a, n in zip(spans, shape, strict=False))


def _see_all(spans: np.ndarray, n: int) -> bool:
    return bool(np.all(spans[:, 0] <= 0) and np.all(spans[:, 1] >= n))


def _seen(net: Net, shape: Ints, spans: list[np.ndarray]) -> list[np.ndarray]:
    """What spans of a net's outputs, start and stop [M, 2] per axis, see of its input, images of `shape`."""
    if len(shape) == 1:
        return spans
    if net.name == "chain":
        shapes = itertools.accumulate(net.children, lambda s, child: output_shape(child, s), initial=shape)
        for child, before in reversed(list(zip(net.children, shapes, strict=False))):
            spans = _seen(child, before, spans)
        return spans
    if net.name == "residual":
        starts_and_stops = zip(*(_seen(child, shape, spans) for child in net.children), strict=True)
        return [np.stack([np.minimum(a, b)[:, 0], np.maximum(a, b)[:, 1]], 1) for a, b in starts_and_stops]
    if net.sees_all or net.name == "gated" or len(output_shape(net, shape)) < len(shape):
        return [np.tile([0, n], (len(span), 1)) for n, span in zip(shape, spans, strict=False)]
    if (w := net.window(shape)) is None:
        return spans
    steps = zip(spans, w.stride, w.extent, w.padding, strict=True)
    if net.slides_over_output:  # input i spreads over the outputs i s - lo ... i s - lo + e - 1
        return [np.add(span, (lo + s - e, lo + s - 1)) // s for span, s, e, (lo, _) in steps]
    return [np.add(span * s, (-lo, e - s - lo)) for span, s, e, (lo, _) in steps]
