"""Convolution, transposed convolution, padding and dense layers against PyTorch."""

import functools

import pytest

import jcnn
from tests.conformance.torch_side import (
    channels_first,
    channels_last,
    draw,
    fits,
    functional,
    grid,
    kernel_last,
    needs_torch,
    on_images,
    per_axis,
    same_as_torch,
    torch,
)

pytestmark = [needs_torch, pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")]

MODES = {"zeros": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}


def divides(case) -> bool:
    return case["channels"] % case["groups"] == case["outputs"] % case["groups"] == 0


def one_rank(case, *keys) -> bool:
    return all(len(case[k]) == len(case["size"]) for k in keys if isinstance(case[k], tuple))


def possible(case) -> bool:
    shapes = one_rank(case, "kernel", "stride", "padding", "dilation") and divides(case)
    return shapes and fits(case["size"], case["kernel"], case["dilation"], case["padding"])


GEOMETRY = {
    "size": [(6, 5), (7,), (5, 6), (4, 3, 5), (1, 6)],
    "kernel": [3, 1, 2, (2, 3), (1, 3, 2), (4,)],
    "stride": [1, 2, 3, (1, 2), (2, 1, 1)],
    "padding": [0, 1, 2, (1, 0), (0, 2, 1)],
    "dilation": [1, 2, 3, (2, 1), (1, 2, 2)],
    "channels": [4, 1, 2],
    "outputs": [4, 2],
    "groups": [1, 2, 4],
}
ODD = [
    {"kernel": 1},
    {"kernel": 1, "stride": 3, "padding": 1},
    {"kernel": 2, "dilation": 3},
    {"kernel": 2, "stride": 4},
    {"kernel": (6, 5)},
    {"kernel": 3, "padding": 4},
    {"channels": 1},
    {"channels": 1, "outputs": 1, "kernel": 1},
    {"channels": 2, "groups": 2},  # depthwise with a multiplier of 2
    {"channels": 4, "groups": 4, "stride": 2, "padding": 1},
    {"size": (1, 1), "padding": 1},
]


def torch_conv(x, w, b=None, **config):
    conv = functional(f"conv{x.ndim - 2}d")
    return channels_last(conv(channels_first(x), kernel_last(w), b, **config))


def arrays_of(case) -> tuple:
    """x, w and b of a convolution."""
    size, c, o = case["size"], case["channels"], case["outputs"]
    w = draw(2, *per_axis(case["kernel"], len(size)), c // case["groups"], o)
    return draw(1, 2, *size, c), w, draw(3, o)


@pytest.mark.parametrize("case", grid(28, ODD, valid=possible, **GEOMETRY, bias=[True, False]))
def test_conv(case):
    x, w, b = arrays_of(case)
    config = {key: case[key] for key in ("stride", "padding", "dilation", "groups")}
    arrays = (x, w, b) if case["bias"] else (x, w)
    same_as_torch(jcnn.conv, functools.partial(torch_conv, **config), arrays, **config)


FIRST = {key: values[0] for key, values in GEOMETRY.items()}
ALGORITHMS = [
    ("native", {"kernel": 2, "dilation": 3, "groups": 2}),
    ("matmul", {"kernel": 2, "dilation": 3, "stride": 2, "padding": 1}),
    ("taps", {"kernel": (2, 3), "groups": 4, "stride": (1, 2), "padding": 2}),
    ("blocks", {"kernel": (2, 3), "groups": 2, "outputs": 2, "stride": 2, "dilation": (2, 1)}),
    ("planes", {"size": (4, 3, 5), "kernel": 2, "dilation": 2, "stride": (2, 1, 1), "padding": 1}),
    ("phases", {"kernel": (3, 2), "stride": (2, 3), "padding": 2}),
    ("phases", {"kernel": 2, "stride": 4}),
    ("terms", {"kernel": (2, 3), "dilation": (1, 2), "padding": (2, 1)}),
    ("bands", {"kernel": (2, 3), "stride": (1, 2), "padding": (2, 1)}),
    ("winograd", {"padding": (2, 1)}),
    ("winograd4", {"padding": 1}),
]


@pytest.mark.parametrize(("algorithm", "changes"), ALGORITHMS, ids=str)
def test_every_formulation_of_conv(algorithm, changes):
    case = FIRST | changes
    config = {key: case[key] for key in ("stride", "padding", "dilation", "groups")}
    args = arrays_of(case)
    theirs = functools.partial(torch_conv, **config)
    same_as_torch(jcnn.conv, theirs, args, vjp=True, algorithm=algorithm, **config)


@pytest.mark.parametrize("kernel", [1, 2, 3, (2, 4), (3,), (2, 1, 3)], ids=str)
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_with_stride_1(kernel, dilation):
    size = {1: (7,), 2: (5, 6), 3: (3, 4, 5)}[len(kernel) if isinstance(kernel, tuple) else 2]
    arrays = arrays_of(FIRST | {"size": size, "kernel": kernel})
    theirs = functools.partial(torch_conv, padding="same", dilation=dilation)
    same_as_torch(jcnn.conv, theirs, arrays, padding="SAME", dilation=dilation)


def torch_pad(x, pairs: tuple, mode: str):
    """Padding of channels-last images by a (low, high) pair per axis."""
    last_axis_first = [n for pair in reversed(pairs) for n in pair]
    return on_images(functional("pad"))(x, pad=last_axis_first, mode=MODES[mode])


def copies_one_image(case) -> bool:
    """PyTorch's padding ends where the first copy of the image would (for "reflect" one pixel before)."""
    most = {"zeros": 9, "edge": 9, "reflect": -1, "wrap": 0}[case["mode"]]
    pairs = case["padding"]
    return len(pairs) == len(case["size"]) and all(
        max(pair) <= n + most for n, pair in zip(case["size"], pairs, strict=True)
    )


PADDING = {
    "size": [(4, 3), (5,), (3, 4, 2), (2, 2), (1, 5)],
    "padding": [
        ((1, 1), (2, 0)),
        ((2, 1),),
        ((1, 0), (0, 2), (1, 1)),
        ((0, 0), (3, 1)),
        ((4, 5),),
        ((1, 0),),
    ],
    "mode": list(MODES),
}
ODD_PADDING = [
    {"padding": ((4, 4), (3, 3)), "mode": "wrap"},  # a whole image on each side
    {"padding": ((3, 3), (2, 2)), "mode": "reflect"},  # all of the image but its outer pixel
    {"padding": ((9, 0), (0, 7)), "mode": "edge"},
    {"size": (1, 1), "mode": "edge"},
    {"size": (1, 1), "padding": ((1, 1), (1, 1)), "mode": "wrap"},
    {"padding": ((0, 0), (0, 0)), "mode": "reflect"},
]


@pytest.mark.parametrize("case", grid(14, ODD_PADDING, valid=copies_one_image, **PADDING))
def test_pad(case):
    x, pairs, mode = draw(4, 2, *case["size"], 3), case["padding"], case["mode"]
    theirs = functools.partial(torch_pad, pairs=pairs, mode=mode)
    same_as_torch(jcnn.pad, theirs, (x,), padding=pairs, mode=mode)


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
@pytest.mark.parametrize("size", [(5,), (5, 4), (3, 4, 5)], ids=str)
def test_conv_of_padding_with_copies(size, mode):
    rank = len(size)
    pairs = ((2, 1), (0, 2), (1, 1))[:rank]
    arrays = arrays_of(FIRST | {"size": size, "kernel": 2})

    def theirs(x, w, b):
        return torch_conv(torch_pad(x, pairs, mode), w, b, stride=2)

    same_as_torch(jcnn.conv, theirs, arrays, padding=pairs, padding_mode=mode, stride=2)


@pytest.mark.parametrize("size", [(7,), (5, 6), (3, 4, 5)], ids=str)
def test_gradients_of_conv_and_their_gradients(size):
    """`torch.nn.grad`, differentiated once more."""
    config = {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}
    case = FIRST | {"size": size, "kernel": 2}
    rank = len(size)
    x, w, b = arrays_of(case | {"groups": 2})
    dy = draw(5, *torch_conv(*map(torch.tensor, (x, w, b)), **config).shape)

    def input_grad(dy, w):
        op = getattr(torch.nn.grad, f"conv{rank}d_input")
        return channels_last(op((2, 4, *size), kernel_last(w), channels_first(dy), **config))

    def weight_grad(x, dy):
        op = getattr(torch.nn.grad, f"conv{rank}d_weight")
        dw = op(channels_first(x), (4, 2, *w.shape[:-2]), channels_first(dy), **config)
        return dw.permute(*range(2, rank + 2), 1, 0)

    same_as_torch(jcnn.conv_input_grad, input_grad, (dy, w), input_size=size, **config)
    same_as_torch(jcnn.conv_weight_grad, weight_grad, (x, dy), kernel_size=w.shape[:-2], **config)


def possible_transposed(case) -> bool:
    """PyTorch's `output_padding` may be up to the dilation, too; here it is less than the stride."""
    keys = ("kernel", "stride", "padding", "dilation", "output_padding")
    if not (one_rank(case, *keys) and divides(case)):
        return False
    axes = zip(case["size"], *(per_axis(case[key], len(case["size"])) for key in keys), strict=True)
    return all(p < s and (n - 1) * s + (k - 1) * d + 1 - 2 * lo + p >= 1 for n, k, s, lo, d, p in axes)


TRANSPOSED = GEOMETRY | {"size": [(3, 4), (5,), (4, 2), (2, 3, 2), (1, 3)]}
TRANSPOSED |= {"output_padding": [0, 1, 2, (1, 0), (0, 1, 1)]}
ODD_TRANSPOSED = [
    {"kernel": 1, "stride": 3, "output_padding": 2},
    {"kernel": 2, "dilation": 3, "stride": 2, "output_padding": 1},
    {"kernel": 2, "stride": 4, "output_padding": 3},
    {"kernel": 3, "padding": 2},
    {"channels": 1, "outputs": 1, "kernel": 1},
    {"channels": 2, "groups": 2, "stride": 2},
    {"channels": 4, "groups": 4, "stride": 2, "padding": 1, "output_padding": 1},
    {"size": (1, 1), "stride": 2},
]


def torch_conv_transpose(x, w, b=None, **config):
    op = functional(f"conv_transpose{x.ndim - 2}d")
    return channels_last(op(channels_first(x), kernel_last(w), b, **config))


@pytest.mark.parametrize("case", grid(16, ODD_TRANSPOSED, valid=possible_transposed, **TRANSPOSED))
def test_conv_transpose(case):
    size, c, o = case["size"], case["channels"], case["outputs"]
    w = draw(7, *per_axis(case["kernel"], len(size)), o // case["groups"], c)
    arrays = draw(6, 2, *size, c), w, draw(8, o)
    keys = ("stride", "padding", "output_padding", "dilation", "groups")
    config = {key: case[key] for key in keys}
    theirs = functools.partial(torch_conv_transpose, **config)
    same_as_torch(jcnn.conv_transpose, theirs, arrays, **config)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 4), (2, 1, 3, 1), (1, 1)], ids=str)
def test_dense(shape, bias):
    arrays = (draw(9, *shape), draw(10, shape[-1], 3), draw(11, 3))[: 2 + bias]

    def theirs(x, w, b=None):
        return torch.nn.functional.linear(x, w.T, b)

    same_as_torch(jcnn.dense, theirs, arrays)


def test_flatten():
    """Channels last, as the image is: PyTorch's order of the same image is another."""
    same_as_torch(jcnn.flatten, lambda x: x.flatten(1), (draw(12, 2, 3, 4, 5),))
