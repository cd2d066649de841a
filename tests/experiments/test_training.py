"""The parts of `experiments.train`: augmentation, gradients, diagnosis."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from experiments.training.augment import TTA, augment, flip, mixup, seen, views
from experiments.training.diagnose import first_not_finite
from experiments.training.gradients import make_gradients, rematerialized
from experiments.training.steps import EVALUATION_BATCH, evaluation_batches
from jcnn import models, net


@pytest.mark.parametrize(
    ("n", "shape"), [(1, (1, 1)), (20, (1, 20)), (2 * EVALUATION_BATCH + 1, (3, EVALUATION_BATCH))]
)
def test_batches_of_evaluation_have_every_image_in_order(n, shape):
    batches = evaluation_batches(n)
    assert batches.shape == shape
    np.testing.assert_array_equal(batches.ravel()[:n], np.arange(n))
    assert (batches.ravel()[n:] == n - 1).all()


def test_augmentation_moves_each_image_by_itself():
    image = np.arange(1, 5 * 5 * 2 + 1, dtype=np.uint8).reshape(5, 5, 2)
    images = jnp.asarray(np.broadcast_to(image, (200, 5, 5, 2)))
    key = jax.random.key(0)
    np.testing.assert_array_equal(augment(images, key, "none"), images)
    for kind, mode in (("shift", "constant"), ("translate", "reflect")):
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode)
        cuts = {padded[i : i + 5, j : j + 5].tobytes() for i in range(3) for j in range(3)}
        assert {np.asarray(x).tobytes() for x in augment(images, key, kind)} == cuts


def test_every_image_is_mirrored_every_other_epoch():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (50, 4, 5, 2), np.uint8))
    key, indices = jax.random.key(0), np.random.default_rng(1).permutation(50)
    epochs = [np.asarray(flip(images[indices], indices, 50, jnp.int32(e), key)) for e in range(3)]
    kept = [(epoch == images[indices]).all((1, 2, 3)) for epoch in epochs]
    assert 10 < kept[0].sum() < 40
    np.testing.assert_array_equal(kept[1], ~kept[0])
    np.testing.assert_array_equal(epochs[1][:, :, ::-1], epochs[0])
    np.testing.assert_array_equal(epochs[2], epochs[0])
    part = flip(images[indices[:7]], indices[:7], 50, jnp.int32(0), key)
    np.testing.assert_array_equal(part, epochs[0][:7])  # whatever batch it is in


def test_views_of_test_time_augmentation():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 5, 1)))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    three = [(0.25, padded[:, 2:, 2:]), (0.5, x), (0.25, padded[:, :4, :5])]
    expected = {
        "none": [(1, x)],
        "flip": [(0.5, x), (0.5, x[:, :, ::-1])],
        "translate": three,
        "flip_translate": [(w / 2, v) for w, shifted in three for v in (shifted, shifted[:, :, ::-1])],
    }
    assert set(expected) == set(TTA)
    for tta in TTA:
        for (view, weight), (w, v) in zip(views(tta).items(), expected[tta], strict=True):
            assert weight == w
            np.testing.assert_array_equal(seen(x, view), v)


def test_cutout_takes_a_square_of_half_the_height():
    images = jnp.ones((200, 8, 8, 2), jnp.uint8)
    cut = np.asarray(augment(images, jax.random.key(0), "cutout", fill=np.float32([3, 5])))
    np.testing.assert_array_equal(np.unique(cut[..., 0]), [1, 3])
    np.testing.assert_array_equal(cut[..., 1] == 5, cut[..., 0] == 3)
    squares = set()
    for hole in cut[..., 0] == 3:
        rows, columns = hole.any(1), hole.any(0)
        np.testing.assert_array_equal(hole, rows[:, None] & columns)  # a rectangle
        squares.add((rows.sum(), columns.sum()))
    assert squares == {(a, b) for a in (2, 3, 4) for b in (2, 3, 4)}  # less where it leaves the image


def test_mixup_mixes_images_and_labels_alike():
    labels = np.arange(50) % 5
    x = jax.nn.one_hot(labels, 5)[:, None, None] * jnp.ones((50, 3, 3, 1))  # channel k shows class k
    mixed, soft = jax.jit(mixup, static_argnums=3)(x, labels, jax.random.key(0), 5)
    np.testing.assert_allclose(mixed[:, 1, 1], soft, atol=1e-6)
    np.testing.assert_allclose(soft.sum(-1), 1, atol=1e-6)
    np.testing.assert_array_equal(soft[np.arange(50), (labels - 2) % 5], 0)  # of the one before, no other
    assert 5 < (soft.max(-1) < 0.99).sum() < 50


SMALL = {
    "vgg_small": (models.vgg_small(10, widths=(4, 6), depths=(1, 1), dropout=0.5), (8, 8, 1)),
    "resnet": (models.resnet(10, width=4, blocks=(1, 1), zero_init=False), (8, 8, 3)),
}


@pytest.mark.parametrize("name", SMALL)
def test_explicit_and_rematerialized_steps_are_those_of_autodiff(name):
    model, image_shape = SMALL[name]
    params, state = model.init(jax.random.key(0), image_shape)
    x = jax.random.normal(jax.random.key(1), (4, *image_shape))
    labels, key = jnp.arange(4), jax.random.key(2)

    def result(model, backward, labels=labels):
        gradients = make_gradients(model, backward, jnp.dtype("float64"), 0.1)
        out = jax.jit(gradients)(params, state, x, labels, key)
        return out

    expected = result(model, "autodiff")
    assert all(g.any() for g in jax.tree.leaves(expected.grads) if g.ndim > 1)
    remat = rematerialized(model)
    assert remat is not model
    for other in (result(model, "explicit"), result(remat, "autodiff")):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), other, expected)
    if name == "lenet5":  # mixup's labels
        soft = jax.nn.one_hot(labels, 10, dtype=jnp.float32)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            result(model, "explicit", soft),
            expected,
        )


def test_gradients_in_bfloat16_are_float32():
    model, image_shape = SMALL["vgg_small"]
    params, state = jax.tree.map(jnp.float32, model.init(jax.random.key(0), image_shape))
    x = jax.random.normal(jax.random.key(1), (4, *image_shape), jnp.float32)
    for backward in ("autodiff", "explicit"):
        gradients = make_gradients(model, backward, jnp.dtype("bfloat16"), 0.0)
        out = jax.jit(gradients)(params, state, x, jnp.arange(4), jax.random.key(2))
        assert {g.dtype for g in jax.tree.leaves(out.grads)} == {jnp.dtype("float32")}
        assert jax.tree.structure(out.grads) == jax.tree.structure(params)


def test_an_explicit_step_asks_for_no_derivative(monkeypatch):
    """Every rule's derivative, as JAX knows it, is made to fail."""
    model, image_shape = SMALL["resnet"]
    params, state = model.init(jax.random.key(0), image_shape)
    gradients = make_gradients(model, "explicit", jnp.dtype("float64"), 0.0)

    def refuse(*_, **__):
        raise AssertionError("autodiff")

    for name in ("vjp", "grad", "value_and_grad", "linearize", "jvp"):
        monkeypatch.setattr(jax, name, refuse)
    jax.eval_shape(gradients, params, state, jnp.ones((2, *image_shape)), jnp.arange(2), jax.random.key(0))


def spoilt(what):
    """A net whose layer 2, inside of a block, makes a NaN of its output or of its input's cotangent."""
    relu = net.chain(jcnn.relu).children[0]

    def fwd(params, state, x, **mode):
        (y, state), res = relu.fwd(params, state, x, **mode)
        return (y.at[0, 0, 0, 0].set(jnp.nan) if what == "output" else y, state), res

    def bwd(res, dy):
        dparams, dx = relu.bwd(res, dy)
        return dparams, dx.at[0, 0, 0, 0].set(jnp.inf) if what == "input" else dx

    bad = dataclasses.replace(relu, fwd=fwd, bwd=bwd)
    return net.chain(net.conv(4, 3), net.residual(net.chain(net.conv(4, 3), bad)), net.global_avg_pool())


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("images", "the images: 1 NaN and 0 infinite of 64 numbers"),
        ("parameters", r"the parameters of layer 1, conv[ 3]*: 0 NaN and 1 infinite of 148 numbers"),
        ("output", "the output of layer 2, relu: 1 NaN and 0 infinite of 256 numbers"),
        ("input", "the gradient of the input of layer 2, relu: 0 NaN and 1 infinite of 256 numbers"),
        ("nothing", None),
    ],
)
def test_the_first_layer_that_is_not_finite_is_named(what, expected):
    model, key = spoilt(what), jax.random.key(0)
    params, state = model.init(key, (4, 4, 1))
    x = jnp.ones((4, 4, 4, 1))
    if what == "images":
        x = x.at[0, 1, 0, 0].set(jnp.nan)
    if what == "parameters":
        (conv, _), _ = params[1]
        conv["b"] = conv["b"].at[0].set(jnp.inf)
    said = first_not_finite(model, params, state, x, key, jnp.ones_like)
    silent = "no layer shows it when the layers run one by one"
    assert re.fullmatch(f"first seen in {expected}" if expected else silent, said)
