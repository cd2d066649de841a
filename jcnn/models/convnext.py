"""ConvNeXt: a convolutional net in the proportions of a vision transformer."""

import functools

from jax.nn.initializers import truncated_normal

from jcnn import check, net
from jcnn.activation import gelu


def convnext(
    num_classes: int = 10,
    *,
    widths: tuple[int, ...] = (96, 192, 384, 768),
    blocks: tuple[int, ...] = (3, 3, 9, 3),
    patch: int = 4,
    kernel: int = 7,
    scale: float = 1e-6,
) -> net.Net:
    """Liu et al. 2022, arXiv:2201.03545; ConvNeXt-T by default, without its stochastic depth.

    A block is a depthwise convolution, layer norm, and two dense layers on every pixel with a GELU between,
    added to its input through a layer scale.  Between stages, 2x2 convolutions halve the image.

    Args:
        num_classes: number of logits.
        widths: channels of each stage.
        blocks: blocks in each stage.
        patch: size of the patches that the image is cut into at first; 2, or 1, suits images of 32x32.
        kernel: size of the depthwise convolutions.
        scale: initial factor of each block's layer scale.
    """
    if len(widths) != len(blocks):
        check.fail("models.convnext", "blocks", repr(blocks), f"one for each of widths {widths}")
    init = truncated_normal(0.02)
    dense = functools.partial(net.dense, init=init)
    norm = functools.partial(net.layer_norm, eps=1e-6)

    def patches(width: int, size: int) -> net.Net:
        return net.conv(width, size, stride=size, padding="VALID", init=init)

    def block(width: int) -> net.Net:
        depthwise = net.conv(width, kernel, groups=width, init=init)
        mlp = (dense(4 * width), gelu, dense(width))
        return net.residual(net.chain(depthwise, norm(), *mlp, net.layer_scale(scale)))

    layers = [patches(widths[0], patch), norm()]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        if stage > 0:
            layers += [norm(), patches(width, 2)]
        layers += [block(width) for _ in range(count)]
    return net.chain(*layers, net.global_avg_pool(), norm(), dense(num_classes))
