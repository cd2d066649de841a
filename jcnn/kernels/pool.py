"""Maxima and sums over windows, as elementwise arithmetic between taps (see `jcnn.kernels.taps`).

XLA differentiates a windowed maximum into select-and-scatter, which on CPU takes 30 times as long as
the loop it stands for.  Remembering which tap won, in one byte per output, makes the backward one
comparison per tap.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jcnn.geometry import Ints, Window
from jcnn.kernels import taps, widen

UNROLLED_TAPS = 16  # larger windows are summed one axis at a time, longer axes by reduce_window


def argmax(x: jax.Array, w: Window) -> tuple[jax.Array, jax.Array]:
    """The maximum over every window, [N, *M, C], and the first tap (in row-major order) that holds it.

    Padding never wins; a NaN does.  The tap is an uint8 if the window has at most 256.
    """
    reads = taps.gather(x, w, fill=-jnp.inf)
    dtype = jnp.uint8 if len(reads) <= 256 else jnp.int32
    first = first_tap_inside(w, x.shape[1:-1])
    best = jnp.full(reads[0].shape, -jnp.inf, x.dtype)
    winner = jnp.broadcast_to(jnp.asarray(first[..., None], dtype), best.shape)
    for t, value in enumerate(reads):
        better = (value > best) | (jnp.isnan(value) & ~jnp.isnan(best))
        best = jnp.where(better, value, best)
        winner = jnp.where(better, jnp.array(t, dtype), winner)
    return best, winner


def first_tap_inside(w: Window, size: Ints) -> np.ndarray:
    """For every window position [*M] the index of the first tap that reads an input, 0 if none does."""
    index = np.zeros(w.output_size(size), np.int32)
    for axis, n in enumerate(size):
        first = np.array([inside[0] if inside else 0 for inside in w.taps_inside(axis, n)], np.int32)
        index = index * w.kernel[axis] + first.reshape((-1,) + (1,) * (len(size) - axis - 1))
    return index


def put(dy: jax.Array, winner: jax.Array, w: Window, size: Ints) -> jax.Array:
    """The adjoint of reading the winning tap: dy [N, *M, C] goes to the inputs that `winner` names."""
    wide = widen(dy)
    parts = [jnp.where(winner == t, wide, 0) for t in range(_taps(w))]
    return taps.scatter(parts, w, size)


def window_sum(x: jax.Array, w: Window) -> jax.Array:
    """The sum over every window, [N, *M, C] in the accumulation dtype."""
    x = widen(x)
    for part in _passes(w):
        if _taps(part) <= UNROLLED_TAPS:
            x = sum(taps.gather(x, part))  # pyright: ignore
        else:
            x = lax.reduce_window(
                x,
                np.zeros((), x.dtype),  # concrete, for JAX to see that this is a sum
                lax.add,
                (1, *part.kernel, 1),
                (1, *part.stride, 1),
                [(0, 0), *part.padding, (0, 0)],
                window_dilation=(1, *part.dilation, 1),
            )
    return x


def window_sum_adjoint(dy: jax.Array, w: Window, size: Ints) -> jax.Array:
    """The adjoint of `window_sum`, [N, *size, C] in the accumulation dtype."""
    dx = widen(dy)
    sizes = [size]
    for part in _passes(w):
        sizes.append(part.output_size(sizes[-1]))
    for part, before in zip(reversed(_passes(w)), reversed(sizes[:-1]), strict=True):
        if _taps(part) <= UNROLLED_TAPS:
            dx = taps.scatter([dx] * _taps(part), part, before)
        else:
            dx = window_sum(*taps.dilate(dx, part.stride, part.input_transpose(before)))
    return dx


def _taps(w: Window) -> int:
    return int(np.prod(w.kernel))


def _passes(w: Window) -> list[Window]:
    """Windows that sum to `w` when applied in turn: itself if it is small, else one axis at a time."""
    if _taps(w) <= UNROLLED_TAPS:
        return [w]

    def only(values: tuple, axis: int, neutral):
        return tuple(v if a == axis else neutral for a, v in enumerate(values))

    return [
        Window(only(w.kernel, a, 1), only(w.stride, a, 1), only(w.dilation, a, 1), only(w.padding, a, (0, 0)))
        for a in range(len(w.kernel))
    ]
