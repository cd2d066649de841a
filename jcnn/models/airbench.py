"""The net that reaches 94 % on CIFAR-10 in a few seconds of a GPU."""

import jax.numpy as jnp
from jax.nn.initializers import variance_scaling
from jaxtyping import Array, Float

from jcnn import check, net
from jcnn.activation import gelu
from jcnn.patches import patches

uniform = variance_scaling(1 / 3, "fan_in", "uniform")  # from ±1 / sqrt(fan-in)


def airbench(
    num_classes: int = 10,
    *,
    whiten: Array | None = None,
    widths: tuple[int, ...] = (64, 256, 256),
    momentum: float = 0.6,
    scale: float = 1 / 9,
) -> net.Net:
    """Jordan 2024, arXiv:2404.00498, for images of about 32x32; 1.97 million parameters by default.

    The first convolution is not trained, but whitens patches of 2x2 pixels.  Then every block is convolution,
    max pooling, convolution, each with batch norm without gamma and a GELU.  The other convolutions hand on
    their input at first, in as many channels as they can.

    Args:
        num_classes: number of logits.
        whiten: training images [N, H, W, C], some thousand, normalised as those of training will be, whose
            patches are to be whitened.  If not given, patches of 3 channels are taken for white already.
        widths: channels of each block.
        momentum: of batch norm, the weight of the old running value.
        scale: factor of the logits.
    """
    if whiten is not None and not hasattr(whiten, "shape"):
        check.fail("models.airbench", "whiten", type(whiten).__name__, "an array of images", TypeError)
    if whiten is not None and (whiten.ndim != 4 or not len(whiten)):
        check.fail("models.airbench", "whiten", f"shape {whiten.shape}", "images [N, H, W, C] with N > 0")

    channels = 3 if whiten is None else whiten.shape[-1]

    def whitening(key: Array, shape: tuple[int, ...]) -> Array:
        if shape[2] != channels:
            check.fail(
                "models.airbench", "whiten", f"{channels} channels", f"{shape[2]}, as the net's images"
            )
        return unit_filters(channels) if whiten is None else whitening_filters(whiten)

    def conv(width: int) -> net.Net:
        return net.conv(width, 3, bias=False, init=identity_first)

    def norm() -> net.Net:
        return net.batch_norm(eps=1e-12, momentum=momentum, gamma=None)

    def block(width: int) -> list:
        return [conv(width), net.max_pool(2), norm(), gelu, conv(width), norm(), gelu]

    first = net.frozen(net.conv(2 * 4 * channels, 2, padding="VALID", init=whitening), "w")
    blocks = [layer for width in widths for layer in block(width)]
    head = [
        net.max_pool(3),
        net.flatten(),
        net.dense(num_classes, bias=False, init=uniform),
        net.scale(scale),
    ]
    return net.chain(first, gelu, *blocks, *head)


def identity_first(key: Array, shape: tuple[int, ...]) -> Array:
    """Filters [*K, C, O] of which the first, up to C of them, are the identity, and the others random."""
    c, o = shape[-2:]
    n = min(c, o)
    centre = (*(k // 2 for k in shape[:-2]), slice(None), slice(n))
    return uniform(key, shape).at[..., :n].set(0).at[centre].set(jnp.eye(c, n))


def unit_filters(channels: int) -> Float[Array, "2 2 c o"]:
    """Filters that take a patch's values one by one, and their negatives."""
    filters = jnp.eye(4 * channels).reshape(2, 2, channels, -1)
    return jnp.concatenate([filters, -filters], -1)


def whitening_filters(images: Float[Array, "n h w c"], eps: float = 5e-4) -> Float[Array, "2 2 c o"]:
    """Filters that make the patches of images uncorrelated and of variance 1, and their negatives.

    With the patches' second moments V diag(lambda) V^T, filter i is the i-th column of V over
    sqrt(lambda_i + eps), the largest eigenvalue first.
    """
    rows = patches(images, window=2).reshape(-1, 4 * images.shape[-1])
    values, vectors = jnp.linalg.eigh(rows.T @ rows / len(rows))
    filters = (vectors / jnp.sqrt(values + eps))[:, ::-1].reshape(2, 2, images.shape[-1], -1)
    return jnp.concatenate([filters, -filters], -1)
