"""Pools against PyTorch."""

import functools

import jax
import numpy as np
import pytest

import jcnn
from jcnn.geometry import window
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
    tied,
    torch,
)

pytestmark = needs_torch

WINDOWS = {
    "size": [(6, 5), (7,), (5, 6), (4, 3, 5), (1, 6)],
    "window": [3, 1, 2, (2, 3), (3, 1, 2), (4,)],
    "stride": [None, 1, 2, 3, (1, 2), (2, 1, 1)],
    "padding": [0, 1, (1, 0), (0, 1, 1), (2,)],
    "ceil_mode": [False, True],
    "channels": [2, 1],
}
DILATION = {"dilation": [1, 2, 3, (2, 1)]}
COUNT = {"count_include_pad": [False, True]}
ODD = [
    {"window": 1},
    {"window": 1, "stride": 3, "ceil_mode": True},
    {"window": 2, "stride": 4, "ceil_mode": True},
    {"window": (6, 5)},
    {"window": 3, "padding": 1, "stride": 2, "ceil_mode": True},
    {"size": (5, 5), "window": 2, "stride": 3, "padding": 1, "ceil_mode": True},  # would start in the padding
    {"size": (7, 7), "window": 2, "padding": 1, "ceil_mode": True},
    {"size": (5,), "window": (4,), "padding": (2,), "stride": 3, "ceil_mode": True, "channels": 1},
    {"size": (1, 1), "window": 2, "padding": 1, "stride": 1},
]


def possible(case) -> bool:
    """PyTorch's padding is at most half of the window."""
    size, dilation = case["size"], case.get("dilation", 1)
    values = (case["window"], case["stride"] or 1, case["padding"], dilation)
    rank = len(size)
    if any(isinstance(v, tuple) and len(v) != rank for v in values):
        return False
    half = zip(per_axis(case["window"], rank), per_axis(case["padding"], rank), strict=True)
    if not (fits(size, case["window"], dilation, case["padding"]) and all(k >= 2 * p for k, p in half)):
        return False
    # A window that reads nothing but padding has no gradient; in PyTorch some pixel gets it.
    keys = ("stride", "padding", "ceil_mode")
    config = {key: case[key] for key in keys} | {"stride": case["stride"] or case["window"]}
    w = window("test", case["window"], size=size, dilation=dilation, **config)
    return all(inside for axis, n in enumerate(size) for inside in w.taps_inside(axis, n))


def configured(name: str, case: dict, *keys: str):
    """jcnn's configuration, and PyTorch's pool of images with the same."""
    config = {key: case[key] for key in ("window", "stride", "padding", "ceil_mode", *keys)}
    theirs = dict(config)
    theirs["kernel_size"] = theirs.pop("window")
    return config, functools.partial(on_images(functional(f"{name}{len(case['size'])}d")), **theirs)


@pytest.mark.parametrize(
    "case", grid(14, [*ODD, {"window": 2, "dilation": 3}], valid=possible, **WINDOWS, **DILATION)
)
def test_max_pool(case):
    """With ties: they go to the first."""
    config, theirs = configured("max_pool", case, "dilation")
    x = tied(1, 2, *case["size"], case["channels"])
    same_as_torch(jcnn.max_pool, theirs, (x,), vjp=case["channels"] == 1, **config)


@pytest.mark.parametrize("size", [(7,), (5, 6), (4, 3, 5)], ids=str)
def test_indices_of_max_pool_and_unpooling(size):
    """PyTorch's indices are int64, ours int32; windows that do not overlap, so that none is there twice."""
    rank, x = len(size), tied(2, 2, *size, 3)
    pool = functional(f"max_pool{rank}d")

    def with_indices(x):
        y, indices = pool(channels_first(x), 2, padding=1, ceil_mode=True, return_indices=True)
        return channels_last(y), channels_last(indices)

    config = {"window": 2, "padding": 1, "ceil_mode": True}
    same_as_torch(jcnn.max_pool, with_indices, (x,), return_indices=True, **config)

    def unpool(y, indices):
        op = functional(f"max_unpool{rank}d")
        images = op(channels_first(y), channels_first(indices), 2, 2, 1, output_size=list(size))
        return channels_last(images)

    arrays = tuple(a.numpy() for a in with_indices(torch.tensor(x)))
    same_as_torch(jcnn.max_unpool, unpool, arrays, window=2, padding=1, output_size=size)


@pytest.mark.parametrize("case", grid(16, ODD, valid=possible, **WINDOWS, **COUNT))
def test_avg_pool(case):
    x = draw(3, 2, *case["size"], case["channels"])
    config, theirs = configured("avg_pool", case, "count_include_pad")
    same_as_torch(jcnn.avg_pool, theirs, (x,), **config)


@pytest.mark.parametrize("pool", ["max_pool", "avg_pool"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
def test_a_bad_value_stays_in_its_windows(bad, pool):
    """And a NaN's gradient is on the NaN."""
    x = draw(4, 1, 6, 5, 2)
    x[0, 2, 3, 1] = bad
    case = {"size": (6, 5), "window": 3, "stride": 2, "padding": 1, "ceil_mode": False}
    config, theirs = configured(pool, case)
    theirs = functools.partial(theirs, count_include_pad=False) if pool == "avg_pool" else theirs
    same_as_torch(getattr(jcnn, pool), theirs, (x,), **config)


def test_a_window_of_nothing_but_minus_infinity():
    x = np.full((1, 3, 4, 1), -np.inf)
    config, theirs = configured(
        "max_pool", {"size": (3, 4), "window": 2, "stride": 1, "padding": 1, "ceil_mode": False}
    )
    same_as_torch(jcnn.max_pool, theirs, (x,), **config)


POSITIVE = (1, 1.5, 3)  # PyTorch takes powers of x, not of |x|: of negative values only the even ones agree


@pytest.mark.parametrize("p", [1, 2, 4, *POSITIVE[1:]])
@pytest.mark.parametrize("size", [(7,), (5, 6), (4, 3, 5)], ids=str)
def test_lp_pool(size, p):
    x = draw(5, 2, *size, 2)
    x[0] = 0 if p > 1 and p % 2 == 0 else x[0]  # where the norm has its tip
    x = abs(x) + 0.1 if p in POSITIVE else x

    def theirs(x):
        return on_images(functional(f"lp_pool{len(size)}d"))(x, norm_type=p, kernel_size=3, stride=2)

    same_as_torch(jcnn.lp_pool, theirs, (x,), window=3, stride=2, p=p)


ADAPTIVE = {
    "size": [(6, 5), (7,), (4, 3, 5), (1, 6)],
    "output_size": [(4, 3), 1, 5, 7, (3,), (2, None), (3, 2, 4)],
}


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize(
    "case",
    grid(
        7,
        [{"size": (5,), "output_size": 3}, {"size": (3, 2), "output_size": 7}],
        valid=lambda c: not isinstance(c["output_size"], tuple) or len(c["output_size"]) == len(c["size"]),
        **ADAPTIVE,
    ),
)
def test_adaptive_pools(case, pool):
    x, output_size = tied(6, 2, *case["size"], 2), case["output_size"]
    op = functional(f"adaptive_{pool}_pool{x.ndim - 2}d")
    theirs = functools.partial(on_images(op), output_size=output_size)
    same_as_torch(getattr(jcnn, f"adaptive_{pool}_pool"), theirs, (x,), output_size=output_size)


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("size", [(5,), (3, 4), (2, 3, 2), (1, 1)], ids=str)
def test_global_pools(size, pool):
    def theirs(x):
        return functional(f"adaptive_{pool}_pool{len(size)}d")(channels_first(x), 1).flatten(1)

    same_as_torch(getattr(jcnn, f"global_{pool}_pool"), theirs, (tied(7, 2, *size, 3),))


def test_windows_with_a_nan_in_a_row():
    """Of several NaNs in a window the first has the gradient, in PyTorch the last."""
    x = np.array([1, np.nan, np.nan, 2]).reshape(1, 4, 1)
    y, res = jcnn.max_pool.fwd(x, window=4)
    assert np.isnan(y).all()
    assert jcnn.max_pool.bwd(res, np.ones((1, 1, 1)))[0].ravel().tolist() == [0, 1, 0, 0]
    t = torch.tensor(x, requires_grad=True)
    torch.nn.functional.max_pool1d(channels_first(t), 4).sum().backward()
    assert t.grad.ravel().tolist() == [0, 0, 1, 0]
    assert jax.grad(lambda x: jcnn.global_max_pool(x).sum())(x).ravel().tolist() == [0, 1, 0, 0]
