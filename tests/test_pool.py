"""Pools against autodiff of their references, `lax.reduce_window`, and hand-made examples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from jax import lax

import jcnn
from jcnn.verify.examples import distinct, normal
from tests.checks import assert_close, draw


def column(*values):
    """A 1-D image with one channel."""
    return jnp.array(values, float).reshape(1, -1, 1)


def image(rows):
    return jnp.array(rows, float)[None, :, :, None]


def gradient(rule, x, dy=None, **static):
    """dx by the explicit backward, for a cotangent of ones unless given; spatial axes only."""

    @jax.jit
    def dx(x, dy):
        y, res = rule.fwd(x, **static)
        return rule.bwd(res, jnp.ones_like(y) if dy is None else dy)[0][0, ..., 0]

    return dx(x, dy)


# --- any geometry --------------------------------------------------------------------------------


@st.composite
def pools(draw, dilated: bool):
    rank = draw(st.integers(1, 2))
    axis = st.integers(1, 3)
    window, stride = draw(st.tuples(*[axis] * rank)), draw(st.none() | st.tuples(*[axis] * rank))
    dilation = draw(st.tuples(*[axis] * rank)) if dilated else (1,) * rank
    pairs = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 3))] * rank)
    padding = draw(st.one_of(st.sampled_from(["VALID", "SAME", "SAME_LOWER"]), st.integers(0, 2), pairs))
    least = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    size = tuple(draw(st.integers(n, n + 5)) for n in least)
    config = dict(window=window, stride=stride, padding=padding)
    return (draw(st.integers(1, 2)), *size, 2), config | (dict(dilation=dilation) if dilated else {})


def agrees_with_autodiff(rule, x, config):
    @jax.jit
    def both(x):
        y, vjp = jax.vjp(lambda x: rule(x, **config), x)
        expected, auto = jax.vjp(lambda x: rule.reference(x, **config), x)
        dy = draw(3, y)
        return (y, vjp(dy)), (expected, auto(dy))

    got, expected = both(x)
    keep = np.isfinite(expected[0])  # a window of nothing but padding has no maximum
    assert (np.isfinite(got[0]) == keep).all()
    assert_close(got, expected, 1e-9, f"{rule.name} {x.shape} {config}")


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(pools(dilated=True), st.sampled_from(["first", "split"]))
def test_any_max_pool_agrees_with_autodiff(case, ties):
    shape, config = case
    agrees_with_autodiff(jcnn.max_pool, distinct(0, *shape), config | {"ties": ties})


@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given(pools(dilated=False), st.booleans())
def test_any_avg_pool_agrees_with_autodiff(case, counted):
    shape, config = case
    agrees_with_autodiff(jcnn.avg_pool, normal(0, *shape), config | {"count_include_pad": counted})


WINDOWS = {
    "plain": ((2, 6, 4, 2), (2, 2), (2, 2), ((0, 0), (0, 0))),
    "overlap": ((1, 6, 7, 2), (3, 2), (2, 1), ((0, 0), (0, 0))),
    "asymmetric": ((1, 5, 6, 2), (3, 3), (2, 2), ((1, 0), (0, 2))),
    "gaps": ((1, 8, 2), (2,), (3,), ((1, 1),)),
    "large": ((1, 9, 8, 1), (5, 4), (1, 2), ((2, 2), (1, 1))),
    "very large": ((1, 40, 1), (19,), (2,), ((3, 0),)),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_pools_and_their_gradients_are_those_of_xlas_reduce_window(case):
    shape, window, stride, padding = WINDOWS[case]
    x = distinct(1, *shape)
    config = dict(window=window, stride=stride, padding=padding)

    def reduce(x, init, op):
        return lax.reduce_window(x, init, op, (1, *window, 1), (1, *stride, 1), [(0, 0), *padding, (0, 0)])

    def theirs(x):
        maximum = reduce(x, -jnp.inf, lax.max)
        total, count = reduce(x, 0.0, lax.add), reduce(jnp.ones_like(x), 0.0, lax.add)
        return maximum, total / count, total / np.prod(window)

    def ours(x):
        means = (jcnn.avg_pool(x, **config, count_include_pad=c) for c in (False, True))
        return jcnn.max_pool(x, **config), *means

    @jax.jit
    def both(x):
        (y, vjp), (expected, auto) = jax.vjp(ours, x), jax.vjp(theirs, x)
        cotangents = [
            tuple(draw(i, a) if i == j else jnp.zeros_like(a) for j, a in enumerate(y)) for i in range(3)
        ]
        return (y, [vjp(c) for c in cotangents]), (expected, [auto(c) for c in cotangents])

    got, expected = both(x)
    assert_close(got, expected, 1e-12, case)


# --- max pool: decisions -------------------------------------------------------------------------


def test_max_pool_tie_goes_to_the_first_in_row_major_order():
    assert gradient(jcnn.max_pool, image(np.zeros((2, 4))), window=2).tolist() == [[1, 0, 1, 0], [0] * 4]
    x = image([[0, 5], [5, 5]])
    assert gradient(jcnn.max_pool, x, window=2).tolist() == [[0, 1], [0, 0]]


def test_max_pool_tie_is_shared_evenly_if_split():
    dx = gradient(jcnn.max_pool, image(np.zeros((2, 4))), window=2, ties="split")
    assert dx.tolist() == [[0.25] * 4] * 2
    x = image([[0, 5], [5, 5]])
    dx = gradient(jcnn.max_pool, x, window=2, ties="split")
    assert_close(dx, np.array([[0, 1], [1, 1]]) / 3, 1e-15, "three of four")


def test_ties_across_padding_never_choose_the_padding():
    zeros = column(-jnp.inf, -jnp.inf, -jnp.inf)
    dy = column(1, 10, 100, 1000)
    assert gradient(jcnn.max_pool, zeros, dy, window=2, stride=1, padding=1).tolist() == [11, 100, 1000]
    split = gradient(jcnn.max_pool, zeros, dy, window=2, stride=1, padding=1, ties="split")
    assert split.tolist() == [1 + 5, 5 + 50, 50 + 1000]
    x = jnp.full((1, 3, 3, 1), -jnp.inf)
    for ties in ("first", "split"):
        config = dict(window=3, stride=1, padding=1, ties=ties)
        assert (jcnn.max_pool(x, **config) == -jnp.inf).all()
        assert_close(gradient(jcnn.max_pool, x, **config).sum(), 9.0, 1e-14, ties)


def test_padding_is_below_negative_inputs():
    x = column(-3, -1, -2)
    assert jcnn.max_pool(x, window=3, stride=1, padding=1).ravel().tolist() == [-1, -1, -1]


def test_pixel_that_wins_overlapping_windows_gets_all_their_cotangents():
    x, dy = column(0, 9, 1, 2), column(1, 10, 100)
    assert gradient(jcnn.max_pool, x, dy, window=2, stride=1).tolist() == [0, 11, 0, 100]


def test_pixels_that_no_window_reads_get_no_gradient():
    assert gradient(jcnn.max_pool, column(1, 2, 9, 3, 4, 9, 5), window=2, stride=3).tolist() == [
        *[0, 1, 0],
        *[0, 1, 0],
        0,
    ]


@pytest.mark.parametrize("ties", ["first", "split"])
def test_nan_is_the_maximum_of_its_windows_and_takes_their_gradient(ties):
    x, dy = column(5, jnp.nan, 7, 8), column(1, 10, 100)
    y = jcnn.max_pool(x, window=2, stride=1, ties=ties).ravel()
    assert np.isnan(y).tolist() == [True, True, False]
    assert gradient(jcnn.max_pool, x, dy, window=2, stride=1, ties=ties).tolist() == [0, 11, 0, 100]


def test_dilated_max_pool_and_its_gradient_by_a_loop():
    x = np.asarray(distinct(2, 7, 6))
    dilation, stride, kernel = (3, 2), (1, 2), (2, 2)
    counts = [
        (n - (k - 1) * d - 1) // s + 1 for n, k, d, s in zip(x.shape, kernel, dilation, stride, strict=True)
    ]
    y, dx, dy = np.zeros(counts), np.zeros_like(x), np.asarray(normal(3, *counts))
    for i in itertools.product(*map(range, counts)):
        taps = [
            tuple(p * s + t * d for p, s, t, d in zip(i, stride, tap, dilation, strict=True))
            for tap in itertools.product(*map(range, kernel))
        ]
        best = max(taps, key=lambda at: x[at])
        y[i], dx[best] = x[best], dx[best] + dy[i]
    config = dict(window=kernel, stride=stride, dilation=dilation)
    assert_close(jcnn.max_pool(image(x), **config)[0, ..., 0], y, 0, "forward")
    assert_close(gradient(jcnn.max_pool, image(x), image(dy), **config), dx, 1e-14, "gradient")


def test_window_of_more_than_256_taps_keeps_its_winner_and_counts_in_float32():
    """258 windows see the one peak: more than an uint8 can name, and more than bfloat16 can count by ones."""
    x = jnp.zeros((1, 515, 1), jnp.bfloat16).at[0, 257].set(1)
    dx = gradient(jcnn.max_pool, x, window=258, stride=1)
    assert dx.dtype == jnp.bfloat16
    assert float(dx[257]) == 258
    assert np.count_nonzero(dx) == 1


def test_max_pool_keeps_one_byte_per_output():
    x = normal(0, 2, 8, 8, 3).astype(jnp.float32)
    y, res = jcnn.max_pool.fwd(x, window=2)
    assert sum(a.nbytes for a in jax.tree.leaves(res)) == y.size


# --- average pool --------------------------------------------------------------------------------


def test_avg_pool_counts_only_pixels_unless_told_to_count_padding():
    x = column(2, 4, 6)
    inside = dict(window=2, stride=1, padding=1)
    assert jcnn.avg_pool(x, **inside).ravel().tolist() == [2, 3, 5, 6]
    assert jcnn.avg_pool(x, **inside, count_include_pad=True).ravel().tolist() == [1, 3, 5, 3]
    dy = column(1, 10, 100, 1000)
    assert gradient(jcnn.avg_pool, x, dy, **inside).tolist() == [1 + 5, 5 + 50, 50 + 1000]
    counted = gradient(jcnn.avg_pool, x, dy, **inside, count_include_pad=True)
    assert counted.tolist() == [0.5 + 5, 5 + 50, 50 + 500]


def test_avg_pool_counts_multiply_over_axes():
    y = jcnn.avg_pool(image(np.ones((2, 2))), window=2, stride=1, padding=1, count_include_pad=True)
    assert y[0, ..., 0].tolist() == [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]
    assert (jcnn.avg_pool(image(np.ones((2, 2))), window=2, stride=1, padding=1) == 1).all()


def test_mean_of_a_window_in_nothing_but_padding_is_zero():
    x = column(1, 1)
    config = dict(window=2, stride=1, padding=((2, 0),))
    assert jcnn.avg_pool(x, **config).ravel().tolist() == [0, 1, 1]
    assert gradient(jcnn.avg_pool, x, **config).tolist() == [1.5, 0.5]


def test_mean_of_4096_ones_is_one_in_low_precision():
    for dtype in (jnp.bfloat16, jnp.float16):
        x = jnp.ones((1, 64, 64, 1), dtype)
        y = jcnn.avg_pool(x, window=64)
        assert (y.dtype, float(y[0, 0, 0, 0])) == (dtype, 1)
        y = jcnn.global_avg_pool(x)
        assert (y.dtype, float(y[0, 0])) == (dtype, 1)
        dx = gradient(jcnn.avg_pool, jnp.ones((1, 63, 63, 1), dtype), window=32, stride=1)
        assert (dx.dtype, float(dx[31, 31])) == (dtype, 1)


# --- global pools --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 3, 4, 3), (2, 2, 3, 2, 3)])
def test_global_pools_reduce_all_spatial_axes(shape):
    x, dy = distinct(4, *shape), normal(5, 2, 3)
    axes = tuple(range(1, len(shape) - 1))
    assert_close(jcnn.global_max_pool(x), np.max(x, axes), 0, "max")
    assert_close(jcnn.global_avg_pool(x), np.mean(x, axes), 1e-14, "mean")
    dy_everywhere = np.expand_dims(dy, axes)
    (dx,) = jcnn.global_max_pool.bwd(jcnn.global_max_pool.fwd(x)[1], dy)
    assert_close(dx, np.where(x == np.max(x, axes, keepdims=True), dy_everywhere, 0), 0, "max gradient")
    (dx,) = jcnn.global_avg_pool.bwd(jcnn.global_avg_pool.fwd(x)[1], dy)
    pixels = np.prod([shape[a] for a in axes])
    assert_close(dx, np.broadcast_to(dy_everywhere / pixels, shape), 1e-14, "mean gradient")


def test_global_max_pool_tie_goes_to_the_first_pixel_and_nan_wins():
    assert gradient(jcnn.global_max_pool, image(np.zeros((2, 2)))).tolist() == [[1, 0], [0, 0]]
    assert gradient(jcnn.global_max_pool, image([[1, jnp.nan], [9, 2]])).tolist() == [[0, 1], [0, 0]]
    assert np.isnan(jcnn.global_max_pool(image([[1, jnp.nan], [9, 2]]))).all()


def test_global_pools_of_no_pixels_are_refused():
    for rule in (jcnn.global_max_pool, jcnn.global_avg_pool):
        with pytest.raises(
            ValueError, match=rf"jcnn\.{rule.name}: x: got shape .*, expected at least one pixel"
        ):
            rule(jnp.zeros((1, 0, 2, 3)))
