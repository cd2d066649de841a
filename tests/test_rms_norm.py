"""RMS norm: its closed form, precision, extreme inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn import net
from jcnn.verify.examples import normal
from tests.checks import assert_close, draw

X, GAMMA = normal(0, 3, 4, 2, 6) * 3 + 2, normal(1, 6)


def test_every_position_gets_mean_square_one_then_scale():
    plain = jcnn.rms_norm(X, jnp.ones(6), eps=1e-12)
    assert_close(np.mean(np.square(plain), -1), np.ones((3, 4, 2)), 1e-11, "mean square")
    assert_close(plain / X, np.broadcast_to((plain / X)[..., :1], X.shape), 1e-12, "no mean is taken off")
    assert_close(jcnn.rms_norm(X, GAMMA, eps=1e-12), GAMMA * plain, 1e-14, "scale")


def test_eps_is_added_to_the_mean_square():
    y = jcnn.rms_norm(jnp.array([3.0, 4.0, 0.0]), jnp.ones(3), eps=25 / 9)
    assert_close(y, np.array([0.9, 1.2, 0.0]), 1e-15, "1 / sqrt(25 / 3 + 25 / 9)")


def test_gradient_does_not_see_the_scale_of_a_position():
    _, res = jcnn.rms_norm.fwd(X, GAMMA, eps=1e-14)
    dx, _ = jcnn.rms_norm.bwd(res, draw(2, X))
    assert float(jnp.abs(dx).max()) > 1e-2
    assert float(jnp.abs(jnp.sum(dx * X, -1)).max()) < 1e-12
    assert float(jnp.abs(jnp.sum(dx, -1)).max()) > 1e-2


def test_zeros_have_the_gradient_of_a_scale_by_eps():
    y, res = jcnn.rms_norm.fwd(jnp.zeros((2, 6)), GAMMA, eps=1e-4)
    dx, dgamma = jcnn.rms_norm.bwd(res, jnp.ones((2, 6)))
    assert float(jnp.abs(y).max()) == float(jnp.abs(dgamma).max()) == 0
    assert_close(dx, jnp.broadcast_to(100 * GAMMA, (2, 6)), 1e-14, "gamma / sqrt(eps)")


def test_low_precision_sums_in_float32_and_large_values_stay_finite():
    x, gamma = jnp.full((1, 4096), 200, jnp.float16), jnp.ones(4096, jnp.float32)
    y, res = jcnn.rms_norm.fwd(x, gamma)
    dx, dgamma = jcnn.rms_norm.bwd(res, y)
    assert (y.dtype, res.rstd.dtype, dx.dtype, dgamma.dtype) == (*(jnp.float16, jnp.float32) * 2,)
    assert_close(y, np.ones((1, 4096)), 1e-3, "a mean square beyond float16")
    assert float(jnp.abs(dx).max()) < 1e-5


def test_empty_arrays_stay_empty():
    for shape in ((0, 4, 6), (3, 0), (6,)):
        x, gamma = jnp.zeros(shape), jnp.ones(shape[-1:])
        y, res = jcnn.rms_norm.fwd(x, gamma)
        assert [a.shape for a in (y, *jcnn.rms_norm.bwd(res, y))] == [shape, shape, shape[-1:]]
        assert np.isfinite(res.rstd).all()


def test_rms_norm_and_its_gradients_are_those_of_torch():
    torch = pytest.importorskip("torch")
    dy = draw(3, X)
    x, gamma = (torch.tensor(np.array(a), requires_grad=True) for a in (X, GAMMA))
    expected = torch.nn.functional.rms_norm(x, (6,), gamma, 1e-3)
    expected.backward(torch.tensor(np.array(dy)))
    y, res = jcnn.rms_norm.fwd(X, GAMMA, eps=1e-3)
    theirs = (expected.detach().numpy(), x.grad.numpy(), gamma.grad.numpy())
    assert_close((y, *jcnn.rms_norm.bwd(res, dy)), theirs, 1e-13, "torch")


def test_layer():
    model = net.rms_norm(eps=1e-3)
    assert model.init(jax.random.key(0), (4, 2, 6))[0]["gamma"].tolist() == [1] * 6
    (y, _), res = model.fwd({"gamma": GAMMA}, {}, X, train=True)
    dparams, dx = model.bwd(res, draw(4, X))
    expected, kept = jcnn.rms_norm.fwd(X, GAMMA, eps=1e-3)
    assert_close((y, dx, dparams["gamma"]), (expected, *jcnn.rms_norm.bwd(kept, draw(4, X))), 0, "layer")


def test_refuses():
    for args, static, message in (
        ((jnp.ones(()), jnp.ones(())), {}, r"rms_norm: x: got shape \(\), expected \[\.\.\., C\]"),
        ((X, jnp.ones(5)), {}, r"rms_norm: gamma: got shape \(5,\), expected shape \(6,\)"),
        ((X, GAMMA), {"eps": 0.0}, r"rms_norm: eps: got 0\.0, expected a float > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            jcnn.rms_norm(*args, **static)
    with pytest.raises(TypeError, match=r"rms_norm: x: got dtype int64, expected a floating-point array"):
        jcnn.rms_norm(jnp.arange(6), GAMMA)
