"""Adaptive windows: n inputs shared among m outputs, of which output i reads

    span(i) = [floor(i n / m), ceil((i + 1) n / m))

Input j is in span(i) exactly if

    i n / m < j + 1   and   (i + 1) n / m > j,   that is   floor(j m / n) <= i < ceil((j + 1) m / n):

the outputs that read input j are the span of j with n and m exchanged.  So the adjoint of the sums over the
spans of n inputs for m outputs is the sums over the spans of those m for n.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jcnn.geometry import Ints, Pairs, window
from jcnn.kernels import maxima, taps, widen


def spans(n: int, m: int) -> Pairs:
    """[start, stop) for each of the m outputs."""
    return tuple((i * n // m, -(-(i + 1) * n // m)) for i in range(m))


def _taps(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """What every span reads through its t-th tap, [taps, m], and whether it has so many."""
    starts, stops = np.array(spans(n, m), np.int32).T
    reads = starts + np.arange(max(stops - starts), dtype=np.int32)[:, None]
    return np.minimum(reads, n - 1), reads < stops


def _row(table: np.ndarray, t: Any, trailing: int) -> Any:
    """Row t of a table, with so many trailing axes."""
    row = table[t] if isinstance(t, int | np.integer) else jnp.asarray(table)[t]
    return row.reshape(-1, *(1,) * trailing)


def span_sum(x: jax.Array, outputs: Ints) -> jax.Array:
    """The sum over every span of x [N, *S, C], [N, *outputs, C] in the accumulation dtype."""
    x = widen(x)
    for axis, m in enumerate(outputs, start=1):
        n = x.shape[axis]
        if n % m == 0:
            x = jnp.sum(x.reshape(*x.shape[:axis], m, n // m, *x.shape[axis + 1 :]), axis + 1)
            continue
        at, inside = _taps(n, m)

        def read(t, x=x, axis=axis, at=at, inside=inside):
            values = jnp.take(x, _row(at, t, 0), axis, mode="clip")
            return jnp.where(_row(inside, t, x.ndim - axis - 1), values, 0)

        x = taps.fold(lambda total, t, read=read: total + read(t), read(0), range(1, len(at)))
    return x


def span_argmax(x: jax.Array, outputs: Ints) -> tuple[jax.Array, jax.Array]:
    """The maximum over every span, and the first place that holds it, int32 in row-major order of the image.

    A NaN is a maximum.
    """
    size = x.shape[1:-1]
    if all(n % m == 0 for n, m in zip(size, outputs, strict=True)):
        blocks = tuple(n // m for n, m in zip(size, outputs, strict=True))
        w = window("span_argmax", blocks, size=size, stride=blocks)
        best, winner = maxima.argmax(x, w, maxima.choose(w, None))
        return best, maxima.positions(winner, w, size)
    axes = [_taps(n, m) for n, m in zip(size, outputs, strict=True)]
    counts = [len(at) for at, _ in axes]
    each = np.unravel_index(np.arange(math.prod(counts)), counts)
    tables = [(at[t], inside[t]) for t, (at, inside) in zip(each, axes, strict=True)]

    def read(t):
        values, place, real = x, np.zeros((), np.int32), np.ones((), bool)
        for axis, (at, inside) in enumerate(tables, start=1):
            values = jnp.take(values, _row(at, t, 0), axis, mode="clip")
            trailing = len(size) - axis + 1
            place = place * size[axis - 1] + _row(at, t, trailing)
            real = real & _row(inside, t, trailing)
        return jnp.where(real, values, -jnp.inf), place

    return maxima.first_max(read, math.prod(counts), read(0)[1])
