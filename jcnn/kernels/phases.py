"""The input gradient of a strided convolution, phase by phase.

Inputs j = q s + r with the same remainder r are reached through the same taps, those with (r + lo - t)
divisible by s, and the outputs i that read them lie at fixed distances from q:

    dx[q s + r] = sum over such t of dy[q + (r + lo - t) / s] w[t]^T

So all prod(s) phases together are one convolution of dy with stride 1 and prod(s) C output channels, which
are then dealt out to their places.  Flops 2 N M C O prod(s n), with n offsets on an axis: none by the zeros
that a transposed convolution puts between the entries of dy, and few by zeros in the weights if the phases
have nearly the same offsets.  Bytes: dy and dx, dx twice.
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
    reads = _reads(p)
    low, high = zip(*map(_span, reads), strict=True)
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


def _reads(p: Problem) -> list[dict[tuple[int, int], int]]:
    """On every axis (phase r, offset (r + lo - t) / s) -> tap t."""
    axes = zip(p.window.kernel, p.window.stride, p.window.padding, strict=True)
    return [
        {(r, (r + lo - t) // s): t for r in range(s) for t in range(k) if (r + lo - t) % s == 0}
        for k, s, (lo, _) in axes
    ]


def _span(reads: dict[tuple[int, int], int]) -> tuple[int, int]:
    """The smallest and the largest offset."""
    offsets = [offset for _, offset in reads]
    return min(offsets), max(offsets)


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
    widths = (high - low + 1 for low, high in map(_span, _reads(p)))
    return math.prod(s * n / k for k, s, n in zip(p.window.kernel, p.window.stride, widths, strict=True))


FORMULATION = Formulation(
    lambda p: p.groups == 1 and all(d == 1 for d in p.window.dilation) and 0 not in p.positions,
    native.forward,
    input_gradient,
    native.weight_gradient,
)
