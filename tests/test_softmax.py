"""Softmax and its logarithm: against `jax.nn`, where they saturate, and what their backwards cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close

SOFTMAXES = {"softmax": (jcnn.softmax, jax.nn.softmax), "log_softmax": (jcnn.log_softmax, jax.nn.log_softmax)}


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


def test_log_softmax_gradient_in_bfloat16_is_not_that_of_a_rounded_logarithm():
    """y = -20.7 is rounded by up to 0.06, which a probability computed from it would be wrong by."""
    x = jnp.array([0.0, 3.3, 24.0], jnp.bfloat16)
    (dx,) = jcnn.log_softmax.bwd(jcnn.log_softmax.fwd(x)[1], jnp.array([0, 0, 1], jnp.bfloat16))
    p = np.exp(np.float64(x) - 24) / np.exp(np.float64(x) - 24).sum()
    assert_close(dx[:2] / p[:2], np.array([-1.0, -1.0]), 0.01, "relative")


@pytest.mark.parametrize("name", SOFTMAXES)
def test_backward_has_no_exponential(name):
    rule, _ = SOFTMAXES[name]
    x = normal(6, 2, 3)
    assert "exp" not in str(jax.make_jaxpr(rule.bwd)(rule.fwd(x)[1], x))


def test_softmaxes_do_not_change_with_a_shift():
    x = normal(5, 3, 5)
    assert_close(jcnn.softmax(x + 1e3), jcnn.softmax(x), 1e-11, "softmax")
    assert_close(jcnn.log_softmax(x + 1e3), jcnn.log_softmax(x), 1e-11, "log_softmax")


def test_masked_logit_of_minus_infinity_has_probability_zero_and_gradient_zero():
    y, res = jcnn.softmax.fwd(jnp.array([-jnp.inf, 0.0, 0.0]))
    assert y.tolist() == [0, 0.5, 0.5]
    assert jcnn.softmax.bwd(res, jnp.array([7.0, 1.0, 0.0]))[0].tolist() == [0, 0.25, -0.25]


@pytest.mark.parametrize("name", SOFTMAXES)
def test_nan_stays_in_its_row(name):
    y = SOFTMAXES[name][0](jnp.array([[1.0, jnp.nan], [2.0, 3.0]]))
    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1]).all()
