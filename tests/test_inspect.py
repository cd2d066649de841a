"""Layers of a net, what they see, their weights and maps, and the patches that excite them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn import inspect, net
from tests.checks import assert_close, draw

KEY = jax.random.key(0)
SHAPE = (9, 8, 2)
BLOCK = net.residual(net.chain(net.conv(4, 3, stride=2, padding=1), jcnn.relu), net.conv(4, 1, stride=2))
MODEL = net.chain(
    net.conv(3, (3, 2), padding=((2, 0), (0, 1))),
    jcnn.relu,
    net.max_pool(2, stride=1),
    BLOCK,
    net.batch_norm(),
    net.global_avg_pool(),
    net.dense(5),
)
PARAMS, STATE = MODEL.init(KEY, SHAPE)
X = draw(0, jax.ShapeDtypeStruct((6, *SHAPE), float))
ROWS = [row.path for row in inspect.layers(MODEL)]


def test_layers_are_the_rows_of_the_summary():
    names = [row.name.split("| ")[-1].split("+ ")[-1] for row in MODEL.summary(SHAPE).rows]
    assert [row.name for row in inspect.layers(MODEL)] == names
    assert ROWS == [(0,), (1,), (2,), (3, 0, 0), (3, 0, 1), (3, 1), (4,), (5,), (6,)]


def test_feature_maps_of_every_layer_and_of_a_block():
    def through(parts, x, before=()):
        for i in parts:
            x = MODEL.children[i].apply(PARAMS[i], STATE[i], x, train=False)[0]
        return x

    entering = through(range(3), X)
    body, shortcut = BLOCK.children
    conv = body.children[0].apply(PARAMS[3][0][0], {}, entering, train=False)[0]
    side = shortcut.apply(PARAMS[3][1], {}, entering, train=False)[0]
    expected = {
        (2,): entering,
        (3, 0, 0): conv,
        (3, 0): jnp.maximum(conv, 0),
        (3, 0, 1): jnp.maximum(conv, 0),
        (3, 1): side,
        (3,): jnp.maximum(conv, 0) + side,
        (): through(range(7), X),
    }
    for path, maps in expected.items():
        assert_close(inspect.feature_maps(MODEL, PARAMS, STATE, X, path), maps, 1e-14, f"layer {path}")
        if path in ROWS:
            by_row = inspect.feature_maps(MODEL, PARAMS, STATE, X, ROWS.index(path) - len(ROWS))
            assert_close(by_row, maps, 1e-14, f"row of {path}")


def test_filters_are_the_weights_filter_by_filter():
    w = PARAMS[0]["w"]
    assert_close(inspect.filters(MODEL, PARAMS)[2], w[..., 2], 0, "first layer")
    assert_close(inspect.filters(MODEL, PARAMS, 5)[3], PARAMS[3][1]["w"][..., 3], 0, "shortcut")
    assert inspect.filters(MODEL, PARAMS, -1).shape == (5, 4)


def seen(field, position):
    """The interval of an output, per axis, as slices of the image."""
    spans = (axis[p].tolist() for axis, p in zip(field, position, strict=True))
    return tuple(slice(max(0, start), max(0, stop)) for start, stop in spans)


LARGER = net.chain(
    *(net.conv(2, 3, stride=2), net.upsample((2, 3), method="linear")),
    *(net.conv_transpose(3, (3, 4), stride=2), net.conv(2, (1, 2))),
)


@pytest.mark.parametrize(
    ("model", "path"),
    [*((MODEL, path) for path in [(0,), (2,), (3, 0, 1), (3, 1), (3,), (5,)]), (LARGER, ()), (LARGER, (1,))],
)
def test_receptive_field_is_where_the_gradient_can_be(model, path):
    field = inspect.receptive_field(model, SHAPE, path)
    params, state = model.init(KEY, SHAPE)
    many = draw(1, jax.ShapeDtypeStruct((64, *SHAPE), float))  # rectifiers hide pixels, not in all images

    @jax.jit
    def back(at):
        def one(x):
            maps = inspect.feature_maps(model, params, state, x, path)
            return maps.reshape(len(x), -1, maps.shape[-1])[:, at].sum()

        return jnp.abs(jax.grad(one)(many)).max((0, -1)) > 0

    shape = tuple(len(axis) for axis in field)
    for position in {(0, 0), (1, 2), (2, 5), (3, 4), (shape[0] - 1, shape[1] - 1)} & set(np.ndindex(shape)):
        expected = np.zeros(SHAPE[:-1], bool)
        expected[seen(field, position)] = True
        depends = back(np.ravel_multi_index(position, shape))
        np.testing.assert_array_equal(depends, expected, f"layer {path} at {position}")


def test_receptive_field_of_a_sum_holds_those_of_both_branches():
    def first(model):
        return [axis[0].tolist() for axis in inspect.receptive_field(model, SHAPE, ())]

    assert first(net.residual(net.conv(2, 3), net.conv(2, 5))) == [[-2, 3], [-2, 3]]
    one_sided = net.residual(net.conv(2, 3, padding=((2, 0), (2, 0))), net.conv(2, (1, 3)))
    assert first(one_sided) == [[-2, 1], [-2, 2]]
    assert first(net.residual(net.conv(2, 3), net.instance_norm())) == [[0, 9], [0, 8]]
    assert first(net.squeeze_excitation(2)) == [[0, 9], [0, 8]]
    assert first(net.chain(net.conv(2, 3), jcnn.global_avg_pool)) == [[0, 9], [0, 8]]


def test_padding_around_what_every_output_sees_all_of_is_left_out():
    rows, columns = inspect.receptive_field(net.conv(2, (17, 13)), SHAPE, ())
    assert rows.tolist() == [[0, 9]] * 9
    assert columns[[0, -1]].tolist() == [[-6, 7], [1, 14]]


def test_layers_behind_a_gate():
    gate = net.chain(jcnn.global_avg_pool, net.dense(2), jcnn.sigmoid)
    model = net.chain(net.conv(2, 1), net.gated(gate), jcnn.relu)
    params, state = model.init(KEY, SHAPE)
    x = inspect.feature_maps(model, params, state, X, 0)
    numbers = gate.apply(params[1][0], state[1][0], x, train=False)[0]
    assert_close(inspect.feature_maps(model, params, state, X, (1, 0, 2)), numbers, 1e-14, "gate")
    product = x * numbers[:, None, None]
    for layer in ((1, 1), (1,), -2):
        assert_close(inspect.feature_maps(model, params, state, X, layer), product, 1e-14, f"product {layer}")


def brute_force(layer, channel, k):
    """(score, image, position) of the k images with the largest activations."""
    maps = np.asarray(inspect.feature_maps(MODEL, PARAMS, STATE, X, layer))
    maps = maps.reshape(len(X), *(maps.shape[1:-1] or (1, 1)), maps.shape[-1])
    each = []
    for n in range(len(X)):
        position = max(np.ndindex(*maps.shape[1:-1]), key=lambda p: maps[n, *p, channel])
        each.append((maps[n, *position, channel], n, position))
    return sorted(each, key=lambda e: -e[0])[:k]


@pytest.mark.parametrize("layer", [0, 2, (3,), -1])
def test_top_patches_against_brute_force(layer):
    channels, k = (2, 0), 4
    found = inspect.top_patches(MODEL, PARAMS, STATE, X, layer, channels=channels, k=k, batch_size=4)
    assert found.channels == channels
    field = inspect.receptive_field(MODEL, SHAPE, layer)
    size = [axis[0, 1] - axis[0, 0] for axis in field]
    for row, channel in enumerate(channels):
        for column, (score, n, position) in enumerate(brute_force(layer, channel, k)):
            at = row, column
            assert found.images[at] == n
            assert tuple(found.positions[at]) == position
            np.testing.assert_allclose(found.scores[at], score, rtol=1e-12)
            starts = [axis[p, 0] for axis, p in zip(field, position, strict=True)]
            np.testing.assert_array_equal(found.intervals[at][:, 0], starts)
            np.testing.assert_array_equal(found.intervals[at][:, 1], np.add(starts, size))
            patch = np.zeros((*size, SHAPE[-1]))
            for pixel in np.ndindex(*size):
                y, x = np.add(starts, pixel)
                if 0 <= y < SHAPE[0] and 0 <= x < SHAPE[1]:
                    patch[pixel] = X[n, y, x]
            np.testing.assert_array_equal(found.patches[at], patch)


def test_top_patches_hold_all_that_a_neuron_sees():
    """Run alone, each patch gives its score; the first layer adds its own padding, so it is cut off."""
    found = inspect.top_patches(MODEL, PARAMS, STATE, X, 0, k=2)
    w = inspect.filters(MODEL, PARAMS)
    scores = jnp.einsum("ckyxi,cyxi->ck", found.patches, w)
    assert_close(scores, found.scores, 1e-12, "scores")


def test_patch_that_lies_in_the_padding_is_empty():
    far = net.chain(net.conv(1, 1, padding=2))
    params, state = {"w": -jnp.ones((1, 1, 1, 1)), "b": jnp.ones(1)}, {}
    found = inspect.top_patches(far, (params,), (state,), 3 + jnp.ones((1, 2, 2, 1)), 0, k=1)
    assert found.positions.tolist() == [[[0, 0]]]
    assert found.patches.tolist() == [[[[[0.0]]]]]


def test_ties_go_to_the_first_position_and_the_first_image():
    level = np.arange(60) % 3  # an unstable sort would mix up this many
    flat = np.ones((60, *SHAPE)) * level[:, None, None, None]
    found = inspect.top_patches(net.chain(jcnn.relu), ({},), ({},), flat, 0, k=40)
    assert found.images.tolist() == [[*range(2, 60, 3), *range(1, 60, 3)]] * 2
    assert not found.positions.any()


def test_rules_of_a_net_are_replaced_in_every_layer_and_nowhere_else():
    straight = jcnn.relu.replace(bwd=lambda res, dy: (dy,))
    other = MODEL.with_rules({jcnn.relu: straight})
    assert other.rules() == (MODEL.rules() - {jcnn.relu}) | {straight}
    assert str(other.summary(SHAPE)) == str(MODEL.summary(SHAPE))

    @functools.partial(jax.jit, static_argnums=0)
    def run(model, params, x):
        (y, _), res = model.fwd(params, STATE, x, train=False)
        by_grad = jax.grad(lambda p, x: model.apply(p, STATE, x, train=False)[0].sum(), (0, 1))(params, x)
        return y, model.bwd(res, jnp.ones_like(y)), by_grad

    (y, by_hand, by_grad), (expected, plain, _) = run(other, PARAMS, X), run(MODEL, PARAMS, X)
    assert_close(y, expected, 1e-14, "output")
    assert_close(by_hand, by_grad, 1e-12, "both ways")
    assert float(jnp.abs(by_hand[1] - plain[1]).max()) > 1e-3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: inspect.filters(MODEL, PARAMS, 1), ["filters", "layer", "1", "'relu'", "weights w"]),
        (lambda: inspect.filters(MODEL, PARAMS, 9), ["filters", "layer", "got 9", "8: dense"]),
        (lambda: inspect.filters(MODEL, PARAMS, True), ["filters", "layer", "got True", "0: conv 3x2"]),
        (lambda: inspect.receptive_field(MODEL, SHAPE, (3, 2)), ["receptive_field", "(3, 2)", "2 children"]),
        (
            lambda: inspect.feature_maps(MODEL, PARAMS, STATE, X, (0, 1)),
            ["feature_maps", "(0, 1)", "'conv 3x2'", "no children"],
        ),
        (lambda: inspect.top_patches(MODEL, PARAMS, STATE, X, 0, k=7), ["top_patches", "k", "7", "6"]),
        (
            lambda: inspect.top_patches(MODEL, PARAMS, STATE, X, 0, channels=(0, 3)),
            ["top_patches", "k", "9", "6"],
        ),
        (
            lambda: inspect.top_patches(MODEL, PARAMS, STATE, X, 0, k=1, channels=(0, 3)),
            ["top_patches", "channels", "(0, 3)", "0 to 2"],
        ),
        (
            lambda: inspect.receptive_field(dataclasses.replace(MODEL, name="both"), SHAPE, 2),
            ["receptive_field", "layer", "'both'", "'chain', 'residual'"],
        ),
        (
            lambda: MODEL.with_rules({jcnn.conv: jcnn.conv, jcnn.tanh: jcnn.tanh}),
            ["with_rules", "tanh", "relu"],
        ),
    ],
)
def test_errors_say_what_came_and_what_was_expected(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert [word for word in words if word not in str(error.value)] == []
