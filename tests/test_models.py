"""The model zoo: shapes, parameter counts, and ten steps of training against autodiff."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jcnn
from jcnn import models, net
from jcnn.models.airbench import whitening_filters
from jcnn.models.mobilenet import multiple_of_8
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


# (model for 1000 classes, parameters as published or as torchvision has them)
PUBLISHED = {
    "resnet18": (models.resnet(1000, stem="imagenet"), 11_689_512),
    "resnet50": (models.resnet(1000, depth=50, stem="imagenet"), 25_557_032),
    "resnext50_32x4d": (models.resnext(1000, groups=32, stem="imagenet"), 25_028_904),
    "mobilenet_v2": (models.mobilenet_v2(1000, stem="imagenet"), 3_504_872),
    "convnext_tiny": (models.convnext(1000), 28_589_128),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name):
    model, expected = PUBLISHED[name]
    assert parameters(model, (64, 64, 3)) == expected


def test_resnet18_for_small_images():
    assert parameters(models.resnet(), (32, 32, 3)) == 11_173_962
    rows = models.resnet(width=16, blocks=(1, 1, 1)).summary((32, 32, 3)).rows
    convolutions = [row.output_shape for row in rows if "conv" in row.name]
    assert (convolutions[0], convolutions[-1]) == ((32, 32, 16), (8, 8, 64))


def test_channels_of_mobilenet_are_multiples_of_8_that_lose_a_tenth_at_most():
    assert [multiple_of_8(size) for size in (3, 11.2, 12, 25.2, 33.6)] == [8, 16, 16, 24, 32]


def test_resnet50_costs_the_4_1_billion_multiply_adds_of_the_paper():
    assert (
        models.resnet(1000, depth=50, stem="imagenet").summary((224, 224, 3)).total("macs_forward")
        == 4_089_184_256
    )


def test_blocks_of_a_new_resnet_are_their_shortcuts():
    block = models.resnet(width=4, blocks=(1,)).children[3]
    x = normal(0, 2, 5, 5, 4)
    params, state = block.init(KEY, x.shape[1:])
    assert_close(block.apply(params, state, x, train=True)[0], x, 0, "zero_init")
    block = models.resnet(width=4, blocks=(1,), zero_init=False).children[3]
    params, state = block.init(KEY, x.shape[1:])
    assert float(jnp.abs(block.apply(params, state, x, train=True)[0] - x).max()) > 0.1


def test_airbench_is_the_papers_net():
    """Jordan 2024: 1.97 million parameters, eight layers with weights; convolutions start as identities."""
    model = models.airbench()
    params, state = model.init(KEY, (32, 32, 3))
    assert sum(p.size for p in jax.tree.leaves(params)) == 1_971_352
    shapes = [w.shape for w in jax.tree.leaves((params, state)) if w.ndim > 1]
    assert len(shapes) == 8
    x = normal(0, 1, 6, 7, 24)
    y, _ = model.children[2].apply(params[2], state[2], x, train=True)
    assert_close(y[..., :24], x, 1e-12, "the first 24 of 64 channels")
    assert float(jnp.abs(y[..., 24:]).mean()) > 0.1


def test_whitening_filters_make_patches_white():
    white = normal(0, 40, 9, 8, 3)
    images = white + 3 * jnp.roll(white, 1, 2) + white[..., :1] + 0.5  # neighbours and channels correlate
    w = whitening_filters(images, eps=0.0)
    y = jcnn.conv(images, w).reshape(-1, 24)
    assert_close(y.T[:12] @ y[:, :12] / len(y), jnp.eye(12), 1e-9, "second moments")
    assert_close(y[:, 12:], -y[:, :12], 0, "negatives")
    sizes = jnp.sum(w[..., :12] ** 2, (0, 1, 2))  # 1 / eigenvalues
    assert (jnp.diff(sizes) > 0).all()
    model = models.airbench(whiten=images)
    _, state = model.init(KEY, (32, 32, 3))
    assert_close(state[0][0]["w"], whitening_filters(images), 0, "of the net")


def test_models_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"models\.resnet: depth: got 20, expected one of 18, 34, 50"):
        models.resnet(depth=20)
    for make in (models.resnet, models.resnext, models.mobilenet_v2):
        with pytest.raises(ValueError, match=r"stem: got 'mnist', expected one of 'cifar', 'imagenet'"):
            make(stem="mnist")
    with pytest.raises(ValueError, match=r"resnext: group_width: got 4, expected a multiple of 64 / width=8"):
        models.resnext(width=8)
    with pytest.raises(ValueError, match=r"convnext: blocks: got \(3, 3, 9, 3\), expected one for each of"):
        models.convnext(widths=(8, 16))
    with pytest.raises(
        ValueError, match=r"airbench: whiten: got shape \(8, 8, 3\), expected images \[N, H, W, C\]"
    ):
        models.airbench(whiten=jnp.ones((8, 8, 3)))
    with pytest.raises(
        ValueError, match=r"airbench: whiten: got 3 channels, expected 1, as the net's images"
    ):
        models.airbench().init(KEY, (28, 28, 1))


SMALL = {
    "resnet": (models.resnet(3, width=3, blocks=(1, 1), stem="imagenet"), (13, 12, 2)),
    "resnext": (models.resnext(3, groups=2, group_width=32, width=4, blocks=(1,)), (4, 5, 2)),
    "mobilenet_v2": (
        models.mobilenet_v2(3, stages=((1, 8, 1, 1), (2, 8, 2, 2)), width=0.1, dropout=0.3),
        (4, 6, 2),
    ),
    "airbench": (models.airbench(3, widths=(26, 5)), (15, 14, 3)),
    "convnext": (models.convnext(3, widths=(4, 6), blocks=(1, 1), patch=2, kernel=3, scale=0.5), (8, 9, 2)),
}


@pytest.mark.parametrize("name", SMALL)
def test_explicit_backward_of_a_model_equals_autodiff(name):
    model, shape = SMALL[name]
    x, dy = normal(1, 3, *shape), normal(2, 3, 3)
    params, state = model.init(KEY, shape)
    params = jax.tree.map(lambda p: p + 0.1 * normal(3, *p.shape), params)  # no gamma or bias of 0

    @jax.jit
    def explicit(params, x):
        (_, after), res = model.fwd(params, state, x, train=True, key=KEY)
        return model.bwd(res, dy), after

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def by_grad(params, x):
        y, after = model.apply(params, state, x, train=True, key=KEY)
        return jnp.vdot(dy, y), after

    by_hand, by_jax = explicit(params, x), jcnn.autodiff(by_grad)(params, x)
    assert jax.tree.structure(by_hand) == jax.tree.structure(by_jax)
    # As vectors: some gradients are 0, those of a beta before a convolution and another batch norm.
    assert_close(ravel_pytree(by_hand)[0], ravel_pytree(by_jax)[0], 1e-10, "autodiff")


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
