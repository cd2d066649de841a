"""Convolution against autodiff of its reference, a NumPy loop, and the identities of its three maps."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jcnn
from jcnn.geometry import window
from jcnn.padding import NUMPY_MODES
from jcnn.verify.examples import normal
from tests.checks import assert_close, draw

ONE_TO_THREE = st.integers(1, 3)


@st.composite
def convolutions(draw, rank: int, largest: int):
    """(shape of x, shape of w, configuration) of a convolution that is possible."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per_group, multiplier = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel, stride, dilation = (draw(st.tuples(*[ONE_TO_THREE] * rank)) for _ in range(3))
    names = ["VALID", "SAME", "SAME_LOWER"] + ["CAUSAL"] * (rank == 1)
    pairs = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 3))] * rank)
    padding = draw(st.one_of(st.sampled_from(names), st.integers(0, 2), pairs))
    mode = draw(st.sampled_from(["zeros", "zeros", "edge", "reflect", "symmetric", "wrap"]))
    least = [
        2 if isinstance(padding, str) and padding != "VALID" else max(2, (k - 1) * d + 1)
        for k, d in zip(kernel, dilation, strict=True)
    ]
    size = tuple(draw(st.integers(n, max(n, largest))) for n in least)
    config = dict(stride=stride, dilation=dilation, padding=padding, padding_mode=mode, groups=groups)
    channels, outputs = groups * per_group, groups * multiplier
    return (draw(st.integers(1, 2)), *size, channels), (*kernel, per_group, outputs), config


def agrees_with_autodiff(case):
    x_shape, w_shape, config = case
    args = normal(0, *x_shape), normal(1, *w_shape), normal(2, w_shape[-1])

    @jax.jit
    def both(*args):
        y, vjp = jax.vjp(lambda *a: jcnn.conv(*a, **config), *args)
        expected, auto = jax.vjp(lambda *a: jcnn.conv.reference(*a, **config), *args)
        dy = draw(3, y)
        return (y, vjp(dy)), (expected, auto(dy))

    got, expected = both(*args)
    assert_close(got, expected, 1e-9, f"y, dx, dw, db of {case}")


def hypothesis(examples: int):
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None)


@hypothesis(12)
@given(convolutions(rank=1, largest=9))
def test_any_1d_convolution_agrees_with_autodiff(case):
    agrees_with_autodiff(case)


@hypothesis(12)
@given(convolutions(rank=2, largest=7))
def test_any_2d_convolution_agrees_with_autodiff(case):
    agrees_with_autodiff(case)


@hypothesis(9)
@given(convolutions(rank=3, largest=4))
def test_any_3d_convolution_agrees_with_autodiff(case):
    agrees_with_autodiff(case)


# --- an independent forward ----------------------------------------------------------------------


def loop(x, w, b, stride, padding, padding_mode, dilation, groups):
    """The definition, one output position and one tap at a time; padding as pairs."""
    x, w, b = map(np.asarray, (x, w, b))
    xp = np.pad(x, [(0, 0), *padding, (0, 0)], NUMPY_MODES[padding_mode])
    *kernel, per_group, outputs = w.shape
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    counts = [(n - e) // s + 1 for n, e, s in zip(xp.shape[1:-1], extents, stride, strict=True)]
    y = np.zeros((len(x), *counts, outputs)) + b
    for i in itertools.product(*map(range, counts)):
        for t in itertools.product(*map(range, kernel)):
            at = tuple(p * s + q * d for p, s, q, d in zip(i, stride, t, dilation, strict=True))
            for o in range(outputs):
                first = o // (outputs // groups) * per_group
                y[:, *i, o] += xp[:, *at, first : first + per_group] @ w[*t, :, o]
    return y


LOOPED = {
    "1-D strided": ((2, 8, 2), (3, 2, 3), dict(stride=(2,), padding=((1, 2),))),
    "2-D dilated": ((2, 6, 7, 2), (2, 3, 2, 3), dict(dilation=(3, 2), padding=((0, 1), (2, 0)))),
    "3-D": ((1, 3, 4, 5, 2), (2, 1, 3, 2, 2), dict(stride=(1, 3, 2), padding=((1, 0), (0, 0), (0, 1)))),
    "groups": ((1, 5, 4, 4), (2, 2, 2, 6), dict(groups=2, stride=(2, 1))),
    "depthwise": ((1, 5, 4, 3), (2, 3, 1, 6), dict(groups=3, dilation=(2, 1), padding=((1, 1), (0, 2)))),
    "reflect": ((1, 4, 3, 2), (3, 3, 2, 2), dict(padding_mode="reflect", padding=((1, 1), (2, 2)))),
    "1x1": ((2, 3, 4, 3), (1, 1, 3, 2), {}),
    "1x1 strided": ((2, 5, 4, 3), (1, 1, 3, 2), dict(stride=(2, 3))),
}


@pytest.mark.parametrize("case", LOOPED)
def test_conv_is_its_definition(case):
    x_shape, w_shape, config = LOOPED[case]
    rank = len(x_shape) - 2
    one = (1,) * rank
    defaults = dict(stride=one, padding=((0, 0),) * rank, padding_mode="zeros", dilation=one, groups=1)
    args = normal(0, *x_shape), normal(1, *w_shape), normal(2, w_shape[-1])
    assert_close(jcnn.conv(*args, **config), loop(*args, **{**defaults, **config}), 1e-12, case)


# --- the three maps ------------------------------------------------------------------------------

TRIPLES = {
    "plain": ((2, 5, 4, 3), (2, 3, 3, 2), {}),
    "strided, asymmetric": ((2, 7, 6, 2), (3, 2, 2, 3), dict(stride=(3, 2), padding=((0, 2), (1, 0)))),
    "stride leaves inputs unread": ((1, 8, 7, 2), (2, 2, 2, 2), dict(stride=(4, 3))),
    "dilated groups": ((1, 7, 6, 4), (2, 2, 2, 6), dict(dilation=(3, 2), groups=2, padding=1)),
    "depthwise": ((1, 6, 6, 3), (3, 3, 1, 6), dict(groups=3, stride=2, padding="SAME")),
    "wrap": ((1, 4, 5, 2), (3, 2, 2, 2), dict(padding=2, padding_mode="wrap", stride=2)),
    "reflect, one axis": ((1, 6, 2), (3, 2, 2), dict(padding=((2, 3),), padding_mode="reflect")),
    "one by one": ((2, 3, 4, 3), (1, 1, 3, 2), {}),
}


@pytest.mark.parametrize("case", TRIPLES)
def test_input_and_weight_gradients_are_the_adjoints_of_conv(case):
    x_shape, w_shape, config = TRIPLES[case]
    x, w = normal(0, *x_shape), normal(1, *w_shape)
    y = jcnn.conv(x, w, **config)
    dy = normal(2, *y.shape)
    dx = jcnn.conv_input_grad(dy, w, input_size=x_shape[1:-1], **config)
    dw = jcnn.conv_weight_grad(x, dy, kernel_size=w_shape[:-2], **config)
    assert (dx.shape, dw.shape) == (x.shape, w.shape)
    products = [float(jnp.vdot(a, b)) for a, b in ((y, dy), (x, dx), (w, dw))]
    scale = float(jnp.linalg.norm(y.ravel()) * jnp.linalg.norm(dy.ravel()))
    assert abs(products[0] - products[1]) < 1e-12 * scale
    assert abs(products[0] - products[2]) < 1e-12 * scale


def test_third_derivative_agrees_with_autodiff():
    x, w = normal(3, 1, 4, 3, 2), normal(4, 2, 2, 2, 2)

    def along(conv):
        def f(s):
            return jnp.sum(conv(s * x, jnp.sin(s) * w, stride=2, padding="SAME") ** 2)

        return jax.jit(jax.grad(jax.grad(jax.grad(f))))(0.7)

    expected = along(jcnn.conv.reference)
    assert abs(expected) > 1
    assert_close(along(jcnn.conv), expected, 1e-9, "third derivative")


# --- corners -------------------------------------------------------------------------------------


def test_an_empty_batch_has_an_empty_output_and_zero_weight_gradient():
    x, w = jnp.zeros((0, 4, 4, 2)), normal(0, 3, 3, 2, 5)
    y, res = jcnn.conv.fwd(x, w, jnp.ones(5), padding="SAME")
    dx, dw, db = jcnn.conv.bwd(res, y)
    assert (y.shape, dx.shape) == ((0, 4, 4, 5), x.shape)
    assert dw.tolist() == jnp.zeros_like(w).tolist()
    assert db.tolist() == [0] * 5


def test_a_kernel_as_large_as_the_image_is_an_inner_product():
    x, w = normal(0, 1, 4, 5, 1), normal(1, 4, 5, 1, 1)
    y, res = jcnn.conv.fwd(x, w)
    assert y.shape == (1, 1, 1, 1)
    assert_close(y.ravel()[0], np.vdot(x, w), 1e-12, "inner product")
    dx, dw, _ = jcnn.conv.bwd(res, 2 * jnp.ones_like(y))
    assert_close((dx[0], dw[..., 0]), (2 * w[..., 0], 2 * x[0]), 1e-12, "its gradient")


def test_copies_as_padding_are_a_pad_and_then_a_valid_conv():
    x, w = normal(0, 1, 4, 5, 2), normal(1, 3, 2, 2, 3)
    padding = ((2, 1), (0, 3))
    for mode in ("edge", "reflect", "symmetric", "wrap"):
        y = jcnn.conv(x, w, padding=padding, padding_mode=mode)
        assert_close(y, jcnn.conv(jcnn.pad(x, padding=padding, mode=mode), w), 1e-12, mode)


def test_named_padding_and_its_numbers_are_the_same():
    x, w = normal(0, 1, 6, 5, 2), normal(1, 3, 2, 2, 3)
    numbers = window("conv", (3, 2), size=(6, 5), stride=2, padding="SAME").padding
    assert_close(
        jcnn.conv(x, w, stride=2, padding="SAME"), jcnn.conv(x, w, stride=2, padding=numbers), 0, "SAME"
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_sums_of_4096_ones_are_exact_in_low_precision(dtype):
    """bfloat16 counts to 256 and float16 to 2048 if sums are accumulated in them."""

    def ones(*shape):
        return jnp.ones(shape, dtype)

    def maximum(a):
        assert a.dtype == dtype
        return float(a.max())

    assert maximum(jcnn.conv(ones(1, 8, 8, 64), ones(8, 8, 64, 1))) == 4096
    assert maximum(jcnn.conv(ones(1, 1, 1, 4096), ones(1, 1, 4096, 1))) == 4096
    size = {"input_size": (15, 15)}
    assert maximum(jcnn.conv_input_grad(ones(1, 8, 8, 64), ones(8, 8, 1, 64), **size)) == 4096
    assert maximum(jcnn.conv_input_grad(ones(1, 1, 1, 4096), ones(1, 1, 1, 4096), input_size=1)) == 4096
    x, dy = ones(4, 32, 32, 2), ones(4, 32, 32, 2)
    assert maximum(jcnn.conv_weight_grad(x, dy, kernel_size=1)) == 4096
    assert maximum(jcnn.conv_weight_grad(x, dy, kernel_size=1, groups=2)) == 4096
    assert maximum(jcnn.conv_weight_grad(ones(4, 32, 33, 2), dy, kernel_size=(1, 2))) == 4096
    _, res = jcnn.conv.fwd(x, ones(1, 1, 2, 2), ones(2))
    assert maximum(jcnn.conv.bwd(res, dy)[2]) == 4096


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in equation.params.values():
            if hasattr(inner, "jaxpr"):
                yield from equations(inner.jaxpr)


@pytest.mark.parametrize(("kernel", "primitive"), [(3, "conv_general_dilated"), (1, "dot_general")])
def test_xla_is_asked_to_accumulate_in_float32(kernel, primitive):
    """XLA's CPU kernels do so unasked, so values do not show it."""
    size = 5 + 1 - kernel
    shapes = (1, 5, 5, 2), (kernel, kernel, 2, 3), (1, size, size, 3)

    def all_three(x, w, dy):
        maps = (
            jcnn.conv.fwd(x, w),
            jcnn.conv_input_grad.fwd(dy, w, input_size=5),
            jcnn.conv_weight_grad.fwd(x, dy, kernel_size=kernel),
        )
        return [y for y, _ in maps]

    jaxpr = jax.make_jaxpr(all_three)(*(jnp.ones(s, jnp.bfloat16) for s in shapes))
    sums = [e for e in equations(jaxpr.jaxpr) if e.primitive.name == primitive]
    assert [e.outvars[0].aval.dtype for e in sums] == [jnp.float32] * 3
    assert [a.dtype for a in jaxpr.out_avals] == [jnp.bfloat16] * 3
