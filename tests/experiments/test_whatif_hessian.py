"""`experiments.whatif.hessian`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jcnn
from experiments.benchmark.timing import Budget
from experiments.whatif import hessian
from jcnn import net


@pytest.fixture
def small():
    layers = (net.conv(3, 3, bias=False), net.batch_norm(), jcnn.silu, net.max_pool(2), net.flatten())
    model = jcnn.chain(*layers, net.dense(3))
    x = jax.random.normal(jax.random.key(1), (5, 4, 4, 1))
    return model, *model.init(jax.random.key(0), x.shape[1:]), x, jnp.array([0, 1, 2, 0, 1])


def test_eigenvalues_are_those_of_the_whole_hessian(small):
    model, params, state, x, labels = small
    w, unravel = ravel_pytree(params)

    def loss(w):
        logits = model.apply(unravel(w), state, x, train=True)[0]
        return -jax.nn.log_softmax(logits)[jnp.arange(5), labels].mean()

    whole = np.asarray(jax.jit(jax.hessian(jcnn.autodiff(loss)))(w))
    expected = np.linalg.eigvalsh(whole)[:-5:-1]
    ways = hessian.products(hessian.gradients(*small))
    assert len(ways) == 4
    for way, product in ways.items():
        found = hessian.largest_eigenvalues(product, w, jnp.ones_like(w), 4)
        np.testing.assert_allclose(found, expected, rtol=1e-10, err_msg=way)


def test_only_the_gradient_by_hand_takes_the_backwards_of_rules(small):
    model, params, *rest = small
    doubled = jcnn.flatten.replace(bwd=lambda res, dy: (2 * jcnn.flatten.bwd(res, dy)[0],))
    w, unravel = ravel_pytree(params)
    found = hessian.gradients(model.with_rules({jcnn.flatten: doubled}), params, *rest)
    by_hand, autodiff = (unravel(jax.jit(found[name])(w)) for name in ("by hand", "autodiff"))
    np.testing.assert_allclose(by_hand[0]["w"], 2 * autodiff[0]["w"], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(by_hand[-1]["w"], autodiff[-1]["w"], rtol=1e-10, atol=1e-12)


def test_two_steps_and_the_summary(tmp_path, monkeypatch):
    monkeypatch.setattr(hessian, "LAYERS", {"smooth": hessian.LAYERS["smooth"]})
    monkeypatch.setattr(hessian, "COUNT", 2)
    monkeypatch.setattr(hessian, "WIDTHS", (4,))
    every = hessian.products  # of which two are enough to compile
    monkeypatch.setattr(hessian, "products", lambda gradients: dict(list(every(gradients).items())[1:3]))
    monkeypatch.setattr(hessian, "Budget", Budget.quick)
    few = ["--train-images", "64", "--batch-size", "32", "--epochs", "1", "--seeds", "1"]
    hessian.main([*few, "--out", str(tmp_path)])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["script"] == "experiments.whatif.hessian"
    assert summary["result"].startswith("the 2 largest eigenvalues agree to ")
    first, trained = (summary["places"][f"smooth, {when}"] for when in ("at first", "trained"))
    for (found,) in (first, trained):
        assert found["eigenvalues"][0] > found["eigenvalues"][1] > 0
        assert list(found["differences"]) == ["autodiff, reverse", "by hand, forward"]
        assert max(found["differences"].values()) < 1e-9
    assert first[0]["eigenvalues"] != trained[0]["eigenvalues"]
