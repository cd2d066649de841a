"""One XLA convolution for each of the three maps.

Flops 2 N M K C O / groups for each map; bytes: the two arguments and the result, once.  The input
gradient of a strided convolution multiplies by the zeros between the entries of dy, prod(stride) times
the flops.  On CPU, XLA's convolution with groups, in three dimensions, or with a window as large as the
image (the weight gradient with groups or a stride) is 5 to 400 times slower than its matrix product.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jcnn.kernels.problem import Formulation, Problem

LETTERS = {1: "W", 2: "HW", 3: "DHW"}


def forward(x: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        w,
        p.window.stride,
        p.window.padding,
        rhs_dilation=p.window.dilation,
        dimension_numbers=_layout(p),
        feature_group_count=p.groups,
        preferred_element_type=p.wide,
    )


def input_gradient(dy: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    transpose = p.window.input_transpose(p.size)
    # Two taps over pixels two apart, not padded: XLA takes that for an axis of groups and, if the kernel is
    # larger than dy on another axis, ends the process (jax 0.10.2).  One more zero, cut off again, avoids it.
    axes = zip(*p.window[:3], transpose.padding, strict=True)
    extra = [int((k, s, d, pair) == (2, 2, 1, (0, 0))) for k, s, d, pair in axes]
    padding = [(lo, hi + more) for (lo, hi), more in zip(transpose.padding, extra, strict=True)]
    dx = lax.conv_general_dilated(
        dy,
        flip_and_swap(w, p.groups),
        transpose.stride,
        padding,
        lhs_dilation=p.window.stride,
        rhs_dilation=transpose.dilation,
        dimension_numbers=_layout(p),
        feature_group_count=p.groups,
        preferred_element_type=p.wide,
    )
    return dx[:, *(slice(n) for n in p.size)] if any(extra) else dx


def weight_gradient(x: jax.Array, dy: jax.Array, p: Problem) -> jax.Array:
    # A convolution too: examples are the channels it sums over, channels are its batch.
    spatial = LETTERS[p.rank]
    transpose = p.window.kernel_transpose(p.size)
    return lax.conv_general_dilated(
        x,
        dy,
        transpose.stride,
        transpose.padding,
        rhs_dilation=transpose.dilation,
        dimension_numbers=("C" + spatial + "N", "I" + spatial + "O", spatial + "NC"),
        batch_group_count=p.groups,
        preferred_element_type=p.wide,
    )


def flip_and_swap(w: jax.Array, groups: int) -> jax.Array:
    """w [*K, C/groups, O] -> [*K flipped, O/groups, C]: input and output channels trade places."""
    *kernel, c, o = w.shape
    w = jnp.flip(w, range(len(kernel))).reshape(*kernel, c, groups, o // groups)
    return jnp.moveaxis(w, -1, -3).swapaxes(-1, -2).reshape(*kernel, o // groups, groups * c)


def _layout(p: Problem) -> tuple[str, str, str]:
    spatial = LETTERS[p.rank]
    return "N" + spatial + "C", spatial + "IO", "N" + spatial + "C"


FORMULATION = Formulation(lambda p: True, forward, input_gradient, weight_gradient)
