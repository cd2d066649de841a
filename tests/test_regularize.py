"""Dropout: which values fall, by how much the others grow, and that forward and backward agree on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close

KEY = jax.random.key(3)


def test_backward_drops_what_forward_dropped():
    x, dy = normal(0, 20, 10), normal(1, 20, 10)
    y, res = jcnn.dropout.fwd(x, KEY, rate=0.4)
    dx, dkey = jcnn.dropout.bwd(res, dy)
    assert dkey is None
    dropped = np.asarray(y) == 0
    assert 0 < dropped.sum() < dropped.size
    assert_close(y, np.where(dropped, 0, x / 0.6), 1e-15, "y")
    assert_close(dx, np.where(dropped, 0, dy / 0.6), 1e-15, "dx")
    by_grad = jax.jit(jax.grad(lambda x: jnp.vdot(dy, jcnn.dropout(x, KEY, rate=0.4))))(x)
    assert_close(by_grad, dx, 1e-15, "jax.grad")


@pytest.mark.parametrize("rate", [0.1, 0.75])
def test_share_of_dropped_values_is_the_rate_and_the_mean_is_kept(rate):
    n = 40_000
    y = jcnn.dropout(jnp.ones(n), KEY, rate=rate)
    deviation = np.sqrt(rate * (1 - rate) / n)
    assert abs(float((y == 0).mean()) - rate) < 5 * deviation
    assert abs(float(y.mean()) - 1) < 5 * deviation / (1 - rate)


def test_same_key_drops_the_same_and_another_key_others():
    x = jnp.ones(200)
    y = jcnn.dropout(x, KEY, rate=0.5)
    assert (jcnn.dropout(x, KEY, rate=0.5) == y).all()
    assert (jcnn.dropout(x, jax.random.key(4), rate=0.5) != y).any()


def test_legacy_and_typed_keys_drop_the_same():
    x, legacy = normal(2, 50), jax.random.PRNGKey(3)
    y, res = jcnn.dropout.fwd(x, legacy, rate=0.5)
    assert_close(y, jcnn.dropout(x, KEY, rate=0.5), 0, "y")
    dx, dkey = jcnn.dropout.bwd(res, x)
    assert_close(dx, y, 0, "dx")
    assert dkey is None
    assert_close(jax.grad(lambda x: jcnn.dropout(x, legacy, rate=0.5).sum())(x), (y != 0) * 2.0, 0, "grad")


def test_rate_zero_is_the_identity():
    x = normal(4, 5, 3)
    y, res = jcnn.dropout.fwd(x, KEY, rate=0.0)
    assert_close((y, jcnn.dropout.bwd(res, x)[0]), (x, x), 0, "rate 0")


def test_rate_may_be_a_whole_number():
    x = normal(4, 5, 3)
    assert_close(jcnn.dropout(x, KEY, rate=0), x, 0, "int")


def test_nan_and_infinity_that_are_dropped_are_gone():
    """A product with a mask of zeros would keep them: 0 * inf is NaN."""
    dropped = np.asarray(jcnn.dropout(jnp.ones(50), KEY, rate=0.5)) == 0
    y = jcnn.dropout(jnp.full(50, jnp.inf), KEY, rate=0.5)
    assert (np.asarray(y) == np.where(dropped, 0, np.inf)).all()


def test_dropout_keeps_one_byte_per_value():
    _, res = jcnn.dropout.fwd(normal(5, 100), KEY, rate=0.5)
    assert [leaf.nbytes for leaf in jax.tree.leaves(res)] == [100]


def test_dropout_of_bfloat16_is_bfloat16():
    x = jnp.ones(10, jnp.bfloat16)
    y, res = jcnn.dropout.fwd(x, KEY, rate=0.3)
    assert (y.dtype, jcnn.dropout.bwd(res, y)[0].dtype) == (jnp.bfloat16, jnp.bfloat16)


def test_vmap_over_keys_drops_differently_per_example():
    keys = jax.random.split(KEY, 3)
    x = jnp.ones((3, 40))
    y = jax.vmap(lambda x, k: jcnn.dropout(x, k, rate=0.5))(x, keys)
    expected = jnp.stack([jcnn.dropout(a, k, rate=0.5) for a, k in zip(x, keys, strict=True)])
    assert_close(y, expected, 0, "vmap")
    assert len({tuple(row) for row in y.tolist()}) == 3


@pytest.mark.parametrize("shape", [(30, 5, 20), (30, 3, 4, 20), (30, 2, 1, 3, 20), (30, 20)])
def test_per_channel_dropout_drops_all_pixels_of_a_channel(shape):
    x, dy = jnp.abs(normal(6, *shape)) + 0.1, normal(7, *shape)
    y, res = jcnn.dropout.fwd(x, KEY, rate=0.4, per_channel=True)
    kept = np.asarray(y != 0).reshape(30, -1, 20)
    assert (kept == kept[:, :1]).all()
    share = kept[:, 0].mean()
    assert abs(share - 0.6) < 5 * np.sqrt(0.24 / 600)
    assert len({tuple(row) for row in kept[:, 0].tolist()}) > 1
    assert_close(y, np.where(y != 0, x / 0.6, 0), 1e-15, "y")
    assert_close(jcnn.dropout.bwd(res, dy)[0], np.where(y != 0, dy / 0.6, 0), 1e-15, "dx")
    assert [leaf.nbytes for leaf in jax.tree.leaves(res)] == [600]


def test_drop_path_drops_examples():
    x, dy = jnp.abs(normal(8, 400, 3, 2)) + 0.1, normal(9, 400, 3, 2)
    y, res = jcnn.drop_path.fwd(x, KEY, rate=0.3)
    kept = np.asarray(y != 0)
    assert (kept == kept[:, :1, :1]).all()
    assert abs(kept[:, 0, 0].mean() - 0.7) < 5 * np.sqrt(0.21 / 400)
    assert_close(y, np.where(kept, x / 0.7, 0), 1e-15, "y")
    dx, dkey = jcnn.drop_path.bwd(res, dy)
    assert_close(dx, np.where(kept, dy / 0.7, 0), 1e-15, "dx")
    assert dkey is None
    assert [leaf.nbytes for leaf in jax.tree.leaves(res)] == [400]
    assert_close(jcnn.drop_path(x, KEY, rate=0), x, 0, "rate 0")


@pytest.mark.parametrize("op", [jcnn.dropout, jcnn.drop_path])
def test_mean_of_what_bfloat16_keeps_is_unbiased(op):
    """0.9 in bfloat16 is 0.2 % less, and so would the scale of every value be."""
    x = jnp.linspace(1, 2, 4096).astype(jnp.bfloat16)
    y, res = op.fwd(x, KEY, rate=0.1)
    for got in (y, op.bwd(res, x)[0]):
        kept = np.asarray(got != 0)
        ratio = np.float64(got)[kept].sum() / np.float64(x)[kept].sum()
        assert abs(ratio * 0.9 - 1) < 2e-4


def test_shapes_without_examples_or_channels_are_refused():
    with pytest.raises(ValueError, match=r"jcnn\.dropout: x: got shape \(3,\), expected \[N, \*S, C\]"):
        jcnn.dropout(jnp.ones(3), KEY, rate=0.5, per_channel=True)
    with pytest.raises(ValueError, match=r"jcnn\.drop_path: x: got shape \(\), expected \[N, \.\.\.\]"):
        jcnn.drop_path(jnp.ones(()), KEY, rate=0.5)
    with pytest.raises(ValueError, match=r"jcnn\.drop_path: rate: got 1"):
        jcnn.drop_path(jnp.ones(3), KEY, rate=1)
