"""Transposed convolution: exactly the adjoint of `conv` with the same weights and geometry.

Shapes.  x, dx [N, *M, C];  w, dw [*K, O/groups, C];  b, db [O];  y, dy [N, *S, O].  These are the shapes of
`conv`, read from its output to its input: the channels C that come in are those that conv's w gives.
Stride s, padding (lo, hi), extent e of the dilated kernel, output padding p < s, M = m and S = n per axis:

    n = (m - 1) s + e - lo - hi + p       one of the s sizes that conv's stride maps to m
    n = m s                               for "SAME" and "SAME_LOWER", which p = 0 goes with

Forward.  With conv's three maps C, X and W (see `jcnn.conv`), <C(a, w), x> = <a, X(x, w)> for all a:

    y = X(x, w) + b:  y[n, j, o] = b[o] + sum over i s + t d - lo = j, and over c, of x[n, i, c] w[t, o, c]

Backward.  y is linear in x, in w and in b.  Perturb them: y' = X(x', w) + X(x, w') + b'.  X is the adjoint of
C in its first argument, and <a, X(x, w)> = <C(a, w), x> = <w, W(a, x)> with dy for a gives

    dx = C(dy, w)     dw = W(dy, x)     db[o] = sum_{n, j} dy[n, j, o]

so that dx is the convolution which was transposed.

Kinks.  None.
Reference.  Zeiler et al. 2010, CVPR ("deconvolution"); Dumoulin & Visin 2016, arXiv:1603.07285, section 4.
"""

from jaxtyping import Array, Float

from jcnn import check
from jcnn.conv import conv, conv_input_grad, conv_input_grad_reference, conv_weight_grad
from jcnn.conv_check import check_algorithm
from jcnn.geometry import ConvGeometry, IntLike, Ints, PaddingLike, conv_geometry, sizes, window
from jcnn.kernels import widen
from jcnn.kernels.reduce import pixel_sum
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Images = Float[Array, "n *m c"]
Outputs = Float[Array, "n *s o"]
Weights = Float[Array, "*k og c"]
Bias = Float[Array, " o"]
OP = "conv_transpose"


def transposed_geometry(
    size: Ints,
    kernel: Ints,
    stride: IntLike,
    padding: PaddingLike,
    output_padding: IntLike,
    dilation: IntLike,
    groups: int,
    algorithm: str | None = None,
) -> ConvGeometry:
    """The geometry of the convolution whose outputs are of spatial shape `size`: of y to x."""
    rank = len(size)
    strides, extra = sizes(OP, "stride", stride, rank), sizes(OP, "output_padding", output_padding, rank)
    whole = padding in ("SAME", "SAME_LOWER")
    largest = tuple(m * s if whole else 0 for m, s in zip(size, strides, strict=True))
    w = window(OP, kernel, size=largest, stride=stride, dilation=dilation, padding=padding, kernel_name="w")
    for s, p in zip(strides, extra, strict=True):
        if whole and p:
            check.fail(OP, "output_padding", output_padding, f"0 with padding={padding!r}")
        if p >= s:
            check.fail(OP, "output_padding", output_padding, f"less than stride={stride}")
    smallest = tuple(
        (m - 1) * s + e - lo - hi + p
        for m, s, e, (lo, hi), p in zip(size, strides, w.extent, w.padding, extra, strict=True)
    )
    result = largest if whole else smallest
    if min(size) < 1:
        check.fail(OP, "x", f"spatial shape {size}", "at least one pixel")
    if min(result) < 1:
        check.fail(OP, "padding", padding, f"less: the output would have spatial shape {result}")
    return conv_geometry(OP, result, w.kernel, w.stride, w.padding, "zeros", w.dilation, groups, algorithm)


@residuals
class ConvTransposeResiduals:
    x: Images  # the input
    w: Weights  # the weights
    has_bias: bool = static()
    geometry: ConvGeometry = static()  # of the convolution that this is the adjoint of


def conv_transpose_fwd(
    x: Images,
    w: Weights,
    b: Bias | None = None,
    *,
    stride: IntLike = 1,
    padding: PaddingLike = "VALID",
    output_padding: IntLike = 0,
    dilation: IntLike = 1,
    groups: int = 1,
    algorithm: str | None = None,
) -> tuple[Outputs, ConvTransposeResiduals]:
    """The adjoint of `jcnn.conv` in its images, plus a bias: every pixel of x spreads a kernel over y.

    Args:
        x: images, [N, *M, C] with 1, 2 or 3 spatial axes M: like the outputs of `conv`.
        w: kernels, [*K, O/groups, C], as `conv` takes them from O to C channels; O and C divide by `groups`.
        b: bias, [O], or None.
        stride, padding, dilation, groups: those of the convolution.  With "SAME" the output is `stride` times
            as large as x, as in Flax and TensorFlow; explicit padding crops it, as in PyTorch.
        output_padding: rows and columns more at the high end, 0 <= output_padding < stride, an int or one per
            axis: a convolution with a stride gives outputs of one size for `stride` sizes of its input.
        algorithm: as for `conv`.

    Returns:
        [N, *S, O] in x's dtype, with S = (M - 1) stride + dilation (K - 1) + 1 - low - high + output_padding,
        or M stride for "SAME" and "SAME_LOWER".

    Raises:
        TypeError: arrays that are not floating point or differ in dtype.
        ValueError: shapes or configuration that do not fit together.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
        >>> w = jnp.array([1.0, 10.0]).reshape(2, 1, 1)
        >>> jcnn.conv_transpose(x, w, stride=2, output_padding=1)[0, :, 0]
        Array([ 1., 10.,  2., 20.,  3., 30.,  0.], dtype=float32)
    """
    size, kernel = x.shape[1:-1], w.shape[:-2]
    g = transposed_geometry(size, kernel, stride, padding, output_padding, dilation, groups, algorithm)
    y = conv_input_grad(x, w, input_size=g.size, **g.config)
    if b is not None:
        y = (widen(y) + widen(b)).astype(x.dtype)
    return y, ConvTransposeResiduals(x, w, b is not None, g)


def conv_transpose_bwd(res: ConvTransposeResiduals, dy: Outputs) -> tuple[Images, Weights, Bias | None]:
    g = res.geometry
    dx = conv(dy, res.w, **g.config)
    dw = conv_weight_grad(dy, res.x, kernel_size=g.window.kernel, **g.config)
    return dx, dw, pixel_sum(dy) if res.has_bias else None


def conv_transpose_reference(
    x, w, b=None, *, stride=1, padding="VALID", output_padding=0, dilation=1, groups=1, algorithm=None
):
    g = transposed_geometry(
        x.shape[1:-1], w.shape[:-2], stride, padding, output_padding, dilation, groups, algorithm
    )
    y = conv_input_grad_reference(x, w, input_size=g.size, **g.config)
    return y if b is None else y + b


def _conv_transpose_check(x, w, b=None, *, groups, **config) -> None:
    check.floating(OP, x=x, w=w, b=b)
    check.images(OP, x, layout="[N, *M, C]")
    check.count(OP, "groups", groups)
    check.ranks(OP, "w", w, (x.ndim,), f"[*K, O/groups, C] with {x.ndim - 2} kernel axes")
    if w.shape[-1] != x.shape[-1]:
        check.fail(OP, "w", f"shape {w.shape}", f"x's {x.shape[-1]} channels on its last axis")
    if x.shape[-1] % groups:
        check.fail(OP, "x", f"{x.shape[-1]} channels", f"a multiple of groups={groups}")
    check.shape(OP, "b", b, (w.shape[-2] * groups,), "like w's second last axis times groups")
    g = transposed_geometry(x.shape[1:-1], w.shape[:-2], groups=groups, **config)
    check_algorithm(OP, g.algorithm, g, x, w.shape[-2] * groups, w.shape[-1])


conv_transpose = Rule(conv_transpose_fwd, conv_transpose_bwd, conv_transpose_reference, _conv_transpose_check)
