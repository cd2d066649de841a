"""Weights from and to Flax, linen and nnx: every kind of layer, whole nets, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn import interop, net
from tests.checks import assert_close

nn = pytest.importorskip("flax.linen")
KEY = jax.random.key(0)


def drawn(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def randomized(variables):
    """Variables with no zeros and ones in them, which would hide mistakes; variances stay positive."""
    leaves, tree = jax.tree.flatten(variables)
    return jax.tree.unflatten(tree, [a + 0.1 * jnp.abs(drawn(a.shape, i)) for i, a in enumerate(leaves)])


class LayerScale(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * self.param("layer_scale", nn.initializers.ones, (x.shape[-1],))


def wide(module, *args, **config):
    return module(*args, **config, param_dtype=jnp.float64)


KINDS = {  # net, module, shape of an image
    "conv 1d": (net.conv(4, 3, stride=2), wide(nn.Conv, 4, (3,), 2), (8, 3)),
    "conv 2d": (
        net.conv(6, (2, 3), dilation=2, groups=2),
        wide(nn.Conv, 6, (2, 3), kernel_dilation=2, feature_group_count=2),
        (7, 8, 4),
    ),
    "conv 3d": (net.conv(4, 2, bias=False), wide(nn.Conv, 4, (2, 2, 2), use_bias=False), (3, 4, 5, 2)),
    "transposed 1d": (
        net.conv_transpose(4, 3, stride=2, padding="VALID"),
        wide(nn.ConvTranspose, 4, (3,), 2, "VALID"),
        (5, 3),
    ),
    "transposed 2d": (
        net.conv_transpose(4, (3, 2), stride=2),
        wide(nn.ConvTranspose, 4, (3, 2), (2, 2)),
        (4, 5, 4),
    ),
    "dense": (net.dense(4), wide(nn.Dense, 4), (5, 6, 3)),
    "flatten": (
        jcnn.chain(net.flatten(), net.batch_norm(), net.dense(4, bias=False)),
        nn.Sequential(
            [
                lambda x: x.reshape(len(x), -1),
                wide(nn.BatchNorm, use_running_average=True),
                wide(nn.Dense, 4, use_bias=False),
            ]
        ),
        (4, 5, 3),
    ),
    "batch norm": (net.batch_norm(), wide(nn.BatchNorm, use_running_average=True), (5, 6, 3)),
    "layer norm": (net.layer_norm(eps=1e-6), wide(nn.LayerNorm), (5, 6, 3)),
    "rms norm": (net.rms_norm(eps=1e-6), wide(nn.RMSNorm), (5, 6, 3)),
    "group norm": (net.group_norm(2, eps=1e-6), wide(nn.GroupNorm, 2), (5, 6, 4)),
    "instance norm": (net.instance_norm(eps=1e-6), wide(nn.InstanceNorm), (5, 6, 3)),
    "prelu": (net.prelu(shared=True), wide(nn.PReLU), (5, 6, 3)),
    "layer scale": (net.layer_scale(), LayerScale(), (5, 6, 3)),
}


def assert_same(model, module, shape, **config):
    x = drawn((3, *shape), 7)
    variables = randomized(module.init(KEY, x))
    params, state = interop.from_flax(model, variables, shape, **config)
    y, _ = model.apply(params, state, x, train=False)
    assert_close(y, module.apply(variables, x), 1e-12, "output")
    back = interop.to_flax(model, params, state, shape, like=variables, **config)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    assert_close(back, variables, 0, "the way back")
    assert [a.dtype for a in jax.tree.leaves(back)] == [a.dtype for a in jax.tree.leaves(variables)]


@pytest.mark.parametrize("name", KINDS)
def test_outputs_are_those_of_flax_and_the_way_back_is_exact(name):
    assert_same(*KINDS[name])


def test_transposed_kernels():
    module = wide(nn.ConvTranspose, 4, (3, 2), (2, 2), transpose_kernel=True)
    model = net.conv_transpose(4, (3, 2), stride=2)
    assert_same(model, module, (4, 5, 4), transpose_kernel=True)
    with pytest.raises(AssertionError, match="output"):
        assert_same(model, module, (4, 5, 4))


class Block(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, train):
        y = wide(nn.Conv, self.features, (3, 3), use_bias=False)(x)
        y = nn.relu(wide(nn.BatchNorm, momentum=0.9, use_running_average=not train)(y))
        return nn.relu(wide(nn.Conv, self.features, (3, 3))(y) + wide(nn.Conv, self.features, (1, 1))(x))


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.relu(wide(nn.Conv, 5, (3, 3), strides=2)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = Block(3)(x, train)
        x = Block(4)(x, train)
        return wide(nn.Dense, 3)(x.reshape(len(x), -1))


def block(features):
    body = [net.conv(features, 3, bias=False), net.batch_norm(), jcnn.relu, net.conv(features, 3)]
    return jcnn.chain(jcnn.residual(jcnn.chain(*body), net.conv(features, 1)), jcnn.relu)


SHAPE = (8, 12, 2)
MODEL = jcnn.chain(
    *[net.conv(5, 3, stride=2), jcnn.relu, net.max_pool(2)],
    *[block(3), block(4), net.flatten(), net.dense(3)],
)
# By order the blocks' convolutions come first, as B comes before C.
NAMES = {"0": "Conv_0"}


def test_a_linen_net_in_inference_and_in_training():
    x = drawn((3, *SHAPE), 8)
    module = CNN()
    variables = randomized(jax.jit(module.init)(KEY, x))  # under jit, dicts are sorted
    params, state = interop.from_flax(MODEL, variables, SHAPE, names=NAMES)
    apply = jax.jit(MODEL.apply, static_argnames="train")
    y, _ = apply(params, state, x, train=False)
    assert_close(y, jax.jit(lambda: module.apply(variables, x, train=False))(), 1e-10, "inference")
    y, after = apply(params, state, x, train=True)
    theirs, changed = jax.jit(lambda: module.apply(variables, x, mutable=["batch_stats"]))()
    assert_close(y, theirs, 1e-10, "training")
    back = interop.to_flax(MODEL, params, after, SHAPE, like=variables, names=NAMES)
    assert_close(back["batch_stats"], changed["batch_stats"], 1e-10, "running statistics")
    assert_close(back["params"], variables["params"], 0, "parameters")
    names = interop.flax_names(MODEL, variables, SHAPE, names=NAMES)
    assert (names["3.0.0.0"], names["4.0.1"]) == ("Block_0/Conv_0", "Block_1/Conv_2")


def test_modules_are_in_the_order_of_their_numbers():
    """In that of the alphabet, in which JAX returns dicts, Dense_10 comes before Dense_2."""
    module = nn.Sequential([wide(nn.Dense, 3) for _ in range(12)])
    model = jcnn.chain(*[net.dense(3) for _ in range(12)])
    assert_same(model, module, (2, 3))
    variables = jax.jit(module.init)(KEY, drawn((1, 2, 3)))
    assert list(variables["params"])[:3] == ["layers_0", "layers_1", "layers_10"]
    names = interop.flax_names(model, variables, (2, 3))
    assert list(names.values()) == [f"layers_{i}" for i in range(12)]


def test_an_nnx_net():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            wide = {"param_dtype": jnp.float64, "rngs": rngs}
            self.convs = nnx.List([nnx.Conv(2, 4, (3, 3), **wide), nnx.Conv(4, 4, (3, 3), **wide)])
            self.norm, self.out = nnx.BatchNorm(4, **wide), nnx.Linear(4, 3, **wide)

        def __call__(self, x):
            x = self.convs[1](nnx.relu(self.norm(self.convs[0](x))))
            return self.out(x.mean((1, 2)))

    convs = net.conv(4, 3), net.conv(4, 3)
    model = jcnn.chain(convs[0], net.batch_norm(), jcnn.relu, convs[1], net.global_avg_pool(), net.dense(3))
    module = Net(nnx.Rngs(0))
    module.eval()
    graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat)
    pure = dict(zip(("params", "batch_stats"), map(nnx.to_pure_dict, states), strict=True))
    variables, x = randomized(pure), drawn((3, 5, 6, 2))
    params, state = interop.from_flax(model, variables, (5, 6, 2))
    back = interop.to_flax(model, params, state, (5, 6, 2), like=variables)
    for nnx_state, collection in zip(states, pure, strict=True):
        nnx.replace_by_pure_dict(nnx_state, back[collection])
    y, _ = model.apply(params, state, x, train=False)
    assert_close(y, nnx.merge(graph, *states)(x), 1e-10, "output")
    assert_close(back, variables, 0, "the way back")


def dense(**changes):
    return {"params": {"Dense_0": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2), **changes}}}


ERRORS = {
    "missing": (
        lambda: interop.from_flax(
            net.dense(2), {"params": {"Dense_0": {"kernel": jnp.ones((3, 2))}}}, (4, 3)
        ),
        r"from_flax: variables: got module 'Dense_0' with 'kernel' for layer '' \(dense\), "
        r"expected 'bias', 'kernel'",
    ),
    "shape": (
        lambda: interop.from_flax(net.dense(2), dense(), (4, 5)),
        r"from_flax: variables: got shape \(3, 2\) of 'kernel' of module 'Dense_0', expected \(5, 2\)",
    ),
    "collections": (
        lambda: interop.from_flax(net.dense(2), dense()["params"], (4, 3)),
        r"variables: got collections \['Dense_0'\], expected 'params' and, with batch norm, 'batch_stats'",
    ),
    "left over": (
        lambda: interop.flax_names(
            net.dense(2), dense() | {"batch_stats": {"BatchNorm_0": {"mean": 1}}}, (4, 3)
        ),
        r"flax_names: variables: got 1 modules of kind 'batch norm' by order: 'BatchNorm_0', expected 0",
    ),
    "another net": (
        lambda: interop.to_flax(net.dense(2), {"w": jnp.ones((3, 2))}, {}, (4, 3), like=dense()),
        r"to_flax: params, state: got nothing for 'b' of layer '' \(dense\), expected shape \(2,\)",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_both_sides(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=r"jcnn\.interop\.(from_flax: )?" + message):
        call()
