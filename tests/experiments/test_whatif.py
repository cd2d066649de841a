import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from experiments.data import UserError
from experiments.whatif import binarised, feedback_alignment, pool_ties, study
from jcnn import net

SMOKE = ["--dataset", "digits", "--train-images", "64", "--batch-size", "32", "--epochs", "1"]


def smoke(script, folder, *more):
    """Two steps; the summary."""
    script.main([*SMOKE, *more, "--out", str(folder)])
    return json.loads((folder / "summary.json").read_text())


# The kit


def test_a_study_in_two_steps(tmp_path, capsys, monkeypatch):
    """Equal variants end equal, and other seeds elsewhere; the summary says what was done."""

    def run(config):
        base, data = net.chain(net.flatten(), net.dense(10)), study.load(config)
        return study.findings(config, study.compare(config, data, {"a": base, "b": base}))

    study.main("experiments.whatif.some", run, [*SMOKE, "--seeds", "2", "--out", str(tmp_path / "o")])
    summary = json.loads((tmp_path / "o/summary.json").read_text())
    a, b = summary["variants"]["a"], summary["variants"]["b"]
    assert a["test_accuracies"] == b["test_accuracies"]
    first, second = a["test_accuracies"]
    assert first != second
    assert a["test_accuracy"] == (first + second) / 2
    assert a["test_accuracy_std"] == pytest.approx(abs(first - second) / 2**0.5)
    assert all(round(355 * share, 6).is_integer() for share in (first, second))  # of all test images
    found = f"{50 * (first + second):.2f} ± {abs(first - second) * 50 * 2**0.5:.2f}"
    assert summary["result"] == f"digits: a {found}, b {found} % (n = 2)"
    assert summary["script"] == "experiments.whatif.some"
    options = "--dataset digits --train-images 64 --epochs 1 --batch-size 32 --seeds 2"
    assert summary["command"] == f"python -m experiments.whatif.some {options}"
    assert {"versions", "hardware", "date", "seconds"} <= set(summary)
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{summary['result']}; ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--epochs 0", "--epochs: got 0, expected a positive number"),
        ("--lr many", "Error parsing --lr: "),
        ("--dataset svhn", "--dataset: got 'svhn', expected one of digits, "),
        (
            "--dataset digits --train-images 63",
            "--train-images: got 63, expected a number from 64, the batch ",
        ),
        ("--dataset digits --train-images 1443", "--train-images: got 1443, expected a number from 64, "),
        ("--out old", "--out: got old with a summary.json in it, expected a new folder"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old/summary.json").write_text("{}")
    with pytest.raises(SystemExit) as caught:
        study.main("experiments.whatif.some", lambda config: study.load(config) and {}, arguments.split())
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


def test_ctrl_c_and_a_loss_that_is_not_finite(capsys, tmp_path):
    def interrupted(config):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        study.main("experiments.whatif.some", interrupted, ["--out", str(tmp_path)])
    assert caught.value.code == 130
    config = study.Config("digits", train_images=64, batch_size=32, epochs=1, seeds=1)
    broken = jcnn.relu.replace(bwd=lambda res, dy: (dy * jnp.nan,))
    model = net.chain(net.flatten(), net.dense(10), broken)
    with pytest.raises(UserError, match=r"^broken: got a loss or gradient that is not finite in step 1 of 2"):
        study.compare(config, study.load(config), {"broken": model})


# The studies


def test_tie_policies(tmp_path, monkeypatch):
    """Two of them are jcnn's own; of three equal maxima each gets what the policy says."""
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, 4, 6, 3)), jnp.float32)
    dy = jnp.asarray(np.random.default_rng(1).standard_normal((2, 2, 3, 3)), jnp.float32)

    def dx(policy, x, dy):
        _, res = jcnn.max_pool.fwd(x, window=2, ties="split")
        return jcnn.max_pool.replace(bwd=lambda res, dy: pool_ties.max_pool_bwd(policy, res, dy)).bwd(
            res, dy
        )[0]

    for ties in ("first", "split"):
        _, res = jcnn.max_pool.fwd(x, window=2, ties=ties)
        (expected,) = jcnn.max_pool.bwd(res, dy)
        np.testing.assert_allclose(dx(pool_ties.POLICIES[ties], x, dy), expected, rtol=1e-6)
    one = jnp.asarray([[5.0, 7.0], [7.0, 7.0]]).reshape(1, 2, 2, 1)
    got = dx(pool_ties.POLICIES["all"], one, jnp.full((1, 1, 1, 1), 6.0))
    np.testing.assert_array_equal(got.ravel(), [0, 6, 6, 6])
    many = jnp.broadcast_to(one, (300, 2, 2, 1))
    got = dx(pool_ties.POLICIES["random"], many, jnp.full((300, 1, 1, 1), 6.0)).reshape(300, 4)
    np.testing.assert_array_equal(got.sum(1), 6)
    counts = (got == 6).sum(0)
    assert counts[0] == 0
    assert counts[1:].min() > 60
    y, holds = pool_ties.holders(one, net.max_pool(2).window((2, 2, 1)))
    assert y.item() == 7
    assert holds.ravel().tolist() == [False, True, True, True]


def test_ties_smoke(tmp_path, monkeypatch):
    monkeypatch.setattr(pool_ties, "POLICIES", {name: pool_ties.POLICIES[name] for name in ("first", "all")})
    monkeypatch.setattr(pool_ties, "RELUS", {"rounded": pool_ties.RELUS["rounded"]})
    summary = smoke(pool_ties, tmp_path / "o", "--seeds", "1")
    assert set(summary["variants"]) == {"rounded first", "rounded all"}
    found = summary["after training"]["rounded"]
    assert all(
        0 < above <= tied < 1 for tied, above in zip(found["tied"], found["tied above 0"], strict=True)
    )
    assert found["gradient differs by"]["first"] == 0 < found["gradient differs by"]["all"]
    x = jnp.asarray([-0.6, -0.2, 0.2, 0.3, 0.8])
    y, res = pool_ties.RELUS["rounded"].fwd(x)
    np.testing.assert_array_equal(y, [0, 0, 0, 0.5, 1])
    np.testing.assert_array_equal(pool_ties.RELUS["rounded"].bwd(res, jnp.ones(5))[0], [0, 0, 1, 1, 1])


def test_the_sign_and_its_backwards():
    w, db = jnp.asarray([-2.0, -1.0, -0.1, 0.0, 1.0, 1.5]), jnp.arange(1.0, 7.0)
    expected = {
        binarised.sign: [0, 0, 0, 0, 0, 0],
        binarised.straight_through: [1, 2, 3, 4, 5, 6],
        binarised.clipped: [0, 2, 3, 4, 5, 0],
    }
    for rule, dw in expected.items():
        b, res = rule.fwd(w)
        np.testing.assert_array_equal(b, [-1, -1, -1, 1, 1, 1])
        np.testing.assert_array_equal(rule.bwd(res, db)[0], dw)


def test_a_binarised_layer_is_the_layer_with_signs_for_weights():
    plain = net.dense(2)
    x, dy, w = (
        jnp.asarray([[1.0, 2.0, 3.0]]),
        jnp.asarray([[5.0, 7.0]]),
        jnp.asarray([[0.1, -3], [-0.2, 0], [9, -1]]),
    )
    params, signs = (
        {"w": w, "b": jnp.ones(2)},
        {"w": jnp.asarray([[1.0, -1], [-1, 1], [1, -1]]), "b": jnp.ones(2)},
    )
    model = binarised.binarised(plain, binarised.clipped)
    (y, _), res = model.fwd(params, {}, x, train=True)
    np.testing.assert_array_equal(y, [[3, -1]])
    np.testing.assert_array_equal(model.apply(params, {}, x, train=False)[0], y)
    dparams, dx = model.bwd(res, dy)
    expected, dx_expected = plain.bwd(plain.fwd(signs, {}, x, train=True)[1], dy)
    np.testing.assert_array_equal(dx, dx_expected)
    np.testing.assert_array_equal(dparams["b"], expected["b"])
    np.testing.assert_array_equal(dparams["w"], np.where(abs(w) <= 1, expected["w"], 0))


def test_binarised_smoke(tmp_path, monkeypatch):
    every = binarised.variants
    monkeypatch.setattr(
        binarised, "variants", lambda n: {k: every(n)[k] for k in ("clipped", "true gradient")}
    )
    summary = smoke(binarised, tmp_path / "o", "--seeds", "1")
    assert summary["signs changed"]["true gradient"] == [0]
    assert 0 < summary["signs changed"]["clipped"][0] < 0.2


def little_net(classes):
    layers = (net.conv(2, 3), jcnn.relu, net.max_pool(2), net.flatten(), net.dense(5), jcnn.relu)
    return net.chain(*layers, net.dense(classes))


def cotangents(model, state, seed=0):
    """The cotangents of the parameters and of the images of a little net, its parameters and its feedback."""
    params, initial = model.init(jax.random.key(seed), (4, 4, 1))
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 1))
    dy = jax.random.normal(jax.random.key(2), (2, 3))
    _, res = model.fwd(params, initial if state is None else state(initial, params), x, train=True)
    return *model.bwd(res, dy), params, initial


LITTLE = (net.conv(2, 3), jcnn.relu, net.max_pool(2), net.flatten(), net.dense(3))


def test_feedback_alignment_is_backpropagation_with_other_weights():
    conv, *between, dense = net.chain(*LITTLE).children
    model = net.chain(conv, *between, feedback_alignment.feedback_alignment(dense))
    true, _, params, _ = cotangents(net.chain(*LITTLE), None)

    def own(state, params):
        return *state[:-1], {"feedback": params[-1]["w"]}

    def assert_equal(a, b):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), a, b)

    assert_equal(cotangents(model, own)[0], true)  # with its own weights for feedback
    random, _, same, state = cotangents(model, None)
    assert_equal(same, params)
    assert_equal(random[-1], true[-1])
    # As if the last layer's weights were the feedback, but for what it computes forward.
    feedback, dy = state[-1]["feedback"], jax.random.normal(jax.random.key(2), (2, 3))
    assert feedback.shape == params[-1]["w"].shape
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 1))
    front = net.chain(conv, *between)
    _, res = front.fwd(params[:-1], ({},) * 4, x, train=True)
    assert_equal(random[:-1], front.bwd(res, dy @ feedback.T)[0])


def test_direct_feedback_alignment_hands_the_error_to_every_layer():
    base = net.chain(net.conv(2, 3), jcnn.relu, net.conv(2, 3), jcnn.relu, net.flatten(), net.dense(3))
    model = feedback_alignment.direct_feedback_alignment(base, 3)
    got, dx, params, (_, feedback) = cotangents(model, None)
    x, e = (jax.random.normal(jax.random.key(i), s) for i, s in ((1, (2, 4, 4, 1)), (2, (2, 3))))
    assert [None if b is None else b.shape for b in feedback] == [
        *((3, 4, 4, 1), None, (3, 4, 4, 2), None, None, (3, 32)),
    ]
    start, outs = x, []
    for part, p in ((base.children[:2], params[:2]), (base.children[2:5], params[2:5])):
        block = net.chain(*part)
        (y, _), res = block.fwd(p, ({},) * len(part), start, train=True)
        outs.append((block, res))
        start = y
    (first, first_res), (second, second_res) = outs
    expected = (
        *first.bwd(first_res, jnp.einsum("nk,khwc->nhwc", e, feedback[2]))[0],
        *second.bwd(second_res, e @ feedback[5])[0],
        {"w": start.T @ e, "b": e.sum(0)},
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), got, expected)
    np.testing.assert_allclose(dx, jnp.einsum("nk,khwc->nhwc", e, feedback[0]), rtol=1e-12)


def test_the_controls_hand_nothing_down():
    nets, got = feedback_alignment.variants(little_net(3), 3), {}
    for name in ("dense layers only", "last layer only"):
        params, state = nets[name].init(jax.random.key(0), (4, 4, 1))
        x = jax.random.normal(jax.random.key(1), (2, 4, 4, 1))
        _, res = nets[name].fwd(params, state, x, train=True)
        dparams, _ = nets[name].bwd(res, jnp.ones((2, 3)).at[0].set(-1))
        got[name] = [bool(dp["w"].any()) for dp in dparams if "w" in dp]
    assert got == {"dense layers only": [False, True, True], "last layer only": [False, False, True]}


def test_feedback_alignment_smoke(tmp_path, monkeypatch):
    monkeypatch.setattr(feedback_alignment, "make_net", little_net)
    summary = smoke(feedback_alignment, tmp_path / "o", "--seeds", "1")
    for degrees in summary["degrees"].values():
        assert all(0 < angle < 180 for angle in degrees[0])
        assert len(degrees[0]) == 2
