"""Weight standardisation: statistics of every filter, its gradient, and the layer made of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn import net
from jcnn.verify.examples import normal
from tests.checks import assert_close, draw

W = normal(0, 3, 2, 4, 5) * 0.1 + 0.3


@pytest.mark.parametrize("shape", [(3, 2, 4, 5), (2, 3, 2, 2, 3), (6, 5)])
def test_every_filter_gets_mean_zero_and_variance_one(shape):
    w = normal(1, *shape) + 1
    y = np.asarray(jcnn.weight_standardize(w, eps=1e-12)).reshape(-1, shape[-1])
    assert_close(1 + y.mean(0), np.ones(shape[-1]), 1e-12, "mean")
    assert_close(y.var(0), np.ones(shape[-1]), 1e-10, "biased variance")


def test_eps_is_added_to_the_variance():
    y = jcnn.weight_standardize(jnp.array([[0.0], [2.0]]), eps=3.0)
    assert_close(y, np.array([[-0.5], [0.5]]), 1e-15, "eps")


def test_gradient_does_not_see_shift_or_scale_of_a_filter():
    _, res = jcnn.weight_standardize.fwd(W, eps=1e-14)
    (dw,) = jcnn.weight_standardize.bwd(res, draw(2, W))
    assert float(jnp.abs(dw).max()) > 1e-1
    assert float(jnp.abs(dw.sum((0, 1, 2))).max()) < 1e-12
    assert float(jnp.abs((dw * W).sum((0, 1, 2))).max()) < 1e-10


def test_constant_filters_and_filters_of_one_weight_become_zero():
    for w in (jnp.full((3, 3, 2, 4), 0.5), normal(3, 1, 1, 1, 4)):
        y, res = jcnn.weight_standardize.fwd(w)
        (dw,) = jcnn.weight_standardize.bwd(res, draw(4, w))
        assert float(jnp.abs(y).max()) < 1e-12
        assert np.isfinite(dw).all()
    assert float(jnp.abs(dw).max()) < 1e-10


def test_float32_is_accurate_for_mean_1e4_and_deviation_1():
    w = jnp.asarray(np.random.default_rng(0).standard_normal((3, 3, 64, 2)) + 1e4, jnp.float32)
    exact = np.asarray(w, np.float64)
    expected = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    assert_close(jcnn.weight_standardize(w), expected, 1e-3, "two passes")


def test_low_precision_and_empty_weights():
    y, res = jcnn.weight_standardize.fwd(W.astype(jnp.bfloat16))
    (dw,) = jcnn.weight_standardize.bwd(res, y)
    assert (y.dtype, res.rstd.dtype, dw.dtype) == (jnp.bfloat16, jnp.float32, jnp.bfloat16)
    for shape in ((3, 3, 0, 4), (3, 3, 2, 0)):
        y, res = jcnn.weight_standardize.fwd(jnp.zeros(shape))
        assert [y.shape, jcnn.weight_standardize.bwd(res, y)[0].shape] == [shape, shape]
        assert np.isfinite(res.rstd).all()


def test_standardized_layers_backpropagate_to_the_weights_they_were_given():
    x = normal(5, 2, 6, 5, 4)
    model = jcnn.chain(
        net.standardized(net.conv(6, 3, stride=2, groups=2), eps=1e-3),
        net.flatten(),
        net.standardized(net.dense(3)),
    )
    params, state = model.init(jax.random.key(0), x.shape[1:])
    params = draw(6, params)
    (y, _), res = model.fwd(params, state, x, train=True)
    w = [jcnn.weight_standardize.reference(params[0]["w"], eps=1e-3)]
    w.append(jcnn.weight_standardize.reference(params[2]["w"]))
    by_hand = jcnn.conv.reference(x, w[0], params[0]["b"], stride=2, padding="SAME", groups=2)
    assert_close(y, by_hand.reshape(2, -1) @ w[1] + params[2]["b"], 1e-12, "y")

    def loss(params, x):
        return jnp.vdot(draw(7, y), model.apply(params, state, x, train=True)[0])

    expected = jax.grad(jcnn.autodiff(loss), (0, 1))(params, x)
    assert_close(model.bwd(res, draw(7, y)), expected, 1e-12, "explicit backpropagation")
    assert_close(jax.grad(loss, (0, 1))(params, x), expected, 1e-12, "grad")
    rows = model.summary(x.shape[1:]).rows
    assert [row.name for row in rows] == [
        "standardized conv 3, stride 2, groups 2",
        "flatten",
        "standardized dense",
    ]
    assert rows[0].receptive_field == (3, 3)


def test_other_rules_find_their_place_in_a_standardized_layer():
    doubled = jcnn.conv.replace(bwd=lambda res, dy: jax.tree.map(lambda ct: 2 * ct, jcnn.conv.bwd(res, dy)))
    layer = net.standardized(net.conv(2, 1, bias=False))
    params, state = layer.init(jax.random.key(0), (3, 3, 4))
    x = normal(8, 1, 3, 3, 4)
    plain, other = (
        model.bwd(model.fwd(params, state, x, train=True)[1], jnp.ones((1, 3, 3, 2)))
        for model in (layer, layer.with_rules({jcnn.conv: doubled}))
    )
    assert_close(other, jax.tree.map(lambda ct: 2 * ct, plain), 1e-14, "twice")


def test_refuses():
    with pytest.raises(ValueError, match=r"^jcnn\.weight_standardize: w: got shape \(3,\), expected \[\*K"):
        jcnn.weight_standardize(jnp.ones(3))
    with pytest.raises(ValueError, match=r"^jcnn\.weight_standardize: eps: got 0, expected a float > 0"):
        jcnn.weight_standardize(W, eps=0)
    with pytest.raises(ValueError, match=r"^jcnn\.net\.standardized: net: got flatten, expected a layer"):
        net.standardized(net.flatten()).init(jax.random.key(0), (2, 2, 1))
