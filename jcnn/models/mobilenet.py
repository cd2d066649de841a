"""MobileNetV2: inverted residuals, wide inside and narrow between, of depthwise convolutions."""

from jax.nn.initializers import normal

from jcnn import check, net
from jcnn.activation import relu6
from jcnn.models.resnet import STEMS, conv_norm

# expansion, channels, blocks, stride of the first block: table 2 of the paper
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(
    num_classes: int = 10,
    *,
    stem: str = "cifar",
    width: float | int = 1.0,
    stages: tuple[tuple[int, int, int, int], ...] = STAGES,
    dropout: float = 0.2,
) -> net.Net:
    """Sandler et al. 2018, arXiv:1801.04381.

    A block widens the channels by a 1x1 convolution, filters each channel by itself, and narrows them again,
    without an activation there: in few channels it would lose information.

    Args:
        num_classes: number of logits.
        stem: "imagenet", or "cifar" for small images: the first two strides are then 1 instead of 2.
        width: multiplies all channels, which are rounded to multiples of 8; the last 1280 only if above 1.
        stages: (expansion, channels, blocks, stride) of each stage.
        dropout: rate of dropout before the last layer.
    """
    check.choice("models.mobilenet_v2", "stem", stem, STEMS)
    channels = multiple_of_8(32 * width)
    small = stem == "cifar"
    layers = [*conv_norm(channels, 3, stride=1 if small else 2), relu6]
    for expansion, size, count, stride in stages:
        if small and stride > 1:  # the second stride that small images go without
            stride, small = 1, False
        after = multiple_of_8(size * width)
        for i in range(count):
            layers.append(_inverted_residual(channels, after, expansion, stride if i == 0 else 1))
            channels = after
    last = multiple_of_8(1280 * max(width, 1.0))
    regularize = [net.dropout(dropout)] if dropout > 0 else []
    head = [net.global_avg_pool(), *regularize, net.dense(num_classes, init=normal(0.01))]
    return net.chain(*layers, *conv_norm(last, 1), relu6, *head)


def _inverted_residual(channels: int, after: int, expansion: int, stride: int) -> net.Net:
    inner = expansion * channels
    widen = [*conv_norm(inner, 1), relu6] if expansion > 1 else []
    depthwise = [*conv_norm(inner, 3, stride=stride, groups=inner), relu6]
    body = net.chain(*widen, *depthwise, *conv_norm(after, 1))
    return net.residual(body) if stride == 1 and channels == after else body


def multiple_of_8(size: float | int) -> int:
    """The nearest multiple of 8 that is at least 8 and not below nine tenths of `size`."""
    nearest = max(8, int(size + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * size else nearest + 8
