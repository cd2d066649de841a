"""Convolution (cross-correlation, as in every deep-learning library) in 1, 2 or 3 dimensions.

Shapes.  x, dx [N, *S, C];  w, dw [*K, C/groups, O];  b, db [O];  y, dy [N, *M, O].
Stride s, dilation d, low padding lo; t runs over the kernel's taps, i over outputs, j over inputs.

Forward.  xp = pad(x), and output o of a group reads the C/groups channels c of that group:

    y[n, i, o] = b[o] + sum_{t, c} xp[n, i s + t d - lo, c] w[t, c, o]

Backward.  y is linear in x, in w and in b.  Perturb them by x', w', b':

    y'[n, i, o] = b'[o] + sum_{t, c} xp'[n, i s + t d - lo, c] w[t, c, o]
                        + sum_{t, c} xp[n, i s + t d - lo, c] w'[t, c, o]

Requiring sum(dy y') = sum(dx x') + sum(dw w') + sum(db b') for all x', w', b', and collecting the factor
of each:

    db[o]       = sum_{n, i} dy[n, i, o]
    dw[t, c, o] = sum_{n, i} xp[n, i s + t d - lo, c] dy[n, i, o]                  (the weight gradient)
    dxp[n, j, c] = sum over i s + t d - lo = j, and over o, of dy[n, i, o] w[t, c, o]  (the input gradient)
    dx          = the adjoint of pad, applied to dxp

Closure.  With C(x, w), X(dy, w) and W(x, dy) for the three maps, each bilinear, <C(x, w), dy> =
<x, X(dy, w)> = <w, W(x, dy)> gives their own cotangents in terms of each other:

    of C(x, w):   dx = X(dy, w)     dw = W(x, dy)
    of X(dy, w):  ddy = C(dx, w)    dw = W(dx, dy)      for a cotangent dx of its output
    of W(x, dy):  dx = X(dy, dw)    ddy = C(x, dw)      for a cotangent dw of its output

so derivatives of every order are convolutions.

Kinks.  None.
Reference.  Dumoulin & Visin 2016, arXiv:1603.07285; `lax.conv_general_dilated` of `jnp.pad`.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jcnn import conv_check
from jcnn.geometry import ConvGeometry, IntLike, PaddingLike, conv_geometry, sizes
from jcnn.kernels import conv as kernel, widen
from jcnn.kernels.native import LETTERS
from jcnn.kernels.reduce import pixel_sum
from jcnn.padding import NUMPY_MODES, pad_adjoint, pad_forward
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Images = Float[Array, "n *s c"]
Outputs = Float[Array, "n *m o"]
Weights = Float[Array, "*k cg o"]
Bias = Float[Array, " o"]


@residuals
class ConvResiduals:
    x: Images  # the input; padded again in the backward
    w: Weights  # the weights
    has_bias: bool = static()
    geometry: ConvGeometry = static()


def conv_fwd(
    x: Images,
    w: Weights,
    b: Bias | None = None,
    *,
    stride: IntLike = 1,
    padding: PaddingLike = "VALID",
    padding_mode: str = "zeros",
    dilation: IntLike = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> tuple[Outputs, ConvResiduals]:
    """Convolution of images with a bank of kernels, plus a bias.

    Args:
        x: images, [N, *S, C] with 1, 2 or 3 spatial axes S.
        w: kernels, [*K, C/groups, O]; C and O divide by `groups`.
        b: bias, [O], or None.
        stride: step of the window, an int or one per spatial axis.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL" (1-D), an int, one int per axis, or a (low, high)
            pair per axis.
        padding_mode: what the padding holds: "zeros", or copies: "edge", "reflect", "symmetric", "wrap".
        dilation: distance between neighbouring taps of the kernel.
        groups: number of groups of channels that do not mix; groups = C is a depthwise convolution.
        algorithm: how forward and backward are computed, a name in `jcnn.kernels.conv`; by default what is
            fastest here, which for large images may spread a NaN to its neighbours: "native" does not.

    Returns:
        [N, *M, O] in x's dtype, with M = floor((S + low + high - dilation (K - 1) - 1) / stride) + 1.
        Sums are accumulated in at least float32.

    Raises:
        TypeError: arrays that are not floating point or differ in dtype.
        ValueError: shapes or configuration that do not fit together.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> w = jnp.arange(4.0).reshape(2, 2, 1, 1)
        >>> jcnn.conv(x, w)[0, :, :, 0]
        Array([[19., 25.],
               [37., 43.]], dtype=float32)
    """
    g = conv_geometry(
        "conv", x.shape[1:-1], w.shape[:-2], stride, padding, padding_mode, dilation, groups, algorithm
    )
    y = kernel.convolve(_pad(x, g), w, g.inner, groups, algorithm)
    if b is not None:
        y = y + widen(b)
    return y.astype(x.dtype), ConvResiduals(x, w, b is not None, g)


def conv_bwd(res: ConvResiduals, dy: Outputs) -> tuple[Images, Weights, Bias | None]:
    g = res.geometry
    dx = conv_input_grad(dy, res.w, input_size=g.size, **g.config)
    dw = conv_weight_grad(res.x, dy, kernel_size=g.window.kernel, **g.config)
    db = pixel_sum(dy) if res.has_bias else None
    return dx, dw, db


def conv_reference(
    x, w, b=None, *, stride=1, padding="VALID", padding_mode="zeros", dilation=1, groups=1, algorithm=None
):
    g = conv_geometry("conv", x.shape[1:-1], w.shape[:-2], stride, padding, padding_mode, dilation, groups)
    spatial = LETTERS[x.ndim - 2]
    y = lax.conv_general_dilated(
        jnp.pad(x, [(0, 0), *g.window.padding, (0, 0)], NUMPY_MODES[padding_mode]),
        w,
        g.window.stride,
        "VALID",
        rhs_dilation=g.window.dilation,
        dimension_numbers=("N" + spatial + "C", spatial + "IO", "N" + spatial + "C"),
        feature_group_count=groups,
    )
    return y if b is None else y + b


def _pad(x: Array, g: ConvGeometry) -> Array:
    return x if g.padding_mode == "zeros" else pad_forward(x, g.window.padding, g.padding_mode)


conv = Rule(conv_fwd, conv_bwd, conv_reference, conv_check.conv)


@residuals
class ConvInputGradResiduals:
    dy: Outputs  # an argument here
    w: Weights  # the weights
    geometry: ConvGeometry = static()


def conv_input_grad_fwd(
    dy: Outputs,
    w: Weights,
    *,
    input_size: IntLike,
    stride: IntLike = 1,
    padding: PaddingLike = "VALID",
    padding_mode: str = "zeros",
    dilation: IntLike = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> tuple[Images, ConvInputGradResiduals]:
    """X(dy, w): the cotangent of `conv`'s input, the adjoint of `conv` in x.

    Args:
        dy: cotangent of conv's output, [N, *M, O].
        w: kernels, [*K, C/groups, O].
        input_size: spatial shape of the input, an int or one per axis (a stride maps several sizes to one M).
        stride, padding, padding_mode, dilation, groups, algorithm: as given to `conv`.

    Returns:
        dx [N, *input_size, C] in dy's dtype.

    Raises:
        TypeError: arrays that are not floating point or differ in dtype.
        ValueError: shapes or configuration that do not fit together.
    """
    op, size = "conv_input_grad", sizes("conv_input_grad", "input_size", input_size, dy.ndim - 2)
    g = conv_geometry(op, size, w.shape[:-2], stride, padding, padding_mode, dilation, groups, algorithm)
    dxp = kernel.input_gradient(dy, w, g.inner, groups, g.padded_size, algorithm)
    dx = dxp if padding_mode == "zeros" else pad_adjoint(dxp, g.window.padding, padding_mode, size)
    return dx.astype(dy.dtype), ConvInputGradResiduals(dy, w, g)


def conv_input_grad_bwd(res: ConvInputGradResiduals, ddx: Images) -> tuple[Outputs, Weights]:
    g = res.geometry
    ddy = conv(ddx, res.w, **g.config)
    dw = conv_weight_grad(ddx, res.dy, kernel_size=g.window.kernel, **g.config)
    return ddy, dw


def conv_input_grad_reference(dy, w, *, input_size, **config):
    size = sizes("conv_input_grad", "input_size", input_size, dy.ndim - 2)
    x = jnp.zeros((dy.shape[0], *size, w.shape[-2] * config.get("groups", 1)), dy.dtype)
    return jax.vjp(lambda x: conv_reference(x, w, **config), x)[1](dy)[0]


conv_input_grad = Rule(
    conv_input_grad_fwd, conv_input_grad_bwd, conv_input_grad_reference, conv_check.conv_input_grad
)


@residuals
class ConvWeightGradResiduals:
    x: Images  # the input
    dy: Outputs  # an argument here
    geometry: ConvGeometry = static()


def conv_weight_grad_fwd(
    x: Images,
    dy: Outputs,
    *,
    kernel_size: IntLike,
    stride: IntLike = 1,
    padding: PaddingLike = "VALID",
    padding_mode: str = "zeros",
    dilation: IntLike = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> tuple[Weights, ConvWeightGradResiduals]:
    """W(x, dy): the cotangent of `conv`'s weights.

    Args:
        x: images, [N, *S, C].
        dy: cotangent of conv's output, [N, *M, O].
        kernel_size: spatial shape of the weights, an int or one per axis.
        stride, padding, padding_mode, dilation, groups, algorithm: as given to `conv`.

    Returns:
        dw [*kernel_size, C/groups, O] in x's dtype.

    Raises:
        TypeError: arrays that are not floating point or differ in dtype.
        ValueError: shapes or configuration that do not fit together.
    """
    op, size = "conv_weight_grad", sizes("conv_weight_grad", "kernel_size", kernel_size, x.ndim - 2)
    g = conv_geometry(op, x.shape[1:-1], size, stride, padding, padding_mode, dilation, groups, algorithm)
    dw = kernel.weight_gradient(_pad(x, g), dy, g.inner, groups, algorithm)
    return dw.astype(x.dtype), ConvWeightGradResiduals(x, dy, g)


def conv_weight_grad_bwd(res: ConvWeightGradResiduals, ddw: Weights) -> tuple[Images, Outputs]:
    g = res.geometry
    dx = conv_input_grad(res.dy, ddw, input_size=g.size, **g.config)
    ddy = conv(res.x, ddw, **g.config)
    return dx, ddy


def conv_weight_grad_reference(x, dy, *, kernel_size, **config):
    size = sizes("conv_weight_grad", "kernel_size", kernel_size, x.ndim - 2)
    w = jnp.zeros((*size, x.shape[-1] // config.get("groups", 1), dy.shape[-1]), x.dtype)
    return jax.vjp(lambda w: conv_reference(x, w, **config), w)[1](dy)[0]


conv_weight_grad = Rule(
    conv_weight_grad_fwd, conv_weight_grad_bwd, conv_weight_grad_reference, conv_check.conv_weight_grad
)
