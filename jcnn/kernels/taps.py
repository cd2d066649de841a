"""A window as its taps: one strided slice of the input per kernel position.

`gather` reads x[n, i s + t d - lo, c] for every output i, one array per tap t; `scatter` is its
adjoint.  A sum, maximum or product over a window is then elementwise arithmetic between a few
arrays, which XLA fuses into one loop, forward and backward.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jcnn.geometry import Ints, Pairs, Window

T = TypeVar("T")
ALGORITHMS = ("taps", "axes")  # all taps of a window in one loop, or one axis of it after the other
LONG = 64  # taps that are unrolled: as many again would compile for seconds, a thousand for minutes


def offsets(w: Window) -> Iterator[Ints]:
    """The taps of a window in row-major order."""
    return itertools.product(*map(range, w.kernel))


def count(w: Window) -> int:
    return math.prod(w.kernel)


def choose(w: Window, algorithm: str | None, most: int) -> str:
    """How a pool goes over its window, one of `ALGORITHMS`: by default "taps" if it has at most `most`."""
    return algorithm or ("taps" if count(w) <= most else "axes")


def passes(w: Window, algorithm: str) -> tuple[Window, ...]:
    """Windows that do in turn what `w` does at once: itself, or one axis after the other."""
    return (w,) if algorithm == "taps" else tuple(w.along(axis) for axis in range(len(w.kernel)))


def fold(step: Callable[[T, Any], T], state: T, numbers: range) -> T:
    """`state` after a step for every tap; more than `LONG` of them are a loop for XLA, too."""
    if len(numbers) > LONG:
        return lax.scan(lambda s, t: (step(s, t), None), state, np.array(numbers), unroll=8)[0]
    for t in numbers:
        state = step(state, t)
    return state


def gather(x: jax.Array, w: Window, fill: bool | float = 0.0) -> list[jax.Array]:
    """For every tap, the [N, *M, C] inputs that the outputs read through it; `fill` in the padding."""
    outputs = w.output_size(x.shape[1:-1])
    x = pad(x, w.padding, fill)
    n, *_, c = x.shape
    stride = (1, *w.stride, 1)

    def tap(offset: Ints) -> jax.Array:
        start = [t * d for t, d in zip(offset, w.dilation, strict=True)]
        spans = [max(0, (m - 1) * s + 1) for m, s in zip(outputs, w.stride, strict=True)]
        stop = [b + span for b, span in zip(start, spans, strict=True)]
        return lax.slice(x, (0, *start, 0), (n, *stop, c), stride)

    return [tap(offset) for offset in offsets(w)]


def at(padded: jax.Array, w: Window, axis: int, t: int | jax.Array) -> jax.Array:
    """The [N, *M, C] inputs that tap `t` of a window along `axis` reads of an image with its padding."""
    n, d, s = padded.shape[axis + 1], w.dilation[axis], w.stride[axis]
    span = max(0, n - w.extent[axis] + 1)
    return lax.slice_in_dim(lax.dynamic_slice_in_dim(padded, t * d, span, axis + 1), 0, None, s, axis + 1)


def pad(x: jax.Array, padding: Pairs, fill: bool | float = 0.0) -> jax.Array:
    """x [N, *S, C] with `fill` around its spatial axes; the padding may be negative, which crops."""
    if not any(lo or hi for lo, hi in padding):
        return x
    return lax.pad(x, jnp.array(fill, x.dtype), [(0, 0, 0), *((lo, hi, 0) for lo, hi in padding), (0, 0, 0)])


def scatter(parts: Sequence[jax.Array], w: Window, size: Ints) -> jax.Array:
    """The adjoint of `gather`: every tap's [N, *M, C] values, added where that tap had read x."""

    def untap(offset: Ints, part: jax.Array) -> jax.Array:
        config = [(0, 0, 0)]
        for t, d, s, (lo, _), n, m in zip(
            offset, w.dilation, w.stride, w.padding, size, part.shape[1:-1], strict=True
        ):
            low, span = t * d - lo, max(0, (m - 1) * s + 1)
            config.append((low, n - span - low, s - 1))
        return lax.pad(part, jnp.zeros((), part.dtype), [*config, (0, 0, 0)])

    return sum(map(untap, offsets(w), parts), start=jnp.zeros((), parts[0].dtype))  # pyright: ignore


def dilate(dy: jax.Array, stride: Ints, transpose: Window) -> tuple[jax.Array, Window]:
    """dy with stride - 1 zeros between entries, padded like `transpose`, and that without padding."""
    edges = [(lo, hi, s - 1) for s, (lo, hi) in zip(stride, transpose.padding, strict=True)]
    dilated = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    return dilated, transpose._replace(padding=((0, 0),) * len(stride))
