"""Upsampling against its matrix, written down by loops, and pixel shuffle against its index equation."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close


def matrix(n, f, method, align_corners):
    """[m, n]: what every pixel weighs in every output."""
    weights = np.zeros((n * f, n))
    for j in range(n * f):
        if method == "nearest":
            weights[j, j // f] = 1
            continue
        u = j * (n - 1) / max(n * f - 1, 1) if align_corners else (j + 0.5) / f - 0.5
        u = min(max(u, 0), n - 1)
        low = min(int(u), max(n - 2, 0))
        weights[j, low] += 1 - (u - low)
        if n > 1:
            weights[j, low + 1] += u - low
    return weights


UPSAMPLED = {  # spatial shape, factor
    "1-D": ((5,), (3,)),
    "2-D": ((4, 3), (2, 5)),
    "3-D": ((2, 3, 1), (1, 2, 4)),
}


@pytest.mark.parametrize("case", UPSAMPLED)
@pytest.mark.parametrize(
    ("method", "align_corners"), [("nearest", False), ("linear", False), ("linear", True)]
)
def test_upsample_is_its_matrix_and_its_backward_the_transpose(case, method, align_corners):
    size, factor = UPSAMPLED[case]
    x = normal(0, 2, *size, 3)
    y, res = jcnn.upsample.fwd(x, factor=factor, method=method, align_corners=align_corners)
    dy = normal(1, *y.shape)
    expected, adjoint = np.asarray(x), np.asarray(dy)
    for axis, (n, f) in enumerate(zip(size, factor, strict=True), start=1):
        w = matrix(n, f, method, align_corners)
        expected = np.moveaxis(np.tensordot(w, expected, (1, axis)), 0, axis)
        adjoint = np.moveaxis(np.tensordot(w.T, adjoint, (1, axis)), 0, axis)
    assert_close(y, expected, 1e-14, "y")
    assert_close(jcnn.upsample.bwd(res, dy)[0], adjoint, 1e-14, "dx")


def test_upsample_by_hand():
    x = jnp.array([0.0, 3.0]).reshape(1, 2, 1)
    for keywords, expected in (
        ({}, [0, 0, 3, 3]),
        ({"method": "linear"}, [0, 0.75, 2.25, 3]),
        ({"method": "linear", "align_corners": True}, [0, 1, 2, 3]),
    ):
        y = jcnn.upsample(x, factor=2, **keywords)
        assert_close(y.ravel(), np.array(expected), 1e-15, str(keywords))
    assert jcnn.upsample(x, factor=1, method="linear").ravel().tolist() == [0, 3]


def test_infinity_reaches_only_the_outputs_that_it_weighs_in():
    x = jnp.array([1.0, jnp.inf, 2.0, 5.0]).reshape(1, 4, 1)
    y = jcnn.upsample(x, factor=3, method="linear").ravel()
    assert np.isinf(y).tolist() == [False] * 2 + [True] * 5 + [False] * 5
    assert not np.isnan(y).any()
    _, res = jcnn.upsample.fwd(x, factor=3)
    (dx,) = jcnn.upsample.bwd(res, jnp.zeros((1, 12, 1)).at[0, 4].set(jnp.nan))
    assert np.isnan(dx).ravel().tolist() == [False, True, False, False]


def test_gradient_of_many_copies_is_summed_in_float32():
    _, res = jcnn.upsample.fwd(jnp.ones((1, 1, 1), jnp.bfloat16), factor=600)
    (dx,) = jcnn.upsample.bwd(res, jnp.ones((1, 600, 1), jnp.bfloat16))
    assert (dx.dtype, float(dx[0, 0, 0])) == (jnp.bfloat16, 600)


def test_nothing_is_kept_for_the_backward():
    for op, x in ((jcnn.upsample, normal(2, 1, 3, 2)), (jcnn.pixel_shuffle, normal(2, 1, 3, 2))):
        assert jax.tree.leaves(op.fwd(x, factor=2)[1]) == []


SHUFFLED = {"1-D": ((3,), (2,)), "2-D": ((2, 3), (3, 2)), "3-D": ((2, 1, 3), (2, 3, 1))}


@pytest.mark.parametrize("case", SHUFFLED)
def test_pixel_shuffle_is_its_index_equation(case):
    size, factor = SHUFFLED[case]
    channels, count = 2, int(np.prod(factor))
    x = np.asarray(normal(3, 2, *size, channels * count))
    expected = np.zeros((2, *np.multiply(size, factor), channels))
    for at in itertools.product(*map(range, size)):
        for r, offset in enumerate(itertools.product(*map(range, factor))):
            place = tuple(i * f + o for i, f, o in zip(at, factor, offset, strict=True))
            for c in range(channels):
                expected[(slice(None), *place, c)] = x[(slice(None), *at, c * count + r)]
    y, res = jcnn.pixel_shuffle.fwd(jnp.asarray(x), factor=factor)
    assert_close(y, expected, 0, "shuffled")
    assert_close(jcnn.pixel_shuffle.bwd(res, y)[0], x, 0, "backward")
    back, res = jcnn.pixel_unshuffle.fwd(y, factor=factor)
    assert_close(back, x, 0, "unshuffled")
    assert_close(jcnn.pixel_unshuffle.bwd(res, back)[0], y, 0, "backward")


X = jnp.ones((2, 4, 6, 8))
REFUSED = {
    "trilinear on 2 axes": (
        jcnn.upsample,
        X,
        {"factor": 2, "method": "trilinear"},
        "method: got 'trilinear', expected one of 'nearest', 'linear', 'bilinear'",
    ),
    "corners of squares": (jcnn.upsample, X, {"factor": 2, "align_corners": True}, "align_corners: got True"),
    "factor 0": (jcnn.upsample, X, {"factor": (2, 0)}, "factor: got"),
    "one factor for two axes": (jcnn.pixel_shuffle, X, {"factor": (2,)}, "factor: got"),
    "no pixels": (jcnn.upsample, X[:, :0], {"factor": 2}, "x: got shape"),
    "channels": (jcnn.pixel_shuffle, X, {"factor": 3}, "x: got 8 channels, expected a multiple of 9"),
    "pixels": (jcnn.pixel_unshuffle, X, {"factor": 4}, "x: got spatial shape"),
}


def test_linear_goes_by_its_names_in_2_and_3_dimensions():
    for x, name in ((X, "bilinear"), (X[..., None], "trilinear")):
        y = jcnn.upsample(x, factor=2, method=name, align_corners=True)
        assert_close(y, jcnn.upsample(x, factor=2, method="linear", align_corners=True), 0, name)


@pytest.mark.parametrize("case", REFUSED)
def test_bad_configuration_is_refused(case):
    op, x, config, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"jcnn.{op.name}: {message}"):
        op(x, **config)


@pytest.mark.parametrize("op", [jcnn.upsample, jcnn.pixel_shuffle, jcnn.pixel_unshuffle])
def test_no_examples(op):
    y, res = op.fwd(X[:0], factor=2)
    assert y.shape == op(X, factor=2)[:0].shape
    assert op.bwd(res, y)[0].shape == (0, 4, 6, 8)
