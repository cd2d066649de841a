"""What the windowed pools share: their images, their geometry, their refusals."""

from jaxtyping import Array, Float

from jcnn import check
from jcnn.geometry import IntLike, PaddingLike, Window, window

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
    check.ranks(op, "x", x, range(3, 6), "[N, *S, C] with 1, 2 or 3 spatial axes")


def check_pixels(op: str, x: Array) -> None:
    """Images, and none of their spatial axes is empty."""
    check_images(op, x)
    if 0 in x.shape[1:-1]:
        check.fail(op, "x", f"shape {x.shape}", "at least one pixel on every spatial axis")
