"""Patches of images, and their sum back into images (im2col and col2im).

Shapes.  patches: x, dx [N, *S, C];  y, dy [N, *M, T C].  fold: p, dp [N, *M, T C];  y, dy [N, *S, C].
T is the number of taps of a window with stride s, dilation d and padding (lo, hi); t runs over them.

Forward.  i s + t d - lo is the pixel that tap t of the window at position i reads.  Its place in the patch
is that of w[t, c] in weights [*K, C, O] reshaped to [T C, O]: conv(x, w) = patches(x) w.

    patches     y[n, i, (t, c)] = x[n, i s + t d - lo, c]             0 in the padding
    fold        y[n, j, c]      = sum of p[n, i, (t, c)] over all i, t with i s + t d - lo = j

Backward.  Both are linear, and <patches(x), p> = <x, fold(p)>, each being the sum of all products
x[n, i s + t d - lo, c] p[n, i, (t, c)]: each is the adjoint of the other, and its backward.

    patches     dx = fold(dy)
    fold        dp = patches(dy)

fold(patches(x)) is not x but x times the number of windows that read each pixel; a pixel that none reads
(a stride leaves it out) is 0.

Kinks.  None.
Reference.  Chellapilla et al. 2006, "High performance convolutional neural networks for document processing".
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from jcnn import check
from jcnn.geometry import IntLike, Ints, PaddingLike, Window, sizes, window as window_geometry
from jcnn.kernels import taps, widen
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Images = Float[Array, "n *s c"]
Patches = Float[Array, "n *m tc"]


@residuals
class PatchesResiduals:
    size: Ints = static()  # spatial shape of the images
    window: Window = static()

    @property
    def config(self) -> dict:
        """The keyword arguments that give this window to either op."""
        kernel, stride, dilation, padding = self.window
        return {"window": kernel, "stride": stride, "padding": padding, "dilation": dilation}


def _gather(x: Array, w: Window) -> Array:
    """[N, *M, T C], one axis after the other; the last first, so that taps come in row-major order."""
    for axis in reversed(range(len(w.kernel))):
        x = jnp.concatenate(taps.gather(x, w.along(axis)), -1)
    return x


def _scatter(p: Array, w: Window, size: Ints) -> Array:
    """The adjoint, of p [N, *M, T C], so in the opposite order."""
    for axis, taps_along in enumerate(w.kernel):
        images = (*p.shape[1 : axis + 1], size[axis], *p.shape[axis + 2 : -1])
        p = taps.scatter(jnp.split(p, taps_along, -1), w.along(axis), images)
    return p


def patches_fwd(
    x: Images,
    *,
    window: IntLike,
    stride: IntLike = 1,
    padding: PaddingLike = "VALID",
    dilation: IntLike = 1,
) -> tuple[Patches, PatchesResiduals]:
    """What a window sees at each of its positions, as one vector ("im2col", "unfold").

    Args:
        x: images, [N, *S, C] with 1, 2 or 3 spatial axes S.
        window: size of the window, an int or one per spatial axis.
        stride, padding, dilation: as for `conv`; padding is zero.

    Returns:
        [N, *M, T C]: for each of the T taps of the window, in row-major order, the C channels of the pixel
        that it reads, so that `patches(x, ...) @ w.reshape(-1, O)` is `conv(x, w, ...)`.  PyTorch's unfold
        has it the other way round, for each channel all taps.

    Raises:
        TypeError: x is not floating point.
        ValueError: shapes or configuration that do not fit together.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> jcnn.patches(jnp.arange(4.0).reshape(1, 4, 1), window=2)[0].tolist()
        [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    """
    size = x.shape[1:-1]
    w = window_geometry("patches", window, size=size, stride=stride, padding=padding, dilation=dilation)
    return _gather(x, w), PatchesResiduals(size, w)


def patches_bwd(res: PatchesResiduals, dy: Patches) -> tuple[Images]:
    return (fold(dy, output_size=res.size, **res.config),)


def patches_reference(x, *, window, stride=1, padding="VALID", dilation=1):
    size = x.shape[1:-1]
    w = window_geometry("patches", window, size=size, stride=stride, padding=padding, dilation=dilation)
    return jnp.concatenate(taps.gather(x, w), -1)


def _patches_check(x, *, window, stride, padding, dilation) -> None:
    check.floating("patches", x=x)
    check.images("patches", x)
    window_geometry("patches", window, size=x.shape[1:-1], stride=stride, padding=padding, dilation=dilation)


patches = Rule(patches_fwd, patches_bwd, patches_reference, _patches_check)


def _fold_geometry(p: Array, output_size: IntLike, window: IntLike, **config) -> PatchesResiduals:
    size = sizes("fold", "output_size", output_size, p.ndim - 2)
    return PatchesResiduals(size, window_geometry("fold", window, size=size, **config))


def fold_fwd(
    p: Patches,
    *,
    output_size: IntLike,
    window: IntLike,
    stride: IntLike = 1,
    padding: PaddingLike = "VALID",
    dilation: IntLike = 1,
) -> tuple[Images, PatchesResiduals]:
    """The sum of patches, each at its place ("col2im"): exactly the adjoint of `patches`.

    Args:
        p: patches, [N, *M, T C], as `patches` makes them from images of `output_size`.
        output_size: spatial shape S of the images, an int or one per axis; with a stride, several have the
            same M.
        window, stride, padding, dilation: those of `patches`.

    Returns:
        [N, *output_size, C] in p's dtype; sums are accumulated in at least float32.

    Raises:
        TypeError: p is not floating point.
        ValueError: shapes or configuration that do not fit together.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> jcnn.fold(jnp.ones((1, 3, 2)), output_size=4, window=2)[0, :, 0].tolist()
        [1.0, 2.0, 2.0, 1.0]
    """
    res = _fold_geometry(p, output_size, window, stride=stride, padding=padding, dilation=dilation)
    return _scatter(widen(p), res.window, res.size).astype(p.dtype), res


def fold_bwd(res: PatchesResiduals, dy: Images) -> tuple[Patches]:
    return (patches(dy, **res.config),)


def fold_reference(p, *, output_size, window, stride=1, padding="VALID", dilation=1):
    res = _fold_geometry(p, output_size, window, stride=stride, padding=padding, dilation=dilation)
    parts = jnp.split(widen(p), math.prod(res.window.kernel), -1)
    return taps.scatter(parts, res.window, res.size).astype(p.dtype)


def _fold_check(p, *, output_size, window, **config) -> None:
    check.floating("fold", p=p)
    check.images("fold", p, "p", "[N, *M, T C]")
    size, w = (g := _fold_geometry(p, output_size, window, **config)).size, g.window
    positions, count = w.output_size(size), math.prod(w.kernel)
    if p.shape[1:-1] != positions:
        expected = f"{positions}, where the window stands over images of {size}"
        check.fail("fold", "p", f"spatial shape {p.shape[1:-1]}", expected)
    if p.shape[-1] % count:
        check.fail("fold", "p", f"{p.shape[-1]} values per patch", f"a multiple of the window's {count} taps")


fold = Rule(fold_fwd, fold_bwd, fold_reference, _fold_check)
