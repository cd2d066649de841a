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


def centred(x: jax.Array, mean: jax.Array) -> jax.Array:
    """x - mean, for the terms of one sum over pixels; for those of another there is `twice_centred`.

    On CPU XLA computes the terms inside the sum, unless x - mean, or the mean spread over the pixels, is used
    for something else, too: then that is written to memory first, and kept from the forward pass to the
    backward.  So each of these sums has an expression of its own, which XLA does not find equal to others.
    """
    return x + -mean


def twice_centred(x: jax.Array, mean: jax.Array) -> jax.Array:
    """2 (x - mean), to the same accuracy; see `centred`."""
    return x + x - 2 * mean
