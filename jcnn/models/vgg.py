"""VGG-style nets for small images: stages of 3x3 convolutions, halved by max pooling."""

from jcnn import check, net
from jcnn.activation import relu


def vgg_small(
    num_classes: int = 10,
    *,
    widths: tuple[int, ...] = (32, 64, 96),
    depths: tuple[int, ...] = (1, 1, 2),
    dropout: float = 0.0,
) -> net.Net:
    """Simonyan & Zisserman 2014, arXiv:1409.1556, in small, with batch norm and global average pooling.

    A stage is several times convolution 3x3, batch norm, ReLU; between stages, 2x2 max pooling halves the
    image.  An image axis of fewer than 2 ** (len(widths) - 1) pixels is too small.

    Args:
        num_classes: number of logits.
        widths: channels of each stage.
        depths: convolutions in each stage.
        dropout: rate of dropout before the last layer.
    """

    if len(widths) != len(depths):
        check.fail("models.vgg_small", "depths", repr(depths), f"one for each of widths {widths}")

    def block(width: int) -> list:
        return [net.conv(width, 3, bias=False), net.batch_norm(), relu]

    layers = []
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage > 0:
            layers.append(net.max_pool(2))
        for _ in range(depth):
            layers += block(width)
    regularize = [net.dropout(dropout)] if dropout > 0 else []
    return net.chain(*layers, net.global_avg_pool(), *regularize, net.dense(num_classes))
