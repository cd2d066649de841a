"""Patches against loops and against `conv`; `fold` against the definition of an adjoint."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close

CASES = {  # spatial shape, configuration, padding as pairs
    "1-D": ((7,), {"window": 3, "stride": 2, "padding": "CAUSAL"}, ((2, 0),)),
    "odd": (
        (6, 5),
        {"window": (3, 2), "stride": (2, 3), "padding": ((0, 2), (1, 0)), "dilation": (2, 1)},
        ((0, 2), (1, 0)),
    ),
    "same": ((4, 5), {"window": 2, "padding": "SAME"}, ((0, 1), (0, 1))),
    "gaps": ((8, 7), {"window": 2, "stride": 3}, ((0, 0), (0, 0))),
    "3-D": ((3, 4, 2), {"window": (2, 3, 1), "padding": 1}, ((1, 1),) * 3),
}


def per_axis(value, rank):
    return (value,) * rank if isinstance(value, int) else value


def patches_by_loops(x, config, padding):
    rank = x.ndim - 2
    window, stride, dilation = (per_axis(config.get(k, 1), rank) for k in ("window", "stride", "dilation"))
    x = np.pad(x, [(0, 0), *padding, (0, 0)])
    spans = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    positions = [range(0, n - e + 1, s) for n, e, s in zip(x.shape[1:-1], spans, stride, strict=True)]
    rows = []
    for starts in itertools.product(*positions):
        places = [
            tuple(b + t * d for b, t, d in zip(starts, taps, dilation, strict=True))
            for taps in itertools.product(*map(range, window))
        ]
        rows.append(np.concatenate([x[(slice(None), *place)] for place in places], -1))
    return np.stack(rows, 1).reshape(len(x), *map(len, positions), -1)


@pytest.mark.parametrize("case", CASES)
def test_patches_are_what_windows_read_and_fold_is_the_adjoint(case):
    size, config, padding = CASES[case]
    x = normal(0, 2, *size, 3)
    y, res = jcnn.patches.fwd(x, **config)
    assert_close(y, patches_by_loops(np.asarray(x), config, padding), 0, "patches")
    p = normal(1, *y.shape)
    folded, fold_res = jcnn.fold.fwd(p, output_size=size, **config)
    # fold is linear, so that patches of one pixel at a time give all of its matrix.
    pixels = np.eye(x[0].size).reshape(-1, *x.shape[1:])
    columns = patches_by_loops(pixels, config, padding).reshape(len(pixels), -1)
    assert_close(folded, (np.asarray(p).reshape(2, -1) @ columns.T).reshape(x.shape), 1e-14, "fold")
    assert_close(jnp.vdot(y, p), jnp.vdot(x, folded), 1e-12, "<patches(x), p> = <x, fold(p)>")
    assert_close(jcnn.patches.bwd(res, p)[0], folded, 0, "backward of patches")
    assert_close(jcnn.fold.bwd(fold_res, x)[0], y, 0, "backward of fold")
    assert jax.tree.leaves((res, fold_res)) == []


def test_patches_times_weights_are_a_convolution():
    x, w = normal(2, 2, 6, 5, 3), normal(3, 3, 2, 3, 4)
    config = {"stride": (1, 2), "padding": "SAME", "dilation": (2, 1)}
    p = jcnn.patches(x, window=(3, 2), **config)
    assert_close(p @ w.reshape(-1, 4), jcnn.conv(x, w, **config), 1e-14, "conv")


def test_fold_counts_the_windows_that_read_a_pixel():
    ones = jcnn.patches(jnp.ones((1, 7, 1)), window=3, stride=2, dilation=1)
    assert jcnn.fold(ones, output_size=7, window=3, stride=2).ravel().tolist() == [1, 1, 2, 1, 2, 1, 1]
    assert jcnn.fold(ones, output_size=8, window=3, stride=2).ravel().tolist() == [1, 1, 2, 1, 2, 1, 1, 0]


def test_sums_are_accumulated_in_float32():
    """In bfloat16, 256 + 1 + 1 is 256."""
    p = jnp.array([[0, 0, 1], [0, 1, 0], [256, 0, 0]], jnp.bfloat16)[None]
    y, res = jcnn.fold.fwd(p, output_size=5, window=3)
    assert (y.dtype, y.ravel().tolist()) == (jnp.bfloat16, [0, 0, 258, 0, 0])
    _, res = jcnn.patches.fwd(y, window=3)
    assert jcnn.patches.bwd(res, p)[0].ravel().tolist() == [0, 0, 258, 0, 0]


REFUSED = {
    "window": (jcnn.patches, (2, 4, 4, 3), {"window": 5}, "window: got an extent of 5 on spatial axis 0"),
    "dilated": (jcnn.patches, (2, 4, 3), {"window": 3, "dilation": 2}, "window: got an extent of 5"),
    "rank": (jcnn.patches, (4, 3), {"window": 1}, "x: got shape"),
    "window of fold": (jcnn.fold, (1, 2, 5), {"window": 5, "output_size": 4}, "window: got an extent of 5"),
    "positions": (
        jcnn.fold,
        (1, 4, 4, 8),
        {"window": 2, "output_size": (4, 5)},
        r"p: got spatial shape \(4, 4\), expected \(3, 4\)",
    ),
    "taps": (jcnn.fold, (1, 3, 3), {"window": 2, "output_size": 4}, "p: got 3 values per patch"),
    "output size": (jcnn.fold, (1, 3, 2), {"window": 2, "output_size": (4, 4)}, "output_size: got"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case):
    op, shape, config, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"jcnn.{op.name}: {message}"):
        op(jnp.ones(shape), **config)


def test_no_examples():
    p, res = jcnn.patches.fwd(jnp.ones((0, 4, 4, 3)), window=2)
    assert p.shape == (0, 3, 3, 12)
    assert jcnn.patches.bwd(res, p)[0].shape == jcnn.fold(p, window=2, output_size=4).shape == (0, 4, 4, 3)
