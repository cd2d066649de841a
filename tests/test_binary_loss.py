"""Binary cross-entropy and focal loss: closed forms, saturated logits, hard and soft labels, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close

Z = normal(0, 4, 3) * 2
Y = jax.nn.sigmoid(normal(1, 4, 3))
HARD = normal(2, 4, 3) > 0
DLOSS = normal(3, 4, 3)
W = jnp.array([0.5, 2.0, 3.0])
P = 1 / (1 + np.exp(-np.asarray(Z)))
LOSSES = [jcnn.binary_cross_entropy, jcnn.focal_loss]


def both(op, *arrays, dloss=DLOSS, **static):
    """(loss, cotangents that there are)"""
    y, res = op.fwd(*arrays, **static)
    return y, [ct for ct in op.bwd(res, dloss) if ct is not None]


def as_floats(labels):
    return labels.astype(Z.dtype)


# --- binary cross-entropy ------------------------------------------------------------------------


def test_binary_cross_entropy_is_minus_log_likelihood_and_its_gradient_p_minus_y():
    y, (dz, dy) = both(jcnn.binary_cross_entropy, Z, Y)
    assert_close(y, -np.asarray(Y) * np.log(P) - (1 - np.asarray(Y)) * np.log(1 - P), 1e-13, "loss")
    assert_close(dz, DLOSS * (P - Y), 1e-13, "logits")
    assert_close(dy, -DLOSS * Z, 1e-13, "labels")


@pytest.mark.parametrize("weight", [W, jnp.array(3.0)], ids=["per class", "one"])
def test_positive_weight_scales_the_loss_of_label_1(weight):
    y, (dz, dy, dw) = both(jcnn.binary_cross_entropy, Z, Y, weight)
    w, t, d = np.broadcast_to(weight, (4, 3)), np.asarray(Y), np.asarray(DLOSS)
    assert_close(y, -w * t * np.log(P) - (1 - t) * np.log(1 - P), 1e-13, "loss")
    assert_close(dz, d * ((1 - t) * P - w * t * (1 - P)), 1e-13, "logits")
    assert_close(dy, d * (np.log(1 - P) - w * np.log(P)), 1e-13, "labels")
    of_each = -d * t * np.log(P)
    assert_close(dw, of_each.sum(0) if weight.ndim else of_each.sum(), 1e-13, "weight")


def test_smoothing_moves_labels_towards_one_half():
    y, (dz, dy) = both(jcnn.binary_cross_entropy, Z, Y, label_smoothing=0.3)
    moved, (dz_moved, dy_moved) = both(jcnn.binary_cross_entropy, Z, 0.7 * Y + 0.15)
    assert_close((y, dz, dy), (moved, dz_moved, 0.7 * dy_moved), 1e-13, "smoothing")


def test_two_classes_are_one_question():
    logits = jnp.stack([jnp.zeros_like(Z), Z], -1)
    expected = jcnn.softmax_cross_entropy(logits, HARD.astype(int))
    assert_close(jcnn.binary_cross_entropy(Z, HARD), expected, 1e-13, "softmax of (0, z)")


# --- focal loss ----------------------------------------------------------------------------------


def test_focal_loss_without_focus_is_binary_cross_entropy():
    for labels in (Y, HARD):
        got = both(jcnn.focal_loss, Z, labels, gamma=0, alpha=None)
        assert_close(got, both(jcnn.binary_cross_entropy, Z, labels), 1e-13, "gamma 0")


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_hard_labels_is_that_of_the_paper(gamma):
    y, (dz,) = both(jcnn.focal_loss, Z, HARD, gamma=gamma, alpha=0.25)
    sign, alpha = np.where(HARD, 1, -1), np.where(HARD, 0.25, 0.75)
    p = 1 / (1 + np.exp(-sign * np.asarray(Z)))
    assert_close(y, -alpha * (1 - p) ** gamma * np.log(p), 1e-13, "equation 5")
    slope = sign * alpha * (1 - p) ** gamma * (gamma * p * np.log(p) + p - 1)  # appendix B
    assert_close(dz, DLOSS * slope, 1e-13, "logits")
    assert_close(both(jcnn.focal_loss, Z, as_floats(HARD), gamma=gamma)[1][0], dz, 1e-13, "floats")


def test_focal_loss_agrees_with_optax():
    optax = pytest.importorskip("optax")
    y, pullback = jax.vjp(lambda z, t: optax.sigmoid_focal_loss(z, t, alpha=0.3, gamma=1.5), Z, Y)
    assert_close(
        both(jcnn.focal_loss, Z, Y, alpha=0.3, gamma=1.5), (y, list(pullback(DLOSS))), 1e-12, "optax"
    )


# --- saturated logits ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e4, np.inf])
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16, jnp.float16])
def test_saturated_right_answers_have_no_loss_and_no_gradient(size, dtype):
    z = jnp.array([size, -size], dtype)
    ones = jnp.ones(2, dtype)
    for labels in (jnp.array([1, 0]), jnp.array([1, 0], dtype)):
        y, (dz, *dy) = both(jcnn.binary_cross_entropy, z, labels, dloss=ones)
        assert (y.tolist(), dz.tolist()) == ([0, 0], [0, 0])
        assert np.isfinite(dy).all() or np.isinf(size)
        for gamma in (0.5, 2.0):
            y, (dz, *dy) = both(jcnn.focal_loss, z, labels, dloss=ones, gamma=gamma)
            assert (y.tolist(), dz.tolist()) == ([0, 0], [0, 0])
            assert all(ct.tolist() == [0, 0] for ct in dy)


@pytest.mark.parametrize("labels", [jnp.array([0, 1]), jnp.array([0.0, 1.0])], ids=["ints", "floats"])
def test_saturated_wrong_answers_cost_their_logit(labels):
    ones = jnp.ones(2)
    y, (dz, *_) = both(jcnn.binary_cross_entropy, jnp.array([1e4, -1e4]), labels, dloss=ones)
    assert (y.tolist(), dz.tolist()) == ([1e4, 1e4], [1, -1])
    y, (dz, *_) = both(jcnn.focal_loss, jnp.array([1e4, -1e4]), labels, dloss=ones, gamma=0.5, alpha=None)
    assert (y.tolist(), dz.tolist()) == ([1e4, 1e4], [1, -1])
    for op in LOSSES:
        y, (dz, *_) = both(op, jnp.array([np.inf, -np.inf]), labels, dloss=ones)
        assert np.isinf(y).all()
        assert np.isfinite(dz).all()


@pytest.mark.parametrize("labels", [jnp.array([1, 0]), jnp.array([1.0, 0.0])], ids=["ints", "floats"])
def test_small_losses_and_slopes_are_not_rounded_to_zero(labels):
    z, tail = jnp.array([50.0, -50.0]), np.exp(-50)
    y, (dz, *_) = both(jcnn.binary_cross_entropy, z, labels, dloss=jnp.ones(2))
    assert_close((y, dz), (np.array([tail, tail]), np.array([-tail, tail])), 1e-13, "cross-entropy")
    y, (dz, *_) = both(jcnn.focal_loss, z, labels, dloss=jnp.ones(2), gamma=0.5, alpha=None)
    slope = 1.5 * tail**1.5
    assert_close((y, dz), (np.full(2, tail**1.5), np.array([-slope, slope])), 1e-13, "focal loss")


@pytest.mark.parametrize("op", LOSSES)
def test_curvature_is_right_at_zero_and_finite_where_saturated(op):
    static = {"gamma": 0.5} if op is jcnn.focal_loss else {}
    z, labels = jnp.array([0.0, 0.0, 3.0, 200.0, -200.0]), jnp.array([1, 0, 0, 1, 0])

    def curvature(z, labels):
        return jax.grad(lambda z: jnp.sum(jax.grad(lambda z: jnp.sum(op(z, labels, **static) ** 2))(z)))(z)

    def by_jax(z, labels):
        return jax.vmap(jax.hessian(lambda z, y: op.reference(z, y, **static) ** 2))(z, labels)

    expected = np.append(by_jax(z[:3], labels[:3]), [0, 0])
    for kind in (int, float):
        assert_close(curvature(z, labels.astype(kind)), expected, 1e-12, str(kind))


# --- labels and what is refused ------------------------------------------------------------------


@pytest.mark.parametrize("op", LOSSES)
def test_bools_ints_and_floats_are_the_same_labels(op):
    y, (dz, _) = both(op, Z, as_floats(HARD))
    for dtype in (bool, jnp.uint8, jnp.int32):
        assert_close(both(op, Z, HARD.astype(dtype)), (y, [dz]), 1e-13, str(dtype))


@pytest.mark.parametrize("op", LOSSES)
def test_int_that_is_no_label_is_refused_or_nan_under_jit(op):
    labels = HARD.astype(int).at[1, 2].set(-1)
    with pytest.raises(ValueError, match=rf"{op.name}: labels: got the label -1, expected 0 and 1"):
        op(Z, labels)
    y, dz = jax.jit(lambda z, t: (op(z, t), jax.grad(lambda z: jnp.sum(op(z, t)))(z)))(Z, labels)
    assert np.argwhere(np.isnan(y)).tolist() == np.argwhere(np.isnan(dz)).tolist() == [[1, 2]]


@pytest.mark.parametrize("op", LOSSES)
@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (Z, Y[:, 0], ValueError, r"labels: got shape \(4,\), expected shape \(4, 3\) like logits"),
        (Z, Y.astype(jnp.float32), TypeError, "labels: got dtype float32, expected ints, bools, or float64"),
        (Z, Y.astype(complex), TypeError, "labels: got dtype complex128"),
        (Z.astype(int), Y, TypeError, "logits: got dtype int64"),
    ],
)
def test_labels_that_do_not_fit_are_refused(op, logits, labels, error, message):
    with pytest.raises(error, match=f"{op.name}: {message}"):
        op(logits, labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jcnn.binary_cross_entropy(Z, Y, W[:2]), r"pos_weight: got shape \(2,\), expected shape"),
        (lambda: jcnn.binary_cross_entropy(Z, Y, label_smoothing=1.5), "label_smoothing: got 1.5"),
        (lambda: jcnn.focal_loss(Z, Y, gamma=-1), "gamma: got -1, expected a number in"),
        (lambda: jcnn.focal_loss(Z, Y, alpha=-1), r"alpha: got -1, expected a number in \[0, 1\]"),
    ],
)
def test_configuration_out_of_range_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("op", LOSSES)
def test_no_elements_and_one_element(op):
    y, (dz, _) = both(op, jnp.zeros((0, 3)), jnp.zeros((0, 3)), dloss=jnp.zeros((0, 3)))
    assert (y.shape, dz.shape) == ((0, 3), (0, 3))
    assert op(jnp.array(0.0), jnp.array(True)).shape == ()
