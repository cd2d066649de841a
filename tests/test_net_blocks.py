"""Layers that gate, drop and enlarge: explicit backpropagation, shapes, and what their summary says."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import jcnn
from jcnn import net
from jcnn.verify.examples import normal
from tests.checks import assert_close

KEY = jax.random.key(0)
X = normal(0, 2, 4, 5, 6)
GROUP = jnp.array([0.0, 0.0, 1.0, 1.0])  # of each of four outputs


def test_squeeze_excitation_is_the_papers():
    block = net.squeeze_excitation(6, ratio=3)
    params, state = block.init(KEY, X.shape[1:])
    y, after = block.apply(params, state, X, train=True)
    _, first, _, second, _ = params[0]
    assert (first["w"].shape, second["w"].shape) == ((6, 2), (2, 6))
    hidden = np.maximum(np.mean(X, (1, 2)) @ first["w"] + first["b"], 0)
    gate = 1 / (1 + np.exp(-(hidden @ second["w"] + second["b"])))
    assert_close(y, X * gate[:, None, None], 1e-14, "y")
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_backpropagation_through_a_gate_has_no_autodiff_and_equals_it(monkeypatch):
    model = jcnn.chain(net.conv(6, 1), net.squeeze_excitation(6, ratio=3), net.drop_path(0.5))
    x, dy = normal(1, 8, 2, 3, 6), normal(2, 8, 2, 3, 6)
    params, state = model.init(KEY, x.shape[1:])

    def by_grad(params, x):
        return jnp.vdot(dy, model.apply(params, state, x, train=True, key=KEY)[0])

    expected = jax.grad(by_grad, (0, 1))(params, x)
    reference = jax.grad(jcnn.autodiff(by_grad), (0, 1))(params, x)
    for name in ("grad", "vjp", "jvp", "linearize", "linear_transpose"):
        monkeypatch.setattr(jax, name, None)
    _, res = model.fwd(params, state, x, train=True, key=KEY)
    by_hand = model.bwd(res, dy)
    assert min(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected)) > 1e-3
    assert_close(by_hand, expected, 0, "jax.grad")
    assert_close(by_hand, reference, 1e-13, "autodiff")
    assert jax.tree.structure(by_hand[0]) == jax.tree.structure(params)


def test_summary_of_a_gate_by_hand():
    model = jcnn.chain(net.squeeze_excitation(6, ratio=3), net.conv(2, 1))
    params, state = model.init(KEY, X.shape[1:])
    summary = model.summary(X.shape[1:], batch_size=2)
    names = [row.name for row in summary.rows]
    assert names == [f"* {n}" for n in ("global_avg_pool", "dense", "relu", "dense", "sigmoid")] + [
        "scale_channels",
        "conv 1",
    ]
    assert [row.receptive_field for row in summary.rows] == [None] * 7
    assert [row.output_shape for row in summary.rows[4:]] == [(6,), (4, 5, 6), (4, 5, 2)]
    assert summary.total("macs_forward") == 2 * 6 * 2 + 4 * 5 * 6 * 2
    (_, _), res = model.fwd(params, state, X, train=True)
    given = {id(a) for a in jax.tree.leaves((params, state))}
    kept = {id(a): a.nbytes for a in jax.tree.leaves(res) if id(a) not in given}
    assert summary.total("residual_bytes") == sum(kept.values())


def test_rules_in_a_gate_can_be_replaced_and_a_gate_that_does_not_fit_is_refused():
    model = net.squeeze_excitation(6, ratio=3)
    assert {jcnn.scale_channels, jcnn.relu, jcnn.sigmoid, jcnn.dense} < model.rules()

    def frozen_gate(res, dy):
        dx, dgate = jcnn.scale_channels.bwd(res, dy)
        return dx, 0 * dgate

    frozen = model.with_rules({jcnn.scale_channels: jcnn.scale_channels.replace(bwd=frozen_gate)})
    params, state = frozen.init(KEY, X.shape[1:])
    (y, _), res = frozen.fwd(params, state, X, train=True)
    dparams, dx = frozen.bwd(res, X)
    assert not any(leaf.any() for leaf in jax.tree.leaves(dparams))
    assert_close(dx, y, 1e-14, "gate times dy")
    with pytest.raises(ValueError, match=r"jcnn\.net\.gated: gate: got output \(8,\), expected \(6,\)"):
        net.squeeze_excitation(8).init(KEY, X.shape[1:])


def test_noise_is_for_training_only_and_needs_a_key():
    x = normal(3, 8, 2, 3, 6)
    for layer in (net.dropout(0.5, per_channel=True), net.drop_path(0.5)):
        y, _ = layer.apply({}, {}, x, train=False)
        assert_close(y, x, 0, "inference")
        y, _ = layer.apply({}, {}, x, train=True, key=KEY)
        dropped = np.asarray(y == 0).all((1, 2))
        assert 0 < dropped.sum() < dropped.size
        assert_close(y, np.where(dropped[:, None, None], 0, 2 * x), 0, layer.name)
        with pytest.raises(TypeError, match=rf"jcnn\.net\.{layer.rule.name}: key: got None"):
            layer.apply({}, {}, x, train=True)


ENLARGING = {
    "conv_transpose": net.conv_transpose(4, (3, 2), stride=2, padding=1, output_padding=1, groups=2),
    "nearest": net.upsample((2, 3)),
    "linear": net.upsample((3, 2), method="linear"),
    "pixel_shuffle": net.pixel_shuffle((3, 2)),
    "pixel_unshuffle": net.pixel_unshuffle((2, 1)),
}


@pytest.mark.parametrize("name", ENLARGING)
def test_enlarging_layers_say_what_they_give_and_see(name):
    """What an output sees is where its gradient is not zero, and no output sees more."""
    before, after = net.conv(6, 2, stride=2, padding="VALID"), net.conv(1, 2, padding="VALID")
    model = jcnn.chain(before, ENLARGING[name], after)
    shape = (16, 14, 1)
    params, state = model.init(KEY, shape)
    rows = model.summary(shape).rows
    x = normal(2, 1, *shape)
    (y, _), res = model.fwd(params, state, x, train=True)
    assert rows[-1].output_shape == net.output_shape(model, shape) == y.shape[1:]
    one_each = jnp.eye(y.size).reshape(-1, *y.shape)
    seen = np.asarray(jax.vmap(lambda dy: model.bwd(res, dy)[1])(one_each))[:, 0, :, :, 0] != 0
    widths = [max(np.ptp(np.nonzero(s.any(1 - axis))[0]) + 1 for s in seen) for axis in (0, 1)]
    assert rows[-1].receptive_field == tuple(widths)


def test_conv_transpose_layer():
    layer = ENLARGING["conv_transpose"]
    params, state = layer.init(KEY, X.shape[1:])
    assert {k: v.shape for k, v in params.items()} == {"w": (3, 2, 2, 6), "b": (4,)}
    config = {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}
    y, _ = layer.apply(params, state, X, train=True)
    assert_close(y, jcnn.conv_transpose(X, **params, **config), 0, "y")
    (row,) = layer.summary(X.shape[1:]).rows
    assert row.macs_forward == X[0].size * 3 * 2 * 4 // 2
    wide, _ = net.conv_transpose(64, 3, groups=2).init(KEY, (4, 4, 128))
    assert abs(float(wide["w"].std()) / np.sqrt(2 / (9 * 64)) - 1) < 0.02  # 64 of 128 channels in a group
    of_group = net.conv_transpose(4, 1, groups=2, init=lambda key, shape: jnp.broadcast_to(GROUP, shape))
    assert of_group.init(KEY, X.shape[1:])[0]["w"][0, 0].tolist() == [[0, 0, 0, 1, 1, 1]] * 2
    with pytest.raises(ValueError, match=r"net\.conv_transpose: groups: got 4, expected a divisor of the"):
        net.conv_transpose(8, 3, groups=4).init(KEY, X.shape[1:])


def test_frozen_params_are_state_and_have_no_gradient():
    layer = net.conv(3, 2, stride=2)
    params, _ = layer.init(KEY, X.shape[1:])
    params["b"] += 0.5
    for names in (("w",), ("b",), ("w", "b"), ()):
        model = net.frozen(net.conv(3, 2, stride=2), *names)
        trained, (kept, own) = model.init(KEY, X.shape[1:])
        assert list(kept) == list(names or ("w", "b"))
        assert sorted([*trained, *kept]) == ["b", "w"]
        trained, kept = ({name: params[name] for name in part} for part in (trained, kept))
        (y, after), res = model.fwd(trained, (kept, own), X, train=True)
        expected, res_all = layer.fwd(params, {}, X, train=True)
        assert_close(y, expected[0], 0, "y")
        assert_close(after, (kept, own), 0, "state")
        assert_close(model.apply(trained, (kept, own), X, train=True), (y, after), 0, "apply")
        dparams, dx = layer.bwd(res_all, y)
        assert_close(model.bwd(res, y), ({name: dparams[name] for name in trained}, dx), 0, "bwd")


def test_a_frozen_layer_keeps_its_state_its_rules_and_the_dtype_of_its_input():
    model = jcnn.chain(net.frozen(net.batch_norm()), net.frozen(net.conv(2, 1)))
    params, state = model.init(KEY, X.shape[1:])
    assert params == ({}, {})
    y, after = model.apply(params, state, X.astype(jnp.bfloat16), train=True)
    assert y.dtype == jnp.bfloat16
    assert_close(after[0][0], state[0][0], 0, "gamma and beta")
    assert float(jnp.abs(after[0][1]["mean"] - state[0][1]["mean"]).max()) > 1e-3  # running statistics go on
    assert model.rules() == {jcnn.batch_norm, jcnn.conv}

    halved = jcnn.conv.replace(bwd=lambda res, dy: jcnn.conv.bwd(res, 0.5 * dy))
    (y, _), res = model.fwd(params, state, X, train=True)
    (_, _), other = model.with_rules({jcnn.conv: halved}).fwd(params, state, X, train=True)
    dx, half_dx = model.bwd(res, y)[1], model.with_rules({jcnn.conv: halved}).bwd(other, y)[1]
    assert_close(half_dx, 0.5 * dx, 1e-12, "with_rules")
    with pytest.raises(
        ValueError, match=r"net\.frozen: names: got v, expected names of params of conv 1: w, b"
    ):
        net.frozen(net.conv(2, 1), "v").init(KEY, X.shape[1:])


def test_scale_and_batch_norm_without_gamma():
    model = jcnn.chain(net.scale(-0.5), net.batch_norm(gamma=None))
    params, state = model.init(KEY, X.shape[1:])
    assert [list(p) for p in params] == [[], ["beta"]]
    beta, ones = normal(5, 6), jnp.ones(6)
    params, dy = ({}, {"beta": beta}), normal(6, *X.shape)
    for train in (True, False):
        (y, after), res = model.fwd(params, state, X, train=train)
        if train:
            (expected, _), res_rule = jcnn.batch_norm.fwd(-0.5 * X, ones, beta)
            dx, _, dbeta, _ = jcnn.batch_norm.bwd(res_rule, (dy, jcnn.BatchStats(0 * ones, 0 * ones)))
        else:
            expected, dx, dbeta = (
                -0.5 * X / jnp.sqrt(1 + 1e-5) + beta,
                dy / jnp.sqrt(1 + 1e-5),
                dy.sum((0, 1, 2)),
            )
        assert_close(y, expected, 1e-12, "y")
        assert_close(model.apply(params, state, X, train=train), (y, after), 0, "apply")
        assert_close(model.bwd(res, dy), (({}, {"beta": dbeta}), -0.5 * dx), 1e-12, "bwd")


def test_what_cannot_be_frozen_or_scaled_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match=r"net\.frozen: net: got .*relu.*, expected a net"):
        net.frozen(jcnn.relu)
    message = r"frozen: names: got w, expected names of params of chain: it has none of its own"
    with pytest.raises(ValueError, match=message):
        net.frozen(net.chain(net.conv(2, 1)), "w").init(KEY, X.shape[1:])
    with pytest.raises(TypeError, match=r"net\.scale: factor: got 'a', expected a number"):
        net.scale("a")
    with pytest.raises(TypeError, match=r"models\.airbench: whiten: got str, expected an array of images"):
        jcnn.models.airbench(whiten="images")
