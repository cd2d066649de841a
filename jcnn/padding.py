"""Padding of images with zeros, or with copies of their own pixels.

Shapes.  x, dx [N, *S, C];  y, dy [N, *(lo + S + hi), C].

Forward.  On every spatial axis of n inputs, output j reads input r(j), or zero if the mode is "zeros" and
j - lo is outside [0, n):

    y[j] = x[r(j)]        zeros      r(j) = j - lo
                          edge       r(j) = the nearest pixel of the image (copies of the outer pixels)
                          reflect    mirrored at the outer pixels, which are not repeated   c b | a b c | b a
                          symmetric  mirrored at the edges, outer pixels repeated           b a | a b c | c b
                          wrap       the image repeats                                      b c | a b c | a b

Backward.  y' [j] = x'[r(j)], so <dy, y'> = sum_j dy[j] x'[r(j)], and

    dx[i] = sum of dy[j] over all j with r(j) = i

the cotangent of the image itself plus, pixel by pixel, those of the copies.  Axes are independent.

Kinks.  None: linear.
Reference.  `numpy.pad` names and conventions.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jcnn import check
from jcnn.geometry import PADDING_MODES, Ints, PaddingLike, Pairs, check_copies, explicit_padding
from jcnn.kernels import widen
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

NUMPY_MODES: dict[str, Any] = {mode: mode for mode in PADDING_MODES} | {"zeros": "constant"}


def pad_forward(x: Array, padding: Pairs, mode: str) -> Array:
    """x [N, *S, C] with `padding` around its spatial axes."""
    return jnp.pad(x, [(0, 0), *padding, (0, 0)], NUMPY_MODES[mode])


def pad_adjoint(dy: Array, padding: Pairs, mode: str, size: Ints) -> Array:
    """The cotangent of the images, in the accumulation dtype: their part of dy plus that of their copies."""
    dx = widen(dy)
    for axis, (n, (lo, hi)) in enumerate(zip(size, padding, strict=True), start=1):
        image = lax.slice_in_dim(dx, lo, lo + n, axis=axis)
        if mode != "zeros" and lo + hi > 0:
            source = np.pad(np.arange(n), (lo, hi), NUMPY_MODES[mode])
            copies = np.r_[:lo, lo + n : lo + n + hi]
            at = (slice(None),) * axis
            image = image.at[(*at, source[copies])].add(dx[(*at, copies)])
        dx = image
    return dx


@residuals
class PadResiduals:
    size: Ints = static()  # spatial shape of x
    padding: Pairs = static()
    mode: str = static()


def _pad_check(x, *, padding, mode="zeros") -> None:
    check.floating("pad", x=x)
    check.images("pad", x)
    check.choice("pad", "mode", mode, PADDING_MODES)
    check_copies("pad", x.shape[1:-1], explicit_padding("pad", padding, x.ndim - 2), mode)


def pad_fwd(
    x: Float[Array, "n *s c"], *, padding: PaddingLike, mode: str = "zeros"
) -> tuple[Float[Array, "n *p c"], PadResiduals]:
    """Padding of the spatial axes.

    Args:
        x: images, [N, *S, C] with 1, 2 or 3 spatial axes S.
        padding: an int, one int per axis, or a (low, high) pair per axis, all >= 0.
        mode: "zeros", "edge" (copies of the outer pixels), "reflect", "symmetric" or "wrap".

    Returns:
        [N, *(low + S + high), C] in x's dtype.

    Raises:
        TypeError: x is not floating point.
        ValueError: shape, padding or mode not as above.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> jcnn.pad(jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1), padding=2, mode="edge").ravel()
        Array([1., 1., 1., 2., 3., 3., 3.], dtype=float32)
    """
    size = x.shape[1:-1]
    pairs = explicit_padding("pad", padding, len(size))
    return pad_forward(x, pairs, mode), PadResiduals(size, pairs, mode)


def pad_bwd(res: PadResiduals, dy: Float[Array, "n *p c"]) -> tuple[Float[Array, "n *s c"]]:
    return (pad_adjoint(dy, res.padding, res.mode, res.size),)


def pad_reference(x, *, padding, mode="zeros"):
    pairs = explicit_padding("pad", padding, x.ndim - 2)
    return jnp.pad(x, [(0, 0), *pairs, (0, 0)], NUMPY_MODES[mode])


pad = Rule(pad_fwd, pad_bwd, pad_reference, _pad_check)
