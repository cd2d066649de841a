"""Adaptive pools against loops over their windows."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jcnn
from jcnn.kernels.spans import spans
from jcnn.verify.examples import distinct, normal
from tests.checks import assert_close

SHAPES = {
    "divides": ((6, 4), (3, 2)),
    "overlaps": ((5, 7), (3, 4)),
    "common factor": ((6, 10), (4, 4)),
    "larger than the image": ((3, 4), (5, 9)),
    "kept, and one": ((5, 6), (None, 1)),
    "1-D": ((11,), (7,)),
    "3-D": ((4, 3, 5), (3, 2, 5)),
    "long spans": ((131,), (2,)),
    "large spans": ((21, 23), (2, 2)),
}


def windows(size, outputs):
    """Every output with its slices, spelt out in floats."""
    axes = [
        [slice(math.floor(i * n / m), math.ceil((i + 1) * n / m)) for i in range(m)]
        for n, m in zip(size, outputs, strict=True)
    ]
    return zip(np.ndindex(outputs), itertools.product(*axes), strict=True)


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("ties", [False, True])
def test_adaptive_pools_by_visiting_every_window(case, ties):
    size, wanted = SHAPES[case]
    outputs = tuple(n if m is None else m for n, m in zip(size, wanted, strict=True))
    x = np.array(distinct(0, *size))
    if ties:
        x = np.round(np.array(normal(1, *size)))
        x[x > 1] = np.nan
        x[x < -1] = -np.inf
    dy = np.array(normal(2, *outputs))
    y, mean, dmax, dmean = (np.zeros(s) for s in (outputs, outputs, size, size))
    for i, part in windows(size, outputs):
        mean[i] = x[part].mean()
        dmean[part] += dy[i] / x[part].size
        best = np.unravel_index(
            x[part].argmax(), x[part].shape
        )  # the first, in row-major order; a NaN is one
        y[i] = x[part][best]
        dmax[part][best] += dy[i]

    @jax.jit
    def both(x, dy):
        pairs = []
        for rule in (jcnn.adaptive_max_pool, jcnn.adaptive_avg_pool):
            y, res = rule.fwd(x[None, ..., None], output_size=wanted)
            pairs.append((y[0, ..., 0], rule.bwd(res, dy[None, ..., None])[0][0, ..., 0]))
        return pairs

    assert_close(both(x, dy), [(y, dmax), (mean, dmean)], 1e-13, case)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_outputs_that_read_an_input_are_its_span_the_other_way_round(n, m):
    forward, backward = spans(n, m), spans(m, n)
    for j, (first, last) in enumerate(backward):
        assert [i for i, (a, b) in enumerate(forward) if a <= j < b] == list(range(first, last))


def test_a_number_is_for_all_axes_and_none_keeps_one():
    x = jnp.ones((2, 6, 5, 4, 3))
    for rule in (jcnn.adaptive_max_pool, jcnn.adaptive_avg_pool):
        for output_size, outputs in ((2, (2, 2, 2)), ((None, 1, 7), (6, 1, 7)), (None, (6, 5, 4))):
            pooled = jax.eval_shape(functools.partial(rule, output_size=output_size), x)
            assert pooled.shape == (2, *outputs, 3)


@pytest.mark.parametrize("output_size", [0, -1, 2.5, True, (2,), (2, 3, 4), (2, 0), "all"])
def test_other_output_sizes_are_refused(output_size):
    for rule in (jcnn.adaptive_max_pool, jcnn.adaptive_avg_pool):
        message = rf"jcnn\.{rule.name}: output_size: got .*, expected an int >= 1 or None, or 2 of them"
        with pytest.raises(ValueError, match=message):
            rule(jnp.ones((1, 4, 4, 1)), output_size=output_size)
        with pytest.raises(ValueError, match="at least one pixel"):
            rule(jnp.ones((1, 4, 0, 1)), output_size=2)


def test_mean_of_4096_ones_is_one_in_low_precision():
    for dtype in (jnp.bfloat16, jnp.float16):
        y, res = jcnn.adaptive_avg_pool.fwd(jnp.ones((1, 96, 97, 1), dtype), output_size=(1, 2))
        assert y.dtype == dtype
        assert (y == 1).all()
        (dx,) = jcnn.adaptive_avg_pool.bwd(res, jnp.full_like(y, 96 * 49))
        assert dx.dtype == dtype
        assert dx[0, 0, :, 0].tolist() == [1] * 48 + [2] + [1] * 48
