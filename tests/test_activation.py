"""Activations region by region: at kinks, where they saturate, for NaN, and against `jax.nn`."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn import net
from jcnn.verify.examples import normal
from tests.checks import assert_close

INF = math.inf
SCALE, SCALE_ALPHA = 1.0507009873554805, 1.7580993408473766  # of selu
# name: rule, what JAX has, configuration, and at -1e4 and at 1e4 value and derivative
ELEMENTWISE = {
    "relu": (jcnn.relu, jax.nn.relu, {}, (0, 0), (1e4, 1)),
    "relu6": (jcnn.relu6, jax.nn.relu6, {}, (0, 0), (6, 0)),
    "leaky_relu": (
        *(jcnn.leaky_relu, lambda x: jax.nn.leaky_relu(x, 0.2), {"negative_slope": 0.2}),
        *((-2e3, 0.2), (1e4, 1)),
    ),
    "hard_sigmoid": (jcnn.hard_sigmoid, jax.nn.hard_sigmoid, {}, (0, 0), (1, 0)),
    "sigmoid": (jcnn.sigmoid, jax.nn.sigmoid, {}, (0, 0), (1, 0)),
    "tanh": (jcnn.tanh, jnp.tanh, {}, (-1, 0), (1, 0)),
    "softplus": (jcnn.softplus, jax.nn.softplus, {}, (0, 0), (1e4, 1)),
    "elu": (jcnn.elu, jax.nn.elu, {}, (-1, 0), (1e4, 1)),
    "elu, alpha": (jcnn.elu, lambda x: jax.nn.elu(x, 0.3), {"alpha": 0.3}, (-0.3, 0), (1e4, 1)),
    "selu": (jcnn.selu, jax.nn.selu, {}, (-SCALE_ALPHA, 0), (SCALE * 1e4, SCALE)),
    "gelu": (jcnn.gelu, lambda x: jax.nn.gelu(x, approximate=False), {}, (0, 0), (1e4, 1)),
    "gelu, tanh": (
        *(jcnn.gelu, lambda x: jax.nn.gelu(x, approximate=True), {"approximate": True}),
        *((0, 0), (1e4, 1)),
    ),
    "silu": (jcnn.silu, jax.nn.silu, {}, (0, 0), (1e4, 1)),
    "mish": (jcnn.mish, jax.nn.mish, {}, (0, 0), (1e4, 1)),
    "hard_swish": (jcnn.hard_swish, jax.nn.hard_swish, {}, (0, 0), (1e4, 1)),
}


def derivative(f, x):
    x = jnp.asarray(x, float)
    return jax.vjp(f, x)[1](jnp.ones_like(x))[0]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_value_and_derivative_are_those_of_jax(name):
    rule, theirs, static, *_ = ELEMENTWISE[name]
    x = jnp.concatenate([jnp.linspace(-8, 8, 40), jnp.array([-1e4, -30.0, 30.0, 1e4])])
    dy = normal(0, *x.shape)
    (y, vjp), (expected, auto) = jax.vjp(lambda x: rule(x, **static), x), jax.vjp(theirs, x)
    for at in (slice(0, 40), slice(40, 44)):  # apart, so that 1e4 does not hide the rest
        assert_close(y[at], expected[at], 1e-12, "value")
        assert_close(vjp(dy)[0][at], auto(dy)[0][at], 1e-12, "cotangent")


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_saturated_at_1e4_is_finite_and_has_its_limit(name, dtype):
    rule, _, static, low, high = ELEMENTWISE[name]
    x = jnp.array([-1e4, 1e4], dtype)
    y, res = rule.fwd(x, **static)
    (dx,) = rule.bwd(res, jnp.ones_like(x))
    assert {a.dtype for a in jax.tree.leaves(res)} <= {jnp.dtype(dtype), jnp.dtype(bool)}
    assert (y.dtype, dx.dtype) == (dtype, dtype)
    for i, (value, slope) in enumerate((low, high)):
        assert_close(y[i], np.array(value), 1e-2, "value")
        assert_close(dx[i], np.array(slope), 1e-2, "derivative")


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_second_derivative_at_huge_x_is_zero(name):
    rule, _, static, *_ = ELEMENTWISE[name]
    x = jnp.array([-1e10, -1e4, 1e4, 1e10], jnp.float32)
    second = jax.vmap(jax.grad(jax.grad(lambda x: rule(x, **static))))(x)
    assert second.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_backward_is_arithmetic(name):
    rule, _, static, *_ = ELEMENTWISE[name]
    x = jnp.ones(3, jnp.bfloat16)
    jaxpr = jax.make_jaxpr(rule.bwd)(rule.fwd(x, **static)[1], x)
    arithmetic = {"add", "sub", "mul", "select_n", "convert_element_type", "broadcast_in_dim"}
    assert {e.primitive.name for e in jaxpr.eqns} - {"jit"} <= arithmetic


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_nan_passes_through(name):
    rule, _, static, *_ = ELEMENTWISE[name]
    y = rule(jnp.array([1.0, jnp.nan, 3.0]), **static)
    assert np.isnan(y).tolist() == [False, True, False]


TINY = 1e-300
KINKS = {  # what PyTorch has there
    "relu": (jcnn.relu, [-1.0, -0.0, 0.0, TINY], [0, 0, 0, 1]),
    "relu6": (jcnn.relu6, [-1.0, 0.0, TINY, 3.0, 6.0, 7.0], [0, 0, 1, 1, 0, 0]),
    "leaky_relu": (jcnn.leaky_relu, [-1.0, -0.0, 0.0, TINY], [0.01, 0.01, 0.01, 1]),
    "hard_sigmoid": (jcnn.hard_sigmoid, [-4.0, -3.0, -2.99, 2.99, 3.0, 4.0], [0, 0, 1 / 6, 1 / 6, 0, 0]),
    "elu": (lambda x: jcnn.elu(x, alpha=0.25), [-TINY, -0.0, 0.0, TINY], [0.25, 0.25, 0.25, 1]),
    "selu": (jcnn.selu, [-TINY, -0.0, 0.0, TINY], [SCALE_ALPHA, SCALE_ALPHA, SCALE_ALPHA, SCALE]),
    "hard_swish": (jcnn.hard_swish, [-INF, -3.0, 0.0, 1.5, 3.0, INF], [0, 0, 0.5, 1, 1, 1]),
}


@pytest.mark.parametrize("name", KINKS)
def test_derivative_at_kinks(name):
    rule, x, expected = KINKS[name]
    assert_close(derivative(rule, x), np.array(expected), 1e-15, name)


def test_leaky_relu_slope_may_be_negative():
    assert jcnn.leaky_relu(jnp.array([-2.0, 2.0]), negative_slope=-1.0).tolist() == [2, 2]
    assert derivative(lambda x: jcnn.leaky_relu(x, negative_slope=-1.0), [-2.0, 2.0]).tolist() == [-1, 1]


def test_leaky_relu_slope_may_be_a_whole_number():
    assert derivative(lambda x: jcnn.leaky_relu(x, negative_slope=0), [-2.0, 2.0]).tolist() == [0, 1]


def test_values_at_hand_computed_points():
    assert float(jcnn.sigmoid(0.0)) == 0.5
    assert_close(derivative(jcnn.sigmoid, [0.0]), np.array([0.25]), 1e-15, "sigmoid'")
    assert_close(derivative(jcnn.tanh, [0.0]), np.array([1.0]), 1e-15, "tanh'")
    assert_close(jcnn.softplus(0.0), np.array(math.log(2)), 1e-15, "softplus")
    assert_close(jcnn.elu(-math.log(2), alpha=3.0), np.array(-1.5), 1e-15, "elu")
    assert_close(derivative(jcnn.silu, [0.0]), np.array([0.5]), 1e-15, "silu'")
    assert_close(derivative(jcnn.gelu, [0.0]), np.array([0.5]), 1e-15, "gelu'")
    assert_close(jcnn.mish(math.log(2)), np.array(0.8 * math.log(2)), 1e-15, "mish")  # tanh(log 3) = 8 / 10
    assert_close(derivative(jcnn.mish, [0.0]), np.array([0.6]), 1e-15, "mish'")
    assert_close(jcnn.hard_swish(1.5), np.array(1.125), 1e-15, "hard_swish")
    exact = 1.5 * (1 + math.erf(1.5 / math.sqrt(2))) / 2
    assert_close(jcnn.gelu(1.5), np.array(exact), 1e-14, "gelu")
    approximate = float(jcnn.gelu(1.5, approximate=True))
    assert 1e-5 < abs(approximate - exact) < 1e-2


def test_small_derivatives_keep_their_relative_precision():
    """In float32, 1 + y of elu's y would be 0 already."""
    x = jnp.array([-60.0, -30.0], jnp.float32)
    e = np.exp(np.array([-60.0, -30.0]))
    expected = {"sigmoid": e, "softplus": e, "elu": e, "selu": SCALE_ALPHA * e}
    expected |= {"silu": (1 + np.float64(x)) * e, "mish": (1 + np.float64(x)) * e}
    for name, slope in expected.items():
        rule = getattr(jcnn, name)
        (dx,) = rule.bwd(rule.fwd(x)[1], jnp.ones_like(x))
        assert_close(np.float64(dx) / slope, np.ones(2), 1e-5, name)


def test_elu_refuses_an_alpha_that_is_no_number():
    with pytest.raises(ValueError, match=r"jcnn\.elu: alpha: got inf"):
        jcnn.elu(jnp.ones(2), alpha=INF)


# --- with more than one argument, or halves of one -----------------------------------------------


def test_prelu_learns_its_slope():
    x = jnp.array([[[-2.0, 3.0], [0.0, -1.0]], [[4.0, -0.0], [-3.0, -5.0]]])  # [2, 2, 2]
    dy = jnp.array([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]])
    y, res = jcnn.prelu.fwd(x, jnp.array([0.5, 0.25]))
    assert y.tolist() == [[[-1, 3], [0, -0.25]], [[4, 0], [-1.5, -1.25]]]
    dx, dslope = jcnn.prelu.bwd(res, dy)
    assert dx.tolist() == [[[0.5, 2], [1.5, 1]], [[5, 1.5], [3.5, 2]]]
    assert dslope.tolist() == [-2 - 21, -4 - 40]
    dx, dslope = jcnn.prelu.bwd(jcnn.prelu.fwd(x, jnp.array(0.5))[1], dy)
    assert dx.tolist() == [[[0.5, 2], [1.5, 2]], [[5, 3], [3.5, 4]]]
    assert float(dslope) == -23 - 44
    assert [float(ct) for ct in jax.grad(jcnn.prelu, (0, 1))(-2.0, 0.5)] == [0.5, -2]


def test_prelu_of_one_slope_is_leaky_relu():
    x = normal(1, 3, 4)
    assert_close(jcnn.prelu(x, 0.3), jcnn.leaky_relu(x, negative_slope=0.3), 0, "prelu")


def test_prelu_sums_low_precision_in_float32():
    """Products too: 129^2 / 128^2 is no bfloat16."""
    x = jnp.full((4096, 1), -129 / 128, jnp.bfloat16)
    for slope in (jnp.ones(1, jnp.float32), jnp.ones((), jnp.bfloat16)):
        y, res = jcnn.prelu.fwd(x, slope)
        dx, dslope = jcnn.prelu.bwd(res, -x)
        assert (y.dtype, dx.dtype, dslope.dtype) == (jnp.bfloat16, jnp.bfloat16, slope.dtype)
        expected = np.full(slope.shape, -4096 * (129 / 128) ** 2)
        assert_close(dslope, expected.astype(slope.dtype), 1e-7, "dslope")


@pytest.mark.parametrize("slope", [jnp.ones(1), jnp.ones(2), jnp.ones((3, 3))])
def test_prelu_refuses_slopes_of_another_shape(slope):
    with pytest.raises(ValueError, match=r"jcnn\.prelu: slope: got shape .* expected shape \(\) or \(3,\)"):
        jcnn.prelu(jnp.ones((2, 3)), slope)
    with pytest.raises(TypeError, match=r"jcnn\.prelu: slope: got dtype float64, expected float32"):
        jcnn.prelu(jnp.ones((2, 3), jnp.float32), jnp.ones(3))


@pytest.mark.parametrize("shared", [False, True])
def test_prelu_layer(shared):
    model = jcnn.chain(net.prelu(0.1, shared=shared), net.global_avg_pool())
    params, state = model.init(jax.random.key(0), (4, 2))
    slope = params[0]["slope"]
    assert slope.shape == (() if shared else (2,))
    assert_close(slope, np.full(slope.shape, 0.1), 1e-6, "slope")
    x, dy = normal(2, 3, 4, 2), normal(3, 3, 2)
    (y, _), res = model.fwd(params, state, x, train=True)
    assert_close(y, np.where(x > 0, x, slope * x).mean(1), 1e-12, "y")
    (dprelu, _), _ = model.bwd(res, dy)
    expected = (np.minimum(x, 0) * np.asarray(dy)[:, None] / 4).sum(None if shared else (0, 1))
    assert_close(dprelu["slope"], expected, 1e-12, "dslope")


@pytest.mark.parametrize("axis", [-1, 1])
def test_glu_is_one_half_gated_by_the_other(axis):
    x = np.asarray(normal(4, 3, 4, 6))
    a, b = np.split(x, 2, axis)
    s = 1 / (1 + np.exp(-b))
    y, res = jcnn.glu.fwd(x, axis=axis)
    assert_close(y, a * s, 1e-14, "y")
    dy = np.asarray(normal(5, *y.shape))
    expected = np.concatenate([s * dy, a * s * (1 - s) * dy], axis)
    assert_close(jcnn.glu.bwd(res, dy)[0], expected, 1e-14, "dx")


def test_glu_of_closed_and_open_gates():
    y, vjp = jax.vjp(jcnn.glu, jnp.array([3.0, 3.0, -1e4, 1e4], jnp.float16))
    assert y.tolist() == [0, 3]
    assert vjp(jnp.ones_like(y))[0].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("axis", "got"), [(0, r"x: got shape \(3, 4\)"), (2, "axis: got 2"), (0.5, "axis: got 0.5")]
)
def test_glu_refuses_halves_that_are_not(axis, got):
    with pytest.raises(ValueError, match=rf"jcnn\.glu: {got}"):
        jcnn.glu(jnp.ones((3, 4)), axis=axis)
