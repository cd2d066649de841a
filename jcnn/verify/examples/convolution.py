"""Examples of convolutions and of padding."""

import jax

import jcnn
from jcnn.verify.examples.arrays import EQUAL, X2, normal

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
        "bands": ((X2, normal(35, 3, 3, 4, 2)), {"stride": (1, 2), "padding": 1, "algorithm": "bands"}),
        "terms": ((X2, normal(36, 3, 2, 4, 3)), {"stride": (1, 2), "dilation": 2, "algorithm": "terms"}),
        "winograd4": ((normal(27, 2, 6, 5, 3), normal(28, 3, 3, 3, 4)), {"algorithm": "winograd4"}),
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


def _conv_transpose_cases() -> dict:
    strided = {"stride": (3, 2), "padding": ((1, 0), 1), "output_padding": (2, 1)}
    return {
        "stride": ((X2, normal(74, 3, 2, 3, 4), normal(75, 3)), strided),
        "equal": ((EQUAL, normal(76, 3, 3, 3, 3)), {"stride": 2, "padding": "SAME"}),
        "groups": ((X2, normal(77, 2, 3, 3, 4), normal(78, 6)), {"groups": 2, "dilation": (1, 2)}),
        "1-D": ((normal(79, 2, 5, 3), normal(80, 2, 4, 3), normal(81, 4)), {"stride": 3}),
        "phases": ((X2, normal(84, 3, 4, 2, 4)), {"stride": (2, 3), "padding": 1, "algorithm": "phases"}),
        "3-D depthwise": ((normal(82, 1, 2, 3, 2, 4), normal(83, 2, 1, 2, 1, 4)), {"groups": 4, "stride": 2}),
    }


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
}
