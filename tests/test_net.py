"""Nets: explicit backpropagation against `jax.grad`, state, summaries, and errors at construction."""

import functools
import math

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
SHAPE = (9, 8, 2)
X = normal(0, 3, *SHAPE)
LABELS = jnp.array([2, 0, 1])

EVERYTHING = jcnn.chain(
    net.conv(4, 3, stride=2, bias=False),
    net.batch_norm(),
    jcnn.relu,
    net.max_pool(2, stride=1),
    jcnn.residual(
        jcnn.chain(net.conv(6, 3, groups=2, bias=False), net.batch_norm(momentum=0.5)),
        shortcut=net.conv(6, 1),
    ),
    net.avg_pool(2, stride=1, padding="SAME"),
    net.dropout(0.3),
    net.flatten(),
    net.dense(3),
)
POOLED = jcnn.chain(
    net.conv(3, (2, 3), padding="VALID", dilation=2, padding_mode="zeros"),
    jcnn.tanh,
    net.global_avg_pool(),
    net.dense(3, bias=False),
)


def explicit(model, train, key=KEY):
    def run(params, state, x):
        (logits, after), res = model.fwd(params, state, x, train=train, key=key)
        losses, loss_res = jcnn.softmax_cross_entropy.fwd(logits, LABELS)
        dlogits, *_ = jcnn.softmax_cross_entropy.bwd(loss_res, jnp.ones_like(losses))
        return (losses.sum(), after), model.bwd(res, dlogits)

    return run


def by_grad(model, train, key=KEY):
    def loss(params, x, state):
        logits, after = model.apply(params, state, x, train=train, key=key)
        return jcnn.softmax_cross_entropy(logits, LABELS).sum(), after

    def run(params, state, x):
        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x, state)

    return run


def randomized(model, shape=SHAPE):
    """Parameters and state of `model` with no zeros and ones in them, which would hide mistakes."""
    params, state = model.init(jax.random.key(1), shape)
    leaves, tree = jax.tree.flatten((params, state))
    # Kept near the initial values: variances of the state have to be positive.
    return jax.tree.unflatten(tree, [a + 0.3 * jnp.abs(normal(i, *a.shape)) for i, a in enumerate(leaves)])


# --- explicit backpropagation --------------------------------------------------------------------


def test_explicit_backward_is_bitwise_jax_grad_when_eager():
    body = jcnn.chain(net.batch_norm(), jcnn.relu)
    model = jcnn.chain(net.conv(2, 2), jcnn.residual(body), net.flatten(), net.dense(3))
    x, dy = X[:, :3, :2], normal(1, 3, 3)
    params, state = randomized(model, x.shape[1:])
    (y, after), res = model.fwd(params, state, x, train=True)
    expected, vjp, aux = jax.vjp(lambda p, x: model.apply(p, state, x, train=True), params, x, has_aux=True)
    assert_close((y, after), (expected, aux), 0, "output and state")
    dparams, dx = model.bwd(res, dy)
    assert_close((dparams, dx), vjp(dy), 0, "cotangents")
    assert jax.tree.structure(dparams) == jax.tree.structure(params)


@functools.cache
def jitted(model, function, train):
    return jax.jit(function(model, train))(*randomized(model), X)


@pytest.mark.parametrize("model", [EVERYTHING, POOLED], ids=["everything", "pooled"])
def test_explicit_backward_equals_jax_grad_under_jit(model):
    by_hand = jitted(model, explicit, True)
    assert min(float(jnp.abs(g).max()) for g in jax.tree.leaves(by_hand[1])) > 1e-6
    assert_close(by_hand, jitted(model, by_grad, True), 1e-12, "jax.grad")


@pytest.mark.parametrize("train", [True, False], ids=["training", "inference"])
def test_explicit_backward_equals_autodiff(train):
    by_jax = jax.jit(jcnn.autodiff(by_grad(EVERYTHING, train)))(*randomized(EVERYTHING), X)
    assert_close(jitted(EVERYTHING, explicit, train), by_jax, 1e-9, "autodiff")


def test_no_autodiff_in_explicit_backpropagation(monkeypatch):
    params, state = randomized(EVERYTHING)

    def refuse(*args, **kwargs):
        raise AssertionError("autodiff was called")

    for name in ("grad", "value_and_grad", "vjp", "jvp", "linearize", "linear_transpose", "jacrev", "jacfwd"):
        monkeypatch.setattr(jax, name, refuse)
    with pytest.raises(AssertionError, match="autodiff was called"):
        jax.make_jaxpr(by_grad(EVERYTHING, True))(params, state, X)
    jaxpr = jax.make_jaxpr(explicit(EVERYTHING, True))(params, state, X)
    assert len(jaxpr.eqns) > 50


def test_a_replaced_rule_in_a_layer_is_used_by_jax_grad_and_by_bwd():
    def no_input_gradient(res, dy):
        dx, dw, db = jcnn.conv.bwd(res, dy)
        return 0 * dx, 2 * dw, db

    mine = jcnn.conv.replace(bwd=no_input_gradient)
    model = jcnn.chain(net.conv(3, 2, rule=mine), net.global_avg_pool())
    plain = jcnn.chain(net.conv(3, 2), net.global_avg_pool())
    x = X[:, :3, :3]
    params, state = randomized(model, x.shape[1:])
    runs = [jax.jit(f(m, True))(params, state, x) for m in (model, plain) for f in (explicit, by_grad)]
    (dp, dx), (dp_grad, dx_grad), (dp_plain, _), _ = (r[1] for r in runs)
    assert (float(jnp.abs(dx).max()), float(jnp.abs(dx_grad).max())) == (0, 0)
    for got in (dp, dp_grad):
        assert_close(got[0]["w"], 2 * dp_plain[0]["w"], 1e-12, "dw")
        assert_close(got[0]["b"], dp_plain[0]["b"], 1e-12, "db")


def test_fwd_and_bwd_can_be_jitted_apart():
    model = jcnn.chain(net.conv(2, 2, bias=False), net.batch_norm(), net.dropout(0.5), net.global_avg_pool())
    x = X[:, :3, :3]
    params, state = randomized(model, x.shape[1:])
    fwd = jax.jit(lambda *a: model.fwd(*a, train=True, key=KEY))
    (y, _), res = fwd(params, state, x)
    _, eager_res = model.fwd(params, state, x, train=True, key=KEY)
    dy = jnp.ones_like(y)
    assert_close(jax.jit(model.bwd)(res, dy), model.bwd(eager_res, dy), 1e-12, "apart")


# --- layers --------------------------------------------------------------------------------------


def test_chain_is_its_rules_in_sequence():
    model = jcnn.chain(net.conv(3, 3), jcnn.relu, jcnn.global_max_pool)
    params, state = randomized(model)
    w, b = params[0]["w"], params[0]["b"]
    y, after = model.apply(params, state, X, train=True)
    assert_close(y, jcnn.global_max_pool(jcnn.relu(jcnn.conv(X, w, b, padding="SAME"))), 0, "chain")
    assert (params[1], params[2], after) == ({}, {}, ({}, {}, {}))


def test_residual_adds_body_and_shortcut():
    model = jcnn.residual(net.conv(2, 3), shortcut=net.conv(2, 1))
    params, state = randomized(model)
    y, _ = model.apply(params, state, X, train=True)
    body, shortcut = params
    expected = jcnn.conv(X, **body, padding="SAME") + jcnn.conv(X, **shortcut)
    assert_close(y, expected, 1e-14, "sum")
    y, _ = jcnn.residual(jcnn.tanh).apply(({}, {}), ({}, {}), X, train=False)
    assert_close(y, X + jnp.tanh(X), 1e-14, "identity shortcut")


def test_layers_are_initialised_with_he_weights_and_zero_biases():
    params, _ = net.conv(64, 5).init(KEY, (8, 8, 16))
    assert params["w"].shape == (5, 5, 16, 64)
    assert abs(float(params["w"].std()) / math.sqrt(2 / (25 * 16)) - 1) < 0.02
    assert not params["b"].any()
    params, _ = net.dense(50).init(KEY, (1, 400))
    assert params["w"].shape == (400, 50)
    assert abs(float(params["w"].std()) / math.sqrt(2 / 400) - 1) < 0.05
    first, second = jcnn.chain(net.conv(2, 2), net.conv(2, 2)).init(KEY, (4, 4, 2))[0]
    assert (first["w"] != second["w"]).any()
    assert "b" not in net.conv(2, 2, bias=False).init(KEY, (4, 4, 2))[0]


def test_batch_norm_layer_updates_running_statistics_in_training_and_uses_them_in_inference():
    model = net.batch_norm(momentum=0.75, eps=1e-3)
    params, state = randomized(model)
    y, after = model.apply(params, state, X, train=True)
    mean, var = np.mean(X, (0, 1, 2)), np.var(X, (0, 1, 2))
    assert_close(after["mean"], 0.75 * state["mean"] + 0.25 * mean, 1e-13, "mean")
    assert_close(after["var"], 0.75 * state["var"] + 0.25 * var, 1e-13, "var")
    assert_close(y, jcnn.batch_norm(X, params["gamma"], params["beta"], eps=1e-3)[0], 0, "training")
    y, unchanged = model.apply(params, after, X, train=False)
    assert unchanged is after
    expected = jcnn.batch_norm_inference(X, **params, **after, eps=1e-3)
    assert_close(y, expected, 0, "inference")


def test_batch_norm_starts_from_mean_0_and_variance_1():
    assert net.batch_norm(gamma=0.0).init(KEY, SHAPE)[0]["gamma"].tolist() == [0, 0]
    params, state = net.batch_norm().init(KEY, SHAPE)
    assert {k: v.tolist() for k, v in params.items()} == {"gamma": [1, 1], "beta": [0, 0]}
    assert {k: v.tolist() for k, v in state.items()} == {"mean": [0, 0], "var": [1, 1]}


def test_norms_and_layer_scale_are_layers():
    model = jcnn.chain(net.layer_norm(), net.group_norm(2), net.instance_norm(), net.layer_scale(0.1))
    x, dy = X[..., :1] * normal(5, 4) + normal(6, 4), normal(7, *SHAPE[:2], 4)[None]
    params, state = randomized(model, x.shape[1:])
    (y, _), res = model.fwd(params, state, x, train=True)
    layer, group, instance, scale = params
    expected = jcnn.group_norm(jcnn.layer_norm(x, **layer), **group, groups=2)
    expected = jcnn.layer_scale(jcnn.instance_norm(expected, **instance), **scale)
    assert_close(y, expected, 0, "y")
    by_grad = jax.grad(lambda p, x: jnp.vdot(dy + 0 * y, model.apply(p, state, x, train=True)[0]), (0, 1))
    assert_close(model.bwd(res, dy + 0 * y), by_grad(params, x), 0, "cotangents")
    initial = [{k: v.tolist() for k, v in p.items()} for p in model.init(KEY, (3, 3, 2))[0]]
    assert initial == [{"gamma": [1, 1], "beta": [0, 0]}] * 3 + [{"gamma": [0.1, 0.1]}]
    assert [row.receptive_field for row in model.summary(SHAPE).rows] == [(1, 1), None, None, None]
    with pytest.raises(
        ValueError, match=r"net\.group_norm: groups: got 3, expected a divisor of the image's 2"
    ):
        net.group_norm(3).init(KEY, SHAPE)


def test_shapes_that_layers_give_are_those_of_their_outputs():
    shape = (9, 8, 2)
    layers = (
        *(net.conv(4, (3, 2), stride=(2, 3), dilation=2), net.conv(3, 3, padding="VALID"), net.dense(5)),
        *(net.batch_norm(), net.layer_norm(), net.group_norm(2), net.instance_norm(), net.layer_scale()),
        *(jcnn.residual(net.conv(2, 3)), jcnn.chain(net.max_pool(2), net.flatten())),
    )
    for model in layers:
        params, state = jax.eval_shape(lambda model=model: model.init(KEY, shape))
        apply = functools.partial(model.apply, train=True)
        y, _ = jax.eval_shape(apply, params, state, jax.ShapeDtypeStruct((1, *shape), float))
        assert model.out_shape(shape) == net.output_shape(model, shape) == y.shape[1:], model.name


def test_dropout_layer_needs_a_key_in_training_and_is_the_identity_in_inference():
    model = jcnn.chain(net.dropout(0.5))
    for f in (model.apply, model.fwd):
        with pytest.raises(TypeError, match=r"^jcnn\.net\.dropout: key: got None, expected a PRNG key"):
            f(((),), ((),), X, train=True)
    y, _ = model.apply(({},), ({},), X, train=False)
    assert_close(y, X, 0, "inference")
    y, _ = model.apply(({},), ({},), X, train=True, key=KEY)
    assert 0.3 < float((y == 0).mean()) < 0.7
    assert_close(model.fwd(({},), ({},), X, train=True, key=KEY)[0][0], y, 0, "fwd drops the same")


def test_dropout_layers_of_a_net_drop_differently():
    model = jcnn.chain(net.dropout(0.5), net.dropout(0.5))
    y, _ = model.apply(({}, {}), ({}, {}), jnp.ones((1, 400)), train=True, key=KEY)
    assert set(y.ravel().tolist()) == {0.0, 4.0}
    assert abs(float((y > 0).mean()) - 0.25) < 0.1


def test_nets_nest():
    inner = jcnn.chain(net.conv(2, 1), jcnn.relu)
    model = jcnn.chain(inner, jcnn.chain(inner, net.global_avg_pool()))
    params, state = model.init(KEY, SHAPE)
    assert model.apply(params, state, X, train=True)[0].shape == (3, 2)


def test_1d_and_3d_nets():
    for shape in ((12, 2), (5, 6, 4, 2)):
        model = jcnn.chain(net.conv(3, 3), jcnn.relu, net.max_pool(2), net.flatten(), net.dense(4))
        assert net.output_shape(model, shape) == (4,)
        params, _ = jax.eval_shape(lambda model=model, shape=shape: model.init(KEY, shape))
        assert params[0]["w"].shape == (3,) * (len(shape) - 1) + (2, 3)


# --- summary -------------------------------------------------------------------------------------

SMALL = jcnn.chain(net.conv(4, 3), jcnn.relu, net.max_pool(2), net.flatten(), net.dense(5))


def test_summary_by_hand():
    summary = SMALL.summary((8, 6, 2), batch_size=2)
    rows = {row.name: row[1:] for row in summary.rows}
    f64, batch = 8, 2
    assert rows == {
        # output, parameters, MACs forward, MACs backward, receptive field, bytes kept
        "conv 3": (
            (8, 6, 4),
            3 * 3 * 2 * 4 + 4,
            8 * 6 * 4 * 18,
            2 * 8 * 6 * 4 * 18,
            (3, 3),
            batch * 8 * 6 * 2 * f64,
        ),
        "relu": ((8, 6, 4), 0, 0, 0, (3, 3), batch * 8 * 6 * 4),
        "max_pool 2": ((4, 3, 4), 0, 0, 0, (4, 4), batch * 4 * 3 * 4),
        "flatten": ((48,), 0, 0, 0, None, 0),
        "dense": ((5,), 48 * 5 + 5, 48 * 5, 2 * 48 * 5, None, batch * 48 * f64),
    }
    assert summary.total("parameters") == 76 + 245


def test_summary_of_a_strided_grouped_residual_by_hand():
    model = jcnn.chain(
        net.conv(4, 3, stride=2), jcnn.residual(net.conv(6, 3, groups=2, dilation=2), shortcut=net.conv(6, 1))
    )
    first, body, shortcut = model.summary((8, 8, 2)).rows
    assert (first.output_shape, body.output_shape, shortcut.output_shape) == ((4, 4, 4), (4, 4, 6), (4, 4, 6))
    assert [r.parameters for r in (first, body, shortcut)] == [76, 9 * 2 * 6 + 6, 4 * 6 + 6]
    assert body.macs_forward == 4 * 4 * 6 * 9 * 2
    assert [r.receptive_field for r in (first, body, shortcut)] == [(3, 3), (3 + 4 * 2,) * 2, (3, 3)]
    # Both branches keep the same 4x4x4 array of float64; it counts once.
    assert (first.residual_bytes, body.residual_bytes, shortcut.residual_bytes) == (
        8 * 8 * 2 * 8,
        4**3 * 8,
        0,
    )


def test_summary_counts_what_is_really_there():
    branches = jcnn.residual(jcnn.chain(net.batch_norm(), jcnn.silu), shortcut=net.conv(3, 1))
    model = jcnn.chain(
        net.conv(3, 2), branches, net.max_pool(2), net.dropout(0.5), net.flatten(), net.dense(2)
    )
    x = X[..., :2, :]
    params, state = model.init(KEY, x.shape[1:])
    summary = model.summary(x.shape[1:], batch_size=len(x))
    assert summary.total("parameters") == sum(a.size for a in jax.tree.leaves(params))
    (y, _), res = model.fwd(params, state, x, train=True, key=KEY)
    assert summary.rows[-1].output_shape == y.shape[1:]
    # Distinct arrays of the residuals, without the parameters, are what is kept.
    given = {id(a) for a in jax.tree.leaves((params, state))}
    kept = {id(a): a.nbytes for a in jax.tree.leaves(res) if id(a) not in given}
    assert summary.total("residual_bytes") == sum(kept.values())


def test_summary_runs_nothing():
    summary = jcnn.chain(net.conv(4, 3), jcnn.relu, net.global_avg_pool()).summary((100_000, 100_000, 3))
    assert summary.rows[0].macs_forward == 10**10 * 4 * 27


def test_summary_prints_a_table_with_totals():
    lines = str(SMALL.summary((8, 6, 2), batch_size=2)).splitlines()
    assert lines[0] == "images 8x6x2, batch of 2; MACs per image"
    assert len(lines) == 4 + 5 + 2
    assert lines[4].split() == ["conv", "3", "8x6x4", "76", "3,456", "6,912", "3x3", "1,536"]
    assert lines[8].split()[:5] == ["dense", "5", "245", "240", "480"]
    assert lines[-1].split() == ["total", "321", "3,696", "7,392", f"{1536 + 384 + 96 + 768:,}"]


# --- errors --------------------------------------------------------------------------------------


@pytest.fixture
def without_type_checker(monkeypatch):
    """As users run jcnn, without the run-time check of annotations that pytest's configuration turns on."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("shape", [28, (28,), (28, 28, 0), (28, 28, -1), (28.0, 28, 1), "28x28", ()])
@pytest.mark.parametrize("function", ["init", "summary"])
@pytest.mark.usefixtures("without_type_checker")
def test_image_shape_is_checked(function, shape):
    call = {"init": lambda s: SMALL.init(KEY, s), "summary": SMALL.summary}[function]
    with pytest.raises(
        ValueError, match=rf"^jcnn\.net\.{function}: image_shape: got .*, expected \(\*S, C\)"
    ):
        call(shape)


def test_layers_that_do_not_fit_are_refused_at_init():
    with pytest.raises(ValueError, match=r"jcnn\.net\.conv: groups: got 3, expected a divisor .* 2 channels"):
        net.conv(6, 3, groups=3).init(KEY, SHAPE)
    with pytest.raises(
        ValueError, match=r"jcnn\.residual: shortcut: got output \(9, 8, 2\), expected \(9, 8, 3\)"
    ):
        jcnn.residual(net.conv(3, 3)).init(KEY, SHAPE)
    with pytest.raises(ValueError, match=r"jcnn\.max_pool: window: got an extent of 9"):
        jcnn.chain(net.max_pool(2), net.max_pool(9)).init(KEY, SHAPE)


@pytest.mark.usefixtures("without_type_checker")
def test_a_chain_takes_nets_and_rules_only():
    with pytest.raises(TypeError, match=r"jcnn\.chain: layers: got .*, expected nets, or rules"):
        jcnn.chain(net.conv(2, 2), jnp.tanh)
