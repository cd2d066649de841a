"""Maxima over windows, who holds them, and the way back to the holder.

XLA differentiates a windowed maximum into select-and-scatter, which on CPU takes 30 times as long as the
loop it stands for.  Remembering which tap won, in one byte per output, makes the backward of a small window
one comparison per tap, and that of a large one a scatter.

The algorithm "taps" has all taps of a window in one loop.  "axes", for large ones, takes the maximum one axis
at a time, the last one first: of the rows that hold the maximum the first wins, and in that row the first
tap, which is the first tap in row-major order of the whole window.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jcnn.geometry import Ints, Window
from jcnn.kernels import taps, widen
from jcnn.kernels.apart import written

UNROLLED_TAPS = 32  # larger windows go one axis at a time, and back by a scatter

Read = Callable[[Any], tuple[Any, Any]]  # tap -> (what it reads, its number)


def choose(w: Window, algorithm: str | None) -> str:
    return taps.choose(w, algorithm, UNROLLED_TAPS)


def argmax(x: jax.Array, w: Window, algorithm: str) -> tuple[jax.Array, jax.Array]:
    """The maximum over every window, [N, *M, C], and the first tap (in row-major order) that holds it.

    Padding never wins; a NaN does.  The tap is in the smallest integer dtype that counts the window's.
    """
    dtype = np.min_scalar_type(taps.count(w) - 1)
    firsts = _first_taps(w, x.shape[1:-1])
    if algorithm == "taps":
        reads = taps.gather(x, w, fill=-jnp.inf)
        first = np.ravel_multi_index(firsts, w.kernel).astype(dtype)
        return first_max(lambda t: (reads[t], np.array(t, dtype)), len(reads), first)
    best, winner = x, lax.full_like(x, 0, dtype)
    for axis in reversed(range(len(w.kernel))):
        first = np.ravel_multi_index(firsts[axis:], w.kernel[axis:]).astype(dtype)
        best, winner = first_max(_along(axis, w, best, winner), w.kernel[axis], first)
    return best, winner


def _first_taps(w: Window, size: Ints) -> tuple[np.ndarray, ...]:
    """Per axis, for every position of the window the first tap there that reads an input, 0 if none does.

    The arrays have as many axes as it takes to broadcast against each other and against [N, *M, C].
    """
    firsts = ([inside[0] if inside else 0 for inside in w.taps_inside(a, n)] for a, n in enumerate(size))
    return tuple(np.array(f, int).reshape(-1, *(1,) * (len(size) - a)) for a, f in enumerate(firsts))


def _along(axis: int, w: Window, best: jax.Array, winner: jax.Array) -> Read:
    """What the taps on one axis read of the maxima over the later ones, and who holds those."""
    part, inner = w.along(axis), math.prod(w.kernel[axis + 1 :])
    best, winner = taps.pad(best, part.padding, -jnp.inf), taps.pad(winner, part.padding)

    def read(t):
        before = jnp.asarray(t * inner).astype(winner.dtype)
        return taps.at(best, part, axis, t), taps.at(winner, part, axis, t) + before

    return read


def first_max(read: Read, count: int, first: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """The maximum over the taps, and the number of its first holder; `first` where all are -infinity."""

    def step(state, t):
        best, winner = state
        value, number = read(t)
        better = (value > best) | (jnp.isnan(value) & ~jnp.isnan(best))
        return jnp.where(better, value, best), jnp.where(better, number, winner)

    lowest = lax.full_like(read(0)[0], -jnp.inf)
    return taps.fold(step, (lowest, lax.full_like(lowest, 0, first.dtype) + first), range(count))


def put(dy: jax.Array, winner: jax.Array, w: Window, size: Ints, algorithm: str) -> jax.Array:
    """The adjoint of reading the winning tap: dy [N, *M, C] goes to the inputs that `winner` names."""
    wide = widen(dy)
    if algorithm == "taps":
        winner = written(winner)
        return taps.scatter([jnp.where(winner == t, wide, 0) for t in range(taps.count(w))], w, size)
    return put_at(wide, positions(winner, w, size), size)


def share(dy: jax.Array, x: jax.Array, w: Window, algorithm: str) -> jax.Array:
    """The adjoint of the mean over all taps that hold the maximum: each of q gets dy / q, in x's shape."""
    wide = widen(dy)
    q = jnp.ones((1, *x.shape[1:-1], 1), wide.dtype)  # holders behind every value; padding holds nothing
    steps = []
    for part in taps.passes(w, algorithm):
        reads = taps.gather(x, part, fill=-jnp.inf)
        best = functools.reduce(jnp.maximum, reads)
        holds = [(read == best) | jnp.isnan(read) for read in reads]
        tied = [jnp.where(hold, n, 0) for hold, n in zip(holds, taps.gather(q, part), strict=True)]
        q = functools.reduce(jnp.add, tied)
        steps.append((part, holds, x.shape[1:-1]))
        x = best
    dx = wide / jnp.maximum(q, 1)
    for part, holds, size in reversed(steps):
        dx = taps.scatter([jnp.where(hold, dx, 0) for hold in holds], part, size)
    return dx


def positions(winner: jax.Array, w: Window, size: Ints) -> jax.Array:
    """Where the winning taps are, int32 in row-major order of the plane `size`; -1 in nothing but padding."""
    at, empty = jnp.zeros((), jnp.int32), np.zeros((1,), bool)
    for axis, (tap, n) in enumerate(zip(jnp.unravel_index(winner, w.kernel), size, strict=True)):
        start = np.arange(winner.shape[axis + 1], dtype=np.int32) * w.stride[axis] - w.padding[axis][0]
        start = start.reshape(-1, *(1,) * (len(size) - axis))
        at = at * n + start + tap.astype(jnp.int32) * w.dilation[axis]
        inside = np.array([len(t) > 0 for t in w.taps_inside(axis, n)], bool)
        empty = empty | ~inside.reshape(start.shape)
    return jnp.where(empty, -1, at)


def _places(at: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Indices into [N, pixels, C] for places [N, *M, C] in the plane of the same image and channel."""
    n, c = at.shape[0], at.shape[-1]
    return jnp.arange(n)[:, None, None], at.reshape(n, math.prod(at.shape[1:-1]), c), jnp.arange(c)


def put_at(values: jax.Array, at: jax.Array, size: Ints, combine: Literal["add", "max"] = "add") -> jax.Array:
    """[N, *size, C] with values [N, *M, C] combined with 0 in the places `at`; those outside are dropped."""
    n, c = at.shape[0], at.shape[-1]
    places = _places(at)
    plane = jnp.zeros((n, math.prod(size), c), values.dtype).at[places]
    values = values.reshape(places[1].shape)
    plane = getattr(plane, combine)(values, mode="drop", wrap_negative_indices=False)
    return plane.reshape(n, *size, c)


def take_at(images: jax.Array, at: jax.Array) -> jax.Array:
    """What [N, *S, C] holds in the places `at` [N, *M, C], 0 outside: the adjoint of adding with `put_at`."""
    n, *size, c = images.shape
    plane = images.reshape(n, math.prod(size), c).at[_places(at)]
    return plane.get(mode="fill", fill_value=0, wrap_negative_indices=False).reshape(at.shape)
