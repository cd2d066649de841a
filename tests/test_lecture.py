"""Numbers that the CNN lecture works out on paper."""

import jax
import jax.numpy as jnp
import numpy as np

import jcnn
from jcnn.geometry import receptive_field, window

NINE = np.arange(9.0).reshape(3, 3)
FOUR = np.arange(4.0).reshape(2, 2)


def conv(x, k, **static):
    """One channel in, one channel out; spatial axes only."""
    rank = np.ndim(x)
    y = jcnn.conv(jnp.array(x, float)[None, ..., None], jnp.array(k, float)[..., None, None], **static)
    assert y.ndim == rank + 2
    return y[0, ..., 0].tolist()


def test_cross_correlation_of_nine_numbers():
    assert conv(NINE, FOUR) == [[19, 25], [37, 43]]


def test_padding_of_one_all_around():
    assert conv(NINE, FOUR, padding=1) == [[0, 3, 8, 4], [9, 19, 25, 10], [21, 37, 43, 16], [6, 7, 8, 0]]


def test_padding_of_one_and_strides_of_three_and_two():
    assert conv(NINE, FOUR, padding=1, stride=(3, 2)) == [[0, 8], [6, 8]]


def test_one_dimensional_convolution_with_stride_two():
    assert conv([5, 6, 6, 2, 5, 6, 5], [1, -1, 1], stride=2) == [5, 9, 4]


def test_max_pool_of_nine_numbers():
    y = jcnn.max_pool(jnp.array(NINE)[None, ..., None], window=2, stride=1)
    assert y[0, ..., 0].tolist() == [[4, 5], [7, 8]]


def test_average_pool_of_nine_numbers():
    y = jcnn.avg_pool(jnp.array(NINE)[None, ..., None], window=2, stride=1)
    assert y[0, ..., 0].tolist() == [[2, 3], [5, 6]]


def test_minibatch_of_64_colour_images_through_96_kernels():
    images = jax.ShapeDtypeStruct((64, 256, 256, 3), jnp.float32)
    kernels = jax.ShapeDtypeStruct((5, 5, 3, 96), jnp.float32)
    y = jax.eval_shape(lambda x, w: jcnn.conv(x, w, stride=2, padding="SAME"), images, kernels)
    assert y.shape == (64, 128, 128, 96)


def test_same_padding_keeps_the_size_and_valid_loses_kernel_minus_one():
    for k in (1, 2, 3, 5):
        assert np.shape(conv(np.ones((6, 7)), np.ones((k, k)), padding="SAME")) == (6, 7)
        assert np.shape(conv(np.ones((6, 7)), np.ones((k, k)))) == (7 - k, 8 - k)


def test_edge_padding_copies_the_outer_pixels():
    assert conv([1, 2, 3], [1, 0, 0], padding=1, padding_mode="edge") == [1, 1, 2]
    assert conv([1, 2, 3], [0, 0, 1], padding=1, padding_mode="edge") == [2, 3, 3]
    assert conv([1, 2, 3], [0, 0, 1], padding=1) == [2, 3, 0]


def test_two_layers_of_kernel_three_see_five_inputs():
    first, second = window("conv", 3, size=(20,)), window("conv", 3, size=(18,))
    assert receptive_field([first, second]).size == (5,)
    w = jnp.ones((3, 1, 1))

    def middle(x):
        return jcnn.conv(jcnn.conv(x, w), w)[0, 4, 0]

    seen = jax.grad(middle)(jnp.zeros((1, 20, 1))).ravel()
    assert np.flatnonzero(seen).tolist() == [4, 5, 6, 7, 8]


def test_edge_detector_finds_the_edges():
    x = np.ones((6, 8))
    x[:, 2:6] = 0
    assert conv(x, [[1, -1]]) == [[0, 1, 0, 0, 0, -1, 0]] * 6
    assert conv(x.T, [[1, -1]]) == np.zeros((8, 5)).tolist()


def test_two_input_channels_are_summed():
    x = jnp.stack([NINE, NINE + 1], -1)[None]
    w = jnp.stack([FOUR, FOUR + 1], -1)[..., None]
    assert jcnn.conv(x, w)[0, ..., 0].tolist() == [[56, 72], [104, 120]]


def test_one_by_one_convolution_is_a_dense_layer_at_every_pixel():
    x, w = jnp.arange(24.0).reshape(1, 3, 4, 2), jnp.array([[1.0, 2, 3], [4, 5, 6]])
    assert jcnn.conv(x, w[None, None]).tolist() == jcnn.dense(x, w).tolist()


def test_convolution_of_a_shifted_image_is_the_shifted_convolution():
    x = np.arange(20.0) ** 2 % 7
    y = conv(x, [1, 2, -1])
    assert conv(x[3:], [1, 2, -1]) == y[3:]
