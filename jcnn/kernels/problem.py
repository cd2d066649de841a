"""What a convolution's formulations and the choice between them go by: the static facts."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jcnn.geometry import Ints, Window
from jcnn.kernels import accumulator
from jcnn.rule import varying_axes


class Problem(NamedTuple):
    """A convolution x [N, *S, C], w [*K, C/groups, O] -> y [N, *M, O], as numbers."""

    window: Window
    groups: int
    batch: int  # N
    size: Ints  # S
    channels: int  # C
    outputs: int  # O
    dtype: jnp.dtype

    @property
    def rank(self) -> int:
        return len(self.size)

    @property
    def positions(self) -> Ints:
        """M, the spatial shape of the output."""
        return self.window.output_size(self.size)

    @property
    def taps(self) -> int:
        return math.prod(self.window.kernel)

    @property
    def group(self) -> int:
        """Input channels per group."""
        return self.channels // self.groups

    @property
    def weight_shape(self) -> Ints:
        return (*self.window.kernel, self.group, self.outputs)

    @property
    def wide(self) -> jnp.dtype:
        """The dtype that sums are accumulated in."""
        return accumulator(self.dtype)


class Formulation(NamedTuple):
    """One way to compute the three maps; all results are in the accumulation dtype."""

    fits: Callable[[Problem], bool]  # whether it computes this convolution at all
    forward: Callable[[jax.Array, jax.Array, Problem], jax.Array]  # x, w -> y
    input_gradient: Callable[[jax.Array, jax.Array, Problem], jax.Array]  # dy, w -> dx
    weight_gradient: Callable[[jax.Array, jax.Array, Problem], jax.Array]  # x, dy -> dw


def blocks_of(batch: int, most: int) -> int:
    """The largest divisor of `batch` that is at most `most`, and 1 at least."""
    return max((b for b in range(1, batch + 1) if batch % b == 0 and b <= most), default=1)


def in_blocks(f: Callable, size: int, *arrays: jax.Array) -> jax.Array:
    """f of every `size` examples [size, ...] of the arrays [N, ...], in turn: [N / size, ...].

    A loop keeps what f computes on the way in the processor's cache.
    """
    count = arrays[0].shape[0] // size
    if count <= 1:
        return f(*arrays)[None]
    return jax.lax.map(lambda i: f(*_block(i, size, arrays)), jnp.arange(count))


def sum_over_blocks(f: Callable, size: int, *arrays: jax.Array) -> jax.Array:
    """The sum of `in_blocks` over its first axis, without keeping the terms."""
    count = arrays[0].shape[0] // size
    if count <= 1:
        return f(*arrays)
    shape = jax.eval_shape(lambda *arrays: f(*_block(0, size, arrays)), *arrays)
    zero = jnp.zeros(shape.shape, shape.dtype)
    varying = tuple(varying_axes(arrays[0]))  # in shard_map, a loop's state varies at the end as at first
    start = jax.lax.pcast(zero, varying, to="varying") if varying else zero
    return jax.lax.fori_loop(0, count, lambda i, total: total + f(*_block(i, size, arrays)), start)


def _block(i, size: int, arrays: tuple[jax.Array, ...]) -> list[jax.Array]:
    """Cut inside the loop: arrays that are split before it would be copied."""
    return [jax.lax.dynamic_slice_in_dim(a, i * size, size) for a in arrays]
