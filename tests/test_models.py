"""The model zoo: shapes, parameter counts, and ten steps of training against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn import models, net
from jcnn.verify.examples import normal
from tests.checks import assert_close

KEY = jax.random.key(0)


def parameters(model, shape):
    params, _ = jax.eval_shape(lambda: model.init(KEY, shape))
    return sum(p.size for p in jax.tree.leaves(params))


def test_lenet5_has_the_61706_parameters_of_the_classic():
    assert parameters(models.lenet5(), (28, 28, 1)) == 61_706
    summary = models.lenet5().summary((28, 28, 1))
    assert summary.total("parameters") == 61_706
    # Two convolutions, 28x28x6 and 10x10x16, and three dense layers.
    expected = 784 * 6 * 25 + 100 * 16 * 25 * 6 + 400 * 120 + 120 * 84 + 84 * 10
    assert summary.total("macs_forward") == expected


def test_lenet5_shapes_layer_by_layer():
    shapes = [row.output_shape for row in models.lenet5(7).summary((28, 28, 1)).rows]
    assert shapes == [
        *[(28, 28, 6), (28, 28, 6), (14, 14, 6)],
        *[(10, 10, 16), (10, 10, 16), (5, 5, 16)],
        (400,),
        *[(120,), (120,), (84,), (84,), (7,)],
    ]
    assert net.output_shape(models.lenet5(5), (32, 32, 3)) == (5,)


def test_lenet5_takes_another_activation_and_pool():
    names = [row.name for row in models.lenet5(activation=jcnn.relu, pool="max").summary((28, 28, 1)).rows]
    assert names.count("relu") == 4
    assert names.count("max_pool 2") == 2
    classic = [row.name for row in models.lenet5().summary((28, 28, 1)).rows]
    assert (classic.count("sigmoid"), classic.count("avg_pool 2")) == (4, 2)
    with pytest.raises(
        ValueError, match=r"jcnn\.models\.lenet5: pool: got 'mean', expected one of 'avg', 'max'"
    ):
        models.lenet5(pool="mean")


def test_vgg_small_shapes_and_parameters():
    model = models.vgg_small(10, widths=(4, 6), depths=(2, 2))
    rows = model.summary((8, 8, 3)).rows
    assert [row.output_shape for row in rows if row.name == "conv 3"] == [(8, 8, 4)] * 2 + [(4, 4, 6)] * 2
    convolutions = 9 * (3 * 4 + 4 * 4 + 4 * 6 + 6 * 6)
    assert parameters(model, (8, 8, 3)) == convolutions + 2 * (4 + 4 + 6 + 6) + 6 * 10 + 10
    assert rows[-1].output_shape == (10,)
    default = 9 * (3 * 32 + 32 * 64 + 64 * 96 + 96 * 96) + 2 * (32 + 64 + 96 + 96) + 96 * 10 + 10
    assert parameters(models.vgg_small(), (32, 32, 3)) == default == 159_082
    with pytest.raises(
        ValueError, match=r"vgg_small: depths: got \(1,\), expected one for each of widths \(4, 6\)"
    ):
        models.vgg_small(widths=(4, 6), depths=(1,))


def test_vgg_small_has_dropout_only_if_asked():
    names = [row.name for row in models.vgg_small(dropout=0.25).summary((8, 8, 3)).rows]
    assert names[-3:] == ["global_avg_pool", "dropout 0.25", "dense"]
    assert not any("dropout" in row.name for row in models.vgg_small().summary((8, 8, 3)).rows)


def test_vgg_small_refuses_images_that_its_pools_make_vanish():
    with pytest.raises(ValueError, match=r"jcnn\.max_pool: window: got an extent of 2 .* at most .* 1 there"):
        models.vgg_small().init(KEY, (3, 8, 3))


TRAINED = {
    "lenet5": (models.lenet5(3, activation=jcnn.tanh), (28, 28, 1), 0.1),
    "vgg_small": (models.vgg_small(3, widths=(3, 4), depths=(1, 1), dropout=0.2), (6, 6, 2), 0.3),
}


@pytest.mark.parametrize("name", TRAINED)
def test_ten_steps_reduce_the_loss_and_are_those_of_autodiff(name):
    model, shape, rate = TRAINED[name]
    x, labels = normal(0, 4, *shape), jnp.array([2, 0, 1, 1])
    start = model.init(KEY, shape)

    def loss(params, state, key):
        logits, state = model.apply(params, state, x, train=True, key=key)
        return jcnn.softmax_cross_entropy(logits, labels).mean(), state

    def step(carry, key):
        (value, state), grads = jax.value_and_grad(loss, has_aux=True)(*carry, key)
        params = jax.tree.map(lambda p, g: p - rate * g, carry[0], grads)
        return (params, state), value

    def train(start):
        return jax.lax.scan(step, start, jax.random.split(KEY, 10))

    (_, by_hand), (_, by_jax) = results = jax.jit(train)(start), jax.jit(jcnn.autodiff(train))(start)
    assert by_hand[-1] < 0.9 * by_hand[0]
    assert np.isfinite(by_hand).all()
    assert_close(*results, 1e-9, "parameters, state and losses")
    assert_close(by_hand, by_jax, 1e-9, "losses")
