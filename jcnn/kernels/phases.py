"""The input gradient of a strided convolution, phase by phase.

Inputs j = q s + r with the same remainder r are reached through the same taps, those with (r + lo - t)
divisible by s, and the outputs i that read them lie at fixed distances from q:

    dx[q s + r] = sum over such t of dy[q + (r + lo - t) / s] w[t]^T

So all prod(s) phases together are one convolution of dy with stride 1 and prod(s) C output channels, which
are then dealt out to their places.  Flops 2 N M C O prod(s ceil(K / s)): no multiplication by the zeros
that a transposed convolution puts between the entries of dy, and few by zeros in the weights if s
divides K, or nearly.  Bytes: dy and dx, dx twice.
"""

import itertools
import math

import jax
import jax.numpy as jnp

from jcnn.geometry import Ints, Window
from jcnn.kernels import native
from jcnn.kernels.problem import Formulation, Problem


def input_gradient(dy: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    stride, rank = p.window.stride, p.rank
    reads = [_reads(*axis) for axis in zip(p.window.kernel, stride, p.window.padding, strict=True)]
    low, high = [min(o for _, o in r) for r in reads], [max(o for _, o in r) for r in reads]
    quotients = tuple(-(-n // s) for n, s in zip(p.size, stride, strict=True))

    def tap(phase: Ints, offset: Ints) -> jax.Array:
        t = [r.get(key) for r, key in zip(reads, zip(phase, offset, strict=True), strict=True)]
        return jnp.zeros((p.outputs, p.channels), w.dtype) if None in t else w[tuple(t)].T  # pyright: ignore

    phases = list(itertools.product(*map(range, stride)))
    offsets = list(itertools.product(*(range(a, b + 1) for a, b in zip(low, high, strict=True))))
    kernel = tuple(b - a + 1 for a, b in zip(low, high, strict=True))
    weights = jnp.stack([jnp.concatenate([tap(r, o) for r in phases], -1) for o in offsets])
    padding = tuple(
        (-a, q - 1 + b - (m - 1)) for a, b, q, m in zip(low, high, quotients, p.positions, strict=True)
    )
    dense = Problem(
        Window(kernel, (1,) * rank, (1,) * rank, padding),
        1,
        p.batch,
        p.positions,
        p.outputs,
        len(phases) * p.channels,
        p.dtype,
    )
    dx = native.forward(dy, weights.reshape(*kernel, p.outputs, -1), dense)
    return _deal(dx, quotients, p)


def _reads(kernel: int, stride: int, padding: tuple[int, int]) -> dict[tuple[int, int], int]:
    """(phase r, offset (r + lo - t) / s) -> tap t, on one axis."""
    lo = padding[0]
    return {
        (r, (r + lo - t) // stride): t
        for r in range(stride)
        for t in range(kernel)
        if (r + lo - t) % stride == 0
    }


def _deal(dx: jax.Array, quotients: Ints, p: Problem) -> jax.Array:
    """[N, *Q, (*s C)] -> [N, *S, C]: channel block r of pixel q goes to q s + r."""
    rank, stride = p.rank, p.window.stride
    dx = dx.reshape(p.batch, *quotients, *stride, p.channels)
    order = itertools.chain.from_iterable((1 + a, 1 + rank + a) for a in range(rank))
    full = [q * s for q, s in zip(quotients, stride, strict=True)]
    dx = dx.transpose(0, *order, 1 + 2 * rank).reshape(p.batch, *full, p.channels)
    return dx[(slice(None), *(slice(0, n) for n in p.size))]


def waste(p: Problem) -> float:
    """Multiplications per one that counts."""
    return math.prod(s * -(-k // s) / k for k, s in zip(p.window.kernel, p.window.stride, strict=True))


FORMULATION = Formulation(
    lambda p: p.groups == 1 and all(d == 1 for d in p.window.dilation) and 0 not in p.positions,
    native.forward,
    input_gradient,
    native.weight_gradient,
)
