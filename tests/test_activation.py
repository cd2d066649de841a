"""Activations region by region: at kinks, where they saturate, for NaN, and against `jax.nn`."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close

ELEMENTWISE = {
    "relu": (jcnn.relu, jax.nn.relu, {}),
    "relu6": (jcnn.relu6, lambda x: jnp.minimum(jnp.maximum(x, 0), 6), {}),
    "leaky_relu": (jcnn.leaky_relu, lambda x: jax.nn.leaky_relu(x, 0.2), {"negative_slope": 0.2}),
    "sigmoid": (jcnn.sigmoid, jax.nn.sigmoid, {}),
    "tanh": (jcnn.tanh, jnp.tanh, {}),
    "silu": (jcnn.silu, jax.nn.silu, {}),
    "gelu": (jcnn.gelu, lambda x: jax.nn.gelu(x, approximate=False), {}),
    "gelu, tanh": (jcnn.gelu, lambda x: jax.nn.gelu(x, approximate=True), {"approximate": True}),
}
SOFTMAXES = {"softmax": (jcnn.softmax, jax.nn.softmax), "log_softmax": (jcnn.log_softmax, jax.nn.log_softmax)}


def derivative(f, x):
    x = jnp.asarray(x, float)
    return jax.vjp(f, x)[1](jnp.ones_like(x))[0]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_value_and_derivative_are_those_of_jax(name):
    rule, theirs, static = ELEMENTWISE[name]
    x = jnp.concatenate([jnp.linspace(-8, 8, 40), jnp.array([-1e4, -30.0, 30.0, 1e4])])
    dy = normal(0, *x.shape)
    (y, vjp), (expected, auto) = jax.vjp(lambda x: rule(x, **static), x), jax.vjp(theirs, x)
    for at in (slice(0, 40), slice(40, 44)):  # apart, so that 1e4 does not hide the rest
        assert_close(y[at], expected[at], 1e-12, "value")
        assert_close(vjp(dy)[0][at], auto(dy)[0][at], 1e-12, "cotangent")


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_saturated_at_1e4_is_finite_and_has_its_limit(name, dtype):
    rule, _, static = ELEMENTWISE[name]
    x = jnp.array([-1e4, 1e4], dtype)
    y, res = rule.fwd(x, **static)
    (dx,) = rule.bwd(res, jnp.ones_like(x))
    below, above = {"sigmoid": (0, 1), "tanh": (-1, 1), "relu6": (0, 6)}.get(name, (0, float(x[1])))
    slope = 0 if name in ("sigmoid", "tanh", "relu6") else 1
    alpha = static.get("negative_slope", 0)
    assert (y.dtype, dx.dtype) == (dtype, dtype)
    assert_close(y, np.array([below + alpha * float(x[0]), above]), 2e-2, "value")
    assert_close(dx, np.array([alpha, slope]), 2e-2, "derivative")


def test_relu6_gradient_is_zero_at_zero_and_at_six():
    assert derivative(jcnn.relu6, [-1.0, 0.0, 1e-300, 3.0, 6.0, 7.0]).tolist() == [0, 0, 1, 1, 0, 0]
    y, res = jcnn.relu6.fwd(jnp.array([jnp.nan, 8.0]))
    assert np.isnan(y[0])
    assert (float(y[1]), res.mask.dtype) == (6, bool)


def test_relu_gradient_at_zero_is_zero():
    assert derivative(jcnn.relu, [-1.0, -0.0, 0.0, 1e-300]).tolist() == [0, 0, 0, 1]


def test_leaky_relu_gradient_at_zero_is_its_slope():
    def leaky(x):
        return jcnn.leaky_relu(x, negative_slope=0.25)

    assert derivative(leaky, [-1.0, -0.0, 0.0, 1e-300]).tolist() == [0.25, 0.25, 0.25, 1]
    assert derivative(jcnn.leaky_relu, [-1.0, 1.0]).tolist() == [0.01, 1]


def test_leaky_relu_slope_may_be_negative():
    assert jcnn.leaky_relu(jnp.array([-2.0, 2.0]), negative_slope=-1.0).tolist() == [2, 2]


def test_leaky_relu_slope_may_be_a_whole_number():
    assert derivative(lambda x: jcnn.leaky_relu(x, negative_slope=0), [-2.0, 2.0]).tolist() == [0, 1]


@pytest.mark.parametrize("name", [*ELEMENTWISE, *SOFTMAXES])
def test_nan_passes_through(name):
    rule, _, static = (*(ELEMENTWISE | SOFTMAXES)[name], {})[:3]
    y = rule(jnp.array([[1.0, jnp.nan], [2.0, 3.0]]), **static)
    assert np.isnan(y[0, 1])
    assert np.isfinite(y[1]).all()


def test_values_at_hand_computed_points():
    assert float(jcnn.sigmoid(0.0)) == 0.5
    assert_close(derivative(jcnn.sigmoid, [0.0]), np.array([0.25]), 1e-15, "sigmoid'")
    assert_close(derivative(jcnn.tanh, [0.0]), np.array([1.0]), 1e-15, "tanh'")
    assert_close(derivative(jcnn.silu, [0.0]), np.array([0.5]), 1e-15, "silu'")
    assert_close(derivative(jcnn.gelu, [0.0]), np.array([0.5]), 1e-15, "gelu'")
    exact = 1.5 * (1 + math.erf(1.5 / math.sqrt(2))) / 2
    assert_close(jcnn.gelu(1.5), np.array(exact), 1e-14, "gelu")
    approximate = float(jcnn.gelu(1.5, approximate=True))
    assert 1e-5 < abs(approximate - exact) < 1e-2


def test_small_derivatives_keep_their_relative_precision():
    """gelu at -30: a normal distribution function of 1e-197 that 1 + erf would round to 0."""
    assert 0 < -float(jcnn.gelu(-30.0)) < 1e-190
    assert_close(derivative(jcnn.sigmoid, [-700.0]), np.exp(np.array([-700.0])), 1e-12, "sigmoid'")


# --- softmax -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOFTMAXES)
@pytest.mark.parametrize("axis", [-1, 0, (1, 2), (0, -1)])
def test_softmax_over_any_axes_is_jaxs(name, axis):
    rule, theirs = SOFTMAXES[name]
    x, dy = normal(1, 2, 3, 4), normal(2, 2, 3, 4)
    y, res = rule.fwd(x, axis=axis)
    expected, auto = jax.vjp(lambda x: theirs(x, axis), x)
    assert_close((y, rule.bwd(res, dy)), (expected, auto(dy)), 1e-12, name)


def test_softmax_sums_to_one_and_its_gradient_to_zero():
    x = normal(3, 4, 7) * 10
    for axis in (0, 1):
        y, res = jcnn.softmax.fwd(x, axis=axis)
        assert_close(y.sum(axis), np.ones(x.shape[1 - axis]), 1e-14, "sum")
        (dx,) = jcnn.softmax.bwd(res, normal(4, 4, 7))
        assert float(jnp.abs(dx).max()) > 1e-3
        assert float(jnp.abs(dx.sum(axis)).max()) < 1e-14


def test_softmaxes_of_huge_logits_are_finite():
    for dtype in (jnp.float32, jnp.float16):
        x = jnp.array([-1e4, 0, 1e4], dtype)
        assert jcnn.softmax(x).tolist() == [0, 0, 1]
        assert jcnn.log_softmax(x).tolist() == [-2e4, -1e4, 0]
        for rule in (jcnn.softmax, jcnn.log_softmax):
            (dx,) = rule.bwd(rule.fwd(x)[1], jnp.array([1, 2, 3], dtype))
            assert np.isfinite(dx).all()


def test_softmaxes_do_not_change_with_a_shift():
    x = normal(5, 3, 5)
    assert_close(jcnn.softmax(x + 1e3), jcnn.softmax(x), 1e-11, "softmax")
    assert_close(jcnn.log_softmax(x + 1e3), jcnn.log_softmax(x), 1e-11, "log_softmax")


def test_masked_logit_of_minus_infinity_has_probability_zero_and_gradient_zero():
    y, res = jcnn.softmax.fwd(jnp.array([-jnp.inf, 0.0, 0.0]))
    assert y.tolist() == [0, 0.5, 0.5]
    assert jcnn.softmax.bwd(res, jnp.array([7.0, 1.0, 0.0]))[0].tolist() == [0, 0.25, -0.25]
