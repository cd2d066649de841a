"""Every kind of mutant is made, is broken, has a name of its own, and can take the original's place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jcnn
from jcnn.verify.mutate import ERRORS, Mutant, equivalent, mutate

RNG = np.random.default_rng(0)


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.standard_normal(shape))


X = normal(3, 3)


def of_backward(backward):
    """A triple, not the derivative of anything: only its backward matters."""
    return (lambda x: x, lambda x: (x, x), lambda res, dy: (backward(res, dy),))


def differ(a, b) -> bool:
    """Whether two tuples of cotangents differ in count, structure, shape, dtype or value."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        return True
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    return any((p.shape, p.dtype) != (q.shape, q.dtype) or not jnp.array_equal(p, q) for p, q in pairs)


INDEX = jnp.array([2, 0, 0])
KERNEL = normal(2, 2, 3, 3)


def images(x):
    return x.reshape(1, 3, 3, 1) * jnp.ones((1, 1, 1, 3))


def convolved(x):
    return lax.conv_general_dilated(
        images(x), KERNEL, (1, 1), [(1, 0), (0, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


EQUATIONS = {
    "drop operand 1 of add #1": lambda x, dy: x + dy,
    "drop operand 2 of add #2": lambda x, dy: (x + dy) + x * dy,
    "change the sign of operand 2 of add #1": lambda x, dy: x + dy,
    "drop operand 1 of sub #1": lambda x, dy: x - dy,
    "swap the operands of sub #1": lambda x, dy: x - dy,
    "drop operand 2 of mul #1": lambda x, dy: x * dy,
    "2 times constant operand 1 of mul #1": lambda x, dy: 0.5 * dy,
    "1+1e-6 times constant operand 1 of mul #1": lambda x, dy: 0.5 * dy,
    "drop the denominator of div #1": lambda x, dy: dy / x,
    "swap the operands of div #1": lambda x, dy: dy / x,
    "omission of neg #1": lambda x, dy: -dy,
    "omission of tanh #1": lambda x, dy: jnp.tanh(x) * dy,
    "omission of logistic #1": lambda x, dy: lax.logistic(x) * dy,
    "expm1 instead of exp #1": lambda x, dy: jnp.exp(x) * dy,
    "sqrt instead of rsqrt #1": lambda x, dy: lax.rsqrt(x * x) * dy,
    "raise the exponent by 1 of integer_pow #1": lambda x, dy: x**3 * dy,
    "mean instead of reduce_sum #1": lambda x, dy: dy - dy.sum(0),
    "reduce axis 1 for axis 0 of reduce_sum #1": lambda x, dy: dy - dy.sum(0),
    "turn the direction of cumsum #1": lambda x, dy: jnp.cumsum(dy, 0),
    "swap axes 0 and 1 of transpose #1": lambda x, dy: dy.T,
    "along axis 0 for axis 1 of broadcast_in_dim #1": lambda x, dy: (
        dy * lax.broadcast_in_dim(x[0], (3, 3), (1,))
    ),
    "column-major order of reshape #1": lambda x, dy: dy.reshape(9).reshape(3, 3),
    "do not flip axis 0 of rev #1": lambda x, dy: dy[::-1],
    "start +1 on axis 0 of slice #1": lambda x, dy: dy * dy[:2].sum(),
    "start +1 on axis 0 of dynamic_slice #1": lambda x, dy: dy * lax.dynamic_slice_in_dim(x, 0, 1),
    "shift by 1 on axis 1 of pad #1": lambda x, dy: lax.pad(dy[:, 1:], 0.0, [(0, 0, 0), (0, 1, 0)]),
    "reverse the order of concatenate #1": lambda x, dy: jnp.concatenate([dy[1:], dy[:1]]),
    "shift by 1 on spatial axis 0 of conv_general_dilated #1": lambda x, dy: convolved(dy)[0, ..., 0],
    "flip the kernel of conv_general_dilated #1": lambda x, dy: convolved(dy)[0, ..., 0],
    "swap the kernel's channels of conv_general_dilated #1": lambda x, dy: convolved(dy)[0, ..., 0],
    "swap axes 0 and 1 of operand 2 of dot_general #1": lambda x, dy: dy @ x,
    "mean instead of dot_general #1": lambda x, dy: dy @ x,
    ">= instead of gt #1": lambda x, dy: jnp.where(x > x, dy, -dy),
    "<= instead of lt #1": lambda x, dy: jnp.where(x < x, dy, -dy),
    "!= instead of eq #1": lambda x, dy: jnp.where(x == dy, dy, -dy),
    "swap the cases of select_n #1": lambda x, dy: jnp.where(x > 0, dy, 0),
    "always case 2 of select_n #1": lambda x, dy: jnp.where(x > 0, dy, 0),
    "min instead of max #1": lambda x, dy: jnp.maximum(x, dy),
    "start at 1 of iota #1": lambda x, dy: dy * jnp.arange(3.0),
    "reverse the indices of gather #1": lambda x, dy: dy[INDEX],
    "overwrite instead of scatter-add #1": lambda x, dy: dy.at[INDEX].add(x),
    "omission of scatter-add #1": lambda x, dy: dy.at[INDEX].add(x),
    "drop operand 1 of mul #1": lambda x, dy: jax.jit(lambda a: x * a)(dy),  # inside a call
    "drop operand 2 of mul #1 ": lambda x, dy: jax.checkpoint(jnp.multiply)(x, dy),
}


@pytest.mark.parametrize("what", EQUATIONS)
def test_change_of_one_equation(what):
    rule = of_backward(EQUATIONS[what])
    dy = normal(3, 3)
    found = {m.name.partition(": ")[2].partition(" (")[0]: m for m in mutate(rule, X)}
    assert what.strip() in found, list(found)
    broken = found[what.strip()]
    assert differ(broken[2](X, dy), rule[2](X, dy))


def test_dead_equations_and_neutral_operands_are_left_alone():
    def backward(x, dy):
        jnp.sin(x)
        return 1.0 * (dy + 0.0)

    names = " ".join(m.name for m in mutate(of_backward(backward), X))
    for what in (
        "of sin #1",
        "drop operand 1 of mul #1",
        "drop operand 2 of add #1",
        "sign of operand 2 of add #1",
    ):
        assert what not in names
    assert "drop operand 1 of add #1" in names


def product(x, w, scale):
    return x * w * scale


def product_fwd(x, w, scale):
    return product(x, w, scale), (x, w, scale)


def product_bwd(res, dy):
    x, w, scale = res
    return dy * w * scale, dy * x * scale, jnp.sum(dy * x * w)


PRODUCT = (product, product_fwd, product_bwd)
ARGS = (X, normal(3, 3), jnp.asarray(0.7))
GENERIC = (
    *(f"dw {what}" for what in ("negated", "doubled", "times 1+1e-6", "zero", "None", "of another shape")),
    *(f"dx {what}" for what in ("rounded to bfloat16", "rounded to float32", "with noise of 1e-6")),
    *("dscale of another dtype", "all cotangents negated", "dx and dw swapped"),
    *("last cotangent left out", "one cotangent too many"),
    *("dy ignored", "|dy| for dy", "dy |dy| for dy", "max(dy, 0) for dy", "dy clipped to [-1, 1]"),
    *("residual [0] negated", "residual [1] zero", "residuals [0] and [1] swapped"),
)


def test_generic_changes():
    found = {m.name.removeprefix("product: "): m for m in mutate(PRODUCT, *ARGS)}
    dy = 3 * normal(3, 3)
    for what in GENERIC:
        assert differ(found[what][2](ARGS, dy), product_bwd(ARGS, dy)), what
    y, kept = found["1000 copies in the residuals"][1](*ARGS)
    assert sum(a.size for a in jax.tree.leaves(kept)) > 1000 * y.size
    assert not differ(found["1000 copies in the residuals"][2](kept, dy), product_bwd(ARGS, dy))
    np.testing.assert_allclose(found["forward's output times 1+1e-3"][1](*ARGS)[0], 1.001 * product(*ARGS))
    noisy = found["dx with noise of 1e-6"]
    assert differ(noisy[2](ARGS, dy), noisy[2](ARGS, dy))
    for what, argument in {"residuals without gradient": 0, "dy without gradient": 1}.items():
        second = jax.grad(lambda res, dy, bwd=found[what][2]: bwd(res, dy)[0].sum(), argument)(ARGS, dy)
        assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(second)), what


def test_forgotten_output():
    def bwd(res, dys):
        return (dys[0] + 2 * dys[1],)

    names = [m.name for m in mutate((lambda x: (x, 2 * x), lambda x: ((x, 2 * x), None), bwd), X)]
    assert "<lambda>: dy[1] ignored" in names


CONV = {"padding": 1, "padding_mode": "edge"}
BITES = {  # arguments and configuration for which every semantic error shows
    "conv": ((normal(2, 4, 5, 3), normal(2, 3, 3, 3), normal(3)), CONV),
    "conv_input_grad": ((normal(2, 5, 5, 3), normal(2, 3, 3, 3)), CONV | {"input_size": (4, 5)}),
    "conv_weight_grad": ((normal(2, 4, 5, 3), normal(2, 5, 5, 3)), CONV | {"kernel_size": (2, 3)}),
    "conv_transpose": (
        (normal(2, 4, 5, 3), normal(2, 3, 3, 3), normal(3)),
        {"stride": 2, "padding": 1, "output_padding": 1},
    ),
    "pad": ((normal(2, 4, 5, 3),), {"padding": ((1, 0), (2, 1)), "mode": "reflect"}),
    "dense": ((normal(4, 3), normal(3, 3), normal(3)), {}),
    "flatten": ((normal(2, 3, 4),), {}),
    "relu": ((jnp.arange(-1.0, 8.0),), {}),
    "relu6": ((jnp.array([-1.0, 0.0, 2.0, 6.0, 7.0]),), {}),
    "leaky_relu": ((jnp.array([-1.0, 0.0, 2.0]),), {}),
    "prelu": ((X, normal(3)), {}),
    "sigmoid": ((X,), {}),
    "tanh": ((X,), {}),
    "softplus": ((X,), {}),
    "elu": ((X,), {"alpha": 0.5}),
    "selu": ((X,), {}),
    "gelu": ((X,), {}),
    "silu": ((X,), {}),
    "mish": ((X,), {}),
    "hard_sigmoid": ((jnp.array([-4.0, -3.0, 0.5, 3.0, 4.0]),), {}),
    "hard_swish": ((jnp.array([-4.0, -3.0, 0.5, 3.0, 4.0]),), {}),
    "glu": ((normal(3, 4),), {}),
    "softmax": ((X,), {}),
    "log_softmax": ((X,), {}),
    "max_pool": ((jnp.round(normal(2, 5, 5, 3)),), {"window": 3, "stride": 1, "padding": 1}),
    "avg_pool": ((normal(2, 6, 6, 3),), {"window": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    "lp_pool": ((normal(2, 5, 5, 3),), {"window": 3, "stride": 2, "p": 3}),
    "global_max_pool": ((jnp.round(normal(2, 4, 3, 3)),), {}),
    "global_avg_pool": ((normal(2, 4, 3, 3),), {}),
    "adaptive_max_pool": ((jnp.round(normal(2, 5, 4, 3)),), {"output_size": 3}),
    "adaptive_avg_pool": ((normal(2, 5, 4, 3),), {"output_size": 3}),
    "max_unpool": ((normal(2, 4, 3), jnp.arange(24).reshape(2, 4, 3) % 3), {"window": 2}),
    "batch_norm": ((normal(2, 4, 3, 3), normal(3), normal(3), normal(2, 4, 3) > 0), {}),
    "batch_norm_inference": ((normal(2, 4, 3), normal(3), normal(3), normal(3), normal(3) ** 2), {}),
    "layer_norm": ((normal(2, 4, 3), normal(3), normal(3)), {}),
    "group_norm": ((normal(2, 4, 3, 6), normal(6), normal(6)), {"groups": 2}),
    "instance_norm": ((normal(2, 4, 3, 3), normal(3), normal(3)), {}),
    "rms_norm": ((normal(2, 4, 3), normal(3)), {}),
    "local_response_norm": ((normal(2, 3, 5),), {"size": 4, "alpha": 2.0, "k": 0.7}),
    "weight_standardize": ((normal(2, 3, 4),), {}),
    "layer_scale": ((normal(2, 4, 3), normal(3)), {}),
    "dropout": ((X, jax.random.key(0)), {"rate": 0.3}),
    "drop_path": ((normal(6, 3), jax.random.key(0)), {"rate": 0.4}),
    "scale_channels": ((normal(2, 4, 3, 3), normal(2, 3)), {}),
    "patches": ((normal(2, 4, 5, 3),), {"window": 2}),
    "fold": ((normal(2, 3, 4, 12),), {"window": 2, "output_size": (4, 5)}),
    "upsample": ((normal(2, 4, 5, 3),), {"factor": 2, "method": "linear"}),
    "pixel_shuffle": ((normal(2, 3, 3, 12),), {"factor": 2}),
    "pixel_unshuffle": ((normal(2, 4, 4, 3),), {"factor": 2}),
    "softmax_cross_entropy": (
        (normal(4, 3), jnp.array([0, 2, 1, 1]), normal(3) ** 2),
        {"label_smoothing": 0.1, "ignore_index": 1, "z_loss": 0.2},
    ),
    "binary_cross_entropy": (
        (normal(4, 3), jax.nn.sigmoid(normal(4, 3)), normal(3) ** 2),
        {"label_smoothing": 0.1},
    ),
    "focal_loss": ((normal(4, 3), jax.nn.sigmoid(normal(4, 3))), {}),
    "kl_divergence": ((jax.nn.log_softmax(normal(4, 3)), jax.nn.softmax(normal(4, 3))), {}),
    "mse": ((normal(4, 3), normal(4, 3)), {}),
    "huber": ((normal(4, 3), 5 * normal(4, 3)), {"delta": 2}),
}


@pytest.mark.parametrize("name", BITES)
def test_semantic_errors_show(name):
    rule = getattr(jcnn, name)
    args, static = BITES[name]
    dy = jax.tree.map(lambda y: normal(*y.shape), jax.eval_shape(lambda a: rule.fwd(*a, **static)[0], args))

    def cotangents(rule):
        return [ct for ct in rule.bwd(rule.fwd(*args, **static)[1], dy) if ct is not None]

    broken = {m.name.removeprefix(f"{name}: "): m for m in mutate(rule)}
    expected = cotangents(rule)
    for what in ERRORS[rule]:
        pairs = zip(cotangents(broken[what]), expected, strict=True)
        assert not all(np.allclose(a, b, equal_nan=True) for a, b in pairs), what


def test_every_op_has_semantic_errors():
    assert {rule.name for rule in ERRORS} == BITES.keys()
    assert all(getattr(jcnn, rule.name) == rule and len(errors) >= 2 for rule, errors in ERRORS.items())


@pytest.mark.parametrize("args", [(), (X, normal(3), normal(3))], ids=["without arguments", "with arguments"])
def test_mutants_of_a_rule_are_rules_with_names_of_their_own(args):
    found = list(mutate(jcnn.batch_norm, *args))
    assert all(isinstance(m, jcnn.Rule) for m in found)
    assert len({m.name for m in found} | {"batch_norm"}) == len(found) + 1
    assert len(set(found)) == len(found)
    assert all(m.__signature__ == jcnn.batch_norm.__signature__ for m in found)
    assert any("#" in m.name for m in found)
    triple = (jcnn.batch_norm, jcnn.batch_norm.fwd, jcnn.batch_norm.bwd)
    assert bool(args) == any("#" in m.name for m in mutate(triple, *args))


def test_mutant_of_a_rule_takes_its_place():
    x, w = normal(2, 4, 4, 3), normal(2, 2, 3, 3)
    found = {m.name.partition(" (")[0]: m for m in mutate(jcnn.conv, x, w, padding="SAME")}
    broken = found["conv: flip the kernel of conv_general_dilated #1"]

    def gradient(op, x, w=w):
        return jax.grad(lambda x: jnp.sum(jnp.sin(op(x, w, padding="SAME"))))(x)

    wrong = gradient(broken, x)
    np.testing.assert_array_equal(broken(x, w, padding="SAME"), jcnn.conv(x, w, padding="SAME"))
    assert not np.allclose(wrong, gradient(jcnn.conv, x))
    np.testing.assert_allclose(jax.jit(lambda x: gradient(broken, x))(x), wrong, atol=1e-12)
    np.testing.assert_allclose(jax.vmap(lambda x: gradient(broken, x))(x[None])[0], wrong, atol=1e-12)
    assert jax.grad(lambda x: gradient(broken, x).sum())(x).shape == x.shape
    x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    low = gradient(broken, x, w)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float64(low), wrong, atol=0.1 * np.abs(wrong).max())


def test_mutants_of_a_triple_are_triples():
    found = list(mutate(PRODUCT, *ARGS))
    assert all(isinstance(m, Mutant) and len(m) == 3 and m.name.startswith("product: ") for m in found)
    assert len({m.name for m in found}) == len(found)


def test_function_with_a_rule_of_its_own():
    op = jax.custom_vjp(product)
    op.defvjp(product_fwd, product_bwd)
    assert [m.name for m in mutate(op, *ARGS)] == [m.name for m in mutate(PRODUCT, *ARGS)]


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (3, TypeError, "got int"),
        ((product, product_fwd), TypeError, "got tuple"),
        (jax.custom_vjp(product), ValueError, "no rule yet"),
        (jax.custom_vjp(product, nondiff_argnums=(1,)), ValueError, "nondiff_argnums"),
    ],
)
def test_refuses_what_is_no_rule(rule, error, message):
    if "nondiff" in message:
        rule.defvjp(product_fwd, product_bwd)
    with pytest.raises(error, match=message):
        next(mutate(rule, *ARGS))


def test_equivalent():
    f, fwd, bwd = PRODUCT
    found = {m.name.removeprefix("product: "): m for m in mutate(PRODUCT, *ARGS)}
    assert equivalent(PRODUCT, (f, fwd, lambda res, dy: bwd(res, 1.0 * dy)), *ARGS, seeds=(0,))
    for what in ("dx times 1+1e-6", "dx rounded to float32", "residuals without gradient", "dx None"):
        assert not equivalent(PRODUCT, found[what], *ARGS, seeds=(0,)), what
    assert not equivalent(PRODUCT, found["1000 copies in the residuals"], *ARGS)
    assert not equivalent(PRODUCT, found["forward's output times 1+1e-3"], *ARGS)


def test_equivalent_finds_kinks_and_differences_in_low_precision():
    kink = next(m for m in mutate(jcnn.relu) if m.name == "relu: derivative 1 at 0")
    assert equivalent(jcnn.relu, jcnn.relu.replace(), X)
    assert not equivalent(jcnn.relu, kink, X)

    def narrow(res, dy):
        return jcnn.silu.bwd(res, dy.astype(jnp.float32).astype(dy.dtype) if dy.dtype == jnp.bfloat16 else dy)

    def rounded(res, dy):
        (dx,) = jcnn.silu.bwd(res, dy)
        return (dx * (1 + 2**-7) if dy.dtype == jnp.bfloat16 else dx,)

    low = {"dtypes": (jnp.bfloat16,)}
    assert equivalent(jcnn.silu, jcnn.silu.replace(bwd=narrow), X, **low)
    assert not equivalent(jcnn.silu, jcnn.silu.replace(bwd=rounded), X, **low)
