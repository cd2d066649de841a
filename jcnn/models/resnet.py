"""ResNet and ResNeXt: stages of residual blocks of convolutions, each with batch norm."""

from collections.abc import Callable

from jax.nn.initializers import normal

from jcnn import check, net
from jcnn.activation import relu

Layers = list  # of nets and rules
Block = Callable[[int, int, float], tuple[Layers, int]]  # (width, stride, last gamma) -> layers, channels

STEMS = ("cifar", "imagenet")
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def resnet(
    num_classes: int = 10,
    *,
    depth: int = 18,
    stem: str = "cifar",
    width: int = 64,
    blocks: tuple[int, ...] | None = None,
    zero_init: bool = True,
) -> net.Net:
    """He et al. 2015, arXiv:1512.03385, with the stride of a bottleneck in its 3x3 convolution.

    A stage is several residual blocks; between stages the image is halved and the channels are doubled.
    `resnet(width=16, blocks=(3, 3, 3))` is about the paper's ResNet-20 for CIFAR-10.

    Args:
        num_classes: number of logits.
        depth: 18 or 34, of basic blocks (two 3x3 convolutions), or 50, of bottlenecks.
        stem: "imagenet", 7x7 with stride 2 and 3x3 max pooling, or "cifar", 3x3 for small images.
        width: channels of the stem and in the convolutions of the first stage.
        blocks: blocks in each stage, in place of those of `depth`.
        zero_init: whether blocks start as their shortcuts, the last gamma of each being 0 (Goyal et al.
            2017, arXiv:1706.02677, section 5.1).
    """
    check.choice("models.resnet", "depth", depth, tuple(BLOCKS))
    check.choice("models.resnet", "stem", stem, STEMS)
    block = basic if depth < 50 else bottleneck()
    return _residual_net(num_classes, block, blocks or BLOCKS[depth], width, stem, zero_init)


def resnext(
    num_classes: int = 10,
    *,
    groups: int = 16,
    group_width: int = 4,
    stem: str = "cifar",
    width: int = 64,
    blocks: tuple[int, ...] = (3, 4, 6, 3),
    zero_init: bool = True,
) -> net.Net:
    """Xie et al. 2016, arXiv:1611.05431: ResNet's bottlenecks with grouped 3x3 convolutions.

    `resnext(1000, groups=32, stem="imagenet")` is ResNeXt-50 32x4d.

    Args:
        num_classes: number of logits.
        groups: groups of channels in the 3x3 convolutions ("cardinality").
        group_width: channels of each group in the first stage, if `width` is 64; in proportion otherwise.
        stem, width, blocks, zero_init: as for `resnet`; 4 `width` channels leave the first stage.
    """
    check.choice("models.resnext", "stem", stem, STEMS)
    if group_width * width % 64:
        check.fail("models.resnext", "group_width", group_width, f"a multiple of 64 / width={width}")
    return _residual_net(num_classes, bottleneck(groups, group_width), blocks, width, stem, zero_init)


def conv_norm(width: int, kernel: int, *, stride: int = 1, groups: int = 1, gamma: float = 1.0) -> Layers:
    """Convolution and batch norm, whose beta is the bias; padded alike on both sides."""
    conv = net.conv(width, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, net.batch_norm(gamma=gamma)]


def basic(width: int, stride: int, gamma: float) -> tuple[Layers, int]:
    """3x3, 3x3."""
    return [*conv_norm(width, 3, stride=stride), relu, *conv_norm(width, 3, gamma=gamma)], width


def bottleneck(groups: int = 1, group_width: int = 64) -> Block:
    """1x1, 3x3 in groups, 1x1 to four times the width; a group has `group_width` 64ths of the width."""

    def block(width: int, stride: int, gamma: float) -> tuple[Layers, int]:
        inner = groups * (group_width * width // 64)
        squeeze, middle = conv_norm(inner, 1), conv_norm(inner, 3, stride=stride, groups=groups)
        return [*squeeze, relu, *middle, relu, *conv_norm(4 * width, 1, gamma=gamma)], 4 * width

    return block


def _residual_net(
    num_classes: int, block: Block, blocks: tuple[int, ...], width: int, stem: str, zero_init: bool
) -> net.Net:
    if stem == "imagenet":
        layers = [*conv_norm(width, 7, stride=2), relu, net.max_pool(3, stride=2, padding=1)]
    else:
        layers = [*conv_norm(width, 3), relu]
    channels = width
    for stage, count in enumerate(blocks):
        for i in range(count):
            stride = 2 if i == 0 and stage > 0 else 1
            body, after = block(width * 2**stage, stride, 0.0 if zero_init else 1.0)
            fits = stride == 1 and channels == after
            shortcut = None if fits else net.chain(*conv_norm(after, 1, stride=stride))
            layers += [net.residual(net.chain(*body), shortcut), relu]
            channels = after
    return net.chain(*layers, net.global_avg_pool(), net.dense(num_classes, init=normal(0.01)))
