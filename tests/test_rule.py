"""The law in `jcnn.rule`: wiring, contract of cotangents, arguments, the autodiff switch."""

import dataclasses
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, PartitionSpec

import jcnn
from jcnn.conv import conv_fwd
from jcnn.residuals import residuals, static
from jcnn.verify.examples import normal
from tests.checks import assert_close

X = normal(0, 2, 5, 4, 3)
W = normal(1, 3, 2, 3, 2)
B = normal(2, 2)


def guided_bwd(res, dy):
    """Springenberg et al. 2015: only positive cotangents pass."""
    return jcnn.relu.bwd(res, jnp.maximum(dy, 0))


# --- what a rule says of itself ------------------------------------------------------------------


def test_rule_has_the_name_docstring_and_signature_of_its_forward():
    assert jcnn.conv.__name__ == jcnn.conv.name == "conv"
    assert jcnn.conv.__doc__ == conv_fwd.__doc__
    assert inspect.signature(jcnn.conv) == inspect.signature(conv_fwd)
    assert jcnn.conv.array_names == ("x", "w", "b")
    assert jcnn.conv.__module__ == "jcnn.conv"


def test_replaced_rule_keeps_name_docstring_and_signature():
    mine = jcnn.conv.replace(bwd=lambda res, dy: jcnn.conv.bwd(res, dy))
    assert (mine.name, mine.__doc__) == ("conv", jcnn.conv.__doc__)
    assert inspect.signature(mine) == inspect.signature(jcnn.conv)
    assert jcnn.conv.replace(name="my_conv").name == "my_conv"


def test_repr_shows_the_call_form():
    assert repr(jcnn.drop_path) == "<jcnn rule drop_path(x, key, *, rate)>"


# --- another backward ----------------------------------------------------------------------------


def test_grad_runs_the_replaced_backward_and_forward_is_unchanged():
    x, dy = jnp.array([-1.0, 2.0, 3.0]), jnp.array([1.0, -5.0, 7.0])
    guided = jcnn.relu.replace(bwd=guided_bwd)
    y, vjp = jax.vjp(guided, x)
    assert y.tolist() == jcnn.relu(x).tolist() == [0, 2, 3]
    assert vjp(dy)[0].tolist() == [0, 0, 7]
    assert jax.jit(lambda x, dy: jax.vjp(guided, x)[1](dy))(x, dy)[0].tolist() == [0, 0, 7]
    assert jax.vjp(jcnn.relu, x)[1](dy)[0].tolist() == [0, -5, 7]  # the original is as it was


def test_replaced_forward_runs():
    def fwd(x):
        y, res = jcnn.relu.fwd(x)
        return 2 * y, res

    assert jcnn.relu.replace(fwd=fwd)(jnp.array([-1.0, 3.0])).tolist() == [0, 6]


def test_replace_refuses_unknown_parts():
    with pytest.raises(TypeError, match=r"jcnn\.relu\.replace: got \['backwards'\], expected fwd, bwd"):
        jcnn.relu.replace(backwards=guided_bwd)


def test_equal_replaced_rules_share_a_jit_cache():
    traced = []

    def f(x, rule):
        traced.append(rule)
        return rule(x)

    f, x = jax.jit(f, static_argnums=1), jnp.ones(3)
    first, second = (jcnn.relu.replace(bwd=guided_bwd) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    f(x, first), f(x, second)
    assert len(traced) == 1
    f(x, jcnn.relu)
    assert len(traced) == 2


# --- the contract of cotangents ------------------------------------------------------------------


def with_backward(cts):
    return jcnn.dense.replace(bwd=lambda res, dy: cts)


def dense_gradient(rule, dtype=jnp.float64):
    x, w, b = jnp.ones((2, 3), dtype), jnp.ones((3, 4), dtype), jnp.ones(4, dtype)
    return jax.grad(lambda *a: rule(*a).sum(), argnums=(0, 1, 2))(x, w, b)


def test_wider_cotangent_is_rounded_to_the_dtype_of_its_primal():
    wide = tuple(jnp.full(s, 1.2345678, jnp.float32) for s in ((2, 3), (3, 4), (4,)))
    for ct in dense_gradient(with_backward(wide), jnp.bfloat16):
        assert ct.dtype == jnp.bfloat16
        assert (ct == jnp.bfloat16(1.2345678)).all()
    _, res = with_backward(wide).fwd(*(jnp.ones(a.shape, jnp.bfloat16) for a in wide))
    explicit = with_backward(wide).bwd(res, jnp.ones((2, 4), jnp.bfloat16))
    assert [ct.dtype for ct in explicit] == [jnp.bfloat16] * 3


GOOD = (jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.ones(4))
BAD_COTANGENTS = {
    "two of three": (TypeError, GOOD[:2], r"jcnn\.dense\.bwd: got 2 values, .* each of x, w, b"),
    "not a tuple": (TypeError, GOOD[0], r"jcnn\.dense\.bwd: got ArrayImpl, expected a tuple"),
    "shape": (
        ValueError,
        (GOOD[0], GOOD[1].T, GOOD[2]),
        r"jcnn\.dense\.bwd: cotangent of 'w': got shape \(4, 3\), expected \(3, 4\)",
    ),
    "broadcastable": (
        ValueError,
        (*GOOD[:2], jnp.ones(())),
        r"jcnn\.dense\.bwd: cotangent of 'b': got shape \(\), expected \(4,\)",
    ),
    "none": (
        TypeError,
        (None, *GOOD[1:]),
        r"jcnn\.dense\.bwd: cotangent of 'x': got None, expected float64 of shape \(2, 3\)",
    ),
}


@pytest.mark.parametrize("which", BAD_COTANGENTS)
def test_wrong_cotangents_of_a_users_backward_are_refused(which):
    error, cts, message = BAD_COTANGENTS[which]
    rule = with_backward(cts)
    with pytest.raises(error, match=message):
        dense_gradient(rule)
    _, res = rule.fwd(*GOOD)
    with pytest.raises(error, match=message):
        rule.bwd(res, jnp.ones((2, 4)))


def test_cotangent_of_an_absent_optional_argument_is_none():
    _, res = jcnn.dense.fwd(*GOOD[:2])
    dx, dw, db = jcnn.dense.bwd(res, jnp.ones((2, 4)))
    assert (dx.shape, dw.shape, db) == ((2, 3), (3, 4), None)


def test_explicit_backward_refuses_a_cotangent_unlike_the_output():
    _, res = jcnn.dense.fwd(*GOOD)
    with pytest.raises(ValueError, match=r"jcnn\.dense\.bwd: dy: got shape \(4, 2\), expected \(2, 4\)"):
        jcnn.dense.bwd(res, jnp.ones((4, 2)))
    (y, _), res = jcnn.batch_norm.fwd(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3))
    with pytest.raises(TypeError, match=r"jcnn\.batch_norm\.bwd: dy: got .* like the output"):
        jcnn.batch_norm.bwd(res, y)


def test_explicit_backward_refuses_a_wrong_cotangent_after_jit_too():
    _, res = jax.jit(jcnn.dense.fwd)(*GOOD)
    with pytest.raises(ValueError, match=r"jcnn\.dense\.bwd: dy: got shape \(4, 2\)"):
        jax.jit(jcnn.dense.bwd)(res, jnp.ones((4, 2)))


# --- arguments -----------------------------------------------------------------------------------


def test_numpy_arrays_and_numbers_are_arrays():
    y = jcnn.conv(np.asarray(X), np.asarray(W), np.asarray(B))
    assert isinstance(y, jax.Array)
    assert_close(y, jcnn.conv(X, W, B), 0, "NumPy arguments")
    assert float(jcnn.relu(-2.0)) == float(jcnn.relu(np.float32(-2.0))) == 0.0


def test_gradient_at_a_python_number():
    s = 1 / (1 + np.exp(-1.0))
    assert_close(jax.grad(jcnn.sigmoid)(1.0), s * (1 - s), 1e-12, "eager")
    assert_close(jax.jit(jax.grad(jcnn.sigmoid))(1.0), s * (1 - s), 1e-12, "jitted")


def test_arrays_can_be_given_by_name():
    assert_close(jcnn.conv(w=W, x=X, b=B), jcnn.conv(X, W, B), 0, "by name")


def test_lists_are_not_arrays():
    with pytest.raises(TypeError, match=r"jcnn\.relu: x: got list, expected an array"):
        jcnn.relu([1.0, 2.0])


def test_static_lists_and_numpy_numbers_are_made_hashable():
    expected = jcnn.conv(X, W, stride=(2, 1), padding=((1, 0), (0, 1)))
    y = jcnn.conv(X, W, stride=[np.int64(2), 1], padding=[[1, 0], (0, np.int32(1))])
    assert_close(y, expected, 0, "lists")
    gradient = jax.grad(lambda x: jcnn.conv(x, W, stride=[2, 1]).sum())(X)
    assert gradient.shape == X.shape


def test_arrays_are_not_static_configuration():
    for stride in (jnp.array(2), np.array([2, 1])):
        with pytest.raises(TypeError, match=r"jcnn\.conv: stride: got an array, expected a Python value"):
            jcnn.conv(X, W, stride=stride)


def test_unhashable_configuration_is_refused():
    with pytest.raises(TypeError, match=r"jcnn\.conv: groups: got \{\}, expected a hashable value"):
        jcnn.conv(X, W, groups={})


def test_wrong_keywords_and_counts_show_the_call_form():
    form = re.escape("expected drop_path(x, key, *, rate)")
    for args, kwargs, complaint in (
        ((X,), {"rate": 0.5}, "missing a required argument: 'key'"),
        ((X, jax.random.key(0)), {}, "missing a required keyword-only argument: 'rate'|missing a required"),
        ((X, jax.random.key(0), 0.5), {}, "too many positional arguments"),
        ((X, jax.random.key(0)), {"p": 0.5, "rate": 0.5}, "unexpected keyword argument 'p'"),
    ):
        with pytest.raises(TypeError, match=rf"jcnn\.drop_path: .*({complaint}).*; {form}"):
            jcnn.drop_path(*args, **kwargs)


# --- rules made by users -------------------------------------------------------------------------


@residuals
class ScaleResiduals:
    x: jax.Array  # the input
    w: jax.Array  # the factor
    power: int = static()


def scale_fwd(x, w, *, power=1):
    """x w^power."""
    return x * w**power, ScaleResiduals(x, w, power)


def scale_bwd(res, dy):
    p = res.power
    return dy * res.w**p, jnp.sum(dy * res.x) * p * res.w ** (p - 1)


def scale_reference(x, w, *, power=1):
    return x * w**power


scale = jcnn.Rule(scale_fwd, scale_bwd, scale_reference)


def test_user_made_rule_obeys_the_law():
    x, w, dy = normal(3, 4), jnp.array(1.5), normal(4, 4)
    assert (scale.name, scale.__doc__) == ("scale", "x w^power.")
    y, vjp = jax.vjp(lambda *a: scale(*a, power=3), x, w)
    expected, auto = jax.vjp(lambda *a: scale_reference(*a, power=3), x, w)
    assert_close((y, vjp(dy)), (expected, auto(dy)), 1e-12, "scale")
    y, res = scale.fwd(x, w, power=3)
    assert_close((y, scale.bwd(res, dy)), (expected, auto(dy)), 1e-12, "explicit")
    second = jax.grad(jax.grad(lambda w: scale(x, w, power=3).sum()))(w)
    assert_close(second, 6 * 1.5 * x.sum(), 1e-12, "second derivative")


def test_residuals_of_a_users_rule_may_be_any_pytree():
    rule = jcnn.Rule(lambda x: (x**2, (x, {})), lambda res, dy: (2 * res[0] * dy,), lambda x: x**2, name="sq")
    assert float(jax.grad(rule)(jnp.array(3.0))) == 6.0
    y, res = rule.fwd(3.0)
    assert (float(y), float(rule.bwd(res, 1.0)[0])) == (9.0, 6.0)


def test_check_of_a_users_rule_is_run_first():
    def check(x):
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        jcnn.relu.replace(check=check)(X)


# --- residuals -----------------------------------------------------------------------------------


def test_residuals_are_pytrees_whose_static_fields_are_metadata():
    _, res = jcnn.conv.fwd(X, W, stride=2)
    leaves, tree = jax.tree.flatten(res)
    assert [leaf.shape for leaf in leaves] == [X.shape, W.shape]
    again = jax.tree.unflatten(tree, leaves)
    assert again.geometry == res.geometry
    assert again.has_bias is False
    assert {f.name for f in dataclasses.fields(res)} == {"x", "w", "has_bias", "geometry"}
    assert jax.tree.structure(jcnn.conv.fwd(X, W, stride=2)[1]) == tree
    assert jax.tree.structure(jcnn.conv.fwd(X, W, stride=1)[1]) != tree
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(res)]
    assert paths == [".x", ".w"]


def test_residuals_are_immutable():
    _, res = jcnn.relu.fwd(X)
    with pytest.raises(dataclasses.FrozenInstanceError):
        res.mask = None


# --- the autodiff switch -------------------------------------------------------------------------

# A rule whose forward doubles and whose reference trebles tells which of the two has run.
telltale = jcnn.Rule(lambda x: (2 * x, ()), lambda res, dy: (2 * dy,), lambda x: 3 * x, name="telltale")


def in_scan(x):
    return lax.scan(lambda c, _: (telltale(c), None), x, length=1)[0]


def in_cond(x):
    return lax.cond(x.sum() < jnp.inf, telltale, lambda x: x, x)


def in_while(x):
    return lax.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, telltale(c[1])), (0, x))[1]


def in_shard_map(x):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("d")
    return jax.shard_map(telltale, mesh=mesh, in_specs=spec, out_specs=spec)(x)


CONTEXTS = {
    "plain": telltale,
    "jit": jax.jit(lambda x: telltale(x)),
    "jit in jit": jax.jit(lambda x: jax.jit(lambda x: telltale(x))(x)),
    "scan": in_scan,
    "jitted scan": jax.jit(in_scan),
    "cond": in_cond,
    "while": in_while,
    "jitted while": jax.jit(in_while),
    "checkpoint": jax.checkpoint(lambda x: telltale(x)),
    "vmap": jax.vmap(lambda x: telltale(x)),
    "jitted vmap": jax.jit(jax.vmap(lambda x: telltale(x))),
    "shard_map": jax.jit(in_shard_map),
}


@pytest.mark.parametrize("context", CONTEXTS)
def test_autodiff_reaches_references_and_is_off_again_afterwards(context):
    f, x = CONTEXTS[context], jnp.array([1.0, 5.0])
    reverse = "while" not in context
    assert f(x).tolist() == [2, 10]
    if reverse:
        assert jax.grad(lambda x: f(x).sum())(x).tolist() == [2, 2]
    with_reference = jcnn.autodiff(f)
    assert with_reference(x).tolist() == [3, 15]
    y, tangent = jax.jvp(with_reference, (x,), (jnp.array([1.0, 2.0]),))
    assert (y.tolist(), tangent.tolist()) == ([3, 15], [3, 6])
    if reverse:
        assert jax.grad(lambda x: with_reference(x).sum())(x).tolist() == [3, 3]
    assert f(x).tolist() == [2, 10]
    if reverse:
        assert jax.grad(lambda x: f(x).sum())(x).tolist() == [2, 2]


def test_forward_mode_needs_autodiff():
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(jcnn.sigmoid, (X,), (X,))
    assert_close(
        jax.jvp(jcnn.autodiff(jcnn.sigmoid), (X,), (X,)), jax.jvp(jax.nn.sigmoid, (X,), (X,)), 1e-12, "jvp"
    )


def test_autodiff_is_off_again_after_an_exception():
    def fails(x):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        jcnn.autodiff(fails)(1.0)
    assert float(telltale(1.0)) == 2.0


def test_autodiff_can_be_nested_and_keeps_the_functions_name():
    def f(x):
        """Doc."""
        return telltale(x)

    assert float(jcnn.autodiff(jcnn.autodiff(f))(1.0)) == 3.0
    assert (jcnn.autodiff(f).__name__, jcnn.autodiff(f).__doc__) == ("f", "Doc.")


def test_hessian_by_autodiff_equals_reverse_over_reverse():
    x, label = normal(5, 1, 3, 3, 1), jnp.array([1])

    def loss(w):
        y = jcnn.sigmoid(jcnn.conv(x, w, padding="SAME"))
        return jcnn.softmax_cross_entropy(jcnn.global_avg_pool(y), label).sum()

    w = normal(6, 2, 2, 1, 2)
    by_rules = jax.jit(jax.jacrev(jax.jacrev(loss)))(w)
    by_jax = jax.jit(jax.hessian(jcnn.autodiff(loss)))(w)
    assert float(jnp.abs(by_jax).max()) > 1e-3
    assert_close(by_rules, by_jax, 1e-9, "hessian")


def test_ops_are_named_in_profiles():
    def lowered(f):
        return jax.jit(f).lower(X).as_text(debug_info=True)

    assert "jcnn.conv/conv_general_dilated" in lowered(lambda x: jcnn.conv(x, W))
    both = lowered(jax.value_and_grad(lambda x: jcnn.conv(x, W).sum()))
    assert "(jcnn.conv)/conv_general_dilated" in both
    assert "jcnn.conv.bwd" in both
    assert "jcnn.conv_input_grad/conv_general_dilated" in both
    assert "jcnn.conv.reference/" in lowered(jcnn.autodiff(lambda x: jcnn.conv(x, W)))
