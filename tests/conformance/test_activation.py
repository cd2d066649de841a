"""Activations against PyTorch: ordinary values, kinks, huge values, NaN and infinity."""

import functools

import jax
import numpy as np
import pytest

import jcnn
from tests.conformance.torch_side import draw, functional, needs_torch, on_images, same_as_torch, torch

pytestmark = needs_torch

ORDINARY = np.r_[3 * draw(1, 30), -6, -3, -1, 0, 1, 3, 6]  # with every kink that is decided as in PyTorch
SATURATED = np.r_[-40, -15, 15, 50.0]  # PyTorch's softplus and mish are approximations from 20 to 36
HUGE = np.r_[-np.inf, -1e300, -1e30, -1000, 1000, 1e30, 1e300, np.inf]


def hard_sigmoid(x):
    """PyTorch's own has 1 / 6 as a float32 in its backward."""
    return torch.nn.functional.relu6(x + 3) / 6


def of_torch(name: str, **config):
    return functools.partial(functional(name), **config)


ELEMENTWISE = {
    "relu": (jcnn.relu, {}, of_torch("relu")),
    "relu6": (jcnn.relu6, {}, of_torch("relu6")),
    "leaky_relu": (jcnn.leaky_relu, {}, of_torch("leaky_relu")),
    "leaky_relu 0": (jcnn.leaky_relu, {"negative_slope": 0}, of_torch("leaky_relu", negative_slope=0.0)),
    "leaky_relu -0.5": (
        jcnn.leaky_relu,
        {"negative_slope": -0.5},
        of_torch("leaky_relu", negative_slope=-0.5),
    ),
    "sigmoid": (jcnn.sigmoid, {}, of_torch("sigmoid")),
    "tanh": (jcnn.tanh, {}, of_torch("tanh")),
    "softplus": (jcnn.softplus, {}, of_torch("softplus", threshold=40)),
    "elu": (jcnn.elu, {}, of_torch("elu")),
    "elu 0.3": (jcnn.elu, {"alpha": 0.3}, of_torch("elu", alpha=0.3)),
    "selu": (jcnn.selu, {}, of_torch("selu")),
    "silu": (jcnn.silu, {}, of_torch("silu")),
    "gelu": (jcnn.gelu, {}, of_torch("gelu")),
    "gelu tanh": (jcnn.gelu, {"approximate": True}, of_torch("gelu", approximate="tanh")),
    "mish": (jcnn.mish, {}, of_torch("mish")),
    "hard_sigmoid": (jcnn.hard_sigmoid, {}, hard_sigmoid),
    "hard_swish": (jcnn.hard_swish, {}, of_torch("hardswish")),
}


@pytest.mark.parametrize("values", ["ORDINARY", "SATURATED", "HUGE"])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name, values):
    rule, config, theirs = ELEMENTWISE[name]
    same_as_torch(rule, theirs, (globals()[values],), vjp=values == "ORDINARY", **config)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_a_nan_stays_where_it_is(name):
    """Its cotangent is a decision: jcnn's is that of JAX's functions, PyTorch's is often dy."""
    rule, config, _ = ELEMENTWISE[name]
    y, res = rule.fwd(np.array([-1, np.nan, 2]), **config)
    (dx,) = rule.bwd(res, np.ones(3))
    assert np.isnan(y).tolist() == [False, True, False]
    assert np.isfinite(dx[::2]).all()


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3), ()], ids=str)
def test_shapes_without_axes_or_values(shape):
    same_as_torch(jcnn.gelu, functional("gelu"), (draw(2, *shape),))


@pytest.mark.parametrize("slope", ["per channel", "one"])
@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3), (2, 3, 2, 1)], ids=str)
def test_prelu(shape, slope):
    x = draw(3, *shape)
    x[0] = 0

    def theirs(x, a):
        return on_images(functional("prelu"))(x, a.reshape(-1))

    same_as_torch(jcnn.prelu, theirs, (x, draw(4, shape[-1]) if slope == "per channel" else draw(4)))


@pytest.mark.parametrize(("shape", "axis"), [((3, 4), -1), ((4, 3), 0), ((2, 6, 1), 1), ((2,), 0)], ids=str)
def test_glu(shape, axis):
    same_as_torch(jcnn.glu, functools.partial(functional("glu"), dim=axis), (draw(5, *shape),), axis=axis)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(("shape", "axis"), [((3, 4), -1), ((3, 4), 0), ((2, 1, 3), 1), ((5,), 0)], ids=str)
def test_softmax(shape, axis, name):
    theirs = functools.partial(functional(name), dim=axis)
    same_as_torch(getattr(jcnn, name), theirs, (3 * draw(6, *shape),), axis=axis)


ROWS = {
    "far apart": [[1000.0, -1000, 0, 999]],
    "-inf": [[-np.inf, 1, 2, -np.inf]],
    "nothing but -inf": [[-np.inf] * 4],
    "inf": [[np.inf, 1, 2, 3]],
    "nan": [[1, np.nan, 2, 3], [1, 2, 3, 4]],
    "no rows": np.zeros((0, 4)),
}


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("rows", ROWS)
def test_softmax_of_extreme_values(rows, name):
    theirs = functools.partial(functional(name), dim=-1)
    same_as_torch(getattr(jcnn, name), theirs, (np.array(ROWS[rows]),))


def test_dropout_with_the_mask_that_was_drawn():
    """The random streams differ: PyTorch gets our mask."""
    x, key = draw(7, 4, 5), jax.random.key(0)
    for rate in (0, 0.3, 0.9):
        y, res = jcnn.dropout.fwd(x, key, rate=rate)
        kept = torch.tensor(np.array(res.kept))
        t = torch.tensor(x, requires_grad=True)
        expected = t * kept / (1 - rate)
        (dx,) = torch.autograd.grad(expected.sum(), t)
        np.testing.assert_allclose(y, expected.detach(), 1e-9)
        np.testing.assert_allclose(jcnn.dropout.bwd(res, np.ones_like(x))[0], dx, 1e-9)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 3), (2, 3, 2, 1)], ids=str)
def test_scales(shape):
    gamma = draw(9, shape[-1])
    same_as_torch(jcnn.layer_scale, lambda x, gamma: x * gamma, (draw(8, *shape), gamma))
    if len(shape) > 1:
        gate = draw(10, shape[0], shape[-1])

        def theirs(x, gate):
            return x * gate.reshape(len(x), *[1] * (x.ndim - 2), -1)

        same_as_torch(jcnn.scale_channels, theirs, (draw(8, *shape), gate))
