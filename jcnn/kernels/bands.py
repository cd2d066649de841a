"""A two-dimensional convolution with few channels as a one-dimensional one with many.

The width moves into the channels, [N, H, W, C] -> [N, H, W C], and the kernel's rows become band matrices:

    B[t, (j, c), (q, o)] = w[t, u, c, o] where j = q s + u d - lo, else 0
    y[n, i, (q, o)] = sum_{t, j, c} x[n, i s + t d - lo, (j, c)] B[t, (j, c), (q, o)]

With S[u, j, q] = 1 on the bands, B = sum_u w[:, u] S[u], and dw[:, u] is the sum of dB over band u.

Flops 2 N M K W C O / K_columns, which is W / K_columns times as many, but in matrix products of a size that
a processor is fast at: with as few channels as a first layer has, it otherwise stands idle.  Bytes: x, y
and B once.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jcnn.geometry import Window
from jcnn.kernels import native
from jcnn.kernels.problem import Formulation, Problem

CHANNELS, ENTRIES = 8, 2**14  # at most, of x and of one band matrix; see `pays`


def forward(x: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    y = native.forward(_rows(x), _band_matrices(w, p), _rows_problem(p))
    return y.reshape(p.batch, *p.positions, p.outputs)


def input_gradient(dy: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    dx = native.input_gradient(_rows(dy), _band_matrices(w, p), _rows_problem(p))
    return dx.reshape(p.batch, *p.size, p.channels)


def weight_gradient(x: jax.Array, dy: jax.Array, p: Problem) -> jax.Array:
    d_bands = native.weight_gradient(_rows(x), _rows(dy), _rows_problem(p))
    d_bands = d_bands.reshape(p.window.kernel[0], p.size[1], p.channels, p.positions[1], p.outputs)
    return jnp.einsum("tjcqo,ujq->tuco", d_bands, jnp.asarray(_on_band(p), d_bands.dtype))


def pays(p: Problem) -> bool:
    if not FORMULATION.fits(p):
        return False
    entries = p.size[1] * p.channels * p.positions[1] * p.outputs
    return p.channels <= CHANNELS and entries <= ENTRIES


def _rows(a: jax.Array) -> jax.Array:
    return a.reshape(*a.shape[:2], -1)


def _rows_problem(p: Problem) -> Problem:
    w = p.window
    return p._replace(
        window=Window(w.kernel[:1], w.stride[:1], w.dilation[:1], w.padding[:1]),
        size=p.size[:1],
        channels=p.size[1] * p.channels,
        outputs=p.positions[1] * p.outputs,
    )


def _band_matrices(w: jax.Array, p: Problem) -> jax.Array:
    bands = jnp.einsum("tuco,ujq->tjcqo", w, jnp.asarray(_on_band(p), w.dtype))
    return bands.reshape(p.window.kernel[0], p.size[1] * p.channels, -1)


def _on_band(p: Problem) -> np.ndarray:
    """S [K_columns, W, Q]"""
    u, j, q = np.ogrid[: p.window.kernel[1], : p.size[1], : p.positions[1]]
    return j == q * p.window.stride[1] + u * p.window.dilation[1] - p.window.padding[1][0]


FORMULATION = Formulation(
    lambda p: p.rank == 2 and p.groups == 1 and 0 not in (*p.size, *p.positions),
    forward,
    input_gradient,
    weight_gradient,
)
