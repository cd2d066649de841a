"""VGG-style nets for small images: stages of 3x3 convolutions, halved by max pooling."""

from jcnn import net
from jcnn.activation import relu


def vgg_small(
    num_classes: int = 10, *, widths: tuple[int, ...] = (32, 64, 128), depth: int = 2, dropout: float = 0.0
) -> net.Net:
    """Simonyan & Zisserman 2014, arXiv:1409.1556, in small, with batch norm and global average pooling.

    Each stage is `depth` times convolution 3x3, batch norm, ReLU; stages are halved by 2x2 max pooling.
    An image axis of fewer than 2 ** (len(widths) - 1) pixels is too small.

    Args:
        num_classes: number of logits.
        widths: channels of each stage.
        depth: convolutions in each stage.
        dropout: rate of dropout before the last layer.
    """

    def block(width: int) -> list:
        return [net.conv(width, 3, bias=False), net.batch_norm(), relu]

    layers = []
    for stage, width in enumerate(widths):
        if stage > 0:
            layers.append(net.max_pool(2))
        for _ in range(depth):
            layers += block(width)
    regularize = [net.dropout(dropout)] if dropout > 0 else []
    return net.chain(*layers, net.global_avg_pool(), *regularize, net.dense(num_classes))
