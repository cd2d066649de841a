"""A convolution as a matrix product of patches with the weights ("im2col").

    patches [N, *M, T C]        the inputs that each output reads, tap by tap
    y = patches W               with W [T C, O], the weights reshaped
    dW = patches^T dy           dpatches = dy W^T, added where each tap had read x

Flops 2 N M T C O for each map, none of them on zeros, at the speed of a matrix product; bytes: the patches,
N M T C, are written and read.  A 1x1 kernel with stride 1 has x itself for patches, and windows that do
not overlap make patches no larger than x: there nothing is faster.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from jcnn.kernels import taps
from jcnn.kernels.apart import transposed
from jcnn.kernels.problem import Formulation, Problem, blocks_of, sum_over_blocks

BLOCK_BYTES = 2**20  # of patches, in the weight gradient


def patches(x: jax.Array, p: Problem) -> jax.Array:
    return jnp.concatenate(taps.gather(x, p.window), axis=-1)


def bytes_each(p: Problem) -> int:
    """Of the patches of one example."""
    return math.prod(p.positions) * p.taps * p.channels * p.wide.itemsize


def forward(x: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    return jnp.matmul(patches(x, p), _matrix(w), preferred_element_type=p.wide)


def input_gradient(dy: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    dpatches = jnp.matmul(dy, _matrix(w).T, preferred_element_type=p.wide)
    return taps.scatter(jnp.split(dpatches, p.taps, axis=-1), p.window, p.size)


def weight_gradient(x: jax.Array, dy: jax.Array, p: Problem) -> jax.Array:
    def block(x: jax.Array, dy: jax.Array) -> jax.Array:
        rows = patches(x, p)
        if p.taps == 1:  # a transposed copy of x would take longer than what it saves
            return sum_of_products(rows, dy, p.wide)
        return jnp.matmul(transposed(_matrix(rows)), _matrix(dy), preferred_element_type=p.wide)

    fit = BLOCK_BYTES // max(1, bytes_each(p)) if p.taps > 1 else p.batch  # x itself is there already
    return sum_over_blocks(block, blocks_of(p.batch, fit), x, dy).reshape(p.weight_shape)


def sum_of_products(x: jax.Array, dy: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """x [..., C], dy [..., O] -> [C, O]: the products x dy, summed over all other axes.

    These are merged before: of arrays that are contracted over several axes XLA makes transposed copies.
    """
    dimensions = (((0,), (0,)), ((), ()))
    return lax.dot_general(_matrix(x), _matrix(dy), dimensions, preferred_element_type=dtype)


def _matrix(a: jax.Array) -> jax.Array:
    """All axes but the last as one; there may be nothing on any of them."""
    return a.reshape(math.prod(a.shape[:-1]), a.shape[-1])


def overlaps(p: Problem) -> bool:
    """Whether an input is read through more than one tap, so that patches are larger than x."""
    return any(k > 1 and (k > s or d > 1) for k, s, d, _ in zip(*p.window, strict=True))


def exceeds(p: Problem) -> bool:
    """Whether there are more taps than pixels, for which XLA's convolution on CPU has no fast code."""
    return p.taps > math.prod(p.size)


FORMULATION = Formulation(lambda p: p.groups == 1, forward, input_gradient, weight_gradient)
