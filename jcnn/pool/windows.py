"""What the windowed pools share: their images, their geometry, their refusals."""

from jaxtyping import Array, Float

from jcnn import check
from jcnn.geometry import IntLike, PaddingLike, Window, window
from jcnn.kernels import taps

Images = Float[Array, "n *s c"]
Pooled = Float[Array, "n *m c"]


def geometry(
    op: str,
    x: Array,
    size: IntLike,
    stride: IntLike | None,
    padding: PaddingLike,
    dilation: IntLike = 1,
    ceil_mode: bool = False,
) -> Window:
    """The window of a pool over x; its stride is the window itself unless given."""
    step = size if stride is None else stride
    return window(
        op, size, size=x.shape[1:-1], stride=step, padding=padding, dilation=dilation, ceil_mode=ceil_mode
    )


def check_images(op: str, x: Array) -> None:
    check.floating(op, x=x)
    check.images(op, x)


def check_algorithm(op: str, name: str | None, w: Window) -> None:
    check.choice(op, "algorithm", name, (None, *taps.ALGORITHMS))
    if name == "taps" and taps.count(w) > taps.LONG:
        check.fail(op, "algorithm", repr(name), f"None or 'axes' for a window of over {taps.LONG} taps")


def check_pixels(op: str, x: Array) -> None:
    """Images, and none of their spatial axes is empty."""
    check_images(op, x)
    check.pixels(op, x)
