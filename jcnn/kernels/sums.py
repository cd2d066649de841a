"""Sums over windows: a few taps in one elementwise loop, more of them one axis at a time.

XLA compiles a windowed sum to a loop over all taps of every output; over the axes in turn it is k1 + k2
additions instead of k1 k2.  Each of those is a `reduce_window`, which XLA does not fuse into the next one:
the sum of a dozen slices it would, and compute it again for every tap that reads it.
"""

import jax
import numpy as np
from jax import lax

from jcnn.geometry import Ints, Window
from jcnn.kernels import taps, widen

UNROLLED_TAPS = 16  # larger windows are summed one axis at a time


def choose(w: Window, algorithm: str | None) -> str:
    return taps.choose(w, algorithm, UNROLLED_TAPS)


def window_sum(x: jax.Array, w: Window, algorithm: str) -> jax.Array:
    """The sum over every window, [N, *M, C] in the accumulation dtype."""
    x = widen(x)
    if algorithm == "taps":
        return sum(taps.gather(x, w))  # pyright: ignore
    for part in taps.passes(w, algorithm):
        x = _reduce(x, part)
    return x


def window_sum_adjoint(dy: jax.Array, w: Window, size: Ints, algorithm: str) -> jax.Array:
    """The adjoint of `window_sum`, [N, *size, C] in the accumulation dtype."""
    dx = widen(dy)
    if algorithm == "taps":
        return taps.scatter([dx] * taps.count(w), w, size)
    for part in reversed(taps.passes(w, algorithm)):
        dx = _reduce(*taps.dilate(dx, part.stride, part.input_transpose(size)))
    return dx


def _reduce(x: jax.Array, w: Window) -> jax.Array:
    return lax.reduce_window(
        x,
        np.zeros((), x.dtype),  # concrete, for JAX to see that this is a sum
        lax.add,
        (1, *w.kernel, 1),
        (1, *w.stride, 1),
        [(0, 0), *w.padding, (0, 0)],
        window_dilation=(1, *w.dilation, 1),
    )
