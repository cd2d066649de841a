"""Squared error, Huber loss and Kullback-Leibler divergence: closed forms, edges, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close

A, B = normal(0, 4, 3), normal(1, 4, 3)
DLOSS = normal(2, 4, 3)
LOG_Q = jax.nn.log_softmax(normal(3, 4, 5))
P = jax.nn.softmax(normal(4, 4, 5))
DROWS = normal(5, 4)


def both(op, *arrays, dloss=DLOSS, **static):
    y, res = op.fwd(*arrays, **static)
    return y, *op.bwd(res, dloss)


def test_squared_error():
    d = np.asarray(A - B)
    assert_close(both(jcnn.mse, A, B), (d**2, 2 * d * DLOSS, -2 * d * DLOSS), 1e-14, "mse")


@pytest.mark.parametrize("delta", [0.3, 2, 100.0])
def test_huber_loss_is_quadratic_within_delta_and_linear_beyond(delta):
    d = 2 * np.asarray(A - B)
    near = np.abs(d) <= delta
    loss = np.where(near, d**2 / 2, delta * (np.abs(d) - delta / 2))
    slope = np.where(near, d, delta * np.sign(d)) * np.asarray(DLOSS)
    assert_close(both(jcnn.huber, 2 * A, 2 * B, delta=delta), (loss, slope, -slope), 1e-14, "huber")


def test_huber_loss_at_delta_at_zero_and_at_infinity():
    d = jnp.array([0.5, -0.5, 0.0, np.inf, -np.inf])
    y, da, db = both(jcnn.huber, d, jnp.zeros(5), dloss=jnp.ones(5), delta=0.5)
    assert y.tolist() == [0.125, 0.125, 0, np.inf, np.inf]
    assert da.tolist() == [0.5, -0.5, 0, 0.5, -0.5]
    assert db.tolist() == (-da).tolist()


def test_squared_error_of_narrow_numbers_is_rounded_once():
    a = jnp.array([100.0, 3.0], jnp.bfloat16)
    b = jnp.array([99.5, -1.0], jnp.bfloat16)
    y, da, _ = both(jcnn.mse, a, b, dloss=jnp.ones(2, jnp.bfloat16))
    assert (y.tolist(), da.tolist(), y.dtype) == ([0.25, 16], [1, 8], jnp.bfloat16)


# --- Kullback-Leibler divergence -----------------------------------------------------------------


@pytest.mark.parametrize("log_targets", [False, True])
def test_divergence_is_the_mean_log_ratio(log_targets):
    q, p, d = np.asarray(LOG_Q), np.asarray(P), np.asarray(DROWS)[:, None]
    targets = jnp.log(P) if log_targets else P
    dp = d * (np.log(p) - q + 1) * (p if log_targets else 1)
    expected = (p * (np.log(p) - q)).sum(-1), -d * p, dp
    got = both(jcnn.kl_divergence, LOG_Q, targets, dloss=DROWS, log_targets=log_targets)
    assert_close(got, expected, 1e-13, "KL")
    assert_close(
        jcnn.kl_divergence(jnp.log(P), targets, log_targets=log_targets), np.zeros(4), 1, "of itself"
    )


def test_divergence_from_a_softmax_is_cross_entropy_less_entropy():
    entropy = -np.sum(np.asarray(P) * np.log(P), -1)
    logits = 3 * normal(6, 4, 5)

    def distilled(logits):
        return jcnn.kl_divergence(jcnn.log_softmax(logits), P)

    expected, pullback = jax.vjp(lambda z: jcnn.softmax_cross_entropy(z, P) - entropy, logits)
    got, own = jax.vjp(distilled, logits)
    assert_close((got, own(DROWS)), (expected, pullback(DROWS)), 1e-12, "distillation")


@pytest.mark.parametrize("log_targets", [False, True])
def test_classes_of_probability_zero_have_no_part(log_targets):
    """Not even where the prediction is log 0, and with a cotangent of 0."""
    rest = np.array([0, 1, 3, 4])
    p, q, d = P.at[:, 2].set(0), LOG_Q.at[:, 2].set(-jnp.inf), DROWS.at[0].set(0)
    y, dq, dp = both(
        jcnn.kl_divergence, q, jnp.log(p) if log_targets else p, dloss=d, log_targets=log_targets
    )
    targets = jnp.log(P) if log_targets else P
    expected = both(jcnn.kl_divergence, LOG_Q[:, rest], targets[:, rest], dloss=d, log_targets=log_targets)
    assert_close((y, dq[:, rest], dp[:, rest]), expected, 1e-13, "the others")
    assert dq[:, 2].tolist() == dp[:, 2].tolist() == [0] * 4
    assert np.isinf(jcnn.kl_divergence(q, P)).all()


# --- shapes, dtypes and what is refused ----------------------------------------------------------


@pytest.mark.parametrize("op", [jcnn.mse, jcnn.huber, jcnn.kl_divergence])
def test_nothing_is_broadcast_or_converted(op):
    name = op.array_names[1]
    with pytest.raises(ValueError, match=rf"{op.name}: targets: got shape \(4, 1\), expected shape \(4, 3\)"):
        op(A, B[:, :1])
    with pytest.raises(TypeError, match=f"{op.name}: {name}: got dtype float32, expected float64"):
        op(A, B.astype(jnp.float32))
    with pytest.raises(TypeError, match=f"{op.name}: .*got dtype int64, expected a floating-point array"):
        op(A, B.astype(int))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jcnn.huber(A, B, delta=0), "delta: got 0, expected a number > 0"),
        (lambda: jcnn.huber(A, B, delta=np.inf), "delta: got inf"),
        (lambda: jcnn.kl_divergence(A, B, log_targets=2), "log_targets: got 2, expected one of True, False"),
        (lambda: jcnn.kl_divergence(A[0, 0], B[0, 0]), r"log_predictions: got shape \(\), expected"),
    ],
)
def test_configuration_out_of_range_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_empty_batches_have_no_loss():
    empty = jnp.zeros((0, 3))
    for op in (jcnn.mse, jcnn.huber):
        assert [a.shape for a in both(op, empty, empty, dloss=empty)] == [(0, 3)] * 3
    shapes = [a.shape for a in both(jcnn.kl_divergence, empty, empty, dloss=jnp.zeros(0))]
    assert shapes == [(0,), (0, 3), (0, 3)]
