"""The geometry that the three maps of a convolution share."""

from typing import NamedTuple

from jcnn import check
from jcnn.geometry.windows import PADDING_MODES, IntLike, Ints, PaddingLike, Pairs, Window, window


class ConvGeometry(NamedTuple):
    """All that is static about a convolution: what its three maps (see `jcnn.conv`) share."""

    size: Ints  # spatial shape of the input
    window: Window
    padding_mode: str
    groups: int
    algorithm: str | None  # a formulation in `jcnn.kernels.conv`, by name

    @property
    def config(self) -> dict:
        """The keyword arguments that give this geometry to any of the three."""
        _, stride, dilation, padding = self.window
        return {
            "stride": stride,
            "padding": padding,
            "padding_mode": self.padding_mode,
            "dilation": dilation,
            "groups": self.groups,
            "algorithm": self.algorithm,
        }

    @property
    def inner(self) -> Window:
        """The window that slides once copies of the outer pixels, if any, are around the input."""
        if self.padding_mode == "zeros":
            return self.window
        return self.window._replace(padding=((0, 0),) * len(self.size))

    @property
    def padded_size(self) -> Ints:
        """The spatial shape that `inner` slides over."""
        if self.padding_mode == "zeros":
            return self.size
        return tuple(n + lo + hi for n, (lo, hi) in zip(self.size, self.window.padding, strict=True))


def conv_geometry(
    op: str,
    size: Ints,
    kernel: Ints,
    stride: IntLike,
    padding: PaddingLike,
    padding_mode: str,
    dilation: IntLike,
    groups: int,
    algorithm: str | None = None,
) -> ConvGeometry:
    """Checks and normalises the configuration of a convolution over images of spatial shape `size`."""
    slides = window(op, kernel, size=size, stride=stride, dilation=dilation, padding=padding, kernel_name="w")
    check.choice(op, "padding_mode", padding_mode, PADDING_MODES)
    check_copies(op, size, slides.padding, padding_mode)
    return ConvGeometry(size, slides, padding_mode, groups, algorithm)


def check_copies(op: str, size: Ints, padding: Pairs, mode: str) -> None:
    """There is a pixel to copy on every axis that is padded with copies."""
    for axis, (n, pair) in enumerate(zip(size, padding, strict=True)):
        needed = 2 if mode == "reflect" else 1
        if mode != "zeros" and any(pair) and n < needed:
            check.fail(
                op,
                "x",
                f"size {n} on spatial axis {axis}",
                f"at least {needed} for {mode!r} padding of {pair}",
            )
