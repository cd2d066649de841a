"""What the norms take: types of their arguments, and the checks that they share."""

from jaxtyping import Array, Float

from jcnn import check

Values = Float[Array, "*l c"]
Images = Float[Array, "n *s c"]
Channels = Float[Array, " c"]


def check_values(op: str, x: Array, eps: float, **channels: Array) -> None:
    """x is [..., C], every array of `channels` is [C]."""
    check.floating(op, x=x)
    if x.ndim == 0:
        check.fail(op, "x", "shape ()", "[..., C]")
    check.per_channel(op, x, **channels)
    check.epsilon(op, eps)


def check_images(op: str, x: Array, eps: float, **channels: Array) -> None:
    """x is [N, *S, C] with at most three spatial axes, every array of `channels` is [C]."""
    check.ranks(op, "x", x, range(2, 6), "[N, *S, C]")
    check_values(op, x, eps, **channels)
