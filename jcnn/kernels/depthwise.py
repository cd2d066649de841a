"""A depthwise convolution (one input channel per group) as elementwise arithmetic between taps.

    y[i] = sum_t x[i s + t d - lo] w[t]          one multiply-add per tap and output, nothing to share

Flops 2 N M T O; bytes: x, its padded copy and y once, if all taps are in one loop over the outputs.  XLA
makes that loop, which is limited by reading memory or, for large kernels, by reading x from cache T times;
its own convolution takes 30 to 50 times as long on CPU.  Without the copy, as a sum of shifted products, the
loop would compute all that x comes from, a norm and an activation, anew for every tap.

The weight gradient dw[t] = sum x[i s + t d - lo] dy[i] is one sum over pixels per tap.  Examples go through
in blocks, so that x and dy are read from memory once and from cache T times, and the kernel row by row; one
loop adds up the products of several image rows, and what is left of them is summed.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jcnn.geometry import Window
from jcnn.kernels import taps, widen
from jcnn.kernels.apart import apart
from jcnn.kernels.problem import Formulation, Problem, blocks_of, sum_over_blocks

UNROLLED_TAPS = 81  # more are summed row by row of the kernel, in a loop
BLOCK_BYTES = 2**22  # of x
ROWS = 8  # whose products one loop adds up


def forward(x: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    return _correlate(_repeat(x, p), _per_tap(w), p.window)


def input_gradient(dy: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    dy, weights = widen(dy), _per_tap(w)
    transpose = p.window.input_transpose(p.size)
    if p.window.stride == transpose.stride:
        dx = _correlate(dy, weights[::-1], transpose)
    elif p.taps > UNROLLED_TAPS:
        dilated, transpose = taps.dilate(dy, p.window.stride, transpose)
        dx = _correlate(dilated, weights[::-1], transpose)
    else:
        dx = taps.scatter([dy * tap for tap in weights], p.window, p.size)
    # The outputs of one group read the same channel.
    return jnp.sum(dx.reshape(p.batch, *p.size, p.channels, -1), axis=-1)


def weight_gradient(x: jax.Array, dy: jax.Array, p: Problem) -> jax.Array:
    together = blocks_of(p.positions[0], ROWS)

    def block(x: jax.Array, dy: jax.Array) -> jax.Array:
        x, dy = taps.pad(_repeat(x, p), p.window.padding), widen(dy)

        def sums(a: jax.Array) -> jax.Array:
            reads, row = _reads_of_row(x, a, p.window)
            parts = [_rows_added(reads, dy, row, t, together) for t in range(taps.count(row))]
            return jnp.stack([jnp.sum(part.reshape(-1, p.outputs), 0) for part in parts])

        return lax.map(sums, jnp.arange(p.window.kernel[0]))

    bytes_each = math.prod(p.size) * p.outputs * p.wide.itemsize
    size = blocks_of(p.batch, BLOCK_BYTES // max(1, bytes_each))
    return sum_over_blocks(block, size, x, dy).reshape(p.weight_shape)


@apart("window", "tap", "together")
def _rows_added(x: jax.Array, dy: jax.Array, window: Window, tap: int, together: int) -> jax.Array:
    """What the tap reads of x, times dy [N, H, ..., C]; so many rows added up, [N, H / together, ..., C]."""
    read = taps.gather(x, window)[tap]
    return sum(read[:, i::together] * dy[:, i::together] for i in range(together))  # pyright: ignore


def _correlate(x: jax.Array, weights: jax.Array, window: Window) -> jax.Array:
    """y[n, i, o] = sum_t x[n, i s + t d - lo, o] weights[t, o], in the accumulation dtype."""
    if len(weights) <= UNROLLED_TAPS:
        return _all_taps(x, weights, window)
    x = taps.pad(x, window.padding)
    per_row = weights.reshape(window.kernel[0], -1, weights.shape[-1])

    def row(a: int | jax.Array) -> jax.Array:
        reads, one = _reads_of_row(x, a, window)
        return _all_taps(reads, per_row[a], one)

    return lax.fori_loop(1, window.kernel[0], lambda a, y: y + row(a), row(0))


@apart("window")
def _all_taps(x: jax.Array, weights: jax.Array, window: Window) -> jax.Array:
    return sum(a * tap for a, tap in zip(taps.gather(x, window), weights, strict=True))  # pyright: ignore


def _reads_of_row(padded: jax.Array, a: int | jax.Array, window: Window) -> tuple[jax.Array, Window]:
    """The part of x, which has its padding, that row a of the kernel reads, and the window of one row."""
    span = padded.shape[1] - window.extent[0] + 1
    none = ((0, 0),) * len(window.padding)
    part = lax.dynamic_slice_in_dim(padded, a * window.dilation[0], span, 1)
    return part, window._replace(kernel=(1, *window.kernel[1:]), padding=none)


def _per_tap(w: jax.Array) -> jax.Array:
    """w [*K, 1, O] -> [T, O] in the accumulation dtype."""
    return widen(w.reshape(-1, w.shape[-1]))


def _repeat(x: jax.Array, p: Problem) -> jax.Array:
    """x [N, *S, C] -> [N, *S, O]: each channel once for every output that reads it."""
    multiplier = p.outputs // p.channels
    return widen(x if multiplier == 1 else jnp.repeat(x, multiplier, axis=-1))


def fits(p: Problem) -> bool:
    return p.group == 1 and p.channels > 0 and 0 not in p.positions


FORMULATION = Formulation(fits, forward, input_gradient, weight_gradient)
