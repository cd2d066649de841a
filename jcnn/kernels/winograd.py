"""Convolution with a 3x3 kernel and stride 1 by Winograd's minimal filtering, F(m x m, 3 x 3).

Three neighbouring taps on m neighbouring outputs take m + 2 multiplications instead of 3 m.  Polynomials
of degrees m - 1 and 2 are evaluated at m + 1 points and infinity, multiplied there and interpolated; as
matrices (Lavin & Gray 2016, arXiv:1509.09308), for one output tile y of m, inputs d of m + 2, weights g:

    y = A^T [(G g) * (B^T d)]

and in two dimensions with each matrix on both sides.  Over channels the products become matrix products,
one for each of the (m + 2)^2 points, [tiles, C] x [C, O]:

    forward           y = A^T [V U] A      U = G w G^T,  V = B^T d B of every tile d
    weight gradient   dw = G^T [V^T E] G   E = A dy A^T of every tile of dy         (the adjoint in w)
    input gradient    the forward, of dy with the kernel turned around

Flops 2 N M C O (m + 2)^2 / m^2: 9/4 fewer than directly for m = 2, 4 times fewer for m = 4.  Bytes: V and
the products take ((m + 2) / m)^2 of x and y, so examples go through in blocks that stay in cache.

Rounding errors are relative to the largest input of a tile, as its inputs are added to each other: for
m = 2 they are at most those of the direct sum on data of one scale (measured 0.6 to 1.3 times), for m = 4
about 5 to 10 times those. A NaN or an infinity comes out in the whole tile.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jcnn.geometry import Window
from jcnn.kernels import taps, widen
from jcnn.kernels.apart import transposed, written
from jcnn.kernels.problem import Formulation, Problem, blocks_of, in_blocks, sum_over_blocks

# Of V, per block of examples: what stays in the outer caches beside the products, or beside E and the sums.
FORWARD_BYTES = 2**23
GRADIENT_BYTES = 2**22
CHANNELS, TILES, WASTE = 32, 48, 1.4  # see `pays`
MANY_CHANNELS, MANY_TILES = 112, 6144  # see `pays_forward`

MATRICES = {
    2: (  # points 0, 1, -1
        [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]],
    ),
    4: (  # points 0, 1, -1, 2, -2
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    ),
}


def fits(p: Problem) -> bool:
    """A 3x3 kernel, stride 1, no dilation, no groups, and something to compute."""
    window = p.window._replace(padding=())
    return window == Window((3, 3), (1, 1), (1, 1), ()) and p.groups == 1 and 0 not in (p.batch, *p.positions)


def formulation(m: int) -> Formulation:
    bt, g, at = (np.array(matrix) for matrix in MATRICES[m])
    points = m + 2

    def convolve(x: jax.Array, w: jax.Array, p: Problem, contract: int) -> jax.Array:
        """The forward of p; `contract` is the axis of U [points^2, ., .] that has the channels of x."""
        u = _both_sides(g, widen(w)).reshape(points**2, *w.shape[2:])

        def block(x: jax.Array) -> jax.Array:
            products = _batched_matmul(_input_tiles(bt, x, m, p), u, (2, contract))
            return _untile(at, products.reshape(points, points, len(x), *_tiles(m, p), -1), p)

        blocks = in_blocks(block, _block(m, p, FORWARD_BYTES), widen(x))
        return blocks.reshape(p.batch, *p.positions, p.outputs)

    def forward(x: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
        return convolve(x, w, p, contract=1)

    def input_gradient(dy: jax.Array, w: jax.Array, p: Problem) -> jax.Array:
        transpose = p._replace(
            window=p.window.input_transpose(p.size),
            size=p.positions,
            channels=p.outputs,
            outputs=p.channels,
        )
        return convolve(dy, jnp.flip(w, (0, 1)), transpose, contract=2)

    def weight_gradient(x: jax.Array, dy: jax.Array, p: Problem) -> jax.Array:
        def block(x: jax.Array, dy: jax.Array) -> jax.Array:
            v, e = _input_tiles(bt, x, m, p), _output_tiles(at.T, dy, m, p)
            return _batched_matmul(transposed(v), e, (2, 1))

        products = sum_over_blocks(block, _block(m, p, GRADIENT_BYTES), widen(x), widen(dy))
        return _both_sides(g.T, products.reshape(points, points, p.channels, p.outputs))

    return Formulation(fits, forward, input_gradient, weight_gradient)


def pays(m: int, p: Problem) -> bool:
    """Whether fewer multiplications outweigh the transformations: many channels, tiles enough to share the
    transformed weights, more of them the more of each reaches over the edge, and weights that take no more
    memory than the tiles."""
    if not fits(p):
        return False
    tiles = p.batch * math.prod(_tiles(m, p))
    waste = tiles * m**2 / (p.batch * math.prod(p.positions))
    enough = tiles * (WASTE - waste) >= TILES and tiles * (p.channels + p.outputs) >= p.channels * p.outputs
    return enough and min(p.channels, p.outputs) >= CHANNELS


def pays_forward(m: int, p: Problem) -> bool:
    """The same for the forward and the input gradient, which XLA's convolution is faster at."""
    many = min(p.channels, p.outputs) >= MANY_CHANNELS or p.batch * math.prod(_tiles(m, p)) >= MANY_TILES
    return pays(m, p) and many


def _tiles(m: int, p: Problem) -> tuple[int, ...]:
    return tuple(-(-n // m) for n in p.positions)


def _block(m: int, p: Problem, most: int) -> int:
    """Examples per block of at most so many bytes."""
    bytes_each = (m + 2) ** 2 * math.prod(_tiles(m, p)) * max(p.channels, p.outputs) * p.wide.itemsize
    return blocks_of(p.batch, most // bytes_each)


def _both_sides(matrix: np.ndarray, w: jax.Array) -> jax.Array:
    rows = _combine(matrix, list(w), 0)
    return _combine(matrix, [rows[:, j] for j in range(rows.shape[1])], 1)


def _input_tiles(bt: np.ndarray, x: jax.Array, m: int, p: Problem) -> jax.Array:
    """V [(m + 2)^2, tiles, C]: B^T d B of all tiles d, which overlap by 2."""
    pads = zip(p.window.padding, _tiles(m, p), p.size, strict=True)
    x = taps.pad(x, tuple((lo, t * m + 2 - n - lo) for (lo, _), t, n in pads))
    return _transform(bt, x, m, p)


def _output_tiles(a: np.ndarray, dy: jax.Array, m: int, p: Problem) -> jax.Array:
    """E [(m + 2)^2, tiles, O]: A d A^T of all tiles d of dy, which do not overlap."""
    dy = taps.pad(dy, tuple((0, t * m - n) for t, n in zip(_tiles(m, p), p.positions, strict=True)))
    return _transform(a, dy, m, p)


def _transform(matrix: np.ndarray, x: jax.Array, m: int, p: Problem) -> jax.Array:
    """matrix d matrix^T of all tiles of x, a new one every m pixels: first down, then across."""
    down, across = ((t - 1) * m + 1 for t in _tiles(m, p))
    size = matrix.shape[1]
    x = written(x)
    rows = _combine(matrix, [x[:, i : i + down : m] for i in range(size)], 0)
    tiles = _combine(matrix, [rows[:, :, :, j : j + across : m] for j in range(size)], 1)
    return tiles.reshape(-1, math.prod(tiles.shape[2:-1]), x.shape[-1])


def _untile(at: np.ndarray, products: jax.Array, p: Problem) -> jax.Array:
    """A^T [products] A, [points, points, N, tiles down, tiles across, O] -> [N, *M, O]"""
    rows = _combine(at, list(products), 0)
    tiles = _combine(at, [rows[:, j] for j in range(products.shape[1])], 1)
    m, _, n, down, across, o = tiles.shape
    y = tiles.transpose(2, 3, 0, 4, 1, 5).reshape(n, down * m, across * m, o)
    return y[:, : p.positions[0], : p.positions[1]]


def _combine(matrix: np.ndarray, parts: list[jax.Array], axis: int) -> jax.Array:
    """The matrix times the parts, which it numbers, stacked; spelled out, as most entries are 0 or 1."""

    def times(a: np.generic, part: jax.Array) -> jax.Array:
        return part if a == 1 else -part if a == -1 else part * jnp.asarray(a, part.dtype)

    terms = [[times(a, part) for a, part in zip(row, parts, strict=True) if a] for row in matrix]
    return jnp.stack([sum(row[1:], start=row[0]) for row in terms], axis)


def _batched_matmul(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """For every point the sum over these axes of a and b."""
    dimensions = (((axes[0],), (axes[1],)), ((0,), (0,)))
    return lax.dot_general(a, b, dimensions, precision=lax.Precision.HIGHEST)
