"""Maximum and mean over whole images.

Shapes.  x, dx [N, *S, C];  y, dy [N, C].  j runs over the pixels S of an image.

Forward.    maximum   y = max_j x[j] = x[j*]
            mean      y = sum_j x[j] / |S|

Backward.   maximum   dx[j] = dy where j = j*, 0 elsewhere
            mean      dx[j] = dy / |S|

Kinks.  Where several pixels hold the maximum, j* is the first of them in row-major order.  A NaN is the
maximum of its image and takes the gradient.

Reference.  Lin, Chen & Yan 2014, arXiv:1312.4400, section 3.2.
"""

import functools
import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jcnn.geometry import Ints
from jcnn.kernels import accumulator, widen
from jcnn.pool.windows import Images, check_pixels
from jcnn.residuals import residuals, static
from jcnn.rule import Rule


@residuals
class GlobalMaxPoolResiduals:
    winner: Int[Array, "n 1 c"]  # where the maximum is, counted in row-major order over S
    size: Ints = static()  # spatial shape of x


def global_max_pool_fwd(x: Images) -> tuple[Float[Array, "n c"], GlobalMaxPoolResiduals]:
    """The maximum over all spatial axes: [N, *S, C] -> [N, C]; ties go to the first pixel, row by row.

    Raises:
        TypeError: x is not floating point.
        ValueError: x is not [N, *S, C], or has no pixels.
    """
    pixels = _pixels(x)
    y = jnp.max(pixels, 1, keepdims=True)
    positions = jnp.arange(pixels.shape[1], dtype=jnp.int32)[:, None]
    # The first pixel that holds the maximum: two plain reductions are 30 times as fast as an argmax on CPU.
    holds = (pixels == y) | jnp.isnan(pixels)
    winner = jnp.min(jnp.where(holds, positions, pixels.shape[1]), 1, keepdims=True)
    return y[:, 0], GlobalMaxPoolResiduals(winner, x.shape[1:-1])


def global_max_pool_bwd(res: GlobalMaxPoolResiduals, dy: Float[Array, "n c"]) -> tuple[Images]:
    positions = jnp.arange(math.prod(res.size), dtype=res.winner.dtype)[:, None]
    dx = jnp.where(positions == res.winner, dy[:, None], 0)
    return (dx.reshape(dy.shape[0], *res.size, dy.shape[1]),)


def global_max_pool_reference(x):
    pixels = _pixels(x)
    return jnp.take_along_axis(pixels, jnp.argmax(pixels, 1, keepdims=True), 1)[:, 0]


def _pixels(x: Array) -> Array:
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


global_max_pool = Rule(
    global_max_pool_fwd,
    global_max_pool_bwd,
    global_max_pool_reference,
    functools.partial(check_pixels, "global_max_pool"),
)


@residuals
class GlobalAvgPoolResiduals:
    size: Ints = static()  # spatial shape of x


def global_avg_pool_fwd(x: Images) -> tuple[Float[Array, "n c"], GlobalAvgPoolResiduals]:
    """The mean over all spatial axes: [N, *S, C] -> [N, C], accumulated in at least float32.

    Raises:
        TypeError: x is not floating point.
        ValueError: x is not [N, *S, C], or has no pixels.
    """
    y = jnp.mean(x, range(1, x.ndim - 1), accumulator(x.dtype)).astype(x.dtype)
    return y, GlobalAvgPoolResiduals(x.shape[1:-1])


def global_avg_pool_bwd(res: GlobalAvgPoolResiduals, dy: Float[Array, "n c"]) -> tuple[Images]:
    n, c = dy.shape
    share = widen(dy) / math.prod(res.size)
    pixels = jnp.expand_dims(share, range(1, len(res.size) + 1))
    return (jnp.broadcast_to(pixels, (n, *res.size, c)),)


def global_avg_pool_reference(x):
    return jnp.mean(x, range(1, x.ndim - 1))


global_avg_pool = Rule(
    global_avg_pool_fwd,
    global_avg_pool_bwd,
    global_avg_pool_reference,
    functools.partial(check_pixels, "global_avg_pool"),
)
