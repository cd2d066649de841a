"""Attributions against closed forms, textbook formulas and `jax.grad` of the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn import inspect, net
from jcnn.inspect import rules
from jcnn.inspect.relevance import PASS_THROUGH
from tests.checks import assert_close, draw

KEY = jax.random.key(0)


def normal(seed, *shape):
    return draw(seed, jax.ShapeDtypeStruct(shape, float))


def drawn(model, shape, seed=1):
    """Parameters and state of `model`, none of which is 0 or 1; variances are positive."""
    params, state = model.init(KEY, shape)
    positive = jax.tree.map(lambda a: jnp.abs(a) + 0.5, draw(seed + 1, state))
    return draw(seed, params), {} if state == {} else positive


X = normal(0, 3, 2, 2, 1)
LINEAR = net.chain(net.flatten(), net.dense(3))
W, B = normal(1, 4, 3), normal(2, 3)
AFFINE = ({}, {"w": W, "b": B}), ({}, {})

TWO = net.chain(net.flatten(), net.dense(5), jcnn.relu, net.dense(3))
W1, B1, W2, B2 = normal(3, 4, 5), normal(4, 5), normal(5, 5, 3), normal(6, 3)
BIASED = ({}, {"w": W1, "b": B1}, {}, {"w": W2, "b": B2}), ({}, {}, {}, {})
FLAT = X.reshape(3, 4)
Z = FLAT @ W1 + B1
TARGET = jnp.array([2, 0, 1])


def image(rows):
    return rows.reshape(X.shape)


# --- gradients ------------------------------------------------------------------------------------


def test_saliency_of_a_linear_net_is_its_weights():
    assert_close(inspect.saliency(LINEAR, *AFFINE, X, TARGET), image(W[:, TARGET].T), 1e-14, "per image")
    one = inspect.saliency(LINEAR, *AFFINE, X, 1)
    assert_close(one, image(jnp.tile(W[:, 1], (3, 1))), 1e-14, "one target for all")


def test_integrated_gradients_of_a_linear_net_are_its_terms():
    got = inspect.integrated_gradients(LINEAR, *AFFINE, X, TARGET, steps=1, baseline=X[:1])
    assert_close(got, image((FLAT - FLAT[:1]) * W[:, TARGET].T), 1e-14, "x w")


def test_guided_backprop_and_deconvnet_by_hand():
    back = jnp.maximum(W2[:, TARGET].T, 0)
    assert bool(jnp.any((back > 0) & (Z < 0)))
    assert bool(jnp.any((W2[:, TARGET].T < 0) & (Z > 0)))
    assert_close(inspect.deconvnet(TWO, *BIASED, X, TARGET), image(back @ W1.T), 1e-14, "deconvnet")
    guided = inspect.guided_backprop(TWO, *BIASED, X, TARGET)
    assert_close(guided, image((back * (Z > 0)) @ W1.T), 1e-14, "guided")
    plain = inspect.saliency(TWO, *BIASED, X, TARGET)
    assert_close(plain, image((W2[:, TARGET].T * (Z > 0)) @ W1.T), 1e-14, "saliency")


def test_integrated_gradients_are_complete():
    model = net.chain(net.conv(3, 3), net.batch_norm(), jcnn.tanh, net.flatten(), net.dense(3))
    params, state = drawn(model, (4, 4, 2))
    x, base = normal(7, 3, 4, 4, 2), 0.5

    def output(x):
        return jnp.take_along_axis(model.apply(params, state, x, train=False)[0], TARGET[:, None], 1)[:, 0]

    difference = output(x) - output(jnp.full_like(x, base))
    for steps, tol in ((64, 1e-3), (640, 1e-5)):
        total = inspect.integrated_gradients(model, params, state, x, TARGET, steps=steps, baseline=base)
        assert_close(total.sum((1, 2, 3)), difference, tol, f"{steps} steps")


BLOCK = net.residual(net.chain(net.conv(4, 3), jcnn.relu, net.conv(4, 3)), net.conv(4, 1))
CAM = net.chain(net.conv(3, 3, stride=2), jcnn.relu, BLOCK, jcnn.relu, net.flatten(), net.dense(3))


@pytest.mark.parametrize("layer", [(1,), (2,), (2, 0, 1), (2, 1), 6])
def test_grad_cam_against_its_definition(layer):
    params, state = drawn(CAM, (6, 5, 2))
    x, target = normal(7, 2, 6, 5, 2), 1

    def apply(index, a, parts=CAM.children, p=params):
        return parts[index].apply(p[index], state[index], a, train=False)[0]

    stem = apply(1, apply(0, x))
    (w0, _, w1), w2 = params[2][0], params[2][1]
    hidden = jnp.maximum(jcnn.conv(stem, **w0, padding="SAME"), 0)
    body, side = jcnn.conv(hidden, **w1, padding="SAME"), jcnn.conv(stem, **w2, padding="SAME")

    def head(a):
        return apply(5, apply(4, apply(3, a)))[:, target].sum()

    cases = {
        (1,): (stem, lambda a: head(apply(2, a))),
        (2,): (body + side, head),
        (2, 0, 1): (hidden, lambda a: head(jcnn.conv(a, **w1, padding="SAME") + side)),
        (2, 1): (side, lambda a: head(body + a)),
        6: (jnp.maximum(body + side, 0), lambda a: apply(5, apply(4, a))[:, target].sum()),
    }
    maps, score = cases[layer]
    weights = jax.grad(score)(maps).mean((1, 2))
    cam = jnp.maximum(jnp.einsum("nhwc,nc->nhw", maps, weights), 0)
    got = jax.jit(lambda x: inspect.grad_cam(CAM, params, state, x, target, layer=layer))(x)
    assert_close(got, jax.image.resize(cam, (2, 6, 5), "linear"), 1e-12, "definition")
    assert float(got.max()) > 0


# --- relevance ------------------------------------------------------------------------------------


def share(contributions, total):
    """R_i = sum_j contributions_ij / total_j R_j, as the papers write it: [n, i, j] and [n, j]."""
    return lambda r: jnp.einsum("nij,nj->ni", contributions, jnp.where(total == 0, 0, r / total))


def stable(z, eps):
    return z + eps * jnp.where(z >= 0, 1, -1)


def test_epsilon_rule_of_a_dense_net_is_the_papers():
    eps, a = 0.25, jnp.maximum(Z, 0)
    out = a @ W2 + B2
    r = out * jax.nn.one_hot(TARGET, 3)
    r = share(a[:, :, None] * W2, stable(out, eps))(r)
    hidden = r
    r = share(FLAT[:, :, None] * W1, stable(Z, eps))(r)
    assert_close(inspect.lrp(TWO, *BIASED, X, TARGET, eps=eps), image(r), 1e-13, "image")
    assert_close(inspect.lrp(TWO, *BIASED, X, TARGET, eps=eps, layer=2), hidden, 1e-13, "hidden")


def test_z_plus_rule_of_a_dense_net_is_the_papers():
    a = jnp.maximum(Z, 0)
    r = (a @ W2 + B2) * jax.nn.one_hot(TARGET, 3)
    for inputs, w in ((a, W2), (FLAT, W1)):
        positive = jnp.maximum(inputs[:, :, None] * w, 0)
        r = share(positive, positive.sum(1))(r)
    assert bool((X < 0).any())
    assert_close(inspect.lrp(TWO, *BIASED, X, TARGET, rule="z+"), image(r), 1e-13, "image")


@pytest.mark.parametrize("rule", ["epsilon", "z+"])
@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
def test_rules_of_convolutions_are_the_papers(name, rule):
    op = getattr(jcnn, name)
    config, eps = {"stride": 2, "padding": 1, "groups": 2}, 0.25
    x, w, b = normal(0, 2, 5, 4, 4), normal(1, 3, 2, 2, 4), normal(2, 4)
    if name == "conv_transpose":
        w, b = normal(1, 3, 2, 3, 4), normal(2, 6)
    z, m = op.reference(x, w, b, **config), normal(3, *op.reference(x, w, b, **config).shape)
    matrix = jax.jacobian(lambda v: op.reference(v[None], w, **config)[0].ravel())(x[0]).reshape(
        z[0].size, -1
    )
    contributions = x.reshape(2, -1, 1) * matrix.T
    if rule == "z+":
        contributions = jnp.maximum(contributions, 0)
        total = contributions.sum(1)
    else:
        total = stable(z.reshape(2, -1), eps)
    expected = share(contributions, total)((z * m).reshape(2, -1)).reshape(x.shape)
    other = rules.z_plus(op) if rule == "z+" else rules.epsilon(op, eps=eps)

    @jax.jit
    def run(x, w, b):
        y, res = other.fwd(x, w, b, **config)
        by_grad = jax.grad(lambda x: jnp.sum(m * other(x, w, b, **config)))(x)
        return y, x * other.bwd(res, m)[0], x * by_grad

    assert_close(run(x, w, b), (z, expected, expected), 1e-12, "y, and R = x m by hand and by jax.grad")


def without_bias():
    body = net.chain(net.conv(3, 3, bias=False), jcnn.leaky_relu, net.conv(3, 3, bias=False))
    return net.chain(
        *(net.conv(3, 3, bias=False), jcnn.relu, net.max_pool(2, stride=1), net.residual(body), jcnn.relu),
        *(net.avg_pool(2), net.dropout(0.5), net.flatten(), net.dense(3, bias=False)),
    )


def test_epsilon_relevance_is_conserved_from_layer_to_layer():
    model, x = without_bias(), normal(7, 3, 4, 4, 2)
    params, state = drawn(model, x.shape[1:])
    logits = model.apply(params, state, x, train=False)[0]
    expected = jnp.take_along_axis(logits, TARGET[:, None], 1)[:, 0]
    places = [None, *((i,) for i in range(len(model.children))), (3, 0), (3, 1)]

    @jax.jit
    def sums(x, target):
        at = {p: inspect.lrp(model, params, state, x, target, eps=1e-13, layer=p) for p in places}
        return {str(p): r.reshape(3, -1).sum(1) for p, r in at.items()}

    found = sums(x, TARGET)
    branches = found.pop("(3, 0)") + found.pop("(3, 1)")
    assert_close(branches, expected, 1e-9, "branches of the block")
    assert len(found) == 10
    for place, total in found.items():
        assert_close(total, expected, 1e-9, f"after {place}")


def test_z_plus_relevance_is_conserved_and_of_one_sign_with_biases_and_batch_norm():
    model = net.chain(
        *(net.conv(4, 3), net.batch_norm(), jcnn.relu, net.max_pool(2)),
        *(net.conv(4, 3, bias=False), net.batch_norm(), jcnn.relu, net.global_avg_pool(), net.dense(3)),
    )
    x = normal(7, 3, 4, 4, 2)
    params, state = drawn(model, x.shape[1:])
    logits = model.apply(params, state, x, train=False)[0]
    relevance = jax.jit(lambda target: inspect.lrp(model, params, state, x, target, rule="z+"))
    for target in range(3):
        r = relevance(target)
        assert bool((r * logits[:, target, None, None, None] >= 0).all())
        assert_close(r.sum((1, 2, 3)), logits[:, target], 1e-12, "sum")


@pytest.mark.parametrize("rule", PASS_THROUGH, ids=lambda rule: rule.name)
def test_smooth_activations_hand_on_their_relevance(rule):
    model = net.chain(net.flatten(), net.dense(5, bias=False), rule, net.dense(3, bias=False))
    params = ({}, {"w": 3 * W1}, {}, {"w": W2})
    out = model.apply(params, BIASED[1], X, train=False)[0][:, 1]
    r = inspect.lrp(model, params, BIASED[1], X, 1, eps=0)
    assert_close(r.sum((1, 2, 3)), out, 1e-9, "sum")


def test_a_gate_is_a_weight():
    gate = net.chain(net.global_avg_pool(), net.dense(2, bias=False), jcnn.sigmoid)
    model = net.chain(net.gated(gate), net.flatten(), net.dense(3, bias=False))
    x = normal(7, 2, 3, 3, 2)
    params, state = drawn(model, x.shape[1:])
    numbers = gate.apply(params[0][0], state[0][0], x, train=False)[0]
    expected = x * numbers[:, None, None] * params[2]["w"][:, 1].reshape(3, 3, 2)
    assert_close(inspect.lrp(model, params, state, x, 1, eps=0), expected, 1e-12, "x g w")


def test_relevance_at_dead_neurons_is_zero_and_finite():
    zeros = jnp.zeros_like(X)
    for rule in ("epsilon", "z+"):
        for eps in (0, 1e-6):
            r = inspect.lrp(TWO, *BIASED, zeros, 0, rule=rule, eps=eps)
            assert_close(r, zeros, 0, f"{rule}, {eps}")
        slope = jax.grad(lambda x, rule=rule: inspect.lrp(TWO, *BIASED, x, 0, rule=rule).sum())(zeros)
        assert bool(jnp.isfinite(slope).all())


# --- folding --------------------------------------------------------------------------------------


def test_folded_batch_norm_computes_the_same_and_is_the_identity():
    inner = net.residual(net.chain(net.conv(4, 3, bias=False), net.batch_norm(gamma=0.0)))
    model = net.chain(
        *(net.batch_norm(), net.conv(4, 3), net.batch_norm(eps=0.1), jcnn.relu, inner),
        *(net.flatten(), net.dense(5), net.batch_norm(), net.dense(3)),
    )
    x = normal(7, 3, 4, 4, 2)
    params, state = drawn(model, x.shape[1:])
    params[4][0][1]["gamma"] = jnp.array([0.0, -1.0, 2.0, 0.5])
    folded = inspect.fold_batch_norm(model, params, state)
    expected = model.apply(params, state, x, train=False)[0]
    assert_close(model.apply(*folded, x, train=False)[0], expected, 1e-12, "output")
    assert_close(
        inspect.feature_maps(model, *folded, x, 0),
        inspect.feature_maps(model, params, state, x, 0),
        0,
        "first",
    )
    for before, after in ((1, 2), ((4, 0, 0), (4, 0, 1)), ((6,), (7,))):
        maps = [inspect.feature_maps(model, *folded, x, layer) for layer in (before, after)]
        assert_close(maps[1], maps[0], 1e-14, "identity")
        assert_close(maps[1], inspect.feature_maps(model, params, state, x, after), 1e-12, "as before")
    again = inspect.fold_batch_norm(model, *folded)
    assert_close(again, folded, 1e-14, "folding twice")


def test_standardised_weights_are_not_folded():
    model = net.chain(net.standardized(net.conv(4, 3)), net.batch_norm())
    params, state = drawn(model, (4, 4, 2))
    assert_close(inspect.fold_batch_norm(model, params, state), (params, state), 0, "arrays")


# --- residual nets, and errors --------------------------------------------------------------------

RESNET = jcnn.models.resnet(4, width=4, blocks=(1, 1), zero_init=False)


def test_every_method_works_on_a_residual_net_under_jit():
    x = normal(7, 2, 8, 8, 3)
    params, state = drawn(RESNET, x.shape[1:])
    plain = jax.grad(lambda x: RESNET.apply(params, state, x, train=False)[0][:, 2].sum())(x)
    methods = {
        "saliency": inspect.saliency,
        "guided": inspect.guided_backprop,
        "deconvnet": inspect.deconvnet,
        "lrp": inspect.lrp,
        "z+": lambda *a: inspect.lrp(*a, rule="z+"),
    }

    def run(params, state, x, target):
        return {name: method(RESNET, params, state, x, target) for name, method in methods.items()}

    found = jax.jit(run)(params, state, x, 2)
    assert_close(found["saliency"], plain, 1e-12, "jax.grad")
    for name, a in found.items():
        assert a.shape == x.shape
        assert bool(jnp.isfinite(a).all()), name
    for one, two in (("saliency", "guided"), ("guided", "deconvnet"), ("lrp", "z+")):
        assert float(jnp.abs(found[one] - found[two]).max()) > 1e-3


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: inspect.saliency(LINEAR, *AFFINE, X, 3), ValueError, ["saliency", "target", "3", "0 to 2"]),
        (lambda: inspect.lrp(TWO, *BIASED, X, -1), ValueError, ["lrp", "target", "-1", "0 to 2"]),
        (
            lambda: inspect.deconvnet(TWO, *BIASED, X, jnp.array([0, 1])),
            ValueError,
            ["deconvnet", "target", "(2,)", "(3,)"],
        ),
        (
            lambda: inspect.saliency(LINEAR, *AFFINE, X, jnp.ones(3)),
            TypeError,
            ["saliency", "target", "float64", "ints"],
        ),
        (
            lambda: inspect.saliency(net.chain(jcnn.relu), ({},), ({},), X, 0),
            ValueError,
            ["saliency", "net", "(3, 2, 2, 1)", "[N, K]"],
        ),
        (
            lambda: inspect.guided_backprop(LINEAR, *AFFINE, X, 0),
            ValueError,
            ["guided_backprop", "net", "dense, flatten", "relu"],
        ),
        (
            lambda: inspect.integrated_gradients(LINEAR, *AFFINE, X, 0, baseline=jnp.ones(2)),
            ValueError,
            ["integrated_gradients", "baseline", "(2,)", "(3, 2, 2, 1)"],
        ),
        (
            lambda: inspect.integrated_gradients(LINEAR, *AFFINE, X, 0, steps=0),
            ValueError,
            ["integrated_gradients", "steps", "0"],
        ),
        (
            lambda: inspect.grad_cam(TWO, *BIASED, X, 0, layer=1),
            ValueError,
            ["grad_cam", "layer", "(3, 5)", "spatial"],
        ),
        (
            lambda: inspect.lrp(TWO, *BIASED, X, 0, rule="z"),
            ValueError,
            ["lrp", "rule", "'z'", "'epsilon', 'z+'"],
        ),
        (lambda: inspect.lrp(TWO, *BIASED, X, 0, eps=-1.0), ValueError, ["lrp", "eps", "-1.0"]),
        (
            lambda: inspect.lrp(net.chain(net.layer_norm(), TWO), (), (), X, 0),
            ValueError,
            ["lrp", "net", "'layer_norm'", "conv", "batch_norm"],
        ),
    ],
)
def test_errors_say_what_came_and_what_was_expected(call, error, words):
    with pytest.raises(error) as raised:
        call()
    assert [word for word in words if word not in str(raised.value)] == []


def test_a_traced_target_that_does_not_exist_has_no_gradient():
    got = jax.jit(lambda t: inspect.saliency(LINEAR, *AFFINE, X, t))(7)
    assert np.array_equal(got, np.zeros(X.shape))
