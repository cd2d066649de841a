"""Every refusal is one line that names op, argument, what came and what was expected."""

import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import jcnn
from jcnn import net

X = jnp.ones((2, 5, 6, 4))
W = jnp.ones((3, 2, 4, 3))
B = jnp.ones(3)
GAMMA = jnp.ones(4)
LOGITS = jnp.ones((4, 5))
LABELS = jnp.array([3, 0, 4, 1])
KEY = jax.random.key(0)
STATS = jcnn.BatchStats(GAMMA, GAMMA)


@pytest.fixture(autouse=True)
def without_type_checker(monkeypatch):
    """As users run jcnn, without the run-time check of annotations that pytest's configuration turns on."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


# (rule, arrays, configuration, error, argument, what it got, what it expected)
REFUSED = {
    # arrays that are none
    "list": (jcnn.relu, ([1.0],), {}, TypeError, "x", "list", "an array"),
    "list of weights": (jcnn.conv, (X, [[1.0]]), {}, TypeError, "w", "list", "an array"),
    "string": (jcnn.dense, ("x", B), {}, TypeError, "x", "str", "an array"),
    # dtypes
    "uint8 image": (
        *(jcnn.conv, (X.astype(jnp.uint8), W), {}, TypeError),
        *("x", "dtype uint8", "a floating-point array; convert it first"),
    ),
    "bool image": (jcnn.max_pool, (X > 0,), {"window": 2}, TypeError, "x", "dtype bool", "a floating-point"),
    "complex image": (
        jcnn.pad,
        (X + 1j,),
        {"padding": 1},
        TypeError,
        "x",
        "dtype complex128",
        "a floating-point",
    ),
    "int values": (jcnn.relu, (jnp.arange(3),), {}, TypeError, "x", "dtype int64", "a floating-point"),
    "mismatched weights": (
        *(jcnn.conv, (X.astype(jnp.float32), W), {}, TypeError),
        *("w", "dtype float64", "float32 like 'x'"),
    ),
    "mismatched bias": (
        *(jcnn.dense, (X, W[0, 0], B.astype(jnp.bfloat16)), {}, TypeError),
        *("b", "dtype bfloat16", "float64 like 'x'"),
    ),
    "mismatched gamma": (
        *(jcnn.batch_norm, (X, GAMMA.astype(jnp.float16), GAMMA), {}, TypeError),
        *("gamma", "dtype float16", "float64 like x"),
    ),
    "raw key": (
        *(jcnn.dropout, (X, jnp.array(3)), {"rate": 0.5}, TypeError),
        *("key", r"int64 of shape ()", "one PRNG key"),
    ),
    "many keys": (
        *(jcnn.dropout, (X, jax.random.split(KEY, 2)), {"rate": 0.5}, TypeError),
        *("key", r"key<fry> of shape (2,)", "one PRNG key"),
    ),
    "bool labels": (
        *(jcnn.softmax_cross_entropy, (LOGITS, LABELS > 0), {}, TypeError),
        *("labels", "dtype bool", "ints, or float64 like logits"),
    ),
    # shapes
    "no batch axis": (
        jcnn.conv,
        (X[0, 0], W),
        {},
        ValueError,
        "x",
        "shape (6, 4)",
        "[N, *S, C] with 1, 2 or 3",
    ),
    "four spatial axes": (
        *(jcnn.max_pool, (jnp.ones((1,) * 6),), {"window": 1}, ValueError),
        *("x", "shape (1, 1, 1, 1, 1, 1)", "[N, *S, C] with 1, 2 or 3"),
    ),
    "weights of other rank": (
        jcnn.conv,
        (X, W[0]),
        {},
        ValueError,
        "w",
        "shape (2, 4, 3)",
        "[*K, C/groups, O] with 2",
    ),
    "channels": (
        *(jcnn.conv, (X, W[:, :, :3]), {}, ValueError),
        *("w", "shape (3, 2, 3, 3)", "x's 4 channels / groups=1 on its second last axis"),
    ),
    "channels that groups do not divide": (
        *(jcnn.conv, (X, W[:, :, :2]), {"groups": 3}, ValueError),
        *("w", "shape (3, 2, 2, 3)", "x's 4 channels / groups=3"),
    ),
    "outputs that groups do not divide": (
        *(jcnn.conv, (X, W[:, :, :2]), {"groups": 2}, ValueError),
        *("w", "3 output channels", "a multiple of groups=2"),
    ),
    "length of the bias": (
        *(jcnn.conv, (X, W, jnp.ones(4)), {}, ValueError),
        *("b", "shape (4,)", "shape (3,) like w's last axis"),
    ),
    "bias that would broadcast": (
        jcnn.conv,
        (X, W, jnp.ones(1)),
        {},
        ValueError,
        "b",
        "shape (1,)",
        "shape (3,)",
    ),
    "dense weights": (
        *(jcnn.dense, (X, jnp.ones((3, 2))), {}, ValueError),
        *("w", "shape (3, 2)", "(4, O) for x of shape (2, 5, 6, 4)"),
    ),
    "length of gamma": (
        *(jcnn.batch_norm, (X, jnp.ones(3), GAMMA), {}, ValueError),
        *("gamma", "shape (3,)", "shape (4,) like x's last axis"),
    ),
    "mask": (
        *(jcnn.batch_norm, (X, GAMMA, GAMMA, jnp.ones(3)), {}, ValueError),
        *("mask", "shape (3,)", "(N,), (2, 5, 6) or (2, 5, 6, 1)"),
    ),
    "labels per row": (
        *(jcnn.softmax_cross_entropy, (LOGITS, LABELS[:3]), {}, ValueError),
        *("labels", "shape (3,)", "shape (4,) one class per row of logits"),
    ),
    "distributions": (
        *(jcnn.softmax_cross_entropy, (LOGITS, LOGITS.T), {}, ValueError),
        *("labels", "shape (5, 4)", "shape (4, 5) like logits"),
    ),
    "dy of conv_input_grad": (
        *(jcnn.conv_input_grad, (X, jnp.ones((3, 2, 3, 4))), {"input_size": (9, 9)}, ValueError),
        *("dy", "shape (2, 5, 6, 4)", "shape (2, 7, 8, 4) as conv's output"),
    ),
    "dy of conv_weight_grad": (
        *(jcnn.conv_weight_grad, (X, X), {"kernel_size": 2}, ValueError),
        *("dy", "shape (2, 5, 6, 4)", "shape (2, 4, 5, 4) as conv's output"),
    ),
    "weights of conv_transpose": (
        *(jcnn.conv_transpose, (X, jnp.ones((3, 2, 4, 3))), {}, ValueError),
        *("w", "shape (3, 2, 4, 3)", "x's 4 channels on its last axis"),
    ),
    "bias of conv_transpose": (
        *(jcnn.conv_transpose, (X, jnp.ones((3, 2, 3, 4)), B), {"groups": 2}, ValueError),
        *("b", "shape (3,)", "shape (6,) like w's second last axis times groups"),
    ),
    "groups of conv_transpose": (
        *(jcnn.conv_transpose, (X, jnp.ones((3, 2, 3, 4))), {"groups": 3}, ValueError),
        *("x", "4 channels", "a multiple of groups=3"),
    ),
    "image of conv_transpose": (
        *(jcnn.conv_transpose, (X[:, :0], jnp.ones((3, 2, 3, 4))), {}, ValueError),
        *("x", "spatial shape (0, 6)", "at least one pixel"),
    ),
    "gamma of layer_norm": (
        *(jcnn.layer_norm, (X, jnp.ones(3), GAMMA), {}, ValueError),
        *("gamma", "shape (3,)", "shape (4,) like x's last axis"),
    ),
    "dtype of group_norm's beta": (
        *(jcnn.group_norm, (X, GAMMA, GAMMA.astype(jnp.float16)), {"groups": 2}, TypeError),
        *("beta", "dtype float16", "float64 like x, or float32"),
    ),
    "too many axes for instance_norm": (
        *(jcnn.instance_norm, (jnp.ones((1,) * 6), jnp.ones(1), jnp.ones(1)), {}, ValueError),
        *("x", "shape (1, 1, 1, 1, 1, 1)", "[N, *S, C]"),
    ),
    "gamma of layer_scale": (
        *(jcnn.layer_scale, (X, jnp.ones(3)), {}, ValueError),
        *("gamma", "shape (3,)", "shape (4,) like x's last axis"),
    ),
    # values
    "label of no class": (
        *(jcnn.softmax_cross_entropy, (LOGITS, LABELS + 1), {}, ValueError),
        *("labels", "the class 5", "classes in [0, 5)"),
    ),
    # configuration
    "window longer than the image": (
        *(jcnn.max_pool, (X,), {"window": (6, 2)}, ValueError),
        *("window", "an extent of 6 on spatial axis 0", "at most the padded input size 5 there"),
    ),
    "kernel longer than the padded image": (
        *(jcnn.conv, (X, W), {"dilation": 4, "padding": ((1, 0), 0)}, ValueError),
        *("w", "an extent of 9 on spatial axis 0", "at most the padded input size 6 there"),
    ),
    "negative stride": (
        jcnn.conv,
        (X, W),
        {"stride": -1},
        ValueError,
        "stride",
        "-1",
        "an int >= 1, or 2 of them",
    ),
    "float stride": (jcnn.conv, (X, W), {"stride": 1.0}, ValueError, "stride", "1.0", "an int >= 1"),
    "stride of a pool": (
        jcnn.avg_pool,
        (X,),
        {"window": 2, "stride": 0},
        ValueError,
        "stride",
        "0",
        "an int >= 1",
    ),
    "window of zero": (
        jcnn.avg_pool,
        (X,),
        {"window": (0, 2)},
        ValueError,
        "window",
        "(0, 2)",
        "an int >= 1",
    ),
    "unknown padding": (
        *(jcnn.conv, (X, W), {"padding": "FULL"}, ValueError),
        *("padding", "'FULL'", "'VALID', 'SAME', 'SAME_LOWER', 'CAUSAL', an int"),
    ),
    "float padding": (jcnn.conv, (X, W), {"padding": 0.5}, ValueError, "padding", "0.5", "an int >= 0"),
    "negative padding": (
        jcnn.pad,
        (X,),
        {"padding": -1},
        ValueError,
        "padding",
        "-1",
        "an int >= 0, 2 ints, or",
    ),
    "named padding of pad": (
        jcnn.pad,
        (X,),
        {"padding": "SAME"},
        ValueError,
        "padding",
        "'SAME'",
        "an int >= 0",
    ),
    "unknown padding_mode": (
        *(jcnn.conv, (X, W), {"padding_mode": "mirror"}, ValueError),
        *("padding_mode", "'mirror'", "one of 'zeros', 'edge', 'reflect', 'symmetric', 'wrap'"),
    ),
    "unknown mode": (
        jcnn.pad,
        (X,),
        {"padding": 1, "mode": "circular"},
        ValueError,
        "mode",
        "'circular'",
        "one of",
    ),
    "output padding": (
        *(
            jcnn.conv_transpose,
            (X, jnp.ones((3, 2, 3, 4))),
            {"stride": 2, "output_padding": (0, 2)},
            ValueError,
        ),
        *("output_padding", "(0, 2)", "less than stride=2"),
    ),
    "output padding of SAME": (
        jcnn.conv_transpose,
        (X, jnp.ones((3, 2, 3, 4))),
        {"stride": 2, "padding": "SAME", "output_padding": 1},
        ValueError,
        *("output_padding", "1", "0 with padding='SAME'"),
    ),
    "padding of conv_transpose": (
        *(jcnn.conv_transpose, (X, jnp.ones((3, 2, 3, 4))), {"padding": 4}, ValueError),
        *("padding", "4", "less: the output would have spatial shape (-1, -1)"),
    ),
    "groups of group_norm": (
        *(jcnn.group_norm, (X, GAMMA, GAMMA), {"groups": 3}, ValueError),
        *("groups", "3", "a divisor of x's 4 channels"),
    ),
    "eps of layer_norm": (
        *(jcnn.layer_norm, (X, GAMMA, GAMMA), {"eps": 0.0}, ValueError),
        *("eps", "0.0", "a float > 0"),
    ),
    "zero groups": (jcnn.conv, (X, W), {"groups": 0}, ValueError, "groups", "0", "an int >= 1"),
    "unknown ties": (
        *(jcnn.max_pool, (X,), {"window": 2, "ties": "last"}, ValueError),
        *("ties", "'last'", "one of 'first', 'split'"),
    ),
    "count_include_pad": (
        *(jcnn.avg_pool, (X,), {"window": 2, "count_include_pad": "yes"}, ValueError),
        *("count_include_pad", "'yes'", "one of True, False"),
    ),
    "dropout of everything": (
        jcnn.dropout,
        (X, KEY),
        {"rate": 1.0},
        ValueError,
        "rate",
        "1.0",
        "a number in [0, 1)",
    ),
    "negative rate": (
        jcnn.dropout,
        (X, KEY),
        {"rate": -0.1},
        ValueError,
        "rate",
        "-0.1",
        "a number in [0, 1)",
    ),
    "nan rate": (
        jcnn.dropout,
        (X, KEY),
        {"rate": float("nan")},
        ValueError,
        "rate",
        "nan",
        "a number in [0, 1)",
    ),
    "eps of zero": (
        jcnn.batch_norm,
        (X, GAMMA, GAMMA),
        {"eps": 0.0},
        ValueError,
        "eps",
        "0.0",
        "a float > 0",
    ),
    "negative eps": (
        *(jcnn.batch_norm_inference, (X, *(GAMMA,) * 4), {"eps": -1e-5}, ValueError),
        *("eps", "-1e-05", "a float > 0"),
    ),
    "axis": (
        jcnn.softmax,
        (X,),
        {"axis": 4},
        ValueError,
        "axis",
        "4",
        "an axis of x, which has shape (2, 5, 6, 4)",
    ),
    "one axis of several": (
        jcnn.log_softmax,
        (X,),
        {"axis": (1, -5)},
        ValueError,
        "axis",
        "(1, -5)",
        "an axis of x",
    ),
    "slope": (
        *(jcnn.leaky_relu, (X,), {"negative_slope": "0.1"}, ValueError),
        *("negative_slope", "'0.1'", "a number in"),
    ),
    "infinite slope": (
        *(jcnn.leaky_relu, (X,), {"negative_slope": float("inf")}, ValueError),
        *("negative_slope", "inf", "a number in"),
    ),
    "approximate": (
        jcnn.gelu,
        (X,),
        {"approximate": "tanh"},
        ValueError,
        "approximate",
        "'tanh'",
        "one of True, False",
    ),
    "smoothing": (
        *(jcnn.softmax_cross_entropy, (LOGITS, LABELS), {"label_smoothing": 1.5}, ValueError),
        *("label_smoothing", "1.5", "a number in [0, 1]"),
    ),
    "z_loss": (
        *(jcnn.softmax_cross_entropy, (LOGITS, LABELS), {"z_loss": -1.0}, ValueError),
        *("z_loss", "-1.0", "a number in [0, inf)"),
    ),
    "ignore_index": (
        *(jcnn.softmax_cross_entropy, (LOGITS, LABELS), {"ignore_index": 1.5}, ValueError),
        *("ignore_index", "1.5", "an int or None"),
    ),
    "ignore_index of distributions": (
        *(jcnn.softmax_cross_entropy, (LOGITS, LOGITS), {"ignore_index": 0}, ValueError),
        *("ignore_index", "0", "None for labels that are distributions"),
    ),
    "no pixels": (
        *(jcnn.global_max_pool, (X[:, :0],), {}, ValueError),
        *("x", "shape (2, 0, 6, 4)", "at least one pixel"),
    ),
}


def one_line(call, error, pattern):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error
    assert "\n" not in message
    assert re.match(pattern, message), message
    return message


@pytest.mark.parametrize("case", REFUSED)
def test_refusal_names_op_argument_got_and_expected(case):
    rule, args, config, error, name, got, expected = REFUSED[case]
    pattern = rf"jcnn\.{rule.name}: {name}: got {re.escape(got)}, expected {re.escape(expected)}"
    one_line(lambda: rule(*args, **config), error, pattern)
    one_line(lambda: rule.fwd(*args, **config), error, pattern)


VALUES = {"label of no class"}  # cannot be known when a function is traced
ARRAYS = {
    c: case for c, case in REFUSED.items() if c not in VALUES and all(hasattr(a, "shape") for a in case[1])
}


@pytest.mark.parametrize("case", ARRAYS)
def test_a_jitted_call_is_refused_alike_when_it_is_traced(case):
    rule, args, config, error, name, got, expected = ARRAYS[case]
    pattern = rf"jcnn\.{rule.name}: {name}: got {re.escape(got)}, expected {re.escape(expected)}"
    one_line(lambda: jax.jit(lambda *a: rule(*a, **config))(*args), error, pattern)


CALLS = {
    "typo": (
        lambda: jcnn.conv(X, W, strides=2),
        *(
            TypeError,
            r"jcnn\.conv: .*unexpected keyword argument 'strides'; expected conv\(x, w, b=None, \*, stride=1",
        ),
    ),
    "too many arrays": (
        lambda: jcnn.relu(X, 0.1),
        *(TypeError, r"jcnn\.relu: too many positional arguments; expected relu\(x\)"),
    ),
    "missing window": (
        lambda: jcnn.max_pool(X),
        *(TypeError, r"jcnn\.max_pool: missing a required .*'window'; expected max_pool\(x, \*, window"),
    ),
    "configuration in place": (
        lambda: jcnn.max_pool(X, 2),
        *(TypeError, r"jcnn\.max_pool: too many positional arguments; expected max_pool\(x, \*, window"),
    ),
    "array as configuration": (
        lambda: jcnn.conv(X, W, stride=np.array([1, 2])),
        *(TypeError, r"jcnn\.conv: stride: got an array, expected a Python value"),
    ),
    "image_shape with a batch of none": (
        lambda: net.conv(3, 2).init(KEY, (0, 5, 3)),
        *(
            ValueError,
            r"jcnn\.net\.init: image_shape: got \(0, 5, 3\), expected \(\*S, C\), for example \(28, 28, 1\)",
        ),
    ),
    "image_shape": (
        lambda: net.conv(3, 2).summary(28),
        *(ValueError, r"jcnn\.net\.summary: image_shape: got 28, expected \(\*S, C\)"),
    ),
    "groups of a layer": (
        lambda: net.conv(6, 3, groups=4).init(KEY, (8, 8, 6)),
        *(ValueError, r"jcnn\.net\.conv: groups: got 4, expected a divisor of the image's 6 channels"),
    ),
    "layer": (
        lambda: jcnn.chain(jnp.tanh),
        *(TypeError, r"jcnn\.chain: layers: got .*, expected nets, or rules without parameters"),
    ),
    "momentum": (
        lambda: jcnn.update_running_stats(STATS, STATS, momentum=-0.1),
        *(ValueError, r"jcnn\.update_running_stats: momentum: got -0.1, expected a number in \[0, 1\]"),
    ),
    "cotangent": (
        lambda: jcnn.relu.bwd(jcnn.relu.fwd(X)[1], X[0]),
        *(ValueError, r"jcnn\.relu\.bwd: dy: got shape \(5, 6, 4\), expected \(2, 5, 6, 4\) like the output"),
    ),
    "pool of a model": (
        lambda: jcnn.models.lenet5(pool="sum"),
        *(ValueError, r"jcnn\.models\.lenet5: pool: got 'sum', expected one of 'avg', 'max'"),
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_other_refusals_are_one_line_too(case):
    one_line(*CALLS[case])


def test_errors_of_jitted_gradients_name_the_op_too():
    def loss(w):
        return jcnn.conv(X, w).sum()

    one_line(
        lambda: jax.jit(jax.grad(loss))(W[:, :, :2]),
        *(ValueError, r"jcnn\.conv: w: got shape \(3, 2, 2, 3\), expected x's 4 channels"),
    )
