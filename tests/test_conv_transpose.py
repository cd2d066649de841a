"""Transposed convolution: the adjoint of conv, output sizes, and PyTorch."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close, draw

# spatial shape of conv's input, kernel, groups, geometry
GEOMETRIES = {
    "plain": ((5, 6), (3, 2), 1, {}),
    "stride leaves rows unread": ((9, 8), (3, 2), 1, {"stride": (3, 2), "padding": ((1, 0), 0)}),
    "stride > kernel": ((8, 7), (2, 1), 1, {"stride": 3}),
    "same": ((6, 6), (3, 4), 1, {"stride": (2, 3), "padding": "SAME"}),
    "same lower": ((6,), (4,), 1, {"stride": 3, "padding": "SAME_LOWER"}),
    "causal": ((7,), (3,), 1, {"stride": 2, "padding": "CAUSAL", "dilation": 2}),
    "dilated": ((9, 6), (2, 3), 1, {"dilation": (3, 2), "padding": 1}),
    "groups": ((5, 4), (3, 3), 2, {"stride": 2, "padding": 2}),
    "depthwise": ((6, 4), (3, 3), 4, {"stride": 2, "padding": "SAME"}),
    "3-D": ((3, 4, 5), (1, 2, 3), 2, {"stride": (1, 2, 2)}),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_is_the_adjoint_of_conv(name):
    """<conv(a, w), x> = <a, conv_transpose(x, w)>, with the output padding that gives a's size."""
    size, kernel, groups, geometry = GEOMETRIES[name]
    a, w = normal(0, 2, *size, 4), normal(1, *kernel, 4 // groups, 8)
    forward = functools.partial(jcnn.conv, groups=groups, **geometry)
    x = draw(2, jax.eval_shape(forward, a, w))
    bare = jax.eval_shape(functools.partial(jcnn.conv_transpose, groups=groups, **geometry), x, w).shape[1:-1]
    missing = tuple(n - m for n, m in zip(size, bare, strict=True))
    y = jcnn.conv_transpose(x, w, output_padding=missing, groups=groups, **geometry)
    assert y.shape == a.shape
    products = [jnp.abs(a * y).sum(), jnp.vdot(forward(a, w), x), jnp.vdot(a, y)]
    assert abs(products[1] - products[2]) < 1e-12 * products[0]


def test_same_padding_multiplies_the_size_by_the_stride():
    for m, k, s in itertools.product((1, 4, 5), (1, 2, 3, 5), (1, 2, 3)):
        x, w = jax.ShapeDtypeStruct((1, m, 2), float), jax.ShapeDtypeStruct((k, 3, 2), float)
        for padding in ("SAME", "SAME_LOWER"):
            upsample = functools.partial(jcnn.conv_transpose, stride=s, padding=padding)
            y = jax.eval_shape(upsample, x, w)
            assert y.shape == (1, m * s, 3)
            back = functools.partial(jcnn.conv, stride=s, padding=padding)
            assert jax.eval_shape(back, y, w).shape == x.shape


def test_every_pixel_spreads_a_kernel():
    x, w = normal(3, 1, 2, 3, 2), normal(4, 3, 2, 3, 2)
    y, res = jcnn.conv_transpose.fwd(x, w, normal(5, 3), stride=(2, 3))
    expected = np.zeros((1, 5, 8, 3)) + np.asarray(normal(5, 3))
    for i, j in np.ndindex(2, 3):
        expected[0, 2 * i : 2 * i + 3, 3 * j : 3 * j + 2] += np.einsum("tuoc,c->tuo", w, x[0, i, j])
    assert_close(y, expected, 1e-14, "y")
    assert {id(a) for a in jax.tree.leaves(res)} == {id(x), id(w)}


def test_low_precision_is_accumulated_in_float32():
    x, w = jnp.ones((1, 9, 512), jnp.bfloat16), jnp.ones((3, 2, 512), jnp.bfloat16)
    assert float(jcnn.conv_transpose(x, w, padding="SAME")[0, 4, 0]) == 3 * 512


# kernel, stride, padding, output padding, dilation, groups
OF_TORCH = [
    (1, 2, 0, 1, 1, 2),
    (3, 1, 1, 0, 2, 1),
    (3, 2, 1, 1, 1, 2),
    (4, 3, 2, 2, 2, 1),
    (2, 3, 0, 0, 1, 1),
]


def test_output_and_gradients_are_those_of_torch():
    torch = pytest.importorskip("torch")
    for kernel, stride, padding, extra, dilation, groups in OF_TORCH:
        x, w, b = normal(7, 2, 4, 5, 4), normal(8, kernel, kernel, 3, 4), normal(9, 3 * groups)
        config = {"stride": stride, "padding": padding, "output_padding": extra}
        config |= {"dilation": dilation, "groups": groups}
        y, res = jcnn.conv_transpose.fwd(x, w, b, **config)
        dy = draw(10, y)
        args = [torch.tensor(np.array(a), requires_grad=True) for a in (x, w, b)]
        theirs = args[0].movedim(-1, 1), args[1].permute(3, 2, 0, 1), args[2]
        expected = torch.nn.functional.conv_transpose2d(*theirs, **config).movedim(1, -1)
        expected.backward(torch.tensor(np.array(dy)))
        cotangents = [a.grad.numpy() for a in args]
        got = (y, *jcnn.conv_transpose.bwd(res, dy))
        assert_close(got, (expected.detach().numpy(), *cotangents), 1e-9, f"kernel {kernel}, {config}")
