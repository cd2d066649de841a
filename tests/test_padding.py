"""Padding against `np.pad` and the definition of an adjoint."""

import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.geometry import PADDING_MODES
from jcnn.padding import NUMPY_MODES
from jcnn.verify.examples import normal
from tests.checks import assert_close

PADDINGS = {
    "1-D": ((2, 3, 2), ((1, 2),)),
    "asymmetric": ((1, 4, 3, 2), ((2, 0), (1, 3))),
    "longer than the image": ((1, 2, 3, 1), ((5, 3), (0, 7))),
    "3-D": ((1, 2, 3, 2, 2), ((1, 1), (0, 2), (1, 0))),
    "none": ((1, 2, 2, 1), ((0, 0), (0, 0))),
}


@pytest.mark.parametrize("case", PADDINGS)
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_pad_is_numpys_and_its_backward_the_adjoint(mode, case):
    shape, padding = PADDINGS[case]
    x = normal(0, *shape)
    y, res = jcnn.pad.fwd(x, padding=padding, mode=mode)
    assert_close(y, np.pad(x, [(0, 0), *padding, (0, 0)], NUMPY_MODES[mode]), 0, mode)
    dy = normal(1, *y.shape)
    (dx,) = jcnn.pad.bwd(res, dy)
    # Padding is linear, so one image with a single 1 at a time gives all of its matrix.
    pixels = np.eye(x.size).reshape(-1, *shape)
    columns = np.stack([np.pad(p, [(0, 0), *padding, (0, 0)], NUMPY_MODES[mode]) for p in pixels])
    expected = columns.reshape(x.size, -1) @ np.asarray(dy).ravel()
    assert_close(dx, expected.reshape(shape), 1e-13, f"adjoint of {mode}")


def test_edge_copies_the_outer_pixels():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 2, 2, 1)
    y = jcnn.pad(x, padding=1, mode="edge")[0, :, :, 0]
    assert y.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_reflect_does_not_repeat_the_outer_pixels_and_symmetric_does():
    x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    assert jcnn.pad(x, padding=2, mode="reflect").ravel().tolist() == [3, 2, 1, 2, 3, 2, 1]
    assert jcnn.pad(x, padding=2, mode="symmetric").ravel().tolist() == [2, 1, 1, 2, 3, 3, 2]
    assert jcnn.pad(x, padding=2, mode="wrap").ravel().tolist() == [2, 3, 1, 2, 3, 1, 2]


def test_pixels_get_the_gradient_of_their_copies():
    _, res = jcnn.pad.fwd(jnp.zeros((1, 3, 1)), padding=((2, 1),), mode="edge")
    (dx,) = jcnn.pad.bwd(res, jnp.arange(1.0, 7.0).reshape(1, 6, 1))
    assert dx.ravel().tolist() == [1 + 2 + 3, 4, 5 + 6]


def test_gradient_of_many_copies_is_summed_in_float32():
    _, res = jcnn.pad.fwd(jnp.ones((1, 1, 1), jnp.bfloat16), padding=((600, 423),), mode="edge")
    (dx,) = jcnn.pad.bwd(res, jnp.ones((1, 1024, 1), jnp.bfloat16))
    assert dx.dtype == jnp.bfloat16
    assert float(dx[0, 0, 0]) == 1024


def test_reflect_of_one_pixel_and_copies_of_none_are_refused():
    with pytest.raises(ValueError, match=r"jcnn\.pad: x: got size 1 on spatial axis 1, expected at least 2"):
        jcnn.pad(jnp.ones((1, 3, 1, 1)), padding=1, mode="reflect")
    with pytest.raises(ValueError, match=r"jcnn\.pad: x: got size 0 on spatial axis 0, expected at least 1"):
        jcnn.pad(jnp.ones((1, 0, 1)), padding=1, mode="edge")
    with pytest.raises(ValueError, match=r"jcnn\.conv: x: got size 1 on spatial axis 0"):
        jcnn.conv(jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1)), padding=1, padding_mode="reflect")
    assert jcnn.pad(jnp.ones((1, 3, 1, 1)), padding=(1, 0), mode="reflect").shape == (1, 5, 1, 1)
