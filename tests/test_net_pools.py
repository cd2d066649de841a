"""Pools as layers: their shapes, names and receptive fields, and backpropagation through them."""

import jax

import jcnn
from jcnn import net
from jcnn.verify.examples import normal
from tests.checks import assert_close

LAYERS = {
    net.max_pool(3, stride=2, ceil_mode=True): ((9, 5), (3, 3), "max_pool 3, stride 2"),
    net.max_pool(2, stride=1, dilation=3, ties="split"): ((15, 7), (4, 4), "max_pool 2"),
    net.avg_pool((2, 1), ceil_mode=True, count_include_pad=True): ((9, 10), (2, 1), "avg_pool 2x1"),
    net.lp_pool(2, 3, padding=1): ((10, 6), (2, 2), "lp_pool 2"),
    net.adaptive_max_pool((5, None)): ((5, 10), None, "adaptive_max_pool 5x="),
    net.adaptive_avg_pool(3): ((3, 3), None, "adaptive_avg_pool 3"),
    net.global_max_pool(): ((), None, "global_max_pool"),
    net.global_avg_pool(): ((), None, "global_avg_pool"),
}


def test_every_pool_is_a_layer():
    for layer, (outputs, field, name) in LAYERS.items():
        shape = (18, 10, 2)
        (row,) = layer.summary(shape).rows
        assert (row.name, row.output_shape, row.receptive_field) == (name, (*outputs, 2), field)


def test_backpropagation_through_pools_is_autodiff():
    model = jcnn.chain(
        net.max_pool(2, stride=1, ceil_mode=True),
        net.lp_pool(3, 2, stride=2, padding=1),
        net.adaptive_max_pool((4, 3)),
        net.adaptive_avg_pool(2),
        net.global_max_pool(),
    )
    x, dy = normal(0, 2, 9, 8, 3), normal(1, 2, 3)
    params, state = model.init(jax.random.key(0), x.shape[1:])
    (y, _), res = model.fwd(params, state, x, train=True)
    _, dx = model.bwd(res, dy)
    plain = jcnn.autodiff(lambda x: model.apply(params, state, x, train=True)[0])
    expected, pull = jax.vjp(plain, x)
    assert_close((y, dx), (expected, pull(dy)[0]), 1e-12, "net")
