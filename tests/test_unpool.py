"""Unpooling: every maximum back in its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import distinct, normal
from tests.checks import assert_close

POOLS = {
    "plain": ((2, 6, 4, 3), dict(window=2)),
    "inputs left over": ((2, 7, 5, 3), dict(window=2)),
    "gaps": ((1, 9, 2), dict(window=2, stride=3)),
    "overhang": ((2, 5, 7, 2), dict(window=2, ceil_mode=True)),
    "padded": ((1, 6, 7, 2), dict(window=(3, 4), stride=(3, 4), padding=(1, 2))),
    "3-D": ((1, 4, 3, 6, 2), dict(window=(2, 3, 2))),
    "large": ((1, 14, 12, 2), dict(window=(7, 6))),
}


@pytest.mark.parametrize("case", POOLS)
def test_pooling_what_was_unpooled_gives_it_back(case):
    """x keeps its maxima and is 0 elsewhere; and the gradient of either is the other."""
    shape, config = POOLS[case]
    x = distinct(0, *shape)
    x = x - x.min() + 1
    back = {k: v for k, v in config.items() if k != "ceil_mode"} | {"output_size": shape[1:-1]}

    @jax.jit
    def pooled(x):
        (y, indices), res = jcnn.max_pool.fwd(x, **config, return_indices=True)
        again, unpool = jcnn.max_unpool.fwd(y, indices, **back)
        (dy, none) = jcnn.max_unpool.bwd(unpool, x)
        assert none is None
        return y, again, dy, jcnn.max_pool.bwd(res, (y, indices))[0]

    y, again, dy, dx = pooled(x)
    assert_close(again, jnp.where(jnp.isin(x, y), x, 0), 0, "unpooled")
    assert_close(dy, y, 0, "gradient of unpooling, at x")
    assert_close(dx, again, 0, "gradient of pooling, at y")


def test_of_two_with_one_index_the_last_stays_and_takes_the_gradient():
    y = jnp.array([1.0, 2, 3, 4]).reshape(1, 4, 1)
    indices = jnp.array([2, 2, 0, -1]).reshape(1, 4, 1)
    x, pull = jax.vjp(lambda y: jcnn.max_unpool(y, indices, window=1), y)
    assert x.ravel().tolist() == [3, 0, 2, 0]
    assert pull(jnp.array([10.0, 20, 30, 40]).reshape(1, 4, 1))[0].ravel().tolist() == [0, 30, 10, 0]
    outside = jnp.array([4, 99, 1, -5]).reshape(1, 4, 1)
    assert jcnn.max_unpool(y, outside, window=1).ravel().tolist() == [0, 3, 0, 0]


def test_default_size_is_that_of_the_windows_without_padding():
    y, i = jnp.ones((1, 3, 2, 1)), jnp.zeros((1, 3, 2, 1), int)
    assert jcnn.max_unpool(y, i, window=(2, 3), stride=(2, 1), padding=(0, 1)).shape == (1, 6, 2, 1)
    assert jcnn.max_unpool(y, i, window=2, output_size=(7, 3)).shape == (1, 7, 3, 1)
    assert jcnn.max_unpool(y, i, window=2, padding="SAME", output_size=(5, 4)).shape == (1, 5, 4, 1)


REFUSED = {
    "too large": (
        dict(window=2, output_size=8),
        "output_size: got .8, 8., expected a shape that is pooled to y's",
    ),
    "too small": (dict(window=2, output_size=(6, 2)), "output_size: got .6, 2."),
    "by name": (dict(window=2, padding="SAME"), "padding: got 'SAME', expected .* or else an output_size"),
    "window": (dict(window=0), "window: got 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_geometry_that_does_not_fit_is_refused(case):
    config, message = REFUSED[case]
    with pytest.raises(ValueError, match=rf"jcnn\.max_unpool: {message}"):
        jcnn.max_unpool(jnp.ones((1, 3, 2, 1)), jnp.zeros((1, 3, 2, 1), int), **config)


def test_indices_that_are_none_are_refused():
    y = normal(1, 1, 3, 2, 1)
    for indices in (y, jnp.zeros(y.shape, np.uint8), jnp.zeros(y.shape, bool)):
        with pytest.raises(TypeError, match=r"jcnn\.max_unpool: indices: .* expected signed integers"):
            jcnn.max_unpool(y, indices, window=2)
    with pytest.raises(ValueError, match=r"jcnn\.max_unpool: indices: got shape"):
        jcnn.max_unpool(y, jnp.zeros((1, 2, 3, 1), int), window=2)
