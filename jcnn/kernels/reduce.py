"""Sums over all pixels of a batch of images, and over the channels of every pixel."""

import jax
import jax.numpy as jnp
from jax import lax

from jcnn.kernels import on_cpu, widen


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


def apart(x: jax.Array) -> jax.Array:
    """x under a leading axis of 1, which makes it another array for XLA.

    On CPU a sum over x - mean reads x once and computes the difference on the way, unless x - mean is used
    for something else, too: then it is written to memory first.
    """
    return x[None]
