"""p-norms of windows against NumPy, at numbers whose powers overflow, and at the tip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close


def value_and_gradient(x, dy=None, **config):
    @jax.jit
    def both(x):
        y, res = jcnn.lp_pool.fwd(x, **config)
        return y, jcnn.lp_pool.bwd(res, jnp.ones_like(y) if dy is None else dy)[0]

    return both(x)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 4.5])
@pytest.mark.parametrize(
    ("size", "kernel"), [((7,), (3,)), ((5, 6), (2, 3)), ((9, 8), (8, 6)), ((3, 4, 3), (2, 2, 3))]
)
def test_norms_and_their_gradient_by_visiting_every_window(p, size, kernel):
    x = np.array(normal(0, *size))
    counts = tuple(n - k + 1 for n, k in zip(size, kernel, strict=True))
    y, dx, dy = np.zeros(counts), np.zeros(size), np.array(normal(1, *counts))
    for i in np.ndindex(counts):
        part = tuple(slice(a, a + k) for a, k in zip(i, kernel, strict=True))
        y[i] = np.linalg.norm(x[part].ravel(), p)
        dx[part] += dy[i] * np.sign(x[part]) * (np.abs(x[part]) / y[i]) ** (p - 1)
    got = value_and_gradient(x[None, ..., None], dy[None, ..., None], window=kernel, stride=1, p=p)
    assert_close([a[0, ..., 0] for a in got], (y, dx), 1e-12, f"{p}-norm")


def test_padding_and_overhang_are_zeros():
    x = normal(2, 1, 5, 4, 1)
    config = dict(window=3, stride=2, p=3)
    around = jnp.pad(x, ((0, 0), (1, 1), (1, 2), (0, 0)))
    assert_close(
        value_and_gradient(x, **config, padding=1, ceil_mode=True),
        (jcnn.lp_pool(around, **config), value_and_gradient(around, **config)[1][:, 1:-1, 1:-2]),
        1e-14,
        "zeros around",
    )


@pytest.mark.parametrize("window", [4, 36])
@pytest.mark.parametrize("p", [1, 1.5, 2, 7])
def test_gradient_is_zero_where_the_whole_window_is(window, p):
    x = jnp.zeros((1, 3 * window, 1)).at[0, 1].set(-3).at[0, -1].set(jnp.nan)
    y, dx = value_and_gradient(x, window=window, p=p)
    assert_close(y.ravel(), np.array([3, 0, np.nan]), 1e-15, "norms")
    assert_close(dx[0, : 2 * window, 0], np.where(np.arange(2 * window) == 1, -1, 0), 1e-15, "gradient")
    second = jax.grad(lambda x: jnp.sum(jax.grad(lambda x: jcnn.lp_pool(x, window=window, p=p).sum())(x)))(x)
    assert not np.isnan(second[0, : 2 * window]).any()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("kernel", [(2, 2), (6, 6)])
def test_powers_neither_overflow_nor_underflow(scale, kernel):
    x = np.array(normal(3, 1, 6, 6, 1))
    expected, slope = value_and_gradient(jnp.asarray(x), window=kernel, p=5)
    small = jnp.asarray(x * scale, jnp.float32)
    y, dx = value_and_gradient(small, window=kernel, p=5)
    assert_close(np.float64(y) / scale, expected, 1e-6, "norm")
    assert_close(dx, slope, 2e-6, "gradient")


def test_infinite_pixels_make_infinite_norms():
    x = jnp.array([1, jnp.inf, 2, -jnp.inf, 3, 4]).reshape(1, 6, 1)
    y, dx = value_and_gradient(x, window=2, p=2)
    assert_close(y.ravel(), np.array([np.inf, np.inf, 5]), 1e-15, "norms")
    # Infinity / infinity, as in the reference.
    assert_close(dx.ravel(), np.array([0, np.nan, 0, np.nan, 0.6, 0.8]), 1e-15, "gradient")


def test_low_precision_is_that_of_float32_rounded():
    x = jnp.asarray(normal(4, 1, 16, 12, 1))
    for dtype in (jnp.bfloat16, jnp.float16):
        low = x.astype(dtype)
        expected = value_and_gradient(low.astype(jnp.float64), window=(16, 3), p=3)
        got = value_and_gradient(low, window=(16, 3), p=3)
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == dtype
            assert_close(a, b, float(jnp.finfo(dtype).eps), str(dtype))


@pytest.mark.parametrize("p", [0.5, 0, -1, float("inf"), float("nan"), "2", True])
def test_other_powers_are_refused(p):
    with pytest.raises(ValueError, match=r"jcnn\.lp_pool: p: got .*, expected a number in \[1, inf\)"):
        jcnn.lp_pool(jnp.ones((1, 4, 1)), window=2, p=p)
