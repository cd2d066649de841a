"""Windows of pools that hang over, are large, or are named by their winners, against loops over windows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.geometry import window
from jcnn.verify.examples import distinct, normal
from tests.checks import assert_close


def by_loop(x, dy, w, counted):
    """(maximum, place, its gradient, mean, its gradient) of x [*S] by visiting every window in turn."""
    y, mean = np.zeros(dy.shape), np.zeros(dy.shape)
    place, dmax, dmean = np.zeros(dy.shape, int), np.zeros(x.shape), np.zeros(x.shape)
    for i in np.ndindex(dy.shape):
        corner = [p * s - lo for p, s, (lo, _) in zip(i, w.stride, w.padding, strict=True)]
        reads = [
            tuple(c + t * d for c, t, d in zip(corner, tap, w.dilation, strict=True))
            for tap in itertools.product(*map(range, w.kernel))
        ]
        inside = [j for j in reads if all(0 <= a < n for a, n in zip(j, x.shape, strict=True))]
        best = max(
            inside, key=lambda j: (np.isnan(x[j]), np.nan_to_num(x[j], neginf=-9e9))
        )  # the first of many
        y[i], place[i] = x[best], np.ravel_multi_index(best, x.shape)
        dmax[best] += dy[i]
        bounds = [(-lo, n + hi) for n, (lo, hi) in zip(x.shape, counted, strict=True)]
        count = sum(all(a <= r < b for r, (a, b) in zip(j, bounds, strict=True)) for j in reads)
        mean[i] = sum(x[j] for j in inside) / count
        for j in inside:
            dmean[j] += dy[i] / count
    return y, place, dmax, mean, dmean


def ours(rule, x, dy, **config):
    @jax.jit
    def both(x, dy):
        y, res = rule.fwd(x[None, ..., None], **config)
        dy = jax.tree.map(lambda a: dy.astype(a.dtype)[None, ..., None], y)
        return jax.tree.map(lambda a: a[0, ..., 0], (y, rule.bwd(res, dy)[0]))

    return both(x, dy)


CASES = {
    "one axis": ((9,), (4,), (3,), (2,), True),
    "both axes": ((7, 6), (3, 2), (2, 3), (1, 0), True),
    "last one starts in the padding": ((5, 4), (2, 3), (3, 3), (1, 1), True),
    "longer than the image": ((2, 3), (3, 5), (2, 4), (0, 0), True),
    "large": ((12, 13), (9, 7), (2, 3), (4, 3), True),
    "3-D": ((5, 6, 5), (4, 3, 3), (2, 1, 2), (2, 1, 0), True),
    "long": ((150,), (80,), (7,), (40,), False),
    "more than 256": ((21, 22), (17, 18), (3, 1), (5, 9), False),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("values", ["distinct", "ties", "nan and infinity"])
def test_pools_by_visiting_every_window(case, values):
    size, kernel, stride, padding, ceil_mode = CASES[case]
    x = np.array(distinct(0, *size) if values == "distinct" else jnp.round(normal(1, *size) / 2))
    if values == "nan and infinity":
        x[x > 0] = np.nan
        x[x == 0] = -np.inf
    config = dict(window=kernel, stride=stride, padding=padding, ceil_mode=ceil_mode)
    w = window("test", kernel, size=size, stride=stride, padding=padding, ceil_mode=ceil_mode)
    dy = np.array(normal(2, *w.output_size(size)))
    y, place, dmax, mean, dmean = by_loop(x, dy, w, [(p, p) for p in padding])
    (got, indices), dx = ours(jcnn.max_pool, x, dy, **config, return_indices=True)
    assert_close((got, dx), (y, dmax), 1e-13, "maximum")
    assert indices.dtype == jnp.int32
    assert indices.tolist() == place.tolist()
    if values == "distinct":
        assert_close(ours(jcnn.max_pool, x, dy, **config, ties="split"), (y, dmax), 1e-13, "split")
        got = ours(jcnn.avg_pool, x, dy, **config, count_include_pad=True)
        assert_close(got, (mean, dmean), 1e-12, "mean")


def test_overhang_is_not_counted_but_padding_is():
    """As in PyTorch 2.13: avg_pool1d of ones, kernel 3, stride 2, padding 1, ceil_mode."""
    x, config = jnp.ones((1, 4, 1)), dict(window=3, stride=2, padding=1, ceil_mode=True)
    counted = jcnn.avg_pool(x, **config, count_include_pad=True)
    assert_close(counted.ravel(), np.array([2 / 3, 1, 1 / 2]), 1e-15, "mean")
    assert jcnn.avg_pool(x, **config).ravel().tolist() == [1, 1, 1]


def test_first_and_last_tap_of_a_long_window_can_win():
    rising = jnp.arange(100.0).reshape(1, 100, 1)
    for x, start in ((rising, 69), (-rising, 0)):
        y, indices = jcnn.max_pool(x, window=70, stride=1, return_indices=True)
        assert indices.ravel().tolist() == list(range(start, start + 31))
        assert (y[0, :, 0] == x[0, start : start + 31, 0]).all()


@pytest.mark.parametrize("kernel", [(3,), (40,), (2, 2), (6, 7)])
def test_split_ties_share_their_gradient_evenly_in_small_and_large_windows(kernel):
    size = (2,) * len(kernel)
    x = np.array(jnp.maximum(jnp.round(normal(3, *(2 * k for k in kernel))), -1))
    _, dx = ours(jcnn.max_pool, x, np.ones(size), window=kernel, ties="split")
    for i in np.ndindex(size):
        part = tuple(slice(p * k, (p + 1) * k) for p, k in zip(i, kernel, strict=True))
        holds = x[part] == x[part].max()
        assert_close(dx[part], holds / holds.sum(), 1e-15, str(i))
    lowest, three = np.full(kernel, -np.inf), np.ones((3,) * len(kernel))
    _, dx = ours(jcnn.max_pool, lowest, three, window=kernel, stride=1, padding=1, ties="split")
    assert_close(dx.sum(), three.sum(), 1e-14, "gradient without the padding's share")
    outside = dict(window=kernel, stride=kernel, padding=kernel, ties="split")
    _, dx = ours(jcnn.max_pool, lowest, three, **outside)
    assert_close(
        dx, np.full(kernel, 1 / np.prod(kernel)), 1e-15, "gradient of the window that sees the image"
    )


def test_windows_of_nothing_but_padding():
    x, config = jnp.ones((1, 2, 2, 1)), dict(window=2, stride=1, padding=((2, 0), (0, 0)))
    for kernel in (2, (2, 2)):
        (y, indices), res = jcnn.max_pool.fwd(x, **config | {"window": kernel}, return_indices=True)
        assert y.ravel().tolist() == [-np.inf, 1, 1]
        assert indices.ravel().tolist() == [-1, 0, 0]
        dx = jcnn.max_pool.bwd(res, (jnp.full_like(y, 7), indices))[0]
        assert dx[0, ..., 0].tolist() == [[14, 0], [0, 0]]
    large = dict(window=(6, 6), stride=1, padding=((6, 3), (6, 3)))
    (y, indices), res = jcnn.max_pool.fwd(x, **large, return_indices=True)
    assert y[0, :, 0, 0].tolist() == [-np.inf] * 6
    assert indices[0, :, 0, 0].tolist() == [-1] * 6
    assert jcnn.max_pool.bwd(res, (jnp.ones_like(y), indices))[0].sum() == np.isfinite(y).sum()


def test_pool_of_one_pixel_is_the_identity():
    x = normal(3, 2, 3, 4, 2)
    for rule in (jcnn.max_pool, jcnn.avg_pool):
        assert_close(
            ours(rule, x[0, ..., 0], x[1, ..., 0], window=1), (x[0, ..., 0], x[1, ..., 0]), 0, rule.name
        )


@pytest.mark.parametrize("rule", [jcnn.max_pool, jcnn.avg_pool])
@pytest.mark.parametrize("config", [dict(window=64), dict(window=(300, 5), stride=1, padding=2)])
def test_large_windows_are_small_programs(rule, config):
    """Tap by tap they would be thousands of slices, and compile for minutes."""

    def gradient(x):
        return jax.vjp(lambda x: rule(x, **config), x)[1](rule(x, **config))[0]

    program = jax.jit(gradient).lower(jnp.ones((1, 320, 64, 1))).as_text()
    assert len(program.splitlines()) < 10_000


def test_winner_takes_as_few_bytes_as_count_the_taps():
    for kernel, dtype in ((16, jnp.uint8), (17, jnp.uint16)):
        _, res = jcnn.max_pool.fwd(normal(4, 1, 20, 20, 1), window=kernel)
        assert res.winner.dtype == dtype


def test_global_mean_is_right_to_the_precision_of_the_dtype():
    x = np.random.default_rng(5).uniform(0, 1, (1, 512, 512, 1)).astype(np.float32)
    for dtype in (jnp.bfloat16, jnp.float16):
        low = jnp.asarray(x, dtype)
        expected = np.asarray(low, np.float64).mean()
        for y in (jcnn.global_avg_pool(low), jcnn.adaptive_avg_pool(low, output_size=1)):
            assert y.dtype == dtype
            assert abs(float(y.ravel()[0]) - expected) <= jnp.finfo(dtype).eps / 2 * expected * 1.01


FORCED = {
    "max_pool": (jcnn.max_pool, {"dilation": (1, 2)}),
    "split": (jcnn.max_pool, {"ties": "split"}),
    "avg_pool": (jcnn.avg_pool, {"ceil_mode": True}),
    "lp_pool": (jcnn.lp_pool, {"p": 3}),
}


@pytest.mark.parametrize("name", FORCED)
def test_algorithms_agree_and_take_different_ways(name):
    rule, config = FORCED[name]
    config = {"window": (3, 4), "stride": (2, 3), "padding": ((1, 0), (2, 1)), **config}
    x = jnp.round(2 * normal(90, 2, 9, 10, 3))  # with ties

    def by(algorithm):
        def both(x):
            y, pull = jax.vjp(lambda x: rule(x, **config, algorithm=algorithm), x)
            return y, pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

        return both(x), str(jax.make_jaxpr(both)(x))

    (expected, default), (taps, one_loop), (axes, in_turn) = map(by, (None, "taps", "axes"))
    assert_close((taps, axes), (expected, expected), 1e-13, "values and gradients")
    assert default == one_loop != in_turn


def test_algorithms_that_there_are_not_or_that_do_not_fit_are_refused():
    x = normal(91, 1, 9, 9, 2)
    for rule, config in ((jcnn.max_pool, {}), (jcnn.avg_pool, {}), (jcnn.lp_pool, {"p": 2})):
        message = rf"jcnn\.{rule.name}: algorithm: got 'native', expected one of None, 'taps', 'axes'"
        with pytest.raises(ValueError, match=message):
            rule(x, window=2, algorithm="native", **config)
        with pytest.raises(
            ValueError, match=r"algorithm: got 'taps', expected None or 'axes' for a window of over"
        ):
            rule(x, window=(9, 8), algorithm="taps", **config)
