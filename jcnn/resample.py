"""Larger images: upsampling, and the exchange of channels for pixels (pixel shuffle).

Shapes.  upsample: x, dx [N, *S, C];  y, dy [N, *(f S), C], with an integer factor f for each spatial axis.
pixel_shuffle: x, dx [N, *S, C R];  y, dy [N, *(f S), C], with R the product of the factors.  pixel_unshuffle
takes y to x.

Forward, upsample.  One spatial axis after the other, of n pixels and m = f n outputs.  Output j lies at the
point u(j) of the input, whose pixel i weighs there what the hat function h gives it:

    y[j] = sum_i h(u(j) - i) x[i]        h(t) = max(0, 1 - |t|)

    nearest                  u(j) = floor(j / f)             h is 1 or 0: every pixel f times
    linear                   u(j) = (j + 1/2) / f - 1/2      pixels are squares: the half is their centre
    linear, align_corners    u(j) = j (n - 1) / (m - 1)      pixels are points: the first and last stay

limited to [0, n - 1]: outputs nearer to the edge than the outer pixel are copies of it.  At most two pixels
weigh anything.

Backward, upsample.  The weights do not depend on x, so that from <dy, y'>

    dx[i] = sum_j h(u(j) - i) dy[j]      over the outputs with i - 1 < u(j) < i + 1

which stand next to each other, since u never falls.

Pixel shuffle moves every value to a place of its own.  On two axes with factors f and g,

    y[n, i f + a, j g + b, c] = x[n, i, j, (c f + a) g + b]

which is PyTorch's order of the channels: the f g values of a square of y are neighbours in x, row by row.
The backward of pixel_shuffle is pixel_unshuffle, and the other way round.

Kinks.  None: all three are linear.
Reference.  Shi et al. 2016, arXiv:1609.05158 (pixel shuffle); Odena et al. 2016, Distill, "Deconvolution and
checkerboard artifacts" (upsampling before a convolution); PyTorch's conventions.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jcnn import check
from jcnn.geometry import IntLike, Ints, sizes
from jcnn.kernels import widen
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Small = Float[Array, "n *s c"]
Large = Float[Array, "n *m d"]


def _checked_factor(op: str, x: Array, factor: IntLike) -> Ints:
    check.floating(op, x=x)
    check.images(op, x)
    factors = sizes(op, "factor", factor, x.ndim - 2)
    if min(factors) < 1:
        check.fail(op, "factor", factor, "at least 1 on every axis")
    return factors


def _points(n: int, f: int, method: str, align_corners: bool) -> np.ndarray:
    """u [m]: where the outputs of one axis lie in its n pixels."""
    j = np.arange(n * f)
    if method == "nearest":
        return j // f + 0.0
    if align_corners:
        return j * (n - 1) / max(n * f - 1, 1)
    return np.clip((j + 0.5) / f - 0.5, 0, n - 1)


def _pixels_of_outputs(u: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The two pixels around each point and what they weigh there, both [2, m]."""
    index = np.floor(u) + np.arange(2.0)[:, None]
    return np.minimum(index, n - 1), 1 - np.abs(u - index)


def _outputs_of_pixels(u: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The outputs that each pixel has a weight in, and that weight, both [K, n]: 0 for less than K."""
    i = np.arange(n)
    first, stop = np.searchsorted(u, i - 1, "right"), np.searchsorted(u, i + 1, "left")
    index = first + np.arange((stop - first).max())[:, None]
    inside = np.minimum(index, len(u) - 1)
    return inside, np.where(index < stop, 1 - np.abs(u[inside] - i), 0)


def _weigh(x: Array, axis: int, index: np.ndarray, weight: np.ndarray) -> Array:
    """sum_k weight[k] x[index[k]] along an axis; what weighs nothing is not looked at, not even a NaN."""

    def term(k: int) -> Array:
        read = jnp.take(x, index[k].astype(np.int32), axis, mode="clip")
        along = jnp.expand_dims(jnp.asarray(weight[k], x.dtype), range(1, x.ndim - axis))
        return along * read if weight[k].all() else jnp.where(along != 0, along * read, 0)

    return sum(map(term, range(len(index))), start=jnp.zeros((), x.dtype))


LINEAR_NAMES = {1: (), 2: ("bilinear",), 3: ("trilinear",)}  # by the number of spatial axes


@residuals
class UpsampleResiduals:
    size: Ints = static()  # spatial shape of x
    factor: Ints = static()
    method: str = static()
    align_corners: bool = static()

    def points(self) -> list[np.ndarray]:
        """u for every spatial axis."""
        axes = zip(self.size, self.factor, strict=True)
        return [_points(n, f, self.method, self.align_corners) for n, f in axes]


def upsample_fwd(
    x: Small, *, factor: IntLike, method: str = "nearest", align_corners: bool = False
) -> tuple[Large, UpsampleResiduals]:
    """Images `factor` times as large, by repetition or interpolation of their pixels.

    Args:
        x: images, [N, *S, C] with 1, 2 or 3 spatial axes S, none of them empty.
        factor: how many times as large, an int or one per spatial axis, >= 1.
        method: "nearest", which repeats every pixel, or "linear", which on 2 and 3 axes may also be called
            "bilinear" and "trilinear".
        align_corners: of "linear", whether the outer pixels of x and y are at the same place (u(j) =
            j (n - 1) / (m - 1)) or their outer edges, as is usual and gives the same scale everywhere.

    Returns:
        [N, *(factor S), C] in x's dtype; sums are accumulated in at least float32.

    Raises:
        TypeError: x is not floating point.
        ValueError: shapes or configuration not as above.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> x = jnp.array([0.0, 4.0]).reshape(1, 2, 1)
        >>> jcnn.upsample(x, factor=2)[0, :, 0].tolist()
        [0.0, 0.0, 4.0, 4.0]
        >>> jcnn.upsample(x, factor=2, method="linear")[0, :, 0].tolist()
        [0.0, 1.0, 3.0, 4.0]
    """
    size = x.shape[1:-1]
    res = UpsampleResiduals(size, sizes("upsample", "factor", factor, len(size)), method, align_corners)
    y = widen(x)
    for axis, (u, n) in enumerate(zip(res.points(), size, strict=True), start=1):
        y = _weigh(y, axis, *_pixels_of_outputs(u, n))
    return y.astype(x.dtype), res


def upsample_bwd(res: UpsampleResiduals, dy: Large) -> tuple[Small]:
    dx = widen(dy)
    for axis, (u, n) in reversed(list(enumerate(zip(res.points(), res.size, strict=True), start=1))):
        dx = _weigh(dx, axis, *_outputs_of_pixels(u, n))
    return (dx,)


def upsample_reference(x, *, factor, method="nearest", align_corners=False):
    y = widen(x)
    for axis, f in enumerate(sizes("upsample", "factor", factor, x.ndim - 2), start=1):
        if method == "nearest":
            y = jnp.repeat(y, f, axis)
            continue
        u = _points(x.shape[axis], f, method, align_corners)
        low = np.floor(u).astype(int)
        share = np.expand_dims(u - low, tuple(range(1, x.ndim - axis))).astype(y.dtype)
        before, after = (jnp.take(y, pixel, axis) for pixel in (low, np.ceil(u).astype(int)))
        y = jnp.where(share == 0, before, (1 - share) * before + share * after)
    return y.astype(x.dtype)


def _upsample_check(x, *, factor, method, align_corners) -> None:
    _checked_factor("upsample", x, factor)
    check.choice("upsample", "method", method, ("nearest", "linear", *LINEAR_NAMES[x.ndim - 2]))
    check.choice(
        "upsample", "align_corners", align_corners, (False,) if method == "nearest" else (False, True)
    )
    check.pixels("upsample", x)


upsample = Rule(upsample_fwd, upsample_bwd, upsample_reference, _upsample_check)


@residuals
class ShuffleResiduals:
    factor: Ints = static()


def _to_pixels(x: Array, factor: Ints) -> Array:
    n, *size, c = x.shape
    rank, c = len(size), c // math.prod(factor)
    pairs = [axis for a in range(rank) for axis in (1 + a, 2 + rank + a)]
    y = x.reshape(n, *size, c, *factor).transpose(0, *pairs, 1 + rank)  # [N, s, f, s, f, ..., C]
    return y.reshape(n, *(s * f for s, f in zip(size, factor, strict=True)), c)


def _to_channels(y: Array, factor: Ints) -> Array:
    n, *size, c = y.shape
    rank, small = len(size), [m // f for m, f in zip(size, factor, strict=True)]
    pairs = [part for pair in zip(small, factor, strict=True) for part in pair]
    of_size, of_factor = range(1, 1 + 2 * rank, 2), range(2, 2 + 2 * rank, 2)
    x = y.reshape(n, *pairs, c).transpose(0, *of_size, 1 + 2 * rank, *of_factor)  # [N, *S, C, *f]
    return x.reshape(n, *small, c * math.prod(factor))


def pixel_shuffle_fwd(x: Small, *, factor: IntLike) -> tuple[Large, ShuffleResiduals]:
    """Images `factor` times as large on every axis, their pixels taken from the channels.

    Args:
        x: [N, *S, C R] with 1, 2 or 3 spatial axes S, where R is the product of the factors.
        factor: how many times as large, an int or one per spatial axis, >= 1.

    Returns:
        [N, *(factor S), C]: channel c of y comes from the R channels c R, ..., c R + R - 1 of x, row by row,
        as in PyTorch.  (TensorFlow's depth_to_space takes the channels c, C + c, 2 C + c, ...)

    Raises:
        TypeError: x is not floating point.
        ValueError: factor not as above, or channels that R does not divide.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> jcnn.pixel_shuffle(jnp.arange(4.0).reshape(1, 1, 1, 4), factor=2)[0, :, :, 0].tolist()
        [[0.0, 1.0], [2.0, 3.0]]
    """
    factors = sizes("pixel_shuffle", "factor", factor, x.ndim - 2)
    return _to_pixels(x, factors), ShuffleResiduals(factors)


def pixel_shuffle_bwd(res: ShuffleResiduals, dy: Large) -> tuple[Small]:
    return (_to_channels(dy, res.factor),)


def pixel_shuffle_reference(x, *, factor):
    factors = sizes("pixel_shuffle", "factor", factor, x.ndim - 2)
    size, count = x.shape[1:-1], math.prod(factors)
    y = jnp.zeros((x.shape[0], *(s * f for s, f in zip(size, factors, strict=True)), x.shape[-1] // count))
    y = y.astype(x.dtype)
    for r, offset in enumerate(np.ndindex(*factors)):
        places = (slice(o, None, f) for o, f in zip(offset, factors, strict=True))
        y = y.at[(slice(None), *places)].set(x[..., r::count])
    return y


def _pixel_shuffle_check(x, *, factor) -> None:
    count = math.prod(_checked_factor("pixel_shuffle", x, factor))
    if x.shape[-1] % count:
        check.fail(
            "pixel_shuffle", "x", f"{x.shape[-1]} channels", f"a multiple of {count} for factor={factor}"
        )


pixel_shuffle = Rule(pixel_shuffle_fwd, pixel_shuffle_bwd, pixel_shuffle_reference, _pixel_shuffle_check)


def pixel_unshuffle_fwd(x: Large, *, factor: IntLike) -> tuple[Small, ShuffleResiduals]:
    """Images `factor` times as small on every axis, their pixels put into the channels.

    Args:
        x: [N, *(factor S), C] with 1, 2 or 3 spatial axes.
        factor: how many times as small, an int or one per spatial axis, >= 1.

    Returns:
        [N, *S, C R] with R the product of the factors: `pixel_shuffle` makes x of it again.

    Raises:
        TypeError: x is not floating point.
        ValueError: factor not as above, or a spatial shape that it does not divide.
    """
    factors = sizes("pixel_unshuffle", "factor", factor, x.ndim - 2)
    return _to_channels(x, factors), ShuffleResiduals(factors)


def pixel_unshuffle_bwd(res: ShuffleResiduals, dy: Small) -> tuple[Large]:
    return (_to_pixels(dy, res.factor),)


def pixel_unshuffle_reference(x, *, factor):
    factors = sizes("pixel_unshuffle", "factor", factor, x.ndim - 2)
    places = [
        tuple(slice(o, None, f) for o, f in zip(offset, factors, strict=True))
        for offset in np.ndindex(*factors)
    ]
    squares = jnp.stack([x[(slice(None), *place)] for place in places], -1)  # [N, *S, C, R]
    return squares.reshape(*squares.shape[:-2], x.shape[-1] * len(places))


def _pixel_unshuffle_check(x, *, factor) -> None:
    factors, size = _checked_factor("pixel_unshuffle", x, factor), x.shape[1:-1]
    if any(m % f for m, f in zip(size, factors, strict=True)):
        check.fail("pixel_unshuffle", "x", f"spatial shape {size}", f"multiples of factor={factor}")


pixel_unshuffle = Rule(
    pixel_unshuffle_fwd, pixel_unshuffle_bwd, pixel_unshuffle_reference, _pixel_unshuffle_check
)
