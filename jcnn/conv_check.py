"""What a convolution and its two gradients refuse: arrays and configuration that do not fit together."""

import jax

from jcnn import check
from jcnn.geometry import ConvGeometry, IntLike, conv_geometry, sizes
from jcnn.kernels import conv as kernel
from jcnn.kernels.problem import Problem

Array = jax.Array


def conv(x, w, b=None, *, groups, algorithm, **config) -> None:
    check.floating("conv", x=x, w=w, b=b)
    check.images("conv", x)
    check.count("conv", "groups", groups)
    _weights("conv", w, x, groups)
    if x.shape[-1] != w.shape[-2] * groups:
        expected = f"x's {x.shape[-1]} channels / groups={groups} on its second last axis"
        check.fail("conv", "w", f"shape {w.shape}", expected)
    check.shape("conv", "b", b, w.shape[-1:], "like w's last axis")
    g = conv_geometry("conv", x.shape[1:-1], w.shape[:-2], groups=groups, **config)
    check_algorithm("conv", algorithm, g, x, w.shape[-2] * groups, w.shape[-1])


def conv_input_grad(dy, w, *, input_size: IntLike, groups, algorithm, **config) -> None:
    op = "conv_input_grad"
    check.floating(op, dy=dy, w=w)
    check.images(op, dy, "dy")
    check.count(op, "groups", groups)
    _weights(op, w, dy, groups)
    size = sizes(op, "input_size", input_size, dy.ndim - 2)
    g = conv_geometry(op, size, w.shape[:-2], groups=groups, **config)
    check.shape(op, "dy", dy, (dy.shape[0], *g.window.output_size(g.size), w.shape[-1]), "as conv's output")
    check_algorithm(op, algorithm, g, dy, w.shape[-2] * groups, w.shape[-1])


def conv_weight_grad(x, dy, *, kernel_size: IntLike, groups, algorithm, **config) -> None:
    op = "conv_weight_grad"
    check.floating(op, x=x, dy=dy)
    check.images(op, x)
    check.count(op, "groups", groups)
    for name, a in {"x": x, "dy": dy}.items():
        if a.shape[-1] % groups:
            check.fail(op, name, f"{a.shape[-1]} channels", f"a multiple of groups={groups}")
    taps = sizes(op, "kernel_size", kernel_size, x.ndim - 2)
    g = conv_geometry(op, x.shape[1:-1], taps, groups=groups, **config)
    check.shape(op, "dy", dy, (x.shape[0], *g.window.output_size(g.size), dy.shape[-1]), "as conv's output")
    check_algorithm(op, algorithm, g, x, x.shape[-1], dy.shape[-1])


def _weights(op: str, w: Array, x: Array, groups: int) -> None:
    check.ranks(op, "w", w, (x.ndim,), f"[*K, C/groups, O] with {x.ndim - 2} kernel axes")
    if w.shape[-1] % groups:
        check.fail(op, "w", f"{w.shape[-1]} output channels", f"a multiple of groups={groups}")


def check_algorithm(
    op: str, name: str | None, g: ConvGeometry, a: Array, channels: int, outputs: int
) -> None:
    """`name` is None, or a formulation that computes this convolution; `a` is any of its images."""
    p = Problem(g.inner, g.groups, len(a), g.padded_size, channels, outputs, a.dtype)
    if name is not None and name not in kernel.fitting(p):
        names = ", ".join(map(repr, kernel.fitting(p)))
        check.fail(op, "algorithm", repr(name), f"None, or one that computes this convolution: {names}")
