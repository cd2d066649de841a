"""Features made by optimisation, and figures."""

import io
import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.figure import Figure

import jcnn
from jcnn import inspect, net
from jcnn.inspect import show
from tests.checks import assert_close, draw

KEY = jax.random.key(0)
SHAPE = (7, 6, 2)
MODEL = net.chain(net.conv(4, 3, stride=2), net.batch_norm(), jcnn.relu, net.flatten(), net.dense(3))
PARAMS, STATE = MODEL.init(KEY, SHAPE)


def normal(seed, *shape):
    return draw(seed, jax.ShapeDtypeStruct(shape, float))


# --- features -------------------------------------------------------------------------------------


def ascended(layer=0, **how):
    return inspect.visualize_features(MODEL, PARAMS, STATE, SHAPE, layer, key=KEY, **how)


def excitation(x, layer, channels):
    maps = inspect.feature_maps(MODEL, PARAMS, STATE, x, layer)
    return jnp.stack([maps[n, ..., c].mean() for n, c in enumerate(channels)])


@pytest.mark.parametrize(("layer", "jitter"), [(0, 3), (-1, 0)])
def test_a_step_is_the_gradient_over_its_size_less_the_penalties(layer, jitter):
    channels, rate, l2, tv = (2, 0), 0.1, 0.5, 0.25
    noise, shifts = jax.random.split(KEY)
    start = 0.1 * jax.random.normal(noise, (2, *SHAPE))
    shift = jax.random.randint(jax.random.fold_in(shifts, 0), (2,), -jitter, jitter + 1)
    assert bool(shift.any()) == (jitter > 0)
    g = jax.grad(lambda x: excitation(jnp.roll(x, shift, (1, 2)), layer, channels).sum())(start)
    g = g / jnp.sqrt((g**2).mean((1, 2, 3), keepdims=True))

    def penalty(x):
        rough = sum((jnp.diff(x, axis=axis) ** 2).sum() for axis in (1, 2))
        return l2 * (x**2).sum() / 2 + tv * rough / 2

    got = ascended(layer, channels=channels, steps=1, rate=rate, l2=l2, tv=tv, jitter=jitter)
    assert_close(got, start + rate * (g - jax.grad(penalty)(start)), 1e-12, "one step")


@pytest.mark.parametrize("layer", [2, -1])
def test_ascent_excites_each_channel_most_and_is_repeatable(layer):
    x = ascended(layer, steps=40)
    channels = range(len(x))
    before = excitation(0.1 * normal(0, *x.shape), layer, channels)
    assert bool((excitation(x, layer, channels) > before + 0.07).all())
    assert_close(ascended(layer, steps=40), x, 0, "again")
    one = ascended(layer, steps=40, jitter=3)
    assert float(jnp.abs(one - x).max()) > 1e-3


def test_a_dead_channel_leaves_the_image_finite():
    dead = net.chain(net.conv(1, 1), jcnn.relu)
    params = ({"w": jnp.zeros((1, 1, 2, 1)), "b": -jnp.ones(1)}, {})
    x = inspect.visualize_features(dead, params, ({}, {}), SHAPE, 1, key=KEY, steps=3)
    assert bool(jnp.isfinite(x).all())


def test_ascent_refuses_what_makes_no_sense():
    for how, words in (
        ({"channels": (0, 4)}, ["channels", "(0, 4)", "0 to 3"]),
        ({"channels": ()}, ["channels", "()", "0 to 3"]),
        ({"steps": 0}, ["steps", "0", ">= 1"]),
        ({"tv": -1.0}, ["tv", "-1.0"]),
        ({"layer": 5}, ["layer", "5", "4: dense"]),
    ):
        with pytest.raises(ValueError) as raised:
            ascended(**how)
        missing = [word for word in ["visualize_features", *words] if word not in str(raised.value)]
        assert missing == []


# --- figures --------------------------------------------------------------------------------------


def drawn(figure: Figure) -> np.ndarray:
    """The array behind the picture, after it has been rendered."""
    figure.savefig(io.BytesIO())
    (picture,) = figure.axes[0].get_images()
    assert isinstance(picture, matplotlib.image.AxesImage)
    return np.ma.filled(picture.get_array(), np.nan)


def test_filters_are_tiles_in_order_on_one_symmetric_scale():
    w = np.asarray(normal(0, 11, 3, 2, 1))
    figure = show.filters(w, title="first layer")
    mosaic = drawn(figure)
    assert mosaic.shape == (2 * 4 - 1, 8 * 3 - 1)  # 8 tiles in a row, a pixel between
    np.testing.assert_array_equal(mosaic[:3, :2], w[0, :, :, 0])
    np.testing.assert_array_equal(mosaic[4:7, 6:8], w[10, :, :, 0])
    assert np.isnan(mosaic[3]).all()
    assert np.isnan(mosaic[4:, 9:]).all()
    low, high = figure.axes[0].get_images()[0].get_clim()
    assert -low == high == np.abs(w).max()
    assert figure.get_suptitle() == "first layer"


def test_filters_of_many_channels_and_in_colour():
    w = np.asarray(normal(0, 4, 2, 2, 5))
    np.testing.assert_array_equal(drawn(show.filters(w))[3:5, 6:8], w[1, :, :, 2])
    colour = np.asarray(normal(0, 2, 2, 2, 3))
    mosaic = drawn(show.filters(colour))
    assert mosaic.shape == (2, 5, 3)
    np.testing.assert_allclose(mosaic[:, 3:], (colour[1] - colour[1].min()) / np.ptp(colour[1]))
    assert (mosaic[:, 2] == 1).all()


def test_feature_maps_and_images():
    maps = normal(0, 4, 3, 2)
    np.testing.assert_array_equal(drawn(show.feature_maps(maps))[:, 4:], maps[..., 1])
    flat = jnp.stack([jnp.zeros((2, 2, 1)), jnp.arange(4.0).reshape(2, 2, 1)])
    mosaic = drawn(show.images(flat))
    np.testing.assert_allclose(mosaic[:, :2], 0)
    np.testing.assert_allclose(mosaic[:, 3:, 0], np.arange(4).reshape(2, 2) / 3)


def test_patches_have_a_row_for_each_channel():
    images = normal(0, 5, *SHAPE)
    found = inspect.top_patches(MODEL, PARAMS, STATE, images, 0, channels=(3, 1), k=4)
    figure = show.patches(found)
    mosaic = drawn(figure)
    assert mosaic.shape == (2 * 4 - 1, 4 * 4 - 1, 3)
    low, high = found.patches.min(), found.patches.max()
    expected = (found.patches[1, 2].mean(-1) - low) / (high - low)
    np.testing.assert_allclose(mosaic[4:7, 8:11, 1], expected)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["channel 3", "channel 1"]


def test_attributions_have_a_row_for_each_image_and_a_column_for_each_method():
    pictures, cam = jnp.ones((2, 4, 4, 1)), np.zeros((2, 4, 4))
    signed = np.zeros((2, 4, 4, 2))
    signed[1, 0, 0], signed[1, 3, 3] = (-3, 1), (0.5, 0.5)
    figure = show.attributions(pictures, {"LRP": signed, "CAM": cam}, names=("a", "b"))
    mosaic = drawn(figure)
    assert mosaic.shape == (2 * 5 - 1, 3 * 5 - 1, 3)
    faint = 0.65  # a constant image is black
    values = np.zeros((4, 4))
    values[0, 0], values[3, 3] = -1, 0.5
    np.testing.assert_allclose(mosaic[5:, 5:9], faint * colormaps["RdBu_r"]((values + 1) / 2)[..., :3])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["image", "LRP", "CAM"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: show.filters(np.ones((3, 3))), ["show.filters", "weights", "(3, 3)", "[O, kh, kw, C]"]),
        (
            lambda: show.images(np.ones((0, 3, 3, 1))),
            ["show.images", "pictures", "(0, 3, 3, 1)", "not empty"],
        ),
        (
            lambda: show.attributions(np.ones((1, 4, 4, 1)), {"cam": np.ones((1, 2, 2))}),
            ["show.attributions", "maps['cam']", "(1, 2, 2)", "(1, 4, 4)"],
        ),
    ],
)
def test_figures_refuse_what_they_cannot_show(call, words):
    with pytest.raises(ValueError) as raised:
        call()
    assert [word for word in words if word not in str(raised.value)] == []


def test_matplotlib_is_loaded_for_figures_only():
    code = (
        "import sys, jcnn; assert 'jcnn.inspect' not in sys.modules;"
        "jcnn.inspect.saliency; assert 'matplotlib' not in sys.modules;"
        "jcnn.inspect.show; assert 'matplotlib' in sys.modules; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
