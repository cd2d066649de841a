"""A convolution of few channels as elementwise arithmetic between its terms.

    y[i, o] = sum over taps t and channels c of x[i s + t d - lo, c] w[t, c, o]

is one loop over the outputs, a multiply-add for each of the T C terms: x[..., c] is the same for all o of a
pixel, and w[t, c] for all pixels.  That is half as fast as a large matrix product, but with as few channels
as a first layer has, matrix products and XLA's convolution are slower still.  The gradients sum over
outputs, or over pixels, and are those of the matrix product of patches.

Flops 2 N M T C O for each map; bytes, forward: x, its padded copy and y, once.
"""

import jax

from jcnn.kernels import matmul, taps, widen
from jcnn.kernels.problem import Formulation, Problem

CHANNELS, TERMS = 4, 36  # at most; twice as many terms take longer than XLA's convolution


def forward(x: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
    inputs = [tap[..., c, None] for tap in taps.gather(widen(x), p.window) for c in range(p.channels)]
    weights = widen(w).reshape(p.taps * p.channels, p.outputs)
    return sum(a * b for a, b in zip(inputs, weights, strict=True))  # pyright: ignore


def pays(p: Problem) -> bool:
    return fits(p) and p.channels <= CHANNELS and p.taps * p.channels <= TERMS


def fits(p: Problem) -> bool:
    return p.groups == 1 and p.taps * p.channels > 0


FORMULATION = Formulation(fits, forward, matmul.input_gradient, matmul.weight_gradient)
