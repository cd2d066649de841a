"""One XLA convolution for each of the three maps.

Flops 2 N M K C O / groups for each map; bytes: the two arguments and the result, once.  The input
gradient of a strided convolution multiplies by the zeros between the entries of dy, prod(stride) times
the flops.  On CPU, XLA's convolution with groups, in three dimensions, or with a window as large as the
image (the weight gradient with groups or a stride) is 5 to 400 times slower than its matrix product.

XLA 0.10 gives two-dimensional convolutions on CPU to YNNPACK, at half the speed of Eigen, but not those
whose output is larger than the input.  So where both are of one height, one row more than wanted is
computed, 1 / H of the flops, and cut off again.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jcnn.geometry import Ints, Window
from jcnn.kernels import on_cpu
from jcnn.kernels.problem import Formulation, Problem

LETTERS = {1: "W", 2: "HW", 3: "DHW"}
CHANNELS, FEATURES, ROWS = 16, 32, 6  # from here on, one row more pays


def forward(x: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    more = _one_row_more(p.size, p.positions, p.channels, p.outputs, p)
    return _convolve(x, w, p.window, more, p)


def input_gradient(dy: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    transpose, strides = p.window.input_transpose(p.size), p.window.stride
    # Two taps over pixels two apart, not padded: XLA takes that for an axis of groups and, if the kernel is
    # larger than dy on another axis, ends the process (jax 0.10.2).  One row more avoids it.
    axes = zip(*p.window[:3], transpose.padding, strict=True)
    more = tuple(int((k, s, d, pair) == (2, 2, 1, (0, 0))) for k, s, d, pair in axes)
    if max(strides, default=1) == 1:
        more = _one_row_more(p.positions, p.size, p.outputs, p.channels, p)
    return _convolve(dy, flip_and_swap(w, p.groups), transpose, more, p, lhs_dilation=strides)


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


def _convolve(x: jax.Array, w: jax.Array, window: Window, more: Ints, p: Problem, **config) -> jax.Array:
    """With `more` outputs at the end of each axis, which are cut off again."""
    axes = zip(window.padding, window.stride, more, strict=True)
    y = lax.conv_general_dilated(
        x,
        w,
        window.stride,
        [(lo, hi + n * s) for (lo, hi), s, n in axes],
        rhs_dilation=window.dilation,
        dimension_numbers=_layout(p),
        feature_group_count=p.groups,
        preferred_element_type=p.wide,
        **config,
    )
    return y[:, *(slice(m - n) for m, n in zip(y.shape[1:-1], more, strict=True))] if any(more) else y


def _one_row_more(inputs: Ints, outputs: Ints, channels: int, features: int, p: Problem) -> Ints:
    """By how much to enlarge which axis of the output so that YNNPACK does not take the convolution."""
    same = [axis for axis in range(p.rank) if inputs[axis] == outputs[axis] >= ROWS]
    pays = p.rank == 2 and p.groups == 1 and p.taps > 1 and channels >= CHANNELS and features >= FEATURES
    longest = max(same, key=lambda axis: outputs[axis], default=None)
    return tuple(int(on_cpu() and pays and axis == longest) for axis in range(p.rank))


def _layout(p: Problem) -> tuple[str, str, str]:
    spatial = LETTERS[p.rank]
    return "N" + spatial + "C", spatial + "IO", "N" + spatial + "C"


FORMULATION = Formulation(lambda p: True, forward, input_gradient, weight_gradient)
