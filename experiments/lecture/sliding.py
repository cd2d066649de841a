"""Sections on what slides over an image: cross-correlation, padding, stride, channels, pooling."""

import itertools
from typing import Any

import jax
import numpy as np

import jcnn
from experiments.lecture import plots
from experiments.lecture.page import (
    Picture,
    Section,
    arrays,
    error,
    formula,
    paragraph,
    table,
)
from experiments.lecture.plots import block

NINE, FOUR = np.arange(9.0).reshape(3, 3), np.arange(4.0).reshape(2, 2)


def windows(x, size, stride, padding):
    """Every window of a matrix with its place in the output, in plain NumPy."""
    x = np.pad(x, padding)
    counts = [(n - k) // s + 1 for n, k, s in zip(x.shape, size, stride, strict=True)]
    for at in itertools.product(*map(range, counts)):
        yield at, x[tuple(slice(i * s, i * s + k) for i, s, k in zip(at, stride, size, strict=True))]


def slide(x, size, function, *, stride=(1, 1), padding: Any = 0):
    """`function` of every window of a matrix (of any rank), the loop that the ops are compared with."""
    found = dict((at, function(part)) for at, part in windows(x, size, stride, padding))
    y = np.zeros(np.add(max(found), 1))
    for at, value in found.items():
        y[at] = value
    return y


def correlate(x, k, **config):
    return slide(x, k.shape, lambda part: np.sum(part * k), **config)


def conv(x, k, **config):
    """jcnn's convolution of one channel with one filter."""
    op = jax.jit(lambda x, k: jcnn.conv(x[None, ..., None], k[..., None, None], **config)[0, ..., 0])
    return np.asarray(op(x, k))


def pool(op, x, **config):
    """A pooling op of jcnn's on one channel."""
    return np.asarray(jax.jit(lambda x: op(x[None, ..., None], **config)[0, ..., 0])(x))


def one_dimension() -> Section:
    x, k = np.array([5.0, 6, 6, 2, 5, 6, 5]), np.array([1.0, -1, 1])
    y = conv(x, k, stride=2)
    figure = plots.canvas(7, 2.6)
    axes = figure.subplots()
    for places, values, level in ((range(7), x, 1), (range(1, 7, 2), y, 0)):
        for place, value in zip(places, values, strict=True):
            style = {"boxstyle": "square,pad=0.5", "fc": "white", "ec": plots.GRAY}
            axes.text(place, level, f"{value:g}", ha="center", va="center", bbox=style, fontsize=12)
    for colour, centre in zip(plots.COLOURS, range(1, 7, 2), strict=False):
        for weight, source in zip(k, range(centre - 1, centre + 2), strict=True):
            axes.plot([source, centre], [0.82, 0.18], color=colour)
            place = centre + 0.62 * (source - centre)
            axes.text(place, 0.55, f"{weight:+g}", color=colour, ha="center", backgroundcolor="white")
    axes.set(xlim=(-0.6, 6.6), ylim=(-0.25, 1.25))
    axes.axis("off")
    return Section(
        "Cross-correlation in one dimension",
        (
            paragraph(
                "A kernel of <i>l</i> weights slides over the input, <i>s</i> places at a time; every output "
                "is the dot product of the kernel with the part of the input below it. Deep learning calls "
                "this convolution, although that would turn the kernel round first."
            ),
            formula("z<sub>i</sub> = &Sigma;<sub>j=0</sub><sup>l-1</sup> k<sub>j</sub> x<sub>i s + j</sub>"),
            arrays(x=x, kernel=k, stride=2, y=y),
            table(
                ("compared with", "error"),
                (
                    ("AIMA's example, [5, 9, 4]", error(y, [5, 9, 4])),
                    ("a loop in NumPy", error(y, correlate(x, k, stride=(2,)))),
                    (
                        "np.convolve with the kernel turned round, every other output",
                        error(y, np.convolve(x, k[::-1], "valid")[::2]),
                    ),
                ),
            ),
            Picture("one_dimension", "Each output sees three inputs; neighbours share one.", figure),
        ),
    )


def two_dimensions() -> Section:
    y = conv(NINE, FOUR)
    edges = np.ones((6, 8))
    edges[:, 2:6] = 0
    found = conv(edges, np.array([[1.0, -1]]))
    terms = " + ".join(f"{a:g}&middot;{b:g}" for a, b in zip(NINE[:2, :2].ravel(), FOUR.ravel(), strict=True))
    return Section(
        "Cross-correlation in two dimensions",
        (
            paragraph(f"The same with a matrix of weights. The first output is {terms} = {y[0, 0]:g}."),
            formula(
                "y<sub>ij</sub> = &Sigma;<sub>a</sub> &Sigma;<sub>b</sub> k<sub>ab</sub> "
                "x<sub>i+a, j+b</sub>\n"
                "size of y: (h - k<sub>h</sub> + 1) x (w - k<sub>w</sub> + 1)"
            ),
            Picture(
                "two_dimensions",
                "A window of the input and the output that it gives, in the same colour.",
                plots.grids(
                    (NINE, "input", {"marked": [block(0, 0, 2, 2), block(1, 1, 2, 2)]}),
                    (FOUR, "kernel", {}),
                    (y, "output", {"marked": [block(0, 0), block(1, 1)]}),
                ),
            ),
            paragraph(
                "The kernel [1, -1] is a detector of vertical edges: it answers where neighbours differ and "
                "is silent elsewhere."
            ),
            Picture(
                "edges",
                "The kernel [1, -1] on two edges: 1 where it gets dark, -1 where it gets light.",
                plots.grids((edges, "input", {}), (found, "output", {}), cell=0.36),
            ),
            table(
                ("", "of jcnn and the book", "of jcnn and NumPy"),
                (
                    ("3x3 with 2x2", error(y, [[19, 25], [37, 43]]), error(y, correlate(NINE, FOUR))),
                    (
                        "edges",
                        error(found, [[0, 1, 0, 0, 0, -1, 0]] * 6),
                        error(found, correlate(edges, np.array([[1.0, -1]]))),
                    ),
                ),
            ),
        ),
    )


def padding_and_stride() -> Section:
    padded, strided = conv(NINE, FOUR, padding=1), conv(NINE, FOUR, padding=1, stride=(3, 2))
    rows = []
    for k, p, s in (((3, 3), 1, 1), ((5, 3), (2, 1), 1), ((3, 3), 1, 2), ((3, 5), (0, 1), (3, 4))):
        rule = [
            (8 + 2 * pad - size) // step + 1
            for size, pad, step in zip(k, np.broadcast_to(p, 2), np.broadcast_to(s, 2), strict=True)
        ]
        got = conv(np.ones((8, 8)), np.ones(k), padding=p, stride=s).shape
        rows.append((f"{k[0]} x {k[1]}", str(p), str(s), f"{got[0]} x {got[1]}", error(got, rule)))
    return Section(
        "Padding and stride",
        (
            paragraph(
                "Zeros around the image keep its size; a stride of <i>s</i> moves the window <i>s</i> places "
                "at a time and makes the output about <i>s</i> times smaller."
            ),
            formula("m = floor((n + 2p - k) / s) + 1"),
            Picture(
                "padding_and_stride",
                "Padding 1, strides 3 down and 2 across: four windows, each in the colour of its output.",
                plots.grids(
                    (
                        np.pad(NINE, 1),
                        "input, padded",
                        {"padding": 1, "marked": [block(i, j, 2, 2) for i in (0, 3) for j in (0, 2)]},
                    ),
                    (FOUR, "kernel", {}),
                    (strided, "output", {"marked": [block(i, j) for i in (0, 1) for j in (0, 1)]}),
                ),
            ),
            arrays(stride_1=padded, strides_3_and_2=strided),
            table(
                ("", "of jcnn and NumPy"),
                (
                    ("stride 1", error(padded, correlate(NINE, FOUR, padding=1))),
                    ("strides 3 and 2", error(strided, correlate(NINE, FOUR, padding=1, stride=(3, 2)))),
                ),
            ),
            paragraph("An image of 8 x 8:"),
            table(("kernel", "padding", "stride", "output", "error of the formula"), rows),
        ),
    )


def channels() -> Section:
    convolve = jax.jit(jcnn.conv)
    x, k = np.stack([NINE, NINE + 1], -1), np.stack([FOUR, FOUR + 1], -1)
    w = np.stack([k, k + 1, k + 2], -1)
    y = np.asarray(convolve(x[None], w))[0]
    by_hand = np.stack([sum(correlate(x[..., c], w[..., c, o]) for c in (0, 1)) for o in range(3)], -1)
    mix = np.arange(6.0).reshape(2, 3)
    pointwise = np.asarray(convolve(x[None], mix[None, None]))[0]
    parts = [(x[..., c], f"input {c}", {"marked": [block(0, 0, 2, 2)]}) for c in (0, 1)]
    parts += [(k[..., c], f"kernel {c}", {}) for c in (0, 1)]
    return Section(
        "Channels",
        (
            paragraph(
                "A filter has a kernel for every input channel, and sums what they give. A layer has several "
                "filters, and every one makes a channel of the output: weights are [k, k, C, O]."
            ),
            formula(
                "y<sub>ijo</sub> = b<sub>o</sub> + &Sigma;<sub>a</sub> &Sigma;<sub>b</sub> "
                "&Sigma;<sub>c</sub> w<sub>abco</sub> x<sub>i+a, j+b, c</sub>"
            ),
            Picture(
                "channels",
                "Two channels in, one out: (0 + 1 + 6 + 12) + (1 + 4 + 12 + 20) = 56.",
                plots.grids(*parts, (y[..., 0], "output", {"marked": [block(0, 0)]}), cell=0.36),
            ),
            paragraph("With three filters, each a kernel of which the weights are one more:"),
            arrays(output_0=y[..., 0], output_1=y[..., 1], output_2=y[..., 2]),
            table(
                ("compared with", "error"),
                (
                    ("the book's [[56, 72], [104, 120]]", error(y[..., 0], [[56, 72], [104, 120]])),
                    ("a loop in NumPy", error(y, by_hand)),
                    ("a 1 x 1 convolution: x @ w at every pixel", error(pointwise, x @ mix)),
                ),
            ),
        ),
    )


def pooling() -> Section:
    sixteen = np.arange(16.0).reshape(4, 4)
    cases = (
        ("max, 2 x 2, stride 1", jcnn.max_pool, np.max, NINE, (2, 2), (1, 1), 0),
        ("average, 2 x 2, stride 1", jcnn.avg_pool, np.mean, NINE, (2, 2), (1, 1), 0),
        ("max, 3 x 3", jcnn.max_pool, np.max, sixteen, (3, 3), (3, 3), 0),
        ("max, 3 x 3, padding 1, stride 2", jcnn.max_pool, np.max, sixteen, (3, 3), (2, 2), 1),
        ("max, 2 x 3, padding 0 and 1", jcnn.max_pool, np.max, sixteen, (2, 3), (2, 3), ((0, 0), (1, 1))),
    )
    rows, outputs = [], []
    for name, op, function, x, size, stride, padding in cases:
        y = pool(op, x, window=size, stride=stride, padding=padding)
        rows.append(
            (
                name,
                str(y.astype(int).tolist()),
                error(y, slide(x, size, function, stride=stride, padding=padding)),
            )
        )
        outputs.append(y)
    return Section(
        "Pooling",
        (
            paragraph(
                "A window without weights: its largest number, or its mean, for each channel by itself. What "
                "is found stays found when it moves a little, and the image gets smaller."
            ),
            formula(
                "max:      y<sub>ij</sub> = max<sub>ab</sub> x<sub>i s + a, j s + b</sub>\n"
                "average:  y<sub>ij</sub> = mean<sub>ab</sub> x<sub>i s + a, j s + b</sub>"
            ),
            Picture(
                "pooling",
                "2 x 2 windows, stride 1.",
                plots.grids(
                    (NINE, "input", {"marked": [block(0, 0, 2, 2), block(1, 1, 2, 2)]}),
                    (outputs[0], "maximum", {"marked": [block(0, 0), block(1, 1)]}),
                    (outputs[1], "average", {"marked": [block(0, 0), block(1, 1)]}),
                ),
            ),
            table(("window over 0 ... 8 or 0 ... 15", "output", "error of NumPy's loop"), rows),
        ),
    )
