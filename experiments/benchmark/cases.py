"""The ops that are timed: names, shapes and configuration, with the conventions of `jcnn`.

A case names an op of `jcnn`. `plain.py` and the `peers_*.py` have functions of the same names, arguments
and configuration, in terms of their own libraries. Shapes are those of networks: VGG and ResNet on CIFAR
(32x32) and ImageNet (56x56 and below), MobileNet and ConvNeXt (depthwise), ResNeXt (grouped), U-Net and
GANs (transposed).
"""

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jcnn

CONVOLUTIONS = ("conv", "conv_transpose")


@dataclass(frozen=True)
class Case:
    """One op with shapes [N, *S, C] of its arrays (None: not an array of floats) and its configuration."""

    name: str
    op: str
    shapes: dict[str, tuple[int, ...]]
    config: dict[str, Any] = field(default_factory=dict)
    half: bool = False  # timed in bfloat16, too, unless the command line says otherwise

    @property
    def stages(self) -> tuple[str, ...]:
        """The passes that are timed apart."""
        if self.op in CONVOLUTIONS:
            return ("forward", "input gradient", "weight gradient")
        return ("forward", "backward")

    @property
    def floats(self) -> tuple[str, ...]:
        """The names of the arrays that have cotangents."""
        return tuple(name for name in self.shapes if name not in ("labels", "key"))

    def wanted(self, stage: str) -> tuple[str, ...]:
        """The names of the arrays whose cotangents a pass gives."""
        chosen = {"forward": (), "input gradient": self.floats[:1], "weight gradient": self.floats[1:2]}
        return chosen.get(stage, self.floats)

    def arrays(self, dtype: str, seed: int = 0) -> dict[str, jax.Array]:
        """Random arguments: standard normal activations, weights that keep their variance, targets in [0, 1).

        Scale and shift of norms are in float32 even if all else is in bfloat16, as usual in mixed precision.
        """
        random = np.random.default_rng(seed)
        found = {}
        for name, shape in self.shapes.items():
            if name == "labels":
                found[name] = jnp.asarray(random.integers(0, self.shapes["logits"][-1], shape), jnp.int32)
            elif name == "key":
                found[name] = jax.random.key(seed)
            else:
                positive = name == "targets"
                values = (random.random if positive else random.standard_normal)(shape, np.float32)
                if name == "w":
                    values /= math.sqrt(math.prod(shape[:-1]))
                elif name == "gamma":
                    values = 1 + 0.1 * values
                wide = name in ("gamma", "beta")
                found[name] = jnp.asarray(values, "float32" if wide else dtype)
        return found

    def shrunk(self) -> "Case":
        """The same case, small enough for a test.

        Multiples of 8 beyond 8 are divided by 8, and the kernel of 31, which they are not, becomes 5.
        """

        def small(n: Any) -> Any:
            if isinstance(n, tuple):
                return tuple(map(small, n))
            return {31: 5, 15: 2}.get(n, n // 8 if n > 8 and n % 8 == 0 else n) if type(n) is int else n

        shapes = {name: small(shape) for name, shape in self.shapes.items()}
        return Case(self.name, self.op, shapes, {k: small(v) for k, v in self.config.items()}, self.half)


def conv(
    kernel: tuple[int, ...], x: tuple[int, ...], out: int, what: str = "conv", half: bool = False, **config
) -> Case:
    """A convolution of images of shape `x`; "same" zero padding unless `config` says otherwise."""
    full = {
        "stride": 1,
        "padding": tuple(k // 2 * config.get("dilation", 1) for k in kernel),
        "padding_mode": "zeros",
        "dilation": 1,
        "groups": 1,
    } | config
    size = "x".join(map(str, kernel))
    extras = [f" {k.replace('_', ' ')} {v}" for k, v in config.items() if k in ("stride", "dilation")]
    name = f"{what} {size}{''.join(extras)} {by(x)}" + ("" if what == "depthwise" else f"→{out}")
    return Case(name, "conv", {"x": x, "w": (*kernel, x[-1] // full["groups"], out)}, full, half)


def depthwise(kernel: int, x: tuple[int, ...], half: bool = False, **config) -> Case:
    return conv((kernel, kernel), x, x[-1], "depthwise", half, groups=x[-1], **config)


def conv_transpose(kernel: tuple[int, ...], x: tuple[int, ...], out: int, stride: int, padding: int) -> Case:
    name = f"transposed {'x'.join(map(str, kernel))} stride {stride} {by(x)}→{out}"
    shapes = {"x": x, "w": (*kernel, out, x[-1])}
    return Case(name, "conv_transpose", shapes, {"stride": stride, "padding": padding})


def pool(
    op: str, x: tuple[int, ...], window: int, stride: int, padding: int = 0, half: bool = False, **more
) -> Case:
    name = f"{op.replace('_', ' ')} {window}x{window} stride {stride} {by(x)}"
    return Case(name, op, {"x": x}, {"window": window, "stride": stride, "padding": padding, **more}, half)


def norm(op: str, x: tuple[int, ...], half: bool = False, **config) -> Case:
    shapes = {"x": x, "gamma": x[-1:], "beta": x[-1:]}
    return Case(f"{op.replace('_', ' ')} {by(x)}", op, shapes, {"eps": 1e-5, **config}, half)


def pointwise(op: str, x: tuple[int, ...], half: bool = False, **config) -> Case:
    name = " ".join([op.replace("_", " "), *(v for v in config.values() if isinstance(v, str)), by(x)])
    return Case(name, op, {"x": x}, config, half)


def per_channel(op: str, x: tuple[int, ...], name: str, **config) -> Case:
    return Case(f"{op.replace('_', ' ')} {by(x)}", op, {"x": x, name: x[-1:]}, config)


def against_targets(op: str, name: str, shape: tuple[int, ...]) -> Case:
    return Case(f"{op.replace('_', ' ')} {by(shape)}", op, {name: shape, "targets": shape})


def loss(examples: int, classes: int, half: bool = False) -> Case:
    shapes = {"logits": (examples, classes), "labels": (examples,)}
    return Case(f"softmax cross-entropy {examples}x{classes}", "softmax_cross_entropy", shapes, {}, half)


def by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


IMAGES = (64, 32, 32, 64)

CASES = [
    conv((3, 3), IMAGES, 64, half=True),
    conv((3, 3), (64, 8, 8, 256), 256),
    conv((1, 1), IMAGES, 128, half=True),
    depthwise(3, (16, 56, 56, 128), half=True),
    depthwise(7, (16, 28, 28, 192)),
    conv((3, 3), (16, 28, 28, 256), 256, "grouped (32)", groups=32),
    conv((3, 3, 3), (4, 16, 32, 32, 16), 32),
    conv((3, 3), (16, 28, 28, 128), 128, dilation=2),
    conv((7, 7), (16, 112, 112, 3), 64, stride=2),
    conv((5,), (32, 2048, 64), 64, stride=2),
    conv((3, 3), (64, 32, 32, 3), 64),
    conv((5, 5), (256, 28, 28, 1), 6),
    conv((3, 3), (1, 56, 56, 64), 64),
    conv((3, 3), (256, 16, 16, 64), 64),
    conv((3, 3), (32, 32, 32, 64), 128, stride=2),
    conv((1, 1), (32, 32, 32, 64), 128, stride=2),
    depthwise(3, (16, 56, 56, 96), stride=2),
    depthwise(31, (4, 28, 28, 96)),
    conv((3, 3), (16, 56, 56, 64), 64, "edge-padded", padding_mode="edge"),
    conv_transpose((4, 4), (16, 16, 16, 128), 64, stride=2, padding=1),
    conv_transpose((2, 2), (16, 28, 28, 128), 64, stride=2, padding=0),
    pool("max_pool", IMAGES, 2, 2, half=True),
    pool("max_pool", IMAGES, 3, 2),
    pool("avg_pool", IMAGES, 2, 2),
    pool("avg_pool", IMAGES, 3, 1, padding=1),
    pointwise("global_avg_pool", (64, 8, 8, 512)),
    pointwise("global_max_pool", (64, 8, 8, 512)),
    norm("batch_norm", IMAGES, half=True),
    norm("batch_norm", (64, 8, 8, 256)),
    norm("layer_norm", (16, 28, 28, 192), half=True),
    norm("group_norm", (16, 56, 56, 64), groups=32),
    pointwise("relu", IMAGES, half=True),
    pointwise("leaky_relu", IMAGES),
    pointwise("sigmoid", IMAGES),
    pointwise("tanh", IMAGES),
    pointwise("silu", IMAGES),
    pointwise("gelu", IMAGES, half=True),
    pointwise("softmax", (4096, 1000)),
    pointwise("log_softmax", (4096, 1000)),
    loss(4096, 10),
    loss(128, 50_000, half=True),
    Case("dense 4096x512→1000", "dense", {"x": (4096, 512), "w": (512, 1000), "b": (1000,)}, half=True),
    Case("dropout " + by(IMAGES), "dropout", {"x": IMAGES, "key": ()}, {"rate": 0.5}),
    *(
        pointwise(op, IMAGES)
        for op in ("elu", "selu", "softplus", "mish", "hard_sigmoid", "hard_swish", "relu6")
    ),
    per_channel("prelu", IMAGES, "slope"),
    pointwise("glu", IMAGES),
    pool("max_pool", (16, 26, 26, 64), 13, 1, padding=6),
    pool("avg_pool", (16, 26, 26, 64), 13, 1, padding=6),
    pool("lp_pool", IMAGES, 2, 2, p=2),
    pointwise("adaptive_avg_pool", (64, 13, 13, 256), output_size=6),
    pointwise("adaptive_max_pool", (64, 13, 13, 256), output_size=6),
    per_channel("rms_norm", (16, 28, 28, 192), "gamma", eps=1e-5),
    norm("instance_norm", (16, 56, 56, 64)),
    pointwise("local_response_norm", (16, 28, 28, 192), size=5),
    Case("weight standardize 3x3x256x256", "weight_standardize", {"w": (3, 3, 256, 256)}, {"eps": 1e-5}),
    per_channel("layer_scale", (16, 28, 28, 192), "gamma"),
    Case("drop path " + by(IMAGES), "drop_path", {"x": IMAGES, "key": ()}, {"rate": 0.5}),
    pointwise("upsample", (16, 28, 28, 64), factor=2, method="nearest"),
    pointwise("upsample", (16, 28, 28, 64), factor=2, method="bilinear"),
    pointwise("pixel_shuffle", (16, 28, 28, 256), factor=2),
    pointwise("patches", (16, 28, 28, 64), window=3, padding=1),
    against_targets("binary_cross_entropy", "logits", (4096, 1000)),
    against_targets("focal_loss", "logits", (4096, 1000)),
    against_targets("mse", "predictions", (4096, 1000)),
    against_targets("huber", "predictions", (4096, 1000)),
    against_targets("kl_divergence", "log_predictions", (4096, 1000)),
]


def ours(op: str) -> Any:
    """The function of jcnn that a case is about."""
    if op == "batch_norm":
        return lambda *arrays, **config: jcnn.batch_norm(*arrays, **config)[0]
    return getattr(jcnn, op)
