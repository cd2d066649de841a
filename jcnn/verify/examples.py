"""At least two sets of arguments for every rule of jcnn: all axes different, so that a transpose becomes a
shape error, and all equal, so that a silent one shows; then the corners of its configuration."""

import math

import jax
import jax.numpy as jnp
import numpy as np

import jcnn


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def distinct(seed: int, *shape: int) -> jax.Array:
    """No two values closer than 0.1, none near 0: no ties and no kinks for finite differences to cross."""
    size = math.prod(shape)
    ranks = np.random.default_rng(seed).permutation(size).reshape(shape)
    return jnp.asarray((ranks - size / 2 + 0.3) * 0.11)


X2 = normal(0, 2, 5, 6, 4)
EQUAL = normal(1, 3, 3, 3, 3)
KEY = jax.random.key(7)
LABELS = jnp.array([3, 0, 4, 1])
LOGITS = normal(2, 4, 5)
TARGETS = jax.nn.softmax(normal(3, 4, 5))
GEOMETRIES = {
    "plain": {},
    "stride": {"stride": (2, 1), "padding": "SAME"},
    "asymmetric": {"padding": ((0, 2), (1, 0)), "stride": 2},
    "dilated": {"dilation": (1, 2), "padding": 1},
    "edge": {"padding": 2, "padding_mode": "edge"},
    "wrap": {"padding": ((1, 2), (0, 1)), "padding_mode": "wrap", "stride": 2},
}


def _conv_cases() -> dict:
    cases = {name: ((X2, normal(4, 3, 2, 4, 3), normal(5, 3)), g) for name, g in GEOMETRIES.items()}
    cases |= {
        "equal": ((EQUAL, normal(6, 3, 3, 3, 3), normal(7, 3)), {"padding": "SAME"}),
        "no bias": ((X2, normal(8, 3, 2, 4, 3)), {"padding": "SAME_LOWER"}),
        "1-D causal": ((normal(9, 2, 7, 3), normal(10, 3, 3, 5), normal(11, 5)), {"padding": "CAUSAL"}),
        "3-D": ((normal(12, 1, 3, 4, 5, 2), normal(13, 2, 3, 2, 2, 3)), {"stride": (1, 2, 1)}),
        "groups": ((X2, normal(14, 3, 2, 2, 6), normal(15, 6)), {"groups": 2, "stride": 2}),
        "depthwise": ((X2, normal(16, 3, 2, 1, 8), normal(17, 8)), {"groups": 4, "padding": "SAME"}),
        "depthwise strided": ((X2, normal(18, 2, 3, 1, 4)), {"groups": 4, "stride": 2, "dilation": 2}),
        "1x1": ((X2, normal(19, 1, 1, 4, 3), normal(20, 3)), {}),
        "stride > kernel": ((X2, normal(21, 2, 1, 4, 3)), {"stride": 3}),
        "one pixel": ((normal(22, 1, 1, 1, 1), normal(23, 1, 1, 1, 1)), {}),
        "matmul": ((X2, normal(29, 3, 2, 4, 3)), {"stride": 2, "padding": 1, "algorithm": "matmul"}),
        "winograd": (
            (normal(24, 2, 5, 6, 4), normal(25, 3, 3, 4, 3), normal(26, 3)),
            {"padding": ((1, 1), (0, 2)), "algorithm": "winograd"},
        ),
        "winograd4": ((normal(27, 2, 6, 5, 3), normal(28, 3, 3, 3, 4)), {"algorithm": "winograd4"}),
        "bands": ((X2, normal(35, 3, 3, 4, 2)), {"stride": (1, 2), "padding": 1, "algorithm": "bands"}),
        "phases": ((X2, normal(30, 3, 3, 4, 2)), {"stride": (2, 3), "padding": 1, "algorithm": "phases"}),
        "blocks": ((X2, normal(31, 3, 2, 2, 6)), {"groups": 2, "stride": 2, "algorithm": "blocks"}),
        "native depthwise": ((X2, normal(32, 3, 2, 1, 8)), {"groups": 4, "algorithm": "native"}),
        "native 3-D": ((normal(33, 1, 3, 4, 5, 2), normal(34, 2, 3, 2, 2, 3)), {"algorithm": "native"}),
    }
    return cases


def _gradients_of_conv(which: str) -> dict:
    """The conv cases as cases of its input or weight gradient: a random dy in place of x or w."""
    cases = {}
    for name, ((x, w, *_), static) in _conv_cases().items():
        dy = normal(30, *jax.eval_shape(lambda x, w, s=static: jcnn.conv(x, w, **s), x, w).shape)
        if which == "input":
            cases[name] = (dy, w), {"input_size": x.shape[1:-1], **static}
        else:
            cases[name] = (x, dy), {"kernel_size": w.shape[:-2], **static}
    return cases


def _pool_cases(**more) -> dict:
    x = distinct(31, 2, 7, 6, 3)
    return {
        "plain": ((x,), {"window": 2}),
        "overlap": ((x,), {"window": (3, 2), "stride": (2, 1)}),
        "padded": ((x,), {"window": 3, "stride": 2, "padding": ((1, 0), (0, 2))}),
        "same": ((x,), {"window": 3, "stride": 1, "padding": "SAME"}),
        "equal": ((distinct(32, 3, 3, 3, 3),), {"window": 2, "stride": 1}),
        "1-D": ((distinct(33, 2, 9, 4),), {"window": 3, "stride": 4}),
        "3-D": ((distinct(34, 1, 4, 3, 5, 2),), {"window": (2, 1, 3)}),
        "large": (
            (distinct(35, 1, 19, 5, 2),),
            {"window": (18, 4), "stride": 1, "padding": ((2, 1), (1, 1))},
        ),
        **more,
    }


def _norm_x() -> dict:
    return {
        "different": (X2, normal(40, 4), normal(41, 4)),
        "equal": (EQUAL, normal(42, 3), normal(43, 3)),
        "vectors": (normal(44, 6, 4), normal(45, 4), normal(46, 4)),
        "3-D": (normal(47, 2, 2, 3, 2, 4), normal(48, 4), normal(49, 4)),
    }


def _conv_transpose_cases() -> dict:
    strided = {"stride": (3, 2), "padding": ((1, 0), 1), "output_padding": (2, 1)}
    return {
        "stride": ((X2, normal(74, 3, 2, 3, 4), normal(75, 3)), strided),
        "equal": ((EQUAL, normal(76, 3, 3, 3, 3)), {"stride": 2, "padding": "SAME"}),
        "groups": ((X2, normal(77, 2, 3, 3, 4), normal(78, 6)), {"groups": 2, "dilation": (1, 2)}),
        "1-D": ((normal(79, 2, 5, 3), normal(80, 2, 4, 3), normal(81, 4)), {"stride": 3}),
        "3-D depthwise": ((normal(82, 1, 2, 3, 2, 4), normal(83, 2, 1, 2, 1, 4)), {"groups": 4, "stride": 2}),
    }


ELEMENTWISE = {"different": ((distinct(60, 2, 3, 5) / 4,), {}), "equal": ((distinct(61, 3, 3, 3) / 4,), {})}

EXAMPLES: dict[str, dict] = {
    "conv": _conv_cases(),
    "conv_input_grad": _gradients_of_conv("input"),
    "conv_weight_grad": _gradients_of_conv("weight"),
    "conv_transpose": _conv_transpose_cases(),
    "pad": {
        mode: ((X2,), {"padding": ((2, 1), (0, 4)), "mode": mode})
        for mode in ("zeros", "edge", "reflect", "symmetric", "wrap")
    }
    | {"equal": ((EQUAL,), {"padding": 1, "mode": "edge"}), "1-D": ((normal(50, 2, 4, 3),), {"padding": 2})},
    "dense": {
        "different": ((normal(51, 2, 3), normal(52, 3, 5), normal(53, 5)), {}),
        "equal": ((normal(54, 3, 3), normal(55, 3, 3)), {}),
        "leading axes": ((normal(56, 2, 3, 4), normal(57, 4, 5), normal(58, 5)), {}),
        "vector": ((normal(59, 4), normal(57, 4, 5)), {}),
    },
    "flatten": {"different": ((X2,), {}), "equal": ((EQUAL,), {})},
    "relu": ELEMENTWISE,
    "relu6": ELEMENTWISE,
    "leaky_relu": ELEMENTWISE | {"slope": ((distinct(62, 4, 3),), {"negative_slope": 0.3})},
    "sigmoid": ELEMENTWISE,
    "tanh": ELEMENTWISE,
    "silu": ELEMENTWISE,
    "gelu": ELEMENTWISE | {"tanh": ((distinct(63, 4, 3) / 2,), {"approximate": True})},
    "softmax": ELEMENTWISE | {"axes": ((X2,), {"axis": (1, 2)})},
    "log_softmax": ELEMENTWISE | {"axes": ((X2,), {"axis": (1, 2)})},
    "max_pool": _pool_cases(
        dilated=((distinct(36, 2, 7, 6, 3),), {"window": 2, "dilation": (3, 2), "stride": 1, "padding": 1}),
        split=((distinct(37, 2, 7, 6, 3),), {"window": 3, "stride": 2, "padding": 1, "ties": "split"}),
    ),
    "avg_pool": _pool_cases(
        counted=(
            (normal(38, 2, 7, 6, 3),),
            {"window": 3, "stride": 2, "padding": ((1, 0), (0, 2)), "count_include_pad": True},
        )
    ),
    "global_max_pool": {
        "different": ((distinct(39, 2, 5, 6, 4),), {}),
        "1-D": ((distinct(64, 3, 3, 3),), {}),
    },
    "global_avg_pool": {"different": ((X2,), {}), "1-D": ((normal(65, 3, 3, 3),), {})},
    "dropout": {"different": ((X2, KEY), {"rate": 0.3}), "none": ((EQUAL, KEY), {"rate": 0.0})},
    "batch_norm": {name: (args, {}) for name, args in _norm_x().items()}
    | {
        "mask": ((*_norm_x()["different"], normal(66, 2, 5, 6) > 0), {"eps": 1e-3}),
        "examples": ((*_norm_x()["equal"], jnp.array([True, False, True])), {}),
    },
    "batch_norm_inference": {
        name: ((*args, normal(67, args[0].shape[-1]), normal(68, args[0].shape[-1]) ** 2 + 0.1), {})
        for name, args in _norm_x().items()
    },
    "layer_norm": {
        "different": (_norm_x()["different"], {"eps": 1e-3}),
        "equal": (_norm_x()["equal"], {}),
        "one vector": ((normal(84, 5), normal(85, 5), normal(86, 5)), {}),
    },
    "group_norm": {
        "different": (_norm_x()["different"], {"groups": 2, "eps": 1e-3}),
        "equal": (_norm_x()["equal"], {"groups": 1}),
        "3-D": (_norm_x()["3-D"], {"groups": 2}),
    },
    "instance_norm": {
        "different": (_norm_x()["different"], {"eps": 1e-3}),
        "equal": (_norm_x()["equal"], {}),
    },
    "layer_scale": {
        "different": (_norm_x()["different"][:2], {}),
        "equal": (_norm_x()["equal"][:2], {}),
    },
    "softmax_cross_entropy": {
        "ints": ((LOGITS, LABELS), {}),
        "equal": ((normal(69, 3, 3), jnp.array([2, 0, 1])), {}),
        "weights": ((LOGITS, LABELS, normal(70, 5) ** 2), {}),
        "everything": (
            (LOGITS, LABELS, normal(71, 5) ** 2),
            {"label_smoothing": 0.2, "ignore_index": 4, "z_loss": 0.1},
        ),
        "distributions": ((LOGITS, TARGETS), {}),
        "distributions, everything": (
            (LOGITS, TARGETS, normal(72, 5) ** 2),
            {"label_smoothing": 0.1, "z_loss": 0.1},
        ),
        "per pixel": ((normal(73, 2, 3, 4), jnp.array([[0, 3, 1], [2, 2, 0]])), {"ignore_index": -100}),
    },
}
