"""Shape arithmetic of sliding windows: Python integers in, Python integers out, no arrays.

A window of kernel size k, stride s, dilation d slides over an axis of size n, padded by (lo, hi):

    extent  e = (k - 1) d + 1                        inputs from the first tap to the last
    output  m = floor((n + lo + hi - e) / s) + 1     0 where the padded axis is shorter than e
    output i, tap t reads input   i s + t d - lo     padding where that is outside [0, n)

Transposes.  The adjoint of sliding the window over the input is itself a sliding window, over the
outputs dilated by s, with the kernel flipped and the padding

    (e - 1 - lo,  n + lo - 1 - (m - 1) s)

and the adjoint with respect to the kernel slides the outputs, dilated by s, over the input in steps of
d with the padding (lo, (m - 1) s + e - n - lo).  Both may be negative, which means cropping: the stride
leaves the last inputs unread.

Ceiling.  With `ceil_mode` a last window that hangs over the high edge counts, too,

    m = ceil((n + lo + hi - e) / s) + 1             one less if the last window would start at or after n,
                                                    in the high padding

which is the same window with as much more padding there as the last one hangs over.

Reference: Dumoulin & Visin 2016, arXiv:1603.07285; ceil_mode as in PyTorch.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeGuard

from jcnn import check

Ints = tuple[int, ...]
Pair = tuple[int, int]
Pairs = tuple[Pair, ...]
PaddingLike = str | int | Sequence[int | Sequence[int]]
IntLike = int | Sequence[int]

PADDING_NAMES = ("VALID", "SAME", "SAME_LOWER", "CAUSAL")
PADDING_MODES = ("zeros", "edge", "reflect", "symmetric", "wrap")


class Window(NamedTuple):
    """A window per spatial axis: hashable, all validation done (see `window`)."""

    kernel: Ints
    stride: Ints
    dilation: Ints
    padding: Pairs

    @property
    def extent(self) -> Ints:
        """Inputs from the first tap of the kernel to its last, per axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def output_size(self, size: Ints) -> Ints:
        """Number of window positions per axis over an input of `size`."""
        return tuple(
            max(0, (n + lo + hi - e) // s + 1)
            for n, (lo, hi), e, s in zip(size, self.padding, self.extent, self.stride, strict=True)
        )

    def with_overhang(self, size: Ints) -> "Window":
        """The same window with high padding for a last one that starts inside, but hangs over the edge."""
        padding = []
        for n, (lo, hi), e, s in zip(size, self.padding, self.extent, self.stride, strict=True):
            last = -(-(n + lo + hi - e) // s) * s
            if last >= n + lo:
                last -= s
            padding.append((lo, max(hi, last + e - n - lo) if last >= 0 else hi))
        return self._replace(padding=tuple(padding))

    def along(self, axis: int, rank: int | None = None) -> "Window":
        """This window on one axis; on the others of `rank`, by default its own, one tap stands still."""

        def only(values: tuple, neutral):
            return tuple(values[a] if a == axis else neutral for a in range(rank or len(values)))

        return Window(
            only(self.kernel, 1), only(self.stride, 1), only(self.dilation, 1), only(self.padding, (0, 0))
        )

    def input_transpose(self, size: Ints) -> "Window":
        """The window over the stride-dilated outputs that is the adjoint with respect to the input."""
        padding = tuple(
            (e - 1 - lo, n + lo - 1 - (m - 1) * s)
            for n, m, (lo, _), e, s in zip(
                size, self.output_size(size), self.padding, self.extent, self.stride, strict=True
            )
        )
        return self._replace(stride=(1,) * len(size), padding=padding)

    def kernel_transpose(self, size: Ints) -> "Window":
        """The window, of the outputs over the input, that is the adjoint with respect to the kernel."""
        outputs = self.output_size(size)
        padding = tuple(
            (lo, (m - 1) * s + e - n - lo)
            for n, m, (lo, _), e, s in zip(size, outputs, self.padding, self.extent, self.stride, strict=True)
        )
        return Window(outputs, self.dilation, self.stride, padding)

    def taps_inside(self, axis: int, size: int) -> list[list[int]]:
        """For every window position on `axis`, the taps that read an input and not the padding."""
        k, s, d, (lo, _) = self.kernel[axis], self.stride[axis], self.dilation[axis], self.padding[axis]
        sizes = tuple(size if a == axis else e for a, e in enumerate(self.extent))
        positions = self.output_size(sizes)[axis]
        return [[t for t in range(k) if 0 <= i * s + t * d - lo < size] for i in range(positions)]


def window(
    op: str,
    kernel: IntLike,
    *,
    size: Ints,
    stride: IntLike = 1,
    dilation: IntLike = 1,
    padding: PaddingLike = "VALID",
    ceil_mode: bool = False,
    kernel_name: str = "window",
) -> Window:
    """Checks and normalises the description of a window over an input of spatial shape `size`.

    Args:
        op: name of the op, for error messages.
        kernel: taps per axis, an int or one int per axis.
        size: spatial shape of the input.
        stride: step per axis, at least 1.
        dilation: distance of neighbouring taps per axis, at least 1.
        padding: "VALID" (none), "SAME" (m = ceil(n / s), the odd one high), "SAME_LOWER" (the odd one low),
            "CAUSAL" (one axis, all low), an int, one int per axis, or a (low, high) pair per axis.
        ceil_mode: whether a last window counts that hangs over the high edge; it adds to the high padding.
        kernel_name: what the op calls `kernel`.

    Raises:
        ValueError: anything negative or of the wrong length, or a window longer than its padded axis.
    """
    rank = len(size)
    kernel = _per_axis(op, kernel_name, kernel, rank, 1)
    stride = _per_axis(op, "stride", stride, rank, 1)
    dilation = _per_axis(op, "dilation", dilation, rank, 1)
    unpadded = Window(kernel, stride, dilation, ((0, 0),) * rank)
    check.choice(op, "ceil_mode", ceil_mode, (True, False))
    result = unpadded._replace(padding=resolved_padding(op, padding, size, unpadded))
    if ceil_mode:
        result = result.with_overhang(size)
    for axis, (n, (lo, hi), e) in enumerate(zip(size, result.padding, result.extent, strict=True)):
        if n > 0 and n + lo + hi < e:
            check.fail(
                op,
                kernel_name,
                f"an extent of {e} on spatial axis {axis}",
                f"at most the padded input size {n + lo + hi} there",
            )
    return result


def sizes(op: str, name: str, value: IntLike, rank: int) -> Ints:
    """A spatial shape: an int, or one per axis, all >= 0."""
    return _per_axis(op, name, value, rank, 0)


def _per_axis(op: str, name: str, value: IntLike, rank: int, low: int) -> Ints:
    values = (value,) * rank if _is_int(value) else value
    good = (
        isinstance(values, Sequence) and len(values) == rank and all(_is_int(v) and v >= low for v in values)
    )
    if not good:
        check.fail(op, name, repr(value), f"an int >= {low}, or {rank} of them for {rank} spatial axes")
    return tuple(values)  # pyright: ignore


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def resolved_padding(op: str, padding: PaddingLike, size: Ints, w: Window) -> Pairs:
    """Padding by name or in numbers as a pair per axis, for a window of w's kernel, stride and dilation."""
    rank = len(size)
    if isinstance(padding, str):
        if padding not in PADDING_NAMES:
            names = ", ".join(map(repr, PADDING_NAMES))
            check.fail(
                op, "padding", repr(padding), f"{names}, an int, or ints or (low, high) pairs per axis"
            )
        if padding == "VALID":
            return ((0, 0),) * rank
        if padding == "CAUSAL":
            if rank != 1:
                check.fail(op, "padding", "'CAUSAL'", f"1 spatial axis for it, not {rank}")
            return ((w.extent[0] - 1, 0),)
        totals = [
            max(0, (-(-n // s) - 1) * s + e - n) for n, s, e in zip(size, w.stride, w.extent, strict=True)
        ]
        pairs = tuple((t // 2, t - t // 2) for t in totals)
        return pairs if padding == "SAME" else tuple((hi, lo) for lo, hi in pairs)
    return explicit_padding(op, padding, rank)


def explicit_padding(op: str, padding: PaddingLike, rank: int) -> Pairs:
    """Padding given in numbers, an int, an int per axis or a pair per axis, as a pair per axis."""
    per_axis = (padding,) * rank if _is_int(padding) else padding
    if isinstance(per_axis, Sequence) and not isinstance(per_axis, str) and len(per_axis) == rank:
        pairs = tuple((p, p) if _is_int(p) else p for p in per_axis)
        if all(
            isinstance(p, Sequence) and len(p) == 2 and all(_is_int(v) and v >= 0 for v in p) for p in pairs
        ):
            return tuple((p[0], p[1]) for p in pairs)  # pyright: ignore
    return check.fail(
        op, "padding", repr(padding), f"an int >= 0, {rank} ints, or {rank} (low, high) pairs of them"
    )
