"""Batch norm: statistics, masks, precision, the statistics' own cotangents, and batches in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn import BatchStats
from jcnn.verify.examples import normal
from tests.checks import assert_close, draw

X = normal(0, 3, 4, 2, 5) * 3 + 2
GAMMA, BETA = normal(1, 5), normal(2, 5)
ONES, ZEROS = jnp.ones(5), jnp.zeros(5)


def test_output_has_mean_zero_and_variance_one():
    y, stats = jcnn.batch_norm(X, ONES, ZEROS, eps=1e-12)
    assert_close(np.mean(y, (0, 1, 2)) + 1, np.ones(5), 1e-12, "mean")
    assert_close(np.var(y, (0, 1, 2)), np.ones(5), 1e-11, "variance")
    assert_close(stats, (np.mean(X, (0, 1, 2)), np.var(X, (0, 1, 2))), 1e-12, "statistics are biased")


def test_scale_and_shift_come_after():
    plain, _ = jcnn.batch_norm(X, ONES, ZEROS)
    y, _ = jcnn.batch_norm(X, GAMMA, BETA)
    assert_close(y, GAMMA * plain + BETA, 1e-12, "affine")


def test_eps_is_added_to_the_variance():
    y, _ = jcnn.batch_norm(jnp.array([[-1.0], [1.0]]), jnp.ones(1), jnp.zeros(1), eps=3.0)
    assert_close(y, np.array([[-0.5], [0.5]]), 1e-15, "eps")


def test_constant_channel_becomes_beta_and_has_finite_gradient():
    x = X.at[..., 2].set(1e4)
    y, stats = jcnn.batch_norm(x, GAMMA, BETA)
    assert_close(y[..., 2], jnp.full_like(y[..., 2], BETA[2]), 1e-9, "constant channel")
    assert float(stats.var[2]) == 0
    dx = jax.grad(lambda x: jnp.vdot(draw(3, x), jcnn.batch_norm(x, GAMMA, BETA)[0]))(x)
    assert np.isfinite(dx).all()
    assert float(jnp.abs(dx[..., 2]).max()) > 1


def test_batch_of_one_vector_gives_beta_and_no_gradient_to_x():
    x = normal(3, 1, 5)
    (y, _), res = jcnn.batch_norm.fwd(x, GAMMA, BETA)
    assert_close(y, BETA[None], 1e-12, "y")
    dx, dgamma, dbeta, dmask = jcnn.batch_norm.bwd(res, (jnp.ones_like(y), BatchStats(ZEROS, ZEROS)))
    assert (dx.tolist(), dgamma.tolist(), dbeta.tolist()) == ([[0] * 5], [0] * 5, [1] * 5)
    assert dmask is None


def test_float32_is_accurate_for_mean_1e4_and_deviation_1():
    wide = np.random.default_rng(0).standard_normal((64, 8, 8, 2)) + 1e4
    x = jnp.asarray(wide, jnp.float32)
    exact = np.asarray(x, np.float64)
    y, stats = jcnn.batch_norm(x, jnp.ones(2, jnp.float32), jnp.zeros(2, jnp.float32))
    assert stats.var.dtype == jnp.float32
    assert_close(stats.var, exact.var((0, 1, 2)), 1e-4, "variance")
    expected = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    assert_close(y, expected, 1e-3, "y")


def test_empty_batches_and_channels_stay_empty():
    for shape in ((0, 4, 5), (3, 0, 5), (3, 4, 0)):
        x, c = jnp.zeros(shape), jnp.ones(shape[-1])
        (y, stats), res = jcnn.batch_norm.fwd(x, c, c)
        cts = jcnn.batch_norm.bwd(res, (y, stats))
        assert [a.shape for a in (y, stats.mean, *cts[:3])] == [shape, c.shape, shape, c.shape, c.shape]
        y, res = jcnn.batch_norm_inference.fwd(x, c, c, c, c)
        cts += jcnn.batch_norm_inference.bwd(res, y)
        assert all(np.isfinite(a).all() for a in (*stats, *cts) if a is not None)


# --- masks ---------------------------------------------------------------------------------------


def test_masked_statistics_are_those_of_the_subset():
    examples = jnp.array([True, False, True])
    y, stats = jcnn.batch_norm(X, GAMMA, BETA, examples)
    y_subset, of_subset = jcnn.batch_norm(X[::2], GAMMA, BETA)
    assert_close(stats, of_subset, 1e-13, "examples")
    assert_close(y[::2], y_subset, 1e-12, "y of the counted")
    expected = GAMMA * (X[1] - stats.mean) / np.sqrt(stats.var + 1e-5) + BETA
    assert_close(y[1], expected, 1e-12, "y of the others is normalised too")
    positions = normal(4, 3, 4, 2) > 0
    _, stats = jcnn.batch_norm(X, GAMMA, BETA, positions)
    chosen = np.asarray(X)[np.asarray(positions)]
    assert_close(stats, (chosen.mean(0), chosen.var(0)), 1e-12, "positions")


def test_masks_of_all_shapes_and_dtypes_mean_the_same():
    examples = np.array([True, False, True])
    expected = jcnn.batch_norm(X, GAMMA, BETA, examples)
    for mask in (
        examples[:, None, None],
        examples[:, None, None, None],
        np.broadcast_to(examples[:, None, None], (3, 4, 2)),
        np.broadcast_to(examples[:, None, None, None], (3, 4, 2, 1)),
        examples.astype(np.int32),
        examples.astype(np.float64) * 2.5,
    ):
        assert_close(jcnn.batch_norm(X, GAMMA, BETA, mask), expected, 1e-14, f"{mask.dtype}{mask.shape}")


def test_garbage_where_the_mask_is_zero_reaches_neither_statistics_nor_gradients():
    mask = jnp.array([True, True, False])

    def loss(x, gamma):
        y, stats = jcnn.batch_norm(x, gamma, BETA, mask)
        return jnp.vdot(draw(5, y[:2]), y[:2]) + jnp.vdot(ONES, stats.mean + stats.var)

    clean, dirty = X.at[2].set(0), X.at[2].set(1e30)
    assert_close(
        jax.grad(loss, (0, 1))(dirty, GAMMA), jax.grad(loss, (0, 1))(clean, GAMMA), 1e-12, "huge garbage"
    )
    for garbage in (jnp.nan, jnp.inf):
        x = X.at[2].set(garbage)
        y, stats = jcnn.batch_norm(x, GAMMA, BETA, mask)
        assert_close(
            (y[:2], stats),
            (jcnn.batch_norm(clean, GAMMA, BETA, mask)[0][:2], jcnn.batch_norm(clean, GAMMA, BETA, mask)[1]),
            0,
            f"{garbage}",
        )


def test_all_masked_is_finite_and_gives_no_gradient_to_statistics():
    mask = jnp.zeros(3, bool)
    (y, stats), res = jcnn.batch_norm.fwd(X, GAMMA, BETA, mask)
    assert (stats.mean.tolist(), stats.var.tolist()) == ([0] * 5, [0] * 5)
    assert np.isfinite(y).all()
    dx, dgamma, _, _ = jcnn.batch_norm.bwd(res, (jnp.zeros_like(y), BatchStats(ONES, ONES)))
    assert (float(jnp.abs(dx).max()), float(jnp.abs(dgamma).max())) == (0, 0)


# --- cotangents of the statistics ----------------------------------------------------------------


def test_returned_statistics_have_their_true_cotangents():
    u, v = normal(6, 5), normal(7, 5)
    of_mean, of_var = (
        jax.grad(lambda x, i=i, c=c: jnp.vdot(c, jcnn.batch_norm(x, GAMMA, BETA)[1][i]))(X)
        for i, c in ((0, u), (1, v))
    )
    m = X.size / 5
    assert_close(of_mean, np.broadcast_to(u / m, X.shape), 1e-13, "dmean / m")
    assert_close(of_var, 2 * (X - np.mean(X, (0, 1, 2))) * v / m, 1e-12, "2 (x - mean) dvar / m")


def test_gradient_with_respect_to_x_does_not_see_shift_or_scale_of_a_channel():
    """y is the same for a x + c, so dx is orthogonal to 1 and (with eps -> 0) to x."""
    dx = jax.grad(lambda x: jnp.vdot(draw(8, x), jcnn.batch_norm(x, GAMMA, BETA, eps=1e-14)[0]))(X)
    assert float(jnp.abs(dx).max()) > 1e-2
    assert float(jnp.abs(dx.sum((0, 1, 2))).max()) < 1e-12
    assert float(jnp.abs((dx * X).sum((0, 1, 2))).max()) < 1e-12


# --- dtypes --------------------------------------------------------------------------------------


def test_bfloat16_images_go_with_float32_scale_and_shift():
    x = X.astype(jnp.bfloat16)
    for dtype in (jnp.float32, jnp.bfloat16):
        gamma, beta = GAMMA.astype(dtype), BETA.astype(dtype)
        (y, stats), res = jcnn.batch_norm.fwd(x, gamma, beta)
        assert (y.dtype, stats.mean.dtype, stats.var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
        exact = jcnn.batch_norm(x.astype(float), gamma.astype(float), beta.astype(float))[0]
        assert_close(y, exact, 2**-8, "y")
        zero = jnp.zeros(5, jnp.float32)
        dx, dgamma, dbeta, _ = jcnn.batch_norm.bwd(res, (y, BatchStats(zero, zero)))
        assert (dx.dtype, dgamma.dtype, dbeta.dtype) == (jnp.bfloat16, dtype, dtype)


# --- running statistics and inference ------------------------------------------------------------


def test_momentum_is_the_weight_of_the_old_value():
    running, batch = (
        BatchStats(jnp.array([1.0]), jnp.array([2.0])),
        BatchStats(jnp.array([11.0]), jnp.array([4.0])),
    )
    after = jcnn.update_running_stats(running, batch, momentum=0.9)
    assert_close(after, (np.array([0.9 * 1 + 0.1 * 11]), np.array([0.9 * 2 + 0.1 * 4])), 1e-15, "0.9")
    assert_close(jcnn.update_running_stats(running, batch), after, 0, "default")
    assert_close(jcnn.update_running_stats(running, batch, momentum=1.0), running, 0, "1 keeps the old")
    assert_close(jcnn.update_running_stats(running, batch, momentum=0.0), batch, 0, "0 takes the new")
    with pytest.raises(ValueError, match=r"jcnn\.update_running_stats: momentum: got 1.5, expected"):
        jcnn.update_running_stats(running, batch, momentum=1.5)


def test_momentum_may_be_a_whole_number():
    running, batch = BatchStats(ZEROS, ZEROS), BatchStats(ONES, ONES)
    assert_close(jcnn.update_running_stats(running, batch, momentum=0), batch, 0, "0 takes the new")


def test_running_statistics_keep_their_dtype():
    running = BatchStats(jnp.zeros(1, jnp.float32), jnp.ones(1, jnp.float32))
    after = jcnn.update_running_stats(running, BatchStats(jnp.ones(1), jnp.ones(1)))
    assert (after.mean.dtype, after.var.dtype) == (jnp.float32, jnp.float32)


def test_inference_with_the_batchs_own_statistics_equals_training():
    y, stats = jcnn.batch_norm(X, GAMMA, BETA, eps=1e-3)
    assert_close(jcnn.batch_norm_inference(X, GAMMA, BETA, *stats, eps=1e-3), y, 1e-12, "inference")


def test_inference_normalises_by_given_statistics_and_is_linear_in_x():
    mean, var = normal(9, 5), normal(10, 5) ** 2 + 0.1
    y, res = jcnn.batch_norm_inference.fwd(X, GAMMA, BETA, mean, var)
    rstd = 1 / np.sqrt(var + 1e-5)
    assert_close(y, GAMMA * (X - mean) * rstd + BETA, 1e-12, "y")
    dy = draw(11, y)
    dx, _, dbeta, dmean, _ = jcnn.batch_norm_inference.bwd(res, dy)
    assert_close(dx, GAMMA * rstd * dy, 1e-13, "dx")
    assert_close(dbeta, np.sum(dy, (0, 1, 2)), 1e-13, "dbeta")
    assert_close(dmean, -np.sum(dx, (0, 1, 2)), 1e-12, "dmean")


# --- a batch in parts ----------------------------------------------------------------------------

PARTS = X[:2].reshape(2, 1, 4, 2, 5), jnp.concatenate([X[1:2], X[2:]]).reshape(2, 1, 4, 2, 5)[::-1]
PARTS = jnp.stack([jnp.concatenate([a, b]) for a, b in zip(*PARTS, strict=True)])  # [2 members, 2, 4, 2, 5]
COUNTS = jnp.array([[True, False], [True, True]])  # members of 1 and of 2 examples
ON_ONE = jnp.array([[False, False], [True, True]])
WEIGHTS = draw(12, (PARTS, ONES, ONES))


def whole(x, gamma, beta, mask=None):
    """The loss of the whole batch, by the reference and without an axis."""
    flat = x.reshape(4, *x.shape[2:])
    mask = None if mask is None else mask.reshape(4)
    y, stats = jcnn.batch_norm.reference(flat, gamma, beta, mask)
    return sum(jnp.vdot(w, a) for w, a in zip(WEIGHTS, (y.reshape(x.shape), *stats), strict=True))


def spread(norm, x, gamma, beta, mask=None):
    """The same loss with each member of axis "d" holding its part of the batch."""
    f = jax.vmap(
        lambda x, mask: norm(x, gamma, beta, mask, axis_name="d"),
        axis_name="d",
        in_axes=(0, None if mask is None else 0),
    )
    y, stats = f(x, mask)
    members = (y, stats.mean[0], stats.var[0])
    return sum(jnp.vdot(w, a) for w, a in zip(WEIGHTS, members, strict=True))


@pytest.mark.parametrize("mask", [None, COUNTS, ON_ONE], ids=["equal", "unequal", "on one"])
def test_gradient_of_vmapped_batch_norm_is_that_of_the_whole_batch(mask):
    args = PARTS, GAMMA, BETA

    @jax.jit
    def both(*args):
        of_parts = jax.value_and_grad(lambda *a: spread(jcnn.batch_norm, *a, mask), (0, 1, 2))(*args)
        return of_parts, jax.value_and_grad(lambda *a: whole(*a, mask), (0, 1, 2))(*args)

    got, expected = both(*args)
    assert_close(got, expected, 1e-10, "grad of vmap")
    eager = jax.grad(lambda *a: spread(jcnn.batch_norm, *a, mask), (0, 1, 2))(*args)
    assert_close(eager, expected[1], 1e-10, "eager grad of vmap")


@pytest.mark.parametrize("mask", [None, COUNTS], ids=["equal", "unequal"])
def test_vmapped_gradient_of_batch_norm_is_each_members_part_of_the_whole(mask):
    """vmap(grad): the loss of all members together, each member seeing its own part of x."""

    def member(norm):
        def gradient(x, w, mask):
            def loss(x, gamma, beta):
                y, stats = norm(x, gamma, beta, mask, axis_name="d")
                # psum makes it the loss of all; the statistics, equal on all members, count once per member.
                return jnp.vdot(w, y) + jnp.vdot(WEIGHTS[1], stats.mean) + jnp.vdot(WEIGHTS[2], stats.var)

            return jax.grad(loss, (0, 1, 2))(x, GAMMA, BETA)

        return gradient

    axes = (0, 0, None if mask is None else 0)

    @jax.jit
    def run(x, mask):
        return jax.vmap(member(jcnn.batch_norm), in_axes=axes, axis_name="d")(x, WEIGHTS[0], mask)

    def all_members(x, gamma, beta):
        """The sum of the members' losses, for which gamma and beta are not shared: [2, 5] each."""
        flat = x.reshape(4, *x.shape[2:])
        xhat, stats = jcnn.batch_norm.reference(flat, ONES, ZEROS, None if mask is None else mask.reshape(4))
        y = gamma[:, None, None, None] * xhat.reshape(x.shape) + beta[:, None, None, None]
        terms = zip(WEIGHTS, (y, 2 * stats.mean, 2 * stats.var), strict=True)
        return sum(jnp.vdot(w, a) for w, a in terms)

    each = jnp.tile(GAMMA, (2, 1)), jnp.tile(BETA, (2, 1))
    expected = jax.jit(jax.grad(all_members, (0, 1, 2)))(PARTS, *each)
    assert_close(run(PARTS, mask), expected, 1e-10, "vmap of grad")
