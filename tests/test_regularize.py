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
