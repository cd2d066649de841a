"""jcnn against numbers that others have published: see tests/data/README.md."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from tests.checks import assert_close

DATA = pathlib.Path(__file__).parent / "data"


def load(name):
    return json.loads((DATA / name).read_text())


# --- NNlib.jl: forward and gradients -------------------------------------------------------------

NNLIB = {f"{case['op']} {case['case']}": case for case in load("nnlib.json")}


def test_all_of_nnlib_is_there():
    assert len(NNLIB) == 33


@pytest.mark.parametrize("name", NNLIB)
def test_nnlib(name):
    case = NNLIB[name]
    x, y, dx = (np.array(case[k], float) for k in ("x", "y", "dx"))
    images = jnp.asarray(x[None, ..., None])
    if "conv" in case["op"]:
        flip = np.flip if case["flip_kernel"] else np.asarray
        w = jnp.asarray(flip(np.array(case["w"], float))[..., None, None])
        config = {k: case.get(k, default) for k, default in (("stride", 1), ("dilation", 1), ("padding", 0))}
        got, res = jcnn.conv.fwd(images, w, **config)
        ddx, dw, _ = jcnn.conv.bwd(res, got)
        assert flip(dw[..., 0, 0]).tolist() == case["dw"]
    else:
        config = {
            "window": case["kernel_size"],
            "stride": case.get("stride"),
            "padding": case.get("padding", 0),
        }
        rule, more = (
            (jcnn.max_pool, {}) if "max" in case["op"] else (jcnn.avg_pool, {"count_include_pad": True})
        )
        got, res = rule.fwd(images, **config, **more)
        (ddx,) = rule.bwd(res, got)
    assert got[0, ..., 0].tolist() == y.tolist()
    assert ddx[0, ..., 0].tolist() == dx.tolist()


# --- CS231n, d2l, AIMA: forward ------------------------------------------------------------------


def linspace(low, high, *shape):
    return np.linspace(low, high, math.prod(shape)).reshape(shape)


def last(x):
    """NCHW to NHWC."""
    return jnp.asarray(np.moveaxis(np.asarray(x, float), 1, -1))


def first(y):
    return np.moveaxis(np.asarray(y), -1, 1)


def one(x):
    """(H, W) to NHWC."""
    return jnp.asarray(np.asarray(x, float)[None, ..., None])


def weights(w):
    """OIHW to HWIO."""
    return jnp.asarray(np.asarray(w, float).transpose(2, 3, 1, 0))


NINE, FOUR = np.arange(9.0).reshape(3, 3), np.arange(4.0).reshape(2, 2)
SIXTEEN = np.arange(16.0).reshape(4, 4)
PAIR, KERNELS = np.stack([NINE, NINE + 1]), np.stack([FOUR, FOUR + 1])


def single(x, k, **static):
    return jcnn.conv(one(x), weights(np.asarray(k)[None, None]), **static)[0, ..., 0]


def two_layer_scores():
    w1, b1 = linspace(-0.7, 0.3, 5, 50), linspace(-0.1, 0.9, 50)
    w2, b2 = linspace(-0.3, 0.4, 50, 7), linspace(-0.9, 0.1, 7)
    x = np.linspace(-5.5, 4.5, 15).reshape(5, 3).T
    hidden = jcnn.relu(jcnn.dense(*map(jnp.asarray, (x, w1, b1))))
    return jcnn.dense(hidden, jnp.asarray(w2), jnp.asarray(b2)), (w1, w2)


def two_layer_loss(reg=0.0):
    scores, matrices = two_layer_scores()
    penalty = 0.5 * reg * sum((w**2).sum() for w in matrices)
    return jcnn.softmax_cross_entropy(scores, jnp.array([0, 5, 1])).mean() + penalty


def random_loss():
    random = np.random.RandomState(231)  # what np.random.seed(231) seeds
    x, y = 0.001 * random.randn(50, 10), random.randint(10, size=50)
    return jcnn.softmax_cross_entropy(jnp.asarray(x), jnp.asarray(y)).mean()


def spatial_batch_norm():
    x = 4 * np.random.RandomState(231).randn(2, 3, 4, 5) + 10
    return jcnn.batch_norm(last(x), jnp.array([3.0, 4, 5]), jnp.array([6.0, 7, 8]))


def edges():
    x = np.ones((6, 8))
    x[:, 2:6] = 0
    return single(x, [[1, -1]])


COMPUTED = {
    "cs231n conv_forward": lambda: first(
        jcnn.conv(
            last(linspace(-0.1, 0.5, 2, 3, 4, 4)),
            weights(linspace(-0.2, 0.3, 3, 3, 4, 4)),
            jnp.linspace(-0.1, 0.2, 3),
            stride=2,
            padding=1,
        )
    ),
    "cs231n max_pool_forward": lambda: first(jcnn.max_pool(last(linspace(-0.3, 0.4, 2, 3, 4, 4)), window=2)),
    "cs231n affine_forward": lambda: jcnn.dense(
        jcnn.flatten(jnp.asarray(linspace(-0.1, 0.5, 2, 4, 5, 6))),
        jnp.asarray(linspace(-0.2, 0.3, 120, 3)),
        jnp.linspace(-0.3, 0.1, 3),
    ),
    "cs231n relu_forward": lambda: jcnn.relu(jnp.asarray(linspace(-0.5, 0.5, 3, 4))),
    "cs231n TwoLayerNet scores": lambda: two_layer_scores()[0],
    "cs231n TwoLayerNet softmax loss": two_layer_loss,
    "cs231n TwoLayerNet loss reg=1": lambda: two_layer_loss(1.0),
    "cs231n softmax_loss": random_loss,
    "cs231n spatial_batchnorm input mean": lambda: spatial_batch_norm()[1].mean,
    "cs231n spatial_batchnorm output std": lambda: np.std(spatial_batch_norm()[0], (0, 1, 2)),
    "d2l Fig 7.2.1 cross-correlation": lambda: single(NINE, FOUR),
    "d2l Fig 7.3.2 padding 1": lambda: single(NINE, FOUR, padding=1),
    "d2l Fig 7.3.3 strides (3,2)": lambda: single(NINE, FOUR, padding=1, stride=(3, 2)),
    "d2l 7.2.3 edge detection": edges,
    "d2l Fig 7.4.1 multi-input channels": lambda: first(jcnn.conv(last(PAIR[None]), weights(KERNELS[None])))[
        0, 0
    ],
    "d2l 7.4.2 multi-in multi-out": lambda: first(
        jcnn.conv(last(PAIR[None]), weights(np.stack([KERNELS, KERNELS + 1, KERNELS + 2])))
    )[0],
    "d2l Fig 7.5.1 max pool 2x2 stride 1": lambda: jcnn.max_pool(one(NINE), window=2, stride=1)[0, ..., 0],
    "d2l 7.5.1 avg pool 2x2 stride 1": lambda: jcnn.avg_pool(one(NINE), window=2, stride=1)[0, ..., 0],
    "d2l 7.5.2 maxpool 3 default stride": lambda: jcnn.max_pool(one(SIXTEEN), window=3)[0, ..., 0],
    "d2l 7.5.2 maxpool 3 pad1 stride2": lambda: jcnn.max_pool(one(SIXTEEN), window=3, padding=1, stride=2)[
        0, ..., 0
    ],
    "d2l 7.5.2 maxpool (2,3) stride (2,3) pad (0,1)": lambda: jcnn.max_pool(
        one(SIXTEEN), window=(2, 3), padding=(0, 1)
    )[0, ..., 0],
    "d2l 7.5.3 multichannel maxpool 3 pad1 stride2": lambda: first(
        jcnn.max_pool(last(np.stack([SIXTEEN, SIXTEEN + 1])[None]), window=3, padding=1, stride=2)
    )[0],
    "AIMA4 Fig 21.4 / eq. 21.8 1-D conv l=3 s=2": lambda: jcnn.conv(
        one([5, 6, 6, 2, 5, 6, 5]), jnp.array([1.0, -1, 1]).reshape(3, 1, 1), stride=2
    ).ravel(),
}
PUBLISHED = {case["name"]: case for case in load("cs231n_d2l.json")}


def test_all_published_values_are_computed():
    assert set(COMPUTED) == set(PUBLISHED)


@pytest.mark.parametrize("name", COMPUTED)
def test_published_value(name):
    case = PUBLISHED[name]
    got, expected = jax.device_get(COMPUTED[name]()), np.array(case["expected"], float)
    assert_close(got, expected, case["suggested_rel_tol"], name)
    relative = np.abs(got - expected) / np.maximum(np.abs(got) + np.abs(expected), 1e-8)
    assert relative.max() <= case["suggested_rel_tol"]
