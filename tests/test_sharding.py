"""Under `shard_map` a rule gives what JAX's autodiff of its reference gives, in every setting."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close, draw

HERE, EVERYWHERE = PartitionSpec("d"), PartitionSpec()

# rule, arguments, which of them are split over the devices, configuration, which outputs are split
SHARDED = {
    "conv": (
        jcnn.conv,
        (normal(0, 4, 4, 3, 2), normal(1, 2, 2, 2, 3), normal(2, 3)),
        (True, False, False),
        {"padding": "SAME"},
        HERE,
    ),
    "conv, wrapped and grouped": (
        jcnn.conv,
        (normal(0, 2, 4, 3, 4), normal(1, 2, 2, 2, 4)),
        (True, False),
        {"padding": 1, "padding_mode": "wrap", "groups": 2},
        HERE,
    ),
    "dense": (
        jcnn.dense,
        (normal(3, 4, 3), normal(4, 3, 2), normal(5, 2)),
        (True, False, False),
        {},
        HERE,
    ),
    "batch_norm": (
        jcnn.batch_norm,
        (normal(6, 4, 3, 2), normal(7, 2), normal(8, 2)),
        (True, False, False),
        {"axis_name": "d"},
        (HERE, jcnn.BatchStats(EVERYWHERE, EVERYWHERE)),
    ),
    "batch_norm, masked": (
        jcnn.batch_norm,
        (normal(6, 4, 3, 2), normal(7, 2), normal(8, 2), jnp.array([1.0, 0, 1, 1])),
        (True, False, False, True),
        {"axis_name": "d"},
        (HERE, jcnn.BatchStats(EVERYWHERE, EVERYWHERE)),
    ),
    "softmax_cross_entropy": (
        jcnn.softmax_cross_entropy,
        (normal(9, 4, 3), jnp.array([2, 0, 1, 2]), normal(10, 3) ** 2),
        (True, True, False),
        {"label_smoothing": 0.1},
        HERE,
    ),
}


def weighted(y, weights):
    """A scalar whose cotangent for y is `weights`."""
    leaves = zip(jax.tree.leaves(weights), jax.tree.leaves(y), strict=True)
    return sum(jnp.sum(w * a) for w, a in leaves)


def differentiable(args):
    return tuple(i for i, a in enumerate(args) if jnp.issubdtype(a.dtype, jnp.floating))


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("case", SHARDED)
def test_gradient_of_a_sharded_op(mesh, case, check_vma):
    rule, args, split, static, out_specs = SHARDED[case]
    in_specs = tuple(HERE if s else EVERYWHERE for s in split)
    unsharded = {k: v for k, v in static.items() if k != "axis_name"}
    weights = draw(11, jax.eval_shape(lambda *a: rule(*a, **unsharded), *args))
    index = differentiable(args)

    def sharded(f):
        op = jax.shard_map(
            lambda *a: f(*a, **static),
            mesh=mesh,
            in_specs=in_specs,
            out_specs=out_specs,
            check_vma=check_vma,
        )
        return jax.value_and_grad(lambda *a: weighted(op(*a), weights), index)

    def plain(f):
        return jax.value_and_grad(lambda *a: weighted(f(*a, **unsharded), weights), index)

    @jax.jit
    def run(*args):
        return sharded(rule)(*args), sharded(rule.reference)(*args), plain(rule.reference)(*args)

    by_hand, by_jax, whole = run(*args)
    assert_close(by_hand, by_jax, 1e-9, "autodiff of the sharded reference")
    assert_close(by_hand, whole, 1e-9, "autodiff of the reference of the whole batch")


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("case", SHARDED)
def test_gradient_taken_inside_the_map(mesh, case, check_vma):
    """Without check_vma plain JAX gives each device's own part: compared device by device."""
    rule, args, split, static, out_specs = SHARDED[case]
    in_specs = tuple(HERE if s else EVERYWHERE for s in split)
    unsharded = {k: v for k, v in static.items() if k != "axis_name"}
    weights = draw(12, jax.eval_shape(lambda *a: rule(*a, **unsharded), *args))
    index = differentiable(args)

    def gradients(f):
        def local(weights, *a):
            cts = jax.grad(lambda *a: weighted(f(*a, **static), weights), index)(*a)
            if check_vma:  # a replicated argument's gradient is replicated: the types say so, or this fails
                return cts
            return jax.tree.map(lambda ct: ct[None], cts)

        specs = tuple(HERE if split[i] or not check_vma else EVERYWHERE for i in index)
        return jax.shard_map(
            local, mesh=mesh, in_specs=(out_specs, *in_specs), out_specs=specs, check_vma=check_vma
        )

    @jax.jit
    def run(*args):
        return gradients(rule)(*args), gradients(rule.reference)(*args)

    by_hand, by_jax = run(weights, *args)
    assert min(float(jnp.abs(ct).max()) for ct in by_jax[:2]) > 1e-3
    assert_close(by_hand, by_jax, 1e-9, "autodiff of the reference inside the map")


@pytest.mark.parametrize("case", ["conv", "dense"])
def test_replicated_weight_gets_the_gradient_summed_over_devices(mesh, case):
    rule, args, split, static, _ = SHARDED[case]
    specs = tuple(HERE if s else EVERYWHERE for s in split)

    def local(x, w, b):
        return jax.grad(lambda x, w, b: jnp.sum(rule(x, w, b, **static) ** 2), (0, 1, 2))(x, w, b)

    mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=specs)
    assert_close(jax.jit(mapped)(*args), jax.jit(local)(*args), 1e-12, "whole batch")


def test_explicit_backward_of_batch_norm_inside_the_map_is_each_devices_part(mesh):
    rule, (x, gamma, beta), *_ = SHARDED["batch_norm"]
    dy = normal(13, *x.shape)
    none = jcnn.BatchStats(jnp.zeros(2), jnp.zeros(2))

    def local(x, dy):
        _, res = rule.fwd(x, gamma, beta, axis_name="d")
        dx, dgamma, dbeta, _ = rule.bwd(res, (dy, none))
        return dx, lax.psum(dgamma, "d"), lax.psum(dbeta, "d")

    specs = (HERE, EVERYWHERE, EVERYWHERE)
    mapped = jax.shard_map(local, mesh=mesh, in_specs=(HERE, HERE), out_specs=specs, check_vma=False)
    _, res = rule.fwd(x, gamma, beta)
    assert_close(jax.jit(mapped)(x, dy), rule.bwd(res, (dy, none))[:3], 1e-11, "whole batch")


def test_training_step_of_a_net_on_two_devices_is_that_on_one(mesh):
    from jcnn import net

    def model(axis_name):
        norm = net.batch_norm(axis_name=axis_name)
        return jcnn.chain(net.conv(3, 2, bias=False), norm, jcnn.relu, net.flatten(), net.dense(2))

    x, labels = normal(14, 4, 3, 3, 2), jnp.array([0, 1, 1, 0])
    params, state = model(None).init(jax.random.key(0), x.shape[1:])

    def gradient(axis_name):
        def loss(params, x, labels):
            y, after = model(axis_name).apply(params, state, x, train=True)
            return jcnn.softmax_cross_entropy(y, labels).sum(), after

        return jax.grad(loss, has_aux=True)

    specs = (EVERYWHERE, HERE, HERE)
    mapped = jax.shard_map(gradient("d"), mesh=mesh, in_specs=specs, out_specs=(EVERYWHERE, EVERYWHERE))
    args = params, x, labels
    assert_close(jax.jit(mapped)(*args), jax.jit(gradient(None))(*args), 1e-10, "gradient and state")
