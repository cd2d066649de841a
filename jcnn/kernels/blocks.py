"""A grouped convolution as a few dense ones, over blocks of neighbouring groups.

Groups are merged until a block has at least 16 input channels, a vector register full; in the weights of
a block, zeros stand where its groups do not mix:

    w [*K, C/groups, O]  ->  blocks [*K, c, o] with c = m C/groups, o = m O/groups, m groups in a block

Flops m times those of the groups alone; bytes: the arguments and the result, once.  XLA's own grouped
convolution runs at a fifth of the speed on CPU, and its weight gradient at a four-hundredth.
"""

import jax
import jax.numpy as jnp

from jcnn.kernels import native
from jcnn.kernels.problem import Formulation, Problem

CHANNELS = 16


def forward(x: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    block, count = _block(p)
    weights = jnp.split(_dense(w, p), count, axis=-1)
    parts = zip(jnp.split(x, count, axis=-1), weights, strict=True)
    return jnp.concatenate([native.forward(a, b, block) for a, b in parts], axis=-1)


def input_gradient(dy: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    block, count = _block(p)
    weights = jnp.split(_dense(w, p), count, axis=-1)
    parts = zip(jnp.split(dy, count, axis=-1), weights, strict=True)
    return jnp.concatenate([native.input_gradient(a, b, block) for a, b in parts], axis=-1)


def weight_gradient(x: jax.Array, dy: jax.Array, p: Problem) -> jax.Array:
    block, count = _block(p)
    parts = zip(jnp.split(x, count, axis=-1), jnp.split(dy, count, axis=-1), strict=True)
    dense = jnp.stack([native.weight_gradient(a, b, block) for a, b in parts], axis=-3)
    # [*K, block, (group, c), (group, o)]: keep what connects a group to itself.
    merged = p.groups // count
    dense = dense.reshape(*p.window.kernel, count, merged, p.group, merged, -1)
    return jnp.einsum("...bmcmo->...cbmo", dense).reshape(p.weight_shape)


def _block(p: Problem) -> tuple[Problem, int]:
    """The dense convolution of one block, and the number of blocks."""
    sizes = [m for m in range(1, p.groups + 1) if p.groups % m == 0]
    merged = next((m for m in sizes if m * p.group >= CHANNELS), p.groups)
    count = p.groups // merged
    return p._replace(groups=1, channels=p.channels // count, outputs=p.outputs // count), count


def _dense(w: jax.Array, p: Problem) -> jax.Array:
    """[*K, C/groups, O] -> [*K, c, O]: zeros between the groups that a block merges."""
    count = _block(p)[1]
    merged = p.groups // count
    w = w.reshape(*p.window.kernel, p.group, count, merged, -1)
    dense = jnp.einsum("...cbmo,mn->...ncbmo", w, jnp.eye(merged, dtype=w.dtype))
    return dense.reshape(*p.window.kernel, merged * p.group, p.outputs)


FORMULATION = Formulation(lambda p: p.groups > 1, forward, input_gradient, weight_gradient)
