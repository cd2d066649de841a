"""The three bilinear maps of a convolution: forward, input gradient, weight gradient.

Each has up to three formulations.

    native     one XLA convolution
    matmul     a 1x1 kernel with stride 1 is a matrix product over pixels
    taps       one input channel per group (depthwise): a sum of shifted products, on CPU, where XLA's
               grouped convolution is 30 to 50 times slower

Shapes: x [N, *S, C], w [*K, C/groups, O], y and dy [N, *M, O].
"""

import jax
import jax.numpy as jnp
from jax import lax

from jcnn.geometry import Ints, Window
from jcnn.kernels import accumulator, on_cpu, taps, widen

LETTERS = {1: "W", 2: "HW", 3: "DHW"}


def convolve(x: jax.Array, w: jax.Array, window: Window, groups: int) -> jax.Array:
    """y[n, i, o] = sum over taps t and channels c of x[n, i s + t d - lo, c] w[t, c, o]."""
    if _is_matmul(window, groups):
        return jnp.matmul(x, w.reshape(w.shape[-2:]), preferred_element_type=accumulator(x.dtype))
    if _is_depthwise(x.shape[-1], groups):
        return sum(a * b for a, b in zip(_spread(x, w.shape, window), _tap_weights(w), strict=True))  # pyright: ignore
    return _native(x, w, window, groups=groups)


def input_gradient(dy: jax.Array, w: jax.Array, window: Window, groups: int, size: Ints) -> jax.Array:
    """dx[n, j, c] = sum of dy[n, i, o] w[t, c, o] over all i, t with i s + t d - lo = j, and o."""
    if _is_matmul(window, groups):
        return jnp.matmul(dy, w.reshape(w.shape[-2:]).T, preferred_element_type=accumulator(dy.dtype))
    if _is_depthwise(w.shape[-2] * groups, groups):
        wide = widen(dy)
        spread = taps.scatter([wide * tap for tap in _tap_weights(w)], window, size)
        return _sum_multiplier(spread, groups)
    transpose = window.input_transpose(size)
    if any(s > 1 for s in window.stride):  # XLA is slow where it dilates the input itself
        dy, transpose = taps.dilate(dy, window.stride, transpose)
    return _native(dy, _flip_and_swap(w, groups), transpose, groups=groups)


def weight_gradient(x: jax.Array, dy: jax.Array, window: Window, groups: int) -> jax.Array:
    """dw[t, c, o] = sum over examples n and positions i of x[n, i s + t d - lo, c] dy[n, i, o]."""
    channels, outputs = x.shape[-1], dy.shape[-1]
    shape = (*window.kernel, channels // groups, outputs)
    if _is_matmul(window, groups):
        pixels = x.reshape(-1, channels), dy.reshape(-1, outputs)
        dw = lax.dot_general(*pixels, (((0,), (0,)), ((), ())), preferred_element_type=accumulator(x.dtype))
        return dw.reshape(shape)
    if _is_depthwise(channels, groups):
        wide = widen(dy)
        pixels = tuple(range(dy.ndim - 1))
        sums = [jnp.sum(a * wide, pixels) for a in _spread(x, shape, window)]
        return jnp.stack(sums).reshape(shape)
    # A convolution too: examples are the channels it sums over, channels are its batch.
    spatial = LETTERS[len(window.kernel)]
    layout = ("C" + spatial + "N", "I" + spatial + "O", spatial + "NC")
    return _native(x, dy, window.kernel_transpose(x.shape[1:-1]), layout=layout, batch_groups=groups)


def _native(x, w, window: Window, *, groups: int = 1, batch_groups: int = 1, layout=None) -> jax.Array:
    spatial = LETTERS[len(window.kernel)]
    return lax.conv_general_dilated(
        x,
        w,
        window_strides=window.stride,
        padding=window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=layout or ("N" + spatial + "C", spatial + "IO", "N" + spatial + "C"),
        feature_group_count=groups,
        batch_group_count=batch_groups,
        preferred_element_type=accumulator(x.dtype),
    )


def _is_matmul(window: Window, groups: int) -> bool:
    return groups == 1 and all(
        (k, s, p) == (1, 1, (0, 0))
        for k, s, p in zip(window.kernel, window.stride, window.padding, strict=True)
    )


def _is_depthwise(channels: int, groups: int) -> bool:
    return 1 < groups == channels and on_cpu()


def _tap_weights(w: jax.Array) -> list[jax.Array]:
    """w [*K, 1, O] as one [O] per tap, in the accumulation dtype."""
    return list(widen(w.reshape(-1, w.shape[-1])))


def _spread(x: jax.Array, w_shape: Ints, window: Window) -> list[jax.Array]:
    """For every tap what each depthwise output reads through it, [N, *M, O]."""
    multiplier = w_shape[-1] // x.shape[-1]
    wide = widen(jnp.repeat(x, multiplier, axis=-1))
    return taps.gather(wide, window)


def _sum_multiplier(dx: jax.Array, groups: int) -> jax.Array:
    """[N, *S, O] -> [N, *S, C]: the outputs of one group read the same channel."""
    return jnp.sum(dx.reshape(*dx.shape[:-1], groups, dx.shape[-1] // groups), axis=-1)


def _flip_and_swap(w: jax.Array, groups: int) -> jax.Array:
    """w [*K, C/groups, O] -> [*K flipped, O/groups, C]: input and output channels trade places."""
    *kernel, c, o = w.shape
    w = jnp.flip(w, range(len(kernel))).reshape(*kernel, c, groups, o // groups)
    return jnp.moveaxis(w, -1, -3).swapaxes(-1, -2).reshape(*kernel, o // groups, groups * c)
