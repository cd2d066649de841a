"""The layers: rules of jcnn with their parameters, ready for `chain`."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax.nn import initializers
from jaxtyping import Array

from jcnn import check, linear
from jcnn.conv import conv as conv_rule
from jcnn.geometry import IntLike, PaddingLike, Window, window
from jcnn.layer_scale import layer_scale as layer_scale_rule
from jcnn.net.core import Net, Shape, layer
from jcnn.rule import Rule

Initializer = Callable[[Array, Shape], Array]
HE_NORMAL = initializers.he_normal()


def window_name(kind: str, size: IntLike, **others) -> str:
    """The name of a layer with a window, and with what of `others` is not the default."""
    sizes = size if isinstance(size, int) else "x".join(map(str, size))
    return ", ".join([f"{kind} {sizes}", *(f"{k} {v}" for k, v in others.items() if v not in (1, None))])


def conv(
    features: int,
    kernel: IntLike,
    *,
    stride: IntLike = 1,
    padding: PaddingLike = "SAME",
    padding_mode: str = "zeros",
    dilation: IntLike = 1,
    groups: int = 1,
    bias: bool = True,
    init: Initializer = HE_NORMAL,
    rule: Rule = conv_rule,
) -> Net:
    """Convolution to `features` channels; weights from `init` (He et al. 2015), bias 0."""

    def per_axis(shape: Shape) -> Shape:
        return (kernel,) * (len(shape) - 1) if isinstance(kernel, int) else tuple(kernel)

    def init_params(key, shape):
        if shape[-1] % groups:
            check.fail("net.conv", "groups", groups, f"a divisor of the image's {shape[-1]} channels")
        w = init(key, (*per_axis(shape), shape[-1] // groups, features))
        return {"w": w} | ({"b": jnp.zeros(features)} if bias else {})

    def slides(shape: Shape) -> Window:
        return window(
            "net.conv", per_axis(shape), size=shape[:-1], stride=stride, dilation=dilation, padding=padding
        )

    def macs(shape: Shape, out: Shape) -> int:
        return math.prod(out) * math.prod(per_axis(shape)) * shape[-1] // groups

    config = {
        "stride": stride,
        "padding": padding,
        "padding_mode": padding_mode,
        "dilation": dilation,
        "groups": groups,
    }

    def out_shape(shape: Shape) -> Shape:
        return (*slides(shape).output_size(shape[:-1]), features)

    about = {"window": slides, "macs": macs, "out_shape": out_shape}
    name = window_name("conv", kernel, stride=stride, dilation=dilation, groups=groups)
    return layer(rule, init_params, name=name, config=config, **about)


def dense(features: int, *, bias: bool = True, init: Initializer = HE_NORMAL) -> Net:
    """Fully connected layer to `features` outputs; weights from `init`, bias 0."""

    def init_params(key, shape):
        w = init(key, (shape[-1], features))
        return {"w": w} | ({"b": jnp.zeros(features)} if bias else {})

    def macs(shape: Shape, out: Shape) -> int:
        return math.prod(shape) * features

    return layer(linear.dense, init_params, macs=macs, out_shape=lambda shape: (*shape[:-1], features))


def scale(factor: float) -> Net:
    """A factor that is not trained, of every value."""
    if not isinstance(factor, int | float):
        check.fail("net.scale", "factor", repr(factor), "a number", TypeError)

    def fwd(params, state, x, *, train, key=None):
        return (factor * x, state), None

    return Net(
        f"scale {factor:g}",
        lambda key, shape: ({}, {}),
        lambda params, state, x, *, train, key=None: (factor * x, state),
        fwd,
        lambda res, dy: ({}, factor * dy),
        out_shape=lambda shape: shape,
    )


def flatten() -> Net:
    """All pixels and channels of an image as one vector."""
    return layer(linear.flatten, sees_all=True)


def layer_scale(gamma: float = 1e-6) -> Net:
    """A learned factor for every channel, `gamma` at first (Touvron et al. 2021, arXiv:2103.17239)."""

    def init(key, shape):
        return {"gamma": jnp.full(shape[-1], gamma)}

    return layer(layer_scale_rule, init, out_shape=lambda shape: shape)
