"""Softmax cross-entropy: its options in terms of each other, extreme logits, and labels that are wrong."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close

loss = jcnn.softmax_cross_entropy
LOGITS = normal(0, 4, 5) * 2
LABELS = jnp.array([3, 0, 4, 1])
ONE_HOT = jax.nn.one_hot(LABELS, 5)
P = np.asarray(jax.nn.softmax(LOGITS))
DLOSS = jnp.array([1.0, -2.0, 0.5, 3.0])
WEIGHTS = jnp.array([0.5, 2.0, 0.0, 1.0, 3.0])


def both(labels, class_weights=None, logits=LOGITS, dloss=DLOSS, **static):
    """(loss, dlogits) per example; the labels are known, so they are checked."""

    @jax.jit
    def run(logits, dloss):
        y, res = loss.fwd(logits, labels, class_weights, **static)
        return y, loss.bwd(res, dloss)[0]

    return run(logits, dloss)


def test_loss_of_uniform_logits_is_log_of_the_number_of_classes():
    assert_close(loss(jnp.zeros((2, 7)), jnp.array([0, 6])), np.log([7.0, 7.0]), 1e-15, "log 7")


def test_loss_is_minus_log_probability_of_the_label_and_gradient_p_minus_q():
    y, dz = both(LABELS)
    assert_close(y, -np.log(P[np.arange(4), LABELS]), 1e-13, "loss")
    assert_close(dz, np.asarray(DLOSS)[:, None] * (P - ONE_HOT), 1e-13, "p - q")
    assert_close(dz.sum(-1) + 1, np.ones(4), 1e-14, "adding a constant to the logits changes nothing")


def test_int_labels_equal_their_one_hot_distributions():
    for static in ({}, {"label_smoothing": 0.2}, {"z_loss": 0.3}):
        for v in (None, WEIGHTS):
            assert_close(both(LABELS, v, **static), both(ONE_HOT, v, **static), 1e-13, f"{static}")


def test_label_smoothing_is_the_smoothed_distribution():
    smooth = 0.7 * ONE_HOT + 0.3 / 5
    assert_close(both(LABELS, label_smoothing=0.3), both(smooth), 1e-13, "ints")
    assert_close(both(ONE_HOT, label_smoothing=0.3), both(smooth), 1e-13, "distributions")
    assert_close(both(LABELS, label_smoothing=1.0), both(jnp.full((4, 5), 0.2)), 1e-13, "uniform")
    assert_close(both(LABELS, WEIGHTS, label_smoothing=0.3), both(smooth, WEIGHTS), 1e-13, "weighted")


def test_class_weights_scale_the_examples_of_their_class():
    factors = np.asarray(WEIGHTS)[np.asarray(LABELS)]
    y, dz = both(LABELS)
    assert_close(both(LABELS, WEIGHTS), (factors * y, factors[:, None] * dz), 1e-13, "weights")


def test_cotangents_of_class_weights_and_distributions():
    nll = -np.log(P)
    _, res = loss.fwd(LOGITS, LABELS, WEIGHTS)
    _, dq, dv = loss.bwd(res, DLOSS)
    assert dq is None
    expected = [sum(float(DLOSS[i]) * nll[i, k] for i in range(4) if LABELS[i] == k) for k in range(5)]
    assert_close(dv, np.array(expected), 1e-13, "class weights")
    _, res = loss.fwd(LOGITS, ONE_HOT, WEIGHTS, label_smoothing=0.25)
    dq = loss.bwd(res, DLOSS)[1]
    assert_close(dq, 0.75 * np.asarray(DLOSS)[:, None] * WEIGHTS * nll, 1e-13, "distribution")


def test_z_loss_adds_the_squared_log_partition():
    lse = np.log(np.exp(LOGITS).sum(-1))
    (y, dz), (plain, dplain) = both(LABELS, z_loss=0.1), both(LABELS)
    assert_close(y - plain, 0.1 * lse**2, 1e-12, "loss")
    assert_close(dz - dplain, np.asarray(DLOSS * 0.2 * lse)[:, None] * P, 1e-12, "gradient")


# --- ignored and impossible labels ---------------------------------------------------------------


@pytest.mark.parametrize("ignore", [-100, 3])
def test_ignored_examples_have_no_loss_and_no_gradient_even_with_nan_logits(ignore):
    labels = jnp.array([ignore, 0, 4, 1])
    logits = LOGITS.at[0].set(jnp.nan)
    y, dz = both(labels, logits=logits, ignore_index=ignore, label_smoothing=0.1, z_loss=0.1)
    assert (float(y[0]), dz[0].tolist()) == (0, [0] * 5)
    rest = both(LABELS[1:], logits=LOGITS[1:], dloss=DLOSS[1:], label_smoothing=0.1, z_loss=0.1)
    assert_close((y[1:], dz[1:]), rest, 1e-14, "the others are as without it")


def test_ignored_examples_with_nan_logits_do_not_reach_class_weights():
    @functools.partial(jax.jit, static_argnames="ignore_index")
    def dv(logits, labels, dloss, ignore_index=None):
        _, res = loss.fwd(logits, labels, WEIGHTS, ignore_index=ignore_index, label_smoothing=0.1)
        return loss.bwd(res, dloss)[2]

    with_nan = dv(LOGITS.at[0].set(jnp.nan), LABELS.at[0].set(-1), DLOSS, ignore_index=-1)
    assert_close(with_nan, dv(LOGITS[1:], LABELS[1:], DLOSS[1:]), 1e-13, "class weights")


@pytest.mark.parametrize("bad", [-1, 5, 1000])
def test_label_of_no_class_is_refused_eagerly(bad):
    with pytest.raises(ValueError, match=rf"labels: got the class {bad}, expected classes in \[0, 5\)"):
        loss(LOGITS, LABELS.at[2].set(bad))
    with pytest.raises(ValueError, match="labels"):
        loss(LOGITS, LABELS.at[2].set(bad), ignore_index=-7)


@pytest.mark.parametrize("bad", [-1, 5])
def test_label_of_no_class_is_nan_under_jit_for_its_example_only(bad):
    @jax.jit
    def run(logits, labels, weights):
        y, vjp = jax.vjp(lambda z, v: loss(z, labels, v), logits, weights)
        return y, *vjp(DLOSS)

    y, dz, _ = run(LOGITS, LABELS.at[2].set(bad), WEIGHTS)
    others = np.array([0, 1, 3])
    assert np.isnan(y[2])
    assert np.isnan(dz[2]).all()
    expected = run(LOGITS, LABELS, WEIGHTS)
    assert_close((y[others], dz[others]), (expected[0][others], expected[1][others]), 1e-14, "the others")


def test_uint8_labels_are_ints():
    assert_close(both(LABELS.astype(jnp.uint8)), both(LABELS), 1e-15, "uint8")
    assert_close(
        both(LABELS.astype(jnp.uint8), label_smoothing=0.1), both(LABELS, label_smoothing=0.1), 1e-15, "s"
    )


@pytest.mark.parametrize(("dtype", "classes"), [(jnp.uint8, 300), (jnp.int8, 150)])
def test_labels_of_a_dtype_too_narrow_for_the_classes_name_the_right_one(dtype, classes):
    logits, labels = normal(1, 2, classes), jnp.array([120, 3])
    expected = both(labels, logits=logits, dloss=jnp.ones(2))
    assert_close(both(labels.astype(dtype), logits=logits, dloss=jnp.ones(2)), expected, 1e-15, "narrow")
    narrow = both(labels.astype(dtype), logits=logits, dloss=jnp.ones(2), ignore_index=-1000)
    assert_close(narrow, expected, 1e-15, "ignore_index out of the dtype's range")


def test_uint8_label_beyond_the_classes_is_nan_under_jit_and_not_a_wrapped_class():
    y = jax.jit(loss)(LOGITS, jnp.array([255, 0, 4, 1], jnp.uint8))
    assert np.isnan(y).tolist() == [True, False, False, False]


@pytest.mark.parametrize("dtype", [bool, jnp.float32, jnp.float16, jnp.complex64])
def test_labels_that_are_neither_ints_nor_of_the_logits_dtype_are_refused(dtype):
    with pytest.raises(
        TypeError, match=r"softmax_cross_entropy: labels: got dtype .*, expected ints, or float64"
    ):
        loss(LOGITS, ONE_HOT.astype(dtype))


# --- extreme logits ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16])
def test_huge_logits_give_finite_loss_and_gradient(dtype):
    logits = jnp.array([[1e4, -1e4, 0], [-1e4, 1e4, 1e4], [1e4, 0, 0]], dtype)
    y, dz = both(jnp.array([1, 2, 0]), logits=logits, dloss=jnp.ones(3, dtype))
    assert (y.dtype, dz.dtype) == (dtype, dtype)
    assert_close(y, np.array([2e4, np.log(2), 0]), 1e-2, "loss")
    expected = np.array([[1, -1, 0], [0, 0.5, -0.5], [0, 0, 0]])
    assert_close(dz, expected, 1e-2, "gradient")


def test_small_loss_of_a_confident_prediction_is_not_rounded_to_zero():
    y = loss(jnp.array([[0.0, -30.0]]), jnp.array([0]))
    assert_close(y, np.exp(np.array([-30.0])), 2e-3, "log(1 + exp(-30))")


def test_logits_of_minus_infinity_are_classes_of_probability_zero():
    logits = LOGITS.at[:, 2].set(-jnp.inf)
    without = np.array([0, 1, 3, 4])
    y, dz = both(LABELS, logits=logits)
    expected = both(jnp.array([2, 0, 3, 1]), logits=LOGITS[:, without])
    assert_close((y, dz[:, without]), expected, 1e-13, "as if the class were not there")
    assert dz[:, 2].tolist() == [0] * 4
    assert_close(both(ONE_HOT, logits=logits), (y, dz), 1e-13, "distributions")
    assert np.isinf(loss(logits, jnp.array([2, 0, 4, 1]))[0])


def test_class_weight_cotangent_is_finite_with_logits_of_minus_infinity():
    _, res = loss.fwd(LOGITS.at[:, 2].set(-jnp.inf), LABELS, WEIGHTS)
    assert np.isfinite(loss.bwd(res, DLOSS)[2]).all()


# --- shapes and dtypes ---------------------------------------------------------------------------


def test_leading_axes_are_examples():
    logits, labels = normal(2, 2, 3, 4), jnp.array([[0, 3, 1], [2, 2, 0]])
    y, dz = both(labels, logits=logits, dloss=jnp.ones((2, 3)))
    flat = both(labels.ravel(), logits=logits.reshape(6, 4), dloss=jnp.ones(6))
    assert_close((y.ravel(), dz.reshape(6, 4)), flat, 1e-15, "leading axes")
    assert loss(logits[0, 0], jnp.array(3)).shape == ()


def test_an_empty_batch_has_no_loss():
    y, dz = both(jnp.zeros(0, int), logits=jnp.zeros((0, 5)), dloss=jnp.zeros(0))
    assert (y.shape, dz.shape) == ((0,), (0, 5))


def test_sum_over_4096_classes_is_accurate_in_bfloat16():
    y = loss(jnp.zeros((1, 4096), jnp.bfloat16), jnp.array([7]))
    assert_close(y, np.log([4096.0]), 2**-8, "log 4096")


def test_one_class_has_loss_zero():
    y, dz = both(jnp.zeros(3, int), logits=normal(3, 3, 1), dloss=jnp.ones(3))
    assert (y.tolist(), dz.tolist()) == ([0] * 3, [[0]] * 3)


def test_loss_agrees_with_optax():
    optax = pytest.importorskip("optax")
    expected = jax.vjp(lambda z: optax.softmax_cross_entropy_with_integer_labels(z, LABELS), LOGITS)
    assert_close(both(LABELS), (expected[0], expected[1](DLOSS)[0]), 1e-12, "ints")
    q = jax.nn.softmax(normal(4, 4, 5))
    expected = jax.vjp(lambda z, q: optax.softmax_cross_entropy(z, q), LOGITS, q)
    y, res = loss.fwd(LOGITS, q)
    assert_close((y, loss.bwd(res, DLOSS)[0]), (expected[0], expected[1](DLOSS)[0]), 1e-12, "distributions")
    smooth = optax.smooth_labels(ONE_HOT, 0.1)
    assert_close(
        loss(LOGITS, LABELS, label_smoothing=0.1), optax.softmax_cross_entropy(LOGITS, smooth), 1e-12, "s"
    )
