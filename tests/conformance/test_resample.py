"""Upsampling, pixel shuffle, patches and their sums against PyTorch."""

import functools
import math

import pytest

import jcnn
from tests.conformance.torch_side import (
    channels_first,
    channels_last,
    draw,
    fits,
    functional,
    grid,
    needs_torch,
    on_images,
    per_axis,
    same_as_torch,
)

pytestmark = needs_torch

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
ENLARGED = {
    "size": [(3, 4), (5,), (2, 3, 2), (1, 4), (1,)],
    "factor": [2, 1, 3, (2, 1), (3, 2)],
    "method": ["linear", "nearest"],
    "align_corners": [False, True],
}


def sensible(case) -> bool:
    factor = case["factor"]
    per_axis_fits = not isinstance(factor, tuple) or len(factor) == len(case["size"])
    return per_axis_fits and not (case["align_corners"] and case["method"] == "nearest")


@pytest.mark.parametrize("case", grid(16, valid=sensible, **ENLARGED))
def test_upsample(case):
    size, config = case["size"], {key: case[key] for key in ("factor", "method", "align_corners")}
    rank, linear = len(size), case["method"] == "linear"
    factors = per_axis(case["factor"], rank)
    theirs = functools.partial(
        on_images(functional("interpolate")),
        size=[n * f for n, f in zip(size, factors, strict=True)],
        mode=LINEAR[rank] if linear else "nearest",
        align_corners=case["align_corners"] if linear else None,
    )
    same_as_torch(jcnn.upsample, theirs, (draw(1, 2, *size, 3),), **config)


@pytest.mark.parametrize(("size", "factor"), [((2, 3), 2), ((3, 1), 3), ((2, 2), 1)], ids=str)
def test_pixel_shuffle_and_its_inverse(size, factor):
    """In two dimensions: PyTorch has no others."""
    small, large = (2, *size, 2 * factor**2), (2, *(n * factor for n in size), 2)
    shuffle = functools.partial(on_images(functional("pixel_shuffle")), upscale_factor=factor)
    unshuffle = functools.partial(on_images(functional("pixel_unshuffle")), downscale_factor=factor)
    same_as_torch(jcnn.pixel_shuffle, shuffle, (draw(2, *small),), factor=factor)
    same_as_torch(jcnn.pixel_unshuffle, unshuffle, (draw(3, *large),), factor=factor)


WINDOWS = {
    "size": [(5, 6), (4, 3), (1, 5)],
    "window": [2, 1, 3, (1, 3)],
    "stride": [1, 2, 3, (2, 1)],
    "padding": [0, 1, (2, 0)],
    "dilation": [1, 2, (1, 2)],
}


@pytest.mark.parametrize(
    "case",
    grid(
        8,
        [{"window": 1, "stride": 3}, {"window": 2, "dilation": 3}],
        valid=lambda c: fits(c["size"], c["window"], c["dilation"], c["padding"]),
        **WINDOWS,
    ),
)
def test_patches_and_fold(case):
    """PyTorch has each channel's taps together, jcnn each tap's channels, as in the weights of `conv`."""
    size, config = case["size"], {key: case[key] for key in ("window", "stride", "padding", "dilation")}
    theirs = dict(config)
    theirs["kernel_size"] = theirs.pop("window")
    taps, c = math.prod(per_axis(case["window"], 2)), 3
    m = jcnn.patches(draw(4, 2, *size, c), **config).shape[1:-1]

    def unfold(x):
        rows = functional("unfold")(channels_first(x), **theirs)
        return channels_last(rows).unflatten(-1, (c, taps)).transpose(-1, -2).reshape(2, *m, taps * c)

    def fold(p):
        rows = p.reshape(2, -1, taps, c).transpose(-1, -2).flatten(-2)
        return channels_last(functional("fold")(channels_first(rows), output_size=size, **theirs))

    same_as_torch(jcnn.patches, unfold, (draw(4, 2, *size, c),), **config)
    same_as_torch(jcnn.fold, fold, (draw(5, 2, *m, taps * c),), output_size=size, **config)
