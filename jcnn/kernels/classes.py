"""Sums over the classes, the last axis of logits [..., K], of which there may be tens of thousands."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jcnn.kernels import accumulator, on_cpu

PARTS = 8  # in which many classes are summed
FEW = 2**16  # logits of which a wide copy is no matter


def class_sum(f: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """The sum over the last axis of f(*arrays), [...]; f is elementwise, in the accumulation dtype.

    On CPU, XLA writes down what it sums if that is wider than the arrays: of bfloat16 logits a float32 copy,
    twice their size.  There one part of the classes is summed after the other; the barrier keeps XLA from
    widening all of them before the loop.
    """
    classes = arrays[0].shape[-1]
    narrow = any(accumulator(a.dtype) != a.dtype for a in arrays)
    size = classes // PARTS
    if not (narrow and on_cpu() and size and max(a.size for a in arrays) > FEW):
        return jnp.sum(f(*arrays), -1)

    def part(start: jax.Array | int, size: int, arrays: tuple[jax.Array, ...]) -> jax.Array:
        return jnp.sum(f(*(jax.lax.dynamic_slice_in_dim(a, start, size, -1) for a in arrays)), -1)

    def step(i: jax.Array) -> jax.Array:
        i, inside = jax.lax.optimization_barrier((i, arrays))
        return part(i * size, size, inside)

    rest = part(PARTS * size, classes - PARTS * size, arrays)
    return jnp.sum(jax.lax.map(step, jnp.arange(PARTS)), 0) + rest
