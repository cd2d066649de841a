"""Convolutions (cross-correlations) through lax, their backwards convolutions again."""

import jax.numpy as jnp
from jax import lax

from experiments.classics import kit, misuse
from experiments.classics.kit import Classic, Rule, normal, part, plant, post

NHWC = ("NHWC", "HWIO", "NHWC")


def conv2d(stride, padding) -> Rule:
    """x [N, H, W, I], w [kh, kw, I, O], b [O]"""

    def f(x, w, b):
        return lax.conv_general_dilated(x, w, stride, padding, dimension_numbers=NHWC) + b

    def fwd(x, w, b):
        return f(x, w, b), (x, w)

    def bwd(res, dy):
        x, w = res
        return (
            conv2d_dx(x, flip(w), dy, stride, padding),
            conv2d_dw(x, w, dy, stride, padding),
            dy.sum((0, 1, 2)),
        )

    return f, fwd, bwd


def flip(w):
    return w[::-1, ::-1].swapaxes(2, 3)


def conv2d_dx(x, w_flipped, dy, stride, padding):
    """The full convolution of dy, zeros between its entries, with the flipped kernel."""
    pads = []
    for n, k, m, s, (low, _) in zip(
        x.shape[1:3], w_flipped.shape, dy.shape[1:3], stride, padding, strict=False
    ):
        pads.append((k - 1 - low, n - 1 - (m - 1) * s + low))
    return lax.conv_general_dilated(dy, w_flipped, (1, 1), pads, lhs_dilation=stride, dimension_numbers=NHWC)


def conv2d_dw(x, w, dy, stride, padding):
    """x correlated with dy, zeros between its entries; examples play the channels' part."""
    pads = []
    for n, k, m, s, (low, _) in zip(x.shape[1:3], w.shape, dy.shape[1:3], stride, padding, strict=False):
        pads.append((low, k + (m - 1) * s - n - low))
    layout = ("CHWN", "IHWO", "HWNC")
    return lax.conv_general_dilated(x, dy, (1, 1), pads, rhs_dilation=stride, dimension_numbers=layout)


def depthwise(x, w):
    """x [N, H, W, C], w [3, 3, C], zero padding"""
    w = w[:, :, None]
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=x.shape[-1]
    )


def depthwise_fwd(x, w):
    return depthwise(x, w), (x, w)


def depthwise_bwd(res, dy):
    x, w = res
    return depthwise(dy, w[::-1, ::-1]), depthwise_dw(x, dy)


def depthwise_dw(x, dy, product="nhwc,nhwc->c"):
    _, h, w, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = [[jnp.einsum(product, padded[:, i : i + h, j : j + w], dy) for j in range(3)] for i in range(3)]
    return jnp.stack([jnp.stack(row) for row in rows])


SAME = (1, 1), ((1, 1), (1, 1))
CONV = conv2d(*SAME)
UNEVEN = (2, 2), ((1, 0), (0, 2))
STRIDED = conv2d(*UNEVEN)
DEPTHWISE = depthwise, depthwise_fwd, depthwise_bwd


def conv_dx(wrong_flip):
    return part(CONV, 0, lambda res, dy: conv2d_dx(res[0], wrong_flip(res[1]), dy, *SAME))


def strided_dx(stride, padding):
    return part(STRIDED, 0, lambda res, dy: conv2d_dx(res[0], flip(res[1]), dy, stride, padding))


def depthwise_dx(wrong_flip):
    return part(DEPTHWISE, 0, lambda res, dy: depthwise(dy, wrong_flip(res[1])))


RULES = [
    Classic(
        "conv2d",
        CONV,
        normal((2, 5, 5, 3), (3, 3, 3, 3), (3,)),
        {
            "not_flipped": plant(
                "kernel not flipped in dx", kit.FLIPPED, conv_dx(lambda w: w.swapaxes(2, 3))
            ),
            "channels_kept": plant(
                "kernel's channels not swapped in dx, silent as I = O",
                kit.TRANSPOSED,
                conv_dx(lambda w: w[::-1, ::-1]),
            ),
            "dw_channels": plant(
                "dw's channels swapped, silent as I = O",
                kit.TRANSPOSED,
                post(CONV, 1, lambda d: d.swapaxes(2, 3)),
            ),
            "dw_space": plant(
                "dw's rows and columns swapped", kit.TRANSPOSED, post(CONV, 1, lambda d: d.swapaxes(0, 1))
            ),
            "dx_rolled": plant("dx off by one row", kit.SHIFTED, post(CONV, 0, lambda d: jnp.roll(d, 1, 1))),
            "db_mean": plant(
                "db averaged over space", kit.COUNT, part(CONV, 2, lambda _, dy: dy.mean((1, 2)).sum(0))
            ),
            "clipped": misuse.clipped(CONV),
        },
    ),
    Classic(
        "conv2d_strided",
        STRIDED,
        normal((2, 7, 5, 2), (3, 2, 2, 4), (4,)),
        {
            "padding_swapped": plant(
                "low and high padding swapped in dx", kit.SHIFTED, strided_dx((2, 2), ((0, 1), (2, 0)))
            ),
            "last_row": plant(
                "dx without the last row of dy",
                kit.SHIFTED,
                part(STRIDED, 0, lambda res, dy: STRIDED[2](res, dy.at[:, -1].set(0))[0]),
                "at the lower border",
            ),
            "dw_wraps": plant(
                "dw of x rolled round the border, not padded",
                kit.SHIFTED,
                part(
                    STRIDED,
                    1,
                    lambda res, dy: conv2d_dw(jnp.roll(res[0], 1, 1), res[1], dy, (2, 2), ((0, 0), (0, 2))),
                ),
                "at the upper border",
            ),
            "remainder": plant(
                "dx ends where the last window does",
                kit.SHAPE,
                part(STRIDED, 0, lambda res, dy: STRIDED[2](res, dy)[0][:, :-1]),
                "in its shape, as the stride leaves a rest",
            ),
            "last_channel": misuse.last_channel(STRIDED, 1),
            "absolute": misuse.absolute(STRIDED),
            "frozen_x": misuse.frozen(STRIDED, 0),
        },
    ),
    Classic(
        "depthwise_conv",
        DEPTHWISE,
        normal((2, 5, 4, 3), (3, 3, 3)),
        {
            "not_flipped": plant("kernel not flipped in dx", kit.FLIPPED, depthwise_dx(lambda w: w)),
            "half_flipped": plant(
                "kernel's rows alone flipped in dx", kit.FLIPPED, depthwise_dx(lambda w: w[::-1])
            ),
            "dw_axes": plant(
                "dw's columns and channels swapped, silent as there are 3 of both",
                kit.TRANSPOSED,
                post(DEPTHWISE, 1, lambda d: d.swapaxes(1, 2)),
            ),
            "channels_mixed": plant(
                "dw of the dense convolution, summed over x's channels",
                rf"mix|group|depthwise|cross|{kit.COUNT}|{kit.TRANSPOSED}",
                part(DEPTHWISE, 1, lambda res, dy: depthwise_dw(res[0], dy, "nhwi,nhwc->c")),
            ),
            "first_example": misuse.first_example(DEPTHWISE),
            "fewer": misuse.fewer(DEPTHWISE),
        },
    ),
]
