"""Layers that make images larger: transposed convolution, upsampling, pixel shuffle (and unshuffle)."""

import math

import jax.numpy as jnp

from jcnn import check, resample
from jcnn.conv_transpose import conv_transpose as conv_transpose_rule, transposed_geometry
from jcnn.geometry import IntLike, Ints, PaddingLike, Window, sizes
from jcnn.net.core import Net, Shape, layer
from jcnn.net.layers import HE_NORMAL, Initializer, window_name
from jcnn.rule import Rule


def conv_transpose(
    features: int,
    kernel: IntLike,
    *,
    stride: IntLike = 1,
    padding: PaddingLike = "SAME",
    output_padding: IntLike = 0,
    dilation: IntLike = 1,
    groups: int = 1,
    bias: bool = True,
    init: Initializer = HE_NORMAL,
    rule: Rule = conv_transpose_rule,
) -> Net:
    """Transposed convolution to `features` channels; weights from `init`, bias 0.

    `init` gets the shape [*K, C/groups, features] that a convolution from C channels would have.
    """

    def slides(shape: Shape) -> Window:
        return geometry(shape).window

    def geometry(shape: Shape):
        taps = sizes("net.conv_transpose", "kernel", kernel, len(shape) - 1)
        return transposed_geometry(shape[:-1], taps, stride, padding, output_padding, dilation, groups)

    def init_params(key, shape):
        for count, whose in (
            (shape[-1], f"the image's {shape[-1]} channels"),
            (features, f"features={features}"),
        ):
            if count % groups:
                check.fail("net.conv_transpose", "groups", groups, f"a divisor of {whose}")
        taps, c, o = slides(shape).kernel, shape[-1] // groups, features // groups
        w = init(key, (*taps, c, features)).reshape(*taps, c, groups, o)
        w = jnp.moveaxis(w, -1, -3).swapaxes(-1, -2)  # [*K, O/groups, groups, C/groups]
        return {"w": w.reshape(*taps, o, shape[-1])} | ({"b": jnp.zeros(features)} if bias else {})

    def macs(shape: Shape, out: Shape) -> int:
        return math.prod(shape) * math.prod(slides(shape).kernel) * features // groups

    config = {
        "stride": stride,
        "padding": padding,
        "output_padding": output_padding,
        "dilation": dilation,
        "groups": groups,
    }
    about = {
        "window": slides,
        "slides_over_output": True,
        "macs": macs,
        "out_shape": lambda shape: (*geometry(shape).size, features),
    }
    name = window_name("conv_transpose", kernel, stride=stride, dilation=dilation, groups=groups)
    return layer(rule, init_params, name=name, config=config, **about)


def upsample(factor: IntLike, *, method: str = "nearest", align_corners: bool = False) -> Net:
    """Images `factor` times as large; keywords as for `jcnn.upsample`."""

    def spreads(f: int) -> tuple[int, int]:
        """How many outputs see a pixel, and how many of them come before the first output of its own."""
        return (2 * f - f % 2, f // 2) if method != "nearest" else (f, 0)

    config = {"factor": factor, "method": method, "align_corners": align_corners}
    name = window_name(f"upsample, {method}", factor)
    return _resized(resample.upsample, factor, name, config, spreads=spreads, slides_over_output=True)


def pixel_shuffle(factor: IntLike) -> Net:
    """Images `factor` times as large, their pixels taken from the channels; see `jcnn.pixel_shuffle`."""
    return _resized(resample.pixel_shuffle, factor, slides_over_output=True)


def pixel_unshuffle(factor: IntLike) -> Net:
    """Images `factor` times as small, their pixels put into the channels; see `jcnn.pixel_unshuffle`."""
    return _resized(resample.pixel_unshuffle, factor)


def _resized(rule: Rule, factor, name="", config=None, spreads=lambda f: (f, 0), **about) -> Net:
    def slides(shape: Shape) -> Window:
        factors: Ints = sizes(rule.name, "factor", factor, len(shape) - 1)
        kernel, low = zip(*map(spreads, factors), strict=True)
        return Window(kernel, factors, (1,) * len(factors), tuple((lo, lo) for lo in low))

    name, config = name or window_name(rule.name, factor), config or {"factor": factor}
    return layer(rule, name=name, config=config, window=slides, **about)
