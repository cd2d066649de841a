"""Local response norm: which channels a window holds, its gradient, extreme inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn import net
from jcnn.verify.examples import normal
from tests.checks import assert_close, draw

X = normal(0, 2, 3, 4, 7)
PLAIN = {"alpha": 2.0, "beta": 0.6, "k": 0.5}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 13, 14, 40])
def test_windows_forward_and_backward(size):
    """With W [c, j] = 1 where j is in the window of c, all is linear algebra."""
    c, j = np.ogrid[:7, :7]
    window = (c - size // 2 <= j) & (j <= c + (size - 1) // 2)
    x, dy, a = np.asarray(X), np.asarray(draw(1, X)), 2.0 / size
    s = 0.5 + a * x**2 @ window.T
    y, res = jcnn.local_response_norm.fwd(X, size=size, **PLAIN)
    assert_close(y, x * s**-0.6, 1e-13, "y")
    expected = dy * s**-0.6 - 2 * a * 0.6 * x * ((dy * x * s**-1.6) @ window)
    assert_close(jcnn.local_response_norm.bwd(res, jnp.asarray(dy))[0], expected, 1e-13, "dx")


def test_the_usual_exponent_has_its_own_formula_and_the_same_values():
    usual, general = ({"size": 3, "alpha": 5.0, "beta": beta} for beta in (0.75, 0.75 + 1e-12))
    for f in (jcnn.local_response_norm, jax.grad(lambda x, **c: jcnn.local_response_norm(x, **c).sum())):
        assert_close(f(X, **usual), f(X, **general), 1e-10, "0.75")


def test_defaults_are_those_of_torch_and_so_are_the_gradients():
    torch = pytest.importorskip("torch")
    for size, config in ((5, {}), (4, {"alpha": 3.0, "beta": 1.3, "k": 2})):
        x = torch.tensor(np.array(X), requires_grad=True)
        expected = torch.nn.functional.local_response_norm(x.movedim(-1, 1), size, **config).movedim(1, -1)
        dy = draw(2, X)
        expected.backward(torch.tensor(np.array(dy)))
        y, res = jcnn.local_response_norm.fwd(X, size=size, **config)
        theirs = (expected.detach().numpy(), x.grad.numpy())
        assert_close((y, *jcnn.local_response_norm.bwd(res, dy)), theirs, 1e-13, "torch")


def test_infinities_and_nans_stay_in_their_windows():
    for bad in (jnp.nan, jnp.inf):
        for size in (3, 5):
            y, res = jcnn.local_response_norm.fwd(X.at[..., 0].set(bad), size=size)
            assert np.isnan(y[..., 0]).all()
            assert np.isfinite(y[..., size // 2 + 1 :]).all()
            assert np.isfinite(jcnn.local_response_norm.bwd(res, y)[0][..., 2 * (size // 2) + 1 :]).all()


def test_zeros_and_large_values_have_finite_gradients():
    for x in (jnp.zeros((1, 4)), jnp.full((1, 4), 1e30, jnp.float32), jnp.full((1, 4), 6e4, jnp.float16)):
        y, res = jcnn.local_response_norm.fwd(x, size=3)
        (dx,) = jcnn.local_response_norm.bwd(res, jnp.ones_like(x))
        assert (y.dtype, dx.dtype) == (x.dtype, x.dtype)
        assert np.isfinite(y).all()
        assert np.isfinite(dx).all()
    assert jcnn.local_response_norm(jnp.full((1, 4), 6e4, jnp.float16), size=1, alpha=1.0, beta=0.5).all()


def test_empty_batches_and_channels_stay_empty():
    for shape in ((0, 3, 4), (2, 3, 0)):
        y, res = jcnn.local_response_norm.fwd(jnp.zeros(shape), size=3)
        assert [y.shape, jcnn.local_response_norm.bwd(res, y)[0].shape] == [shape, shape]


def test_layer():
    model = net.local_response_norm(4, alpha=2.0, k=2)
    (y, _), res = model.fwd({}, {}, X, train=True)
    expected, kept = jcnn.local_response_norm.fwd(X, size=4, alpha=2.0, k=2)
    expected = (expected, {}, *jcnn.local_response_norm.bwd(kept, draw(3, X)))
    assert_close((y, *model.bwd(res, draw(3, X))), expected, 0, "layer")
    assert (model.name, model.init(jax.random.key(0), (3, 4, 7))) == ("local_response_norm 4", ({}, {}))


def test_refuses():
    for static, message in (
        ({"size": 0}, "size: got 0, expected an int >= 1"),
        ({"size": 3, "alpha": -1}, r"alpha: got -1, expected a number in \[0"),
        ({"size": 3, "beta": -0.1}, r"beta: got -0\.1, expected a number in \[0"),
        ({"size": 3, "k": 0}, "k: got 0, expected a number > 0"),
    ):
        with pytest.raises(ValueError, match=rf"^jcnn\.local_response_norm: {message}"):
            jcnn.local_response_norm(X, **static)
    with pytest.raises(ValueError, match=r"x: got shape \(4,\), expected \[N, \*S, C\]"):
        jcnn.local_response_norm(jnp.ones(4), size=3)
