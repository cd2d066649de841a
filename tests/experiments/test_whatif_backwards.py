"""`experiments.whatif.variance_path` and `experiments.whatif.cotangents`: are the backwards what they say?"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.whatif import cotangents, study, variance_path
from jcnn import net

FEW = ["--dataset", "digits", "--train-images", "64", "--batch-size", "32", "--epochs", "1", "--seeds", "1"]


@pytest.mark.parametrize("forgets", variance_path.FORGOTTEN)
def test_batch_norm_forgets_what_it_says(forgets):
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 3, 4, 5, 2))
    gamma, beta = rng.standard_normal((2, 2))
    rule = variance_path.forgetful(*variance_path.FORGOTTEN[forgets])
    (_, stats), res = rule.fwd(x, gamma, beta)
    dx, dgamma, dbeta, _ = rule.bwd(res, (dy, jax.tree.map(jnp.zeros_like, stats)))
    axes, rstd = (0, 1, 2), 1 / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    xhat = (x - x.mean(axes)) * rstd
    through_mean = 0 if forgets in ("mean", "both") else dy.mean(axes)
    through_variance = 0 if forgets in ("variance", "both") else xhat * (dy * xhat).mean(axes)
    np.testing.assert_allclose(dx, gamma * rstd * (dy - through_mean - through_variance), atol=1e-12)
    np.testing.assert_allclose(dgamma, (dy * xhat).sum(axes))
    np.testing.assert_allclose(dbeta, dy.sum(axes))


def test_variance_path_in_two_steps(tmp_path, monkeypatch):
    two = {name: variance_path.FORGOTTEN[name] for name in ("none", "variance")}
    monkeypatch.setattr(variance_path, "FORGOTTEN", two)
    variance_path.main([*FEW, "--out", str(tmp_path)])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["variants"]) == ["forgets none", "forgets variance", "without batch norm"]
    assert summary["verdicts"]["none"] == "CORRECT"
    assert summary["verdicts"]["variance"].startswith("WRONG: cotangent of 'x': variance path")


def wide_range(dtype):
    """Numbers of both signs and of many sizes, down to those that the dtype has not, and 0."""
    rng, largest = np.random.default_rng(0), float(jnp.finfo(dtype).max)
    sizes = np.exp(rng.uniform(np.log(1e-10), np.log(min(largest, 1e4)), 2000))
    return np.append(sizes * rng.choice([-1, 1], 2000), 0).astype(np.float32)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, cotangents.E4M3, cotangents.E5M2])
def test_nearest_rounds_under_jit_as_numpy_does(dtype):
    d = wide_range(dtype)
    found = jax.jit(lambda d: 2 * cotangents.nearest(dtype)(None, 0.5 * d))(2 * d)
    np.testing.assert_array_equal(found, 2 * d.astype(dtype).astype(np.float32))


@pytest.mark.parametrize("dtype", [cotangents.E4M3, cotangents.E5M2])
def test_stochastic_gives_a_neighbour_and_d_on_average(dtype):
    numbers = np.arange(256).astype(np.uint8).view(dtype).astype(np.float32)
    numbers = np.unique(numbers[np.isfinite(numbers)])
    low, high = numbers[:-1], numbers[1:]
    share, draws = np.random.default_rng(0).uniform(0.05, 0.95, len(low)), 2000
    d = (low + share * (high - low)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), draws)
    stochastic = jax.jit(jax.vmap(cotangents.stochastic(dtype), (0, None)))
    found = np.asarray(stochastic(keys, d))
    assert np.all((found == low) | (found == high))
    np.testing.assert_allclose((found == high).mean(0), share, atol=5 * 0.5 / np.sqrt(draws))
    np.testing.assert_array_equal(stochastic(keys, numbers), np.tile(numbers, (draws, 1)))


def test_scaled_uses_the_whole_range_and_leaves_zeros():
    d = np.float32([0, 1e-8, -3e-7, 5e-7])
    for dtype in (cotangents.E4M3, cotangents.E5M2):
        scale = np.float32(jnp.finfo(dtype).max) / d[3]
        expected = (d * scale).astype(dtype).astype(np.float32) / scale
        np.testing.assert_allclose(cotangents.scaled(dtype)(None, d), expected, rtol=1e-6)
        np.testing.assert_allclose(expected[[0, 3]], d[[0, 3]])
        np.testing.assert_array_equal(cotangents.scaled(dtype)(None, jnp.zeros(3)), 0)


def test_noise_is_relative_to_the_root_mean_square():
    d = 1e-3 * jax.random.normal(jax.random.key(0), (100, 100))
    rms = float(jnp.sqrt((d**2).mean()))
    for strength in (0.3, 3):
        n = (cotangents.noisy(strength)(jax.random.key(1), d) - d) / (strength * rms)
        np.testing.assert_allclose([n.mean(), n.std()], [0, 1], atol=0.05)
        other = cotangents.noisy(strength)(jax.random.key(2), d)
        assert abs(np.corrcoef(n.ravel(), (other - d).ravel())[0, 1]) < 0.05


def test_every_cotangent_is_changed_once_with_a_key_of_its_own():
    layer, x, dy = net.dense(3), np.arange(8.0).reshape(2, 4), np.arange(6.0).reshape(2, 3)
    params, state = layer.init(jax.random.key(0), (1, 4))
    doubled = cotangents.changed(layer, lambda key, d: 2 * d)
    (y, _), res = doubled.fwd(params, state, x, train=True, key=jax.random.key(1))
    dparams, dx = doubled.bwd(res, dy)
    np.testing.assert_allclose(y, x @ params["w"] + params["b"])
    np.testing.assert_allclose(dx, 2 * dy @ params["w"].T)
    np.testing.assert_allclose(dparams["w"], 4 * x.T @ dy)
    np.testing.assert_allclose(dparams["b"], 4 * dy.sum(0))

    drawn = cotangents.changed(layer, lambda key, d: jnp.full_like(d, jax.random.uniform(key)))
    _, res = drawn.fwd(params, state, x, train=True, key=jax.random.key(1))
    dparams, dx = drawn.bwd(res, dy)
    first = dx[0] / params["w"].sum(1)
    np.testing.assert_allclose(first, first[0])
    assert len({float(first[0]), float(dparams["w"][0, 0]), float(dparams["b"][0])}) == 3


def test_cotangents_in_two_steps(tmp_path, monkeypatch):
    some = {name: cotangents.CHANGES[name] for name in ("none", "noise 3", "e4m3 stochastic")}
    monkeypatch.setattr(cotangents, "CHANGES", some)
    linear = net.chain(net.flatten(), net.dense(10))  # random numbers take long to compile
    monkeypatch.setattr(study, "small_net", lambda classes: linear)
    cotangents.main([*FEW, "--out", str(tmp_path)])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["variants"]) == list(some)
    assert len({v["test_accuracy"] for v in summary["variants"].values()}) > 1
