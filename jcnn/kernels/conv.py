"""The three bilinear maps of a convolution, forward, input gradient and weight gradient: which
formulation computes them.

    native      one XLA convolution                                               anything
    matmul      a matrix product of patches with the weights                      no groups
    taps        elementwise arithmetic between taps                               one channel per group
    terms       the same between taps and channels, forward                       no groups
    blocks      dense convolutions over blocks of groups                          groups
    planes      a two-dimensional convolution, the first axis in its channels     three dimensions
    phases      the input gradient of a strided convolution without its zeros     no groups, no dilation
    bands       the width moved into the channels: band matrices                  2-D, no groups
    winograd    F(2x2, 3x3): 2.25 times fewer multiplications                     3x3, stride 1, no groups
    winograd4   F(4x4, 3x3): 4 times fewer, at 5 to 10 times the rounding error   the same; only by name

Blocks, phases, bands and Winograd multiply by zeros, or add and subtract, values that a direct sum keeps
apart, so a NaN or an infinity comes out in more places: in all groups of a block, in a row, in a tile.
They are chosen for large problems only; `algorithm="native"` or "matmul" keeps such values in their windows.

Shapes: x [N, *S, C], w [*K, C/groups, O], y and dy [N, *M, O].
"""

import functools
import math
from collections.abc import Callable

import jax

from jcnn.geometry import Ints, Window
from jcnn.kernels import (
    bands,
    blocks,
    depthwise,
    matmul,
    native,
    on_cpu,
    phases,
    planes,
    taps,
    terms,
    winograd,
)
from jcnn.kernels.problem import Problem

FORMULATIONS = {
    "native": native.FORMULATION,
    "matmul": matmul.FORMULATION,
    "taps": depthwise.FORMULATION,
    "terms": terms.FORMULATION,
    "blocks": blocks.FORMULATION,
    "planes": planes.FORMULATION,
    "phases": phases.FORMULATION,
    "bands": bands.FORMULATION,
    "winograd": winograd.formulation(2),
    "winograd4": winograd.formulation(4),
}
FEW_CHANNELS, FEW_TAPS = 8, 9  # patches of the input are small, and XLA's convolution slow
MANY_OUTPUTS, PATCHES_BYTES = 96, 3 * 2**22  # patches that stay in cache between their product and their sum
LARGE = 512  # outputs per channel; with fewer, there is nothing to gain by the formulations that mix values
PHASES_WASTE = 1.4  # multiplications by zero weights cost as much as those by zero inputs save


def convolve(x: jax.Array, w: jax.Array, window: Window, groups: int, algorithm: str | None = None):
    """y[n, i, o] = sum over taps t and channels c of x[n, i s + t d - lo, c] w[t, c, o]."""
    p = Problem(window, groups, len(x), x.shape[1:-1], x.shape[-1], w.shape[-1], x.dtype)
    return _compute("forward", _choose(p, algorithm, _fastest_forward), p, x, w)


def input_gradient(
    dy: jax.Array, w: jax.Array, window: Window, groups: int, size: Ints, algorithm: str | None = None
):
    """dx[n, j, c] = sum of dy[n, i, o] w[t, c, o] over all i, t with i s + t d - lo = j, and o."""
    p = Problem(window, groups, len(dy), size, w.shape[-2] * groups, w.shape[-1], dy.dtype)
    return _compute("input_gradient", _choose(p, algorithm, _fastest_input_gradient), p, dy, w)


def weight_gradient(x: jax.Array, dy: jax.Array, window: Window, groups: int, algorithm: str | None = None):
    """dw[t, c, o] = sum over examples n and positions i of x[n, i s + t d - lo, c] dy[n, i, o]."""
    p = Problem(window, groups, len(x), x.shape[1:-1], x.shape[-1], dy.shape[-1], x.dtype)
    return _compute("weight_gradient", _choose(p, algorithm, _fastest_weight_gradient), p, x, dy)


def fitting(p: Problem) -> list[str]:
    """The formulations that compute this convolution."""
    return [name for name, f in FORMULATIONS.items() if f.fits(p)]


def _choose(p: Problem, algorithm: str | None, fastest_on_cpu: Callable[[Problem], str]) -> str:
    """The one asked for, or the fastest."""
    return algorithm or (fastest_on_cpu(p) if on_cpu() else _fastest(p))


@functools.partial(jax.jit, static_argnums=(0, 1, 2), inline=True)
def _compute(bilinear_map: str, formulation: str, p: Problem, a: jax.Array, b: jax.Array) -> jax.Array:
    """One of the three maps. Under jit, as loops over functions made anew would be compiled at every call."""
    return getattr(FORMULATIONS[formulation], bilinear_map)(a, b, p)


def _fastest(p: Problem) -> str:
    return "matmul" if p.groups == p.taps == max(p.window.stride) == 1 else "native"


def _fastest_forward(p: Problem) -> str:
    if one := _fastest_for_all(p):
        return one
    if winograd.pays_forward(2, p):
        return "winograd"
    if not _large(p):
        return "native"
    if terms.pays(p):
        return "terms"
    return "bands" if bands.pays(p) else "native"


def _fastest_input_gradient(p: Problem) -> str:
    """XLA's convolution is at its worst with few channels to compute, and wants the weights transposed."""
    if one := _fastest_for_all(p):
        return one
    if winograd.pays_forward(2, p):
        return "winograd"
    if p.outputs >= MANY_OUTPUTS and p.batch * matmul.bytes_each(p) <= PATCHES_BYTES:
        return "matmul"
    if not _large(p):
        return "native"
    if bands.pays(p):
        return "bands"
    if _strided(p) and phases.FORMULATION.fits(p) and phases.waste(p) <= PHASES_WASTE:
        return "phases"
    return "matmul" if _patches_pay(p) else "native"


def _fastest_weight_gradient(p: Problem) -> str:
    """XLA has a window as large as the image for it."""
    if one := _fastest_for_all(p):
        return one
    if winograd.pays(2, p):
        return "winograd"
    if not _large(p):
        return "native"
    if bands.pays(p):
        return "bands"
    return "matmul" if _patches_pay(p) else "native"


def _fastest_for_all(p: Problem) -> str | None:
    """What is fastest on CPU for each of the three maps; None where they differ."""
    if p.groups > 1:
        return "taps" if depthwise.fits(p) else "blocks" if _large(p) else "native"
    if not matmul.overlaps(p):
        return "matmul"
    if p.rank == 3:
        return "planes"
    return "matmul" if matmul.exceeds(p) and p.taps <= taps.LONG else None


def _patches_pay(p: Problem) -> bool:
    return p.taps <= FEW_TAPS and (_strided(p) or p.channels <= FEW_CHANNELS)


def _strided(p: Problem) -> bool:
    return max(p.window.stride) > 1


def _large(p: Problem) -> bool:
    return p.batch * math.prod(p.positions) >= LARGE
