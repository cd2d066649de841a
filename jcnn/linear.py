"""The fully connected layer, and the flattening that comes before it.

Shapes.  dense: x, dx [..., I];  w, dw [I, O];  b, db [O];  y, dy [..., O].
flatten: x, dx [N, ...];  y, dy [N, D] with D the product of the rest.

Forward.   y = x w + b, with sums over I.

Backward.  Perturb x, w, b:  y' = x' w + x w' + b'.
Then sum(dy y') = sum(dx x') + sum(dw w') + sum(db b') if
    dx = dy w^T
    dw = x^T dy        summed over all leading axes
    db = dy            summed over all leading axes
Flattening moves no value, so its backward is the reshape back.

Kinks.  None.
Reference.  Goodfellow, Bengio & Courville 2016, Deep Learning, section 6.5.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from jcnn import check
from jcnn.geometry import Ints
from jcnn.kernels import accumulator, widen
from jcnn.kernels.matmul import sum_of_products
from jcnn.kernels.reduce import pixel_sum
from jcnn.residuals import residuals, static
from jcnn.rule import Rule


@residuals
class DenseResiduals:
    x: Float[Array, "*n i"]  # the input
    w: Float[Array, "i o"]  # the weights
    has_bias: bool = static()


def dense_fwd(
    x: Float[Array, "*n i"], w: Float[Array, "i o"], b: Float[Array, " o"] | None = None
) -> tuple[Float[Array, "*n o"], DenseResiduals]:
    """x w + b over the last axis.

    Args:
        x: inputs, [..., I].
        w: weights, [I, O].
        b: bias, [O], or None.

    Returns:
        [..., O] in x's dtype; sums are accumulated in at least float32.

    Raises:
        TypeError: arrays that are not floating point or differ in dtype.
        ValueError: shapes that do not fit together.
    """
    y = jnp.matmul(x, w, preferred_element_type=accumulator(x.dtype))
    if b is not None:
        y = y + widen(b)
    return y.astype(x.dtype), DenseResiduals(x, w, b is not None)


def dense_bwd(res: DenseResiduals, dy: Float[Array, "*n o"]):
    x, w, wide = res.x, res.w, accumulator(dy.dtype)
    dx = jnp.matmul(dy, w.T, preferred_element_type=wide)
    dw = sum_of_products(x, dy, wide)
    db = pixel_sum(dy) if res.has_bias else None
    return dx, dw, db


def dense_reference(x, w, b=None):
    return x @ w if b is None else x @ w + b


def _dense_check(x, w, b=None) -> None:
    check.floating("dense", x=x, w=w, b=b)
    if x.ndim < 1:
        check.fail("dense", "x", f"shape {x.shape}", "[..., I]")
    check.ranks("dense", "w", w, (2,), "[I, O]")
    if x.shape[-1] != w.shape[0]:
        check.fail("dense", "w", f"shape {w.shape}", f"({x.shape[-1]}, O) for x of shape {x.shape}")
    check.shape("dense", "b", b, w.shape[1:], "like w's last axis")


dense = Rule(dense_fwd, dense_bwd, dense_reference, _dense_check)


@residuals
class FlattenResiduals:
    shape: Ints = static()  # of x


def flatten_fwd(x: Float[Array, "n *s"]) -> tuple[Float[Array, "n d"], FlattenResiduals]:
    """All axes but the first as one, in row-major order: [N, ...] -> [N, D].

    Raises:
        TypeError: x is not floating point.
        ValueError: x has no axes.
    """
    return x.reshape(x.shape[0], math.prod(x.shape[1:])), FlattenResiduals(x.shape)


def flatten_bwd(res: FlattenResiduals, dy: Float[Array, "n d"]) -> tuple[Float[Array, "n *s"]]:
    return (dy.reshape(res.shape),)


def flatten_reference(x):
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def _flatten_check(x) -> None:
    check.floating("flatten", x=x)
    if x.ndim < 1:
        check.fail("flatten", "x", f"shape {x.shape}", "[N, ...]")


flatten = Rule(flatten_fwd, flatten_bwd, flatten_reference, _flatten_check)
