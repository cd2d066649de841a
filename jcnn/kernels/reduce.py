"""Sums over all pixels of a batch of images, and over the channels of every pixel."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jcnn.kernels import on_cpu, widen
from jcnn.kernels.apart import apart
from jcnn.kernels.problem import blocks_of

TOGETHER = 8  # entries that one loop adds up


def pixel_sum(x: jax.Array) -> jax.Array:
    """The sum over all axes but the last, [C] in the accumulation dtype.

    In two steps, the last spatial axis by itself: on CPU, XLA adds up rows of W C numbers three times as
    fast as rows of C.
    """
    x = widen(x)
    rows = jnp.sum(x, range(x.ndim - 2)) if x.ndim > 2 else x
    return jnp.sum(rows, 0) if rows.ndim > 1 else rows


def channel_sum(x: jax.Array, weights: jax.Array) -> jax.Array:
    """The sum over the channels of x [*L, C] times weights [C], [*L, 1] in the accumulation dtype.

    On CPU a matrix product: XLA would put it into one loop with all that depends on it, in which sums over
    pixels of the same x are slow.
    """
    x, weights = widen(x), widen(weights)
    if on_cpu():
        return jnp.matmul(x, weights, precision=lax.Precision.HIGHEST)[..., None]
    return jnp.sum(x * weights, -1, keepdims=True)


def added(f: Callable[..., jax.Array], x: jax.Array, *others: jax.Array | None, axis: int = 0) -> jax.Array:
    """f(x, *others), elementwise, with up to 8 entries on the axis added up: what is left of a sum over it.

    On CPU, XLA sums fast what is in memory, and slowly what it has to compute.  Left to itself it would also
    write down the x - mean of a variance, and keep it for the backward pass, where it is computed in less
    time than read.  Others that have one entry on the axis, or fewer axes than x, go with all entries.  f is
    a function of a module: each new function would be compiled anew where there is no `jit` around it.
    """
    return _neighbours_added(f, axis, x, *others) if on_cpu() else f(x, *others)


@apart("f", "axis")
def _neighbours_added(f: Callable, axis: int, x: jax.Array, *others: jax.Array | None) -> jax.Array:
    n = x.shape[axis]
    together = blocks_of(n, TOGETHER)

    def every(i: int, a: jax.Array) -> jax.Array:
        cut = (slice(None),) * axis + (slice(i, None, together),)
        return a[cut] if a.ndim == x.ndim and a.shape[axis] == n else a

    cuts = (jax.tree.map(functools.partial(every, i), (x, *others)) for i in range(together))
    return sum(f(*cut) for cut in cuts)  # pyright: ignore


def squared_deviation(x: jax.Array, mean: jax.Array) -> jax.Array:
    return (widen(x) - mean) ** 2


def deviation_times(x: jax.Array, mean: jax.Array, dy: jax.Array) -> jax.Array:
    return (widen(x) - mean) * widen(dy)
