"""The nets whose training steps are compared: descriptions of jcnn's models, and the cases' sizes."""

from collections.abc import Callable
from dataclasses import dataclass

from experiments.benchmark.nets import (
    Activation,
    AvgPool,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    LayerNorm,
    Layers,
    MaxPool,
    Residual,
    Scale,
)
from jcnn import models
from jcnn.net import Net

RELU, RELU6, GELU = Activation("relu"), Activation("relu6"), Activation("gelu")
CLASSES = 10


def lenet5() -> Layers:
    sigmoid = Activation("sigmoid")
    return (
        *(Conv(6, 5, padding=2, bias=True), sigmoid, AvgPool(2)),
        *(Conv(16, 5, bias=True), sigmoid, AvgPool(2)),
        *(Flatten(), Dense(120, flattened=16), sigmoid, Dense(84), sigmoid, Dense(CLASSES)),
    )


def vgg_small(widths: tuple[int, ...] = (32, 64, 96), depths: tuple[int, ...] = (1, 1, 2)) -> Layers:
    layers = []
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        layers += [MaxPool(2)] * (stage > 0)
        layers += [Conv(width, 3, padding=1), BatchNorm(), RELU] * depth
    return (*layers, GlobalAvgPool(), Dense(CLASSES))


def conv_norm(width: int, kernel: int, stride: int = 1, groups: int = 1) -> Layers:
    return Conv(width, kernel, stride, kernel // 2, groups), BatchNorm()


def resnet(width: int = 64, blocks: tuple[int, ...] = (2, 2, 2, 2)) -> Layers:
    def body(width: int, stride: int) -> Layers:
        return (*conv_norm(width, 3, stride), RELU, *conv_norm(width, 3))

    return residual_net(body, 1, width, blocks)


def resnext(
    groups: int = 16, group_width: int = 4, width: int = 64, blocks: tuple[int, ...] = (3, 4, 6, 3)
) -> Layers:
    def body(width: int, stride: int) -> Layers:
        inner = groups * group_width * width // 64
        squeeze, middle = conv_norm(inner, 1), conv_norm(inner, 3, stride, groups)
        return (*squeeze, RELU, *middle, RELU, *conv_norm(4 * width, 1))

    return residual_net(body, 4, width, blocks)


def residual_net(
    body: Callable[[int, int], Layers], expansion: int, width: int, blocks: tuple[int, ...]
) -> Layers:
    """Stages of residual blocks, of which the first of a stage may have a 1x1 convolution as its shortcut."""
    layers, channels = [*conv_norm(width, 3), RELU], width
    for stage, count in enumerate(blocks):
        for i in range(count):
            stride = 2 if i == 0 and stage > 0 else 1
            after = expansion * width * 2**stage
            shortcut = () if stride == 1 and channels == after else conv_norm(after, 1, stride)
            layers += [Residual(body(width * 2**stage, stride), shortcut), RELU]
            channels = after
    return (*layers, GlobalAvgPool(), Dense(CLASSES))


def mobilenet_v2(stages: tuple[tuple[int, int, int, int], ...]) -> Layers:
    """With the stem for small images; stages are (expansion, channels, blocks, stride)."""
    layers, channels, halved = [*conv_norm(32, 3), RELU6], 32, False
    for expansion, after, count, stage_stride in stages:
        for i in range(count):
            stride, inner = (stage_stride if i == 0 and halved else 1), expansion * channels
            halved = halved or stage_stride > 1
            widen = (*conv_norm(inner, 1), RELU6) if expansion > 1 else ()
            body = (*widen, *conv_norm(inner, 3, stride, inner), RELU6, *conv_norm(after, 1))
            layers += [Residual(body)] if stride == 1 and channels == after else body
            channels = after
    return (*layers, *conv_norm(1280, 1), RELU6, GlobalAvgPool(), Dense(CLASSES))


def convnext(widths: tuple[int, ...], blocks: tuple[int, ...], patch: int, kernel: int = 7) -> Layers:
    norm = LayerNorm(1e-6)

    def block(width: int) -> Residual:
        depthwise = Conv(width, kernel, padding=kernel // 2, groups=width, bias=True)
        return Residual((depthwise, norm, Dense(4 * width), GELU, Dense(width), Scale()))

    layers = [Conv(widths[0], patch, patch, bias=True), norm]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        if stage > 0:
            layers += [norm, Conv(width, 2, 2, bias=True)]
        layers += [block(width)] * count
    return (*layers, GlobalAvgPool(), norm, Dense(CLASSES))


@dataclass(frozen=True)
class Case:
    name: str
    net: Callable[[], Net]  # jcnn's
    layers: Layers  # the same, for the others
    image: tuple[int, int, int]
    batch: int
    bar: float = 1.3  # the least ratio to autodiff
    small: bool = False  # whether it is for quick runs, too

    @property
    def title(self) -> str:
        return f"{self.name} {'x'.join(map(str, (self.batch, *self.image)))}"


# Blocks do not start as identities (zero_init, scale): the gradients inside of them are to be compared.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2), (6, 64, 2, 2))  # of mobilenet_v2
CASES = (
    Case("lenet5", lambda: models.lenet5(CLASSES), lenet5(), (28, 28, 1), 128, small=True),
    Case("vgg_small", lambda: models.vgg_small(CLASSES), vgg_small(), (28, 28, 1), 128, small=True),
    Case("resnet18", lambda: models.resnet(CLASSES, zero_init=False), resnet(), (32, 32, 3), 32),
    Case(
        "resnext",
        lambda: models.resnext(CLASSES, width=32, blocks=(1, 1, 1), zero_init=False),
        resnext(width=32, blocks=(1, 1, 1)),
        (32, 32, 3),
        16,
        bar=2.0,
    ),
    Case(
        "mobilenet_v2",
        lambda: models.mobilenet_v2(CLASSES, stages=STAGES, dropout=0.0),
        mobilenet_v2(STAGES),
        (32, 32, 3),
        32,
        bar=2.0,
    ),
    Case(
        "convnext",
        lambda: models.convnext(CLASSES, widths=(64, 128, 256), blocks=(2, 2, 2), patch=2, scale=1.0),
        convnext((64, 128, 256), (2, 2, 2), 2),
        (32, 32, 3),
        32,
        bar=2.0,
    ),
)
