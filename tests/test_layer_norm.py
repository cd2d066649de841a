"""Layer, group and instance norm: which entries are normalised together, precision, and layer scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close, draw

X = normal(0, 3, 4, 2, 6) * 3 + 2
GAMMA, BETA = normal(1, 6), normal(2, 6)
# op, configuration, shape in which the last axes named are those of a block
BLOCKS = {
    "layer_norm": (jcnn.layer_norm, {}, (3, 4, 2, 6), (3,)),
    "group_norm": (jcnn.group_norm, {"groups": 2}, (3, 4, 2, 2, 3), (1, 2, 4)),
    "one group": (jcnn.group_norm, {"groups": 1}, (3, 4, 2, 6), (1, 2, 3)),
    "instance_norm": (jcnn.instance_norm, {}, (3, 4, 2, 6), (1, 2)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_gets_mean_zero_and_variance_one_then_scale_and_shift(name):
    op, static, shape, axes = BLOCKS[name]
    plain = op(X, jnp.ones(6), jnp.zeros(6), eps=1e-12, **static)
    in_blocks = np.asarray(plain).reshape(shape)
    assert_close(in_blocks.mean(axes) + 1, np.ones(in_blocks.mean(axes).shape), 1e-11, "mean")
    assert_close(in_blocks.var(axes), np.ones(in_blocks.var(axes).shape), 1e-9, "biased variance")
    assert_close(op(X, GAMMA, BETA, eps=1e-12, **static), GAMMA * plain + BETA, 1e-12, "affine")


@pytest.mark.parametrize("name", BLOCKS)
def test_gradient_does_not_see_shift_or_scale_of_a_block(name):
    """y is the same for a x + c, so dx is orthogonal to 1 and (with eps -> 0) to x, in every block."""
    op, static, shape, axes = BLOCKS[name]
    _, res = op.fwd(X, GAMMA, BETA, eps=1e-14, **static)
    dx = np.asarray(op.bwd(res, draw(3, X))[0])
    assert np.abs(dx).max() > 1e-2
    assert np.abs(dx.reshape(shape).sum(axes)).max() < 1e-12
    assert np.abs((dx * X).reshape(shape).sum(axes)).max() < 1e-11


def test_group_norm_is_layer_norm_of_vectors_and_instance_norm_of_single_channels():
    vectors = X[:, 0, 0]
    layer, group = jcnn.layer_norm(vectors, GAMMA, BETA), jcnn.group_norm(vectors, GAMMA, BETA, groups=1)
    assert_close(group, layer, 1e-13, "vectors")
    instance, group = jcnn.instance_norm(X, GAMMA, BETA), jcnn.group_norm(X, GAMMA, BETA, groups=6)
    assert_close(group, instance, 0, "single channels")


def test_constant_block_becomes_beta_and_has_finite_gradient():
    x = X.at[1].set(1e4)
    for op, static, *_ in BLOCKS.values():
        y, res = op.fwd(x, GAMMA, BETA, **static)
        assert_close(y[1], jnp.broadcast_to(BETA, y[1].shape), 1e-9, "constant")
        dx, *_ = op.bwd(res, draw(4, y))
        assert np.isfinite(dx).all()


def test_float32_is_accurate_for_mean_1e4_and_deviation_1():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 16, 8, 32)) + 1e4, jnp.float32)
    ones, zeros = jnp.ones(32, jnp.float32), jnp.zeros(32, jnp.float32)
    for op, static in ((jcnn.layer_norm, {}), (jcnn.group_norm, {"groups": 8}), (jcnn.instance_norm, {})):
        exact = op.reference(x.astype(float), ones.astype(float), zeros.astype(float), **static)
        assert_close(op(x, ones, zeros, **static), exact, 1e-3, op.name)


def test_low_precision_images_go_with_float32_scale_and_shift():
    for op, static, *_ in BLOCKS.values():
        x, gamma, beta = X.astype(jnp.bfloat16), GAMMA.astype(jnp.float32), BETA.astype(jnp.float32)
        y, res = op.fwd(x, gamma, beta, **static)
        assert (y.dtype, res.mean.dtype, res.rstd.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
        exact = op(x.astype(float), gamma.astype(float), beta.astype(float), **static)
        assert_close(y, exact, 2**-8, "y")
        assert [ct.dtype for ct in op.bwd(res, y)] == [jnp.bfloat16, jnp.float32, jnp.float32]


def test_empty_batches_and_channels_stay_empty():
    for shape in ((0, 4, 2, 6), (3, 4, 2, 0), (3, 0, 2, 6)):
        x, c = jnp.zeros(shape), jnp.zeros(shape[-1])
        for op, static, *_ in BLOCKS.values():
            y, res = op.fwd(x, c, c, **static)
            assert [y.shape, *(ct.shape for ct in op.bwd(res, y))] == [shape, shape, c.shape, c.shape]
            assert np.isfinite(res.mean).all()


def test_norms_and_their_gradients_are_those_of_torch():
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    theirs = {
        "layer_norm": lambda x, g, b: f.layer_norm(x.movedim(1, -1), (6,), g, b).movedim(-1, 1),
        "group_norm": lambda x, g, b: f.group_norm(x, 2, g, b),
        "one group": lambda x, g, b: f.group_norm(x, 1, g, b),
        "instance_norm": lambda x, g, b: f.instance_norm(x, weight=g, bias=b),
    }
    dy = draw(5, X)
    for name, (op, static, *_) in BLOCKS.items():
        args = [torch.tensor(np.array(a), requires_grad=True) for a in (X, GAMMA, BETA)]
        expected = theirs[name](args[0].movedim(-1, 1), *args[1:]).movedim(1, -1)
        expected.backward(torch.tensor(np.array(dy)))
        y, res = op.fwd(X, GAMMA, BETA, **static)
        cotangents = [a.grad.numpy() for a in args]
        assert_close((y, *op.bwd(res, dy)), (expected.detach().numpy(), *cotangents), 1e-12, name)


def test_layer_scale_multiplies_every_channel():
    y, res = jcnn.layer_scale.fwd(X.astype(jnp.bfloat16), GAMMA.astype(jnp.float32))
    assert_close(y, X.astype(jnp.bfloat16).astype(float) * GAMMA.astype(jnp.float32), 2**-8, "y")
    dx, dgamma = jcnn.layer_scale.bwd(res, jnp.ones_like(y))
    assert (y.dtype, dx.dtype, dgamma.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    assert_close(dgamma, X.astype(jnp.bfloat16).astype(float).sum((0, 1, 2)), 1e-5, "dgamma")


def test_gradients_sum_over_devices_under_shard_map():
    """Replicated gamma and beta, examples spread over devices."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    here, everywhere = jax.sharding.PartitionSpec("d"), jax.sharding.PartitionSpec()
    x = X[:2]

    def loss(x, gamma, beta):
        return jnp.sum(jnp.sin(jcnn.group_norm(x, gamma, beta, groups=2)))

    def sharded(x, gamma, beta):
        return jax.lax.psum(loss(x, gamma, beta), "d")

    spread = jax.shard_map(sharded, mesh=mesh, in_specs=(here, everywhere, everywhere), out_specs=everywhere)
    got = jax.jit(jax.grad(spread, (0, 1, 2)))(x, GAMMA, BETA)
    assert_close(got, jax.grad(loss, (0, 1, 2))(x, GAMMA, BETA), 1e-12, "shard_map")
