"""Formulations of convolution: all that fit give the same numbers, and the choice between them is the one
that was measured to be fastest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jcnn
from jcnn.conv import conv_reference
from jcnn.geometry import window
from jcnn.kernels import conv as kernel, depthwise, matmul, native, on_cpu, winograd
from jcnn.kernels.problem import Problem, blocks_of
from jcnn.kernels.reduce import added

from .checks import assert_close

F32 = jnp.dtype("float32")


def draw(shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape))


# x, w, stride, dilation, padding, groups
GEOMETRIES = {
    "1-D stride": ((2, 11, 3), (5, 3, 2), 2, 1, ((0, 2),), 1),
    "1-D dilated": ((2, 9, 2), (2, 2, 3), 2, 3, ((1, 1),), 1),
    "2-D asymmetric": ((4, 7, 6, 2), (3, 3, 2, 3), 1, 1, ((0, 2), (1, 0)), 1),
    "2-D cropped": ((2, 8, 7, 2), (2, 2, 2, 3), 3, 1, ((0, 0), (0, 0)), 1),
    "as high as the output": ((2, 7, 6, 32), (3, 3, 32, 32), 1, 1, ((0, 2), (1, 1)), 1),
    "as wide as the output": ((1, 6, 8, 32), (3, 3, 32, 32), 1, 2, ((0, 0), (1, 3)), 1),
    "padding beyond kernel": ((2, 4, 5, 2), (2, 2, 2, 3), 1, 1, ((3, 2), (0, 4)), 1),
    "stride 4": ((2, 9, 8, 2), (7, 4, 2, 3), (4, 2), 1, ((3, 3), (1, 1)), 1),
    "groups": ((2, 5, 6, 6), (3, 2, 2, 9), (2, 1), 1, ((1, 1), (0, 1)), 3),
    "many groups": ((2, 5, 4, 36), (2, 2, 2, 36), 1, 1, ((0, 0), (0, 0)), 18),
    "3-D": ((2, 5, 4, 6, 2), (3, 2, 2, 2, 3), (2, 1, 2), (1, 2, 1), ((1, 0), (0, 1), (1, 1)), 1),
    "3-D groups": ((1, 3, 4, 3, 4), (2, 2, 2, 2, 2), 1, 1, ((0, 0), (0, 1), (0, 0)), 2),
    "depthwise multiplier": ((4, 6, 5, 2), (3, 2, 1, 6), 1, 1, ((1, 1), (0, 1)), 2),
    "depthwise 5x5": ((2, 8, 7, 3), (5, 5, 1, 3), 1, 1, ((2, 2), (2, 2)), 3),
    "depthwise strided": ((2, 8, 9, 3), (4, 3, 1, 3), (2, 3), (1, 2), ((2, 1), (0, 2)), 3),
    "depthwise 10x9": ((2, 11, 12, 2), (10, 9, 1, 2), 1, 1, ((5, 4), (4, 4)), 2),
    "depthwise 10x9 stride": ((2, 13, 12, 2), (10, 9, 1, 2), 2, 1, ((5, 4), (4, 4)), 2),
}


def three_maps(f):
    """x, w, dy -> y, dx, dw of a convolution f(x, w)."""

    def maps(x, w, dy):
        y, vjp = jax.vjp(f, x, w)
        return y, *vjp(dy)

    return maps


@pytest.mark.parametrize("name", GEOMETRIES)
def test_all_formulations_agree(name):
    x_shape, w_shape, stride, dilation, padding, groups = GEOMETRIES[name]
    config = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups}
    w_ = window("conv", w_shape[:-2], size=x_shape[1:-1], stride=stride, dilation=dilation, padding=padding)
    p = Problem(w_, groups, x_shape[0], x_shape[1:-1], x_shape[-1], w_shape[-1], jnp.dtype("float64"))
    x, w = draw(x_shape), draw(w_shape)
    dy = draw(jax.eval_shape(lambda x, w: conv_reference(x, w, **config), x, w).shape)
    expected = jax.jit(three_maps(lambda x, w: conv_reference(x, w, **config)))(x, w, dy)

    def run(x, w, dy):
        def maps(algorithm):
            return three_maps(lambda x, w: jcnn.conv(x, w, algorithm=algorithm, **config))(x, w, dy)

        return {str(a): maps(a) for a in [None, *kernel.fitting(p)]}

    for algorithm, got in jax.jit(run)(x, w, dy).items():
        for part, a, b in zip(("y", "dx", "dw"), got, expected, strict=True):
            scale = 1 + np.abs(b).max(initial=0)
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12 * scale, err_msg=f"{part} by {algorithm}")


def problem(x, w, groups=1, **config) -> Problem:
    window_ = window("conv", w[:-2], size=x[1:-1], **config)
    return Problem(window_, groups, x[0], x[1:-1], x[-1], w[-1], F32)


@pytest.mark.parametrize(
    ("expected", "x", "w", "config"),
    [
        ("winograd", (64, 32, 32, 64), (3, 3, 64, 64), {"padding": 1}),
        ("winograd", (8, 8, 8, 256), (3, 3, 256, 256), {"padding": 1}),
        ("native", (32, 4, 4, 512), (3, 3, 512, 512), {"padding": 1}),
        ("native", (64, 32, 32, 16), (3, 3, 16, 64), {"padding": 1}),
        ("native", (2, 8, 8, 64), (3, 3, 64, 64), {"padding": 1}),
        ("native", (64, 32, 32, 64), (3, 3, 64, 64), {"padding": 2, "dilation": 2}),
        ("terms", (128, 28, 28, 1), (5, 5, 1, 6), {"padding": 2}),
        ("terms", (64, 32, 32, 4), (3, 3, 4, 64), {"padding": 1, "stride": 2}),
        ("bands", (128, 28, 28, 2), (5, 5, 2, 6), {"padding": 2}),
        ("native", (64, 32, 32, 5), (3, 3, 5, 64), {"padding": 1}),
        ("matmul", (64, 32, 32, 64), (1, 1, 64, 128), {"stride": 2}),
        ("matmul", (64, 32, 32, 64), (2, 2, 64, 128), {"stride": 2}),
        ("matmul", (128, 2, 2, 256), (3, 3, 256, 256), {"padding": 1}),
        ("native", (128, 3, 3, 256), (3, 3, 256, 256), {"padding": 1}),
        ("native", (16, 2, 64, 64), (3, 3, 64, 64), {"padding": 1}),
        ("native", (16, 14, 14, 32), (3, 3, 32, 32), {"padding": 8, "dilation": 8}),
        ("native", (1, 28, 28, 8), (31, 31, 8, 8), {"padding": 15}),
        ("planes", (2, 2, 16, 16, 8), (3, 3, 3, 8, 8), {"padding": 1}),
        ("taps", (16, 56, 56, 128), (3, 3, 1, 128), {"padding": 1, "groups": 128}),
        ("blocks", (16, 28, 28, 256), (3, 3, 8, 256), {"padding": 1, "groups": 32}),
        ("planes", (4, 16, 32, 32, 16), (3, 3, 3, 16, 32), {"padding": 1}),
    ],
)
def test_choice_on_cpu(expected, x, w, config):
    assert kernel._fastest_forward(problem(x, w, **config)) == expected


@pytest.mark.parametrize(
    ("expected", "x", "w", "config"),
    [
        ("matmul", (32, 4, 4, 512), (3, 3, 512, 512), {"padding": 1}),
        ("matmul", (1, 4, 4, 512), (3, 3, 512, 512), {"padding": 1}),
        ("winograd", (32, 8, 8, 256), (3, 3, 256, 256), {"padding": 1}),
        ("native", (1, 4, 4, 32), (3, 3, 32, 64), {"padding": 1}),
        ("phases", (32, 2048, 64), (5, 64, 64), {"padding": 2, "stride": 2}),
    ],
)
def test_choice_of_the_input_gradient_on_cpu(expected, x, w, config):
    assert kernel._fastest_input_gradient(problem(x, w, **config)) == expected


@pytest.mark.parametrize(
    ("expected", "x", "w", "config"),
    [
        ("winograd", (128, 14, 14, 64), (3, 3, 64, 64), {"padding": 1}),
        ("matmul", (64, 32, 32, 3), (3, 3, 3, 64), {"padding": 1}),
        ("matmul", (32, 32, 32, 64), (3, 3, 64, 128), {"padding": 1, "stride": 2}),
        ("bands", (128, 28, 28, 1), (5, 5, 1, 6), {"padding": 2}),
        ("native", (16, 112, 112, 3), (7, 7, 3, 64), {"padding": 3, "stride": 2}),
        ("native", (2, 8, 8, 64), (3, 3, 64, 64), {"padding": 1}),
    ],
)
def test_choice_of_the_weight_gradient_on_cpu(expected, x, w, config):
    assert kernel._fastest_weight_gradient(problem(x, w, **config)) == expected


@pytest.mark.parametrize(
    ("more", "x", "w", "config"),
    [
        ((1, 0), (2, 9, 9, 16), (3, 3, 16, 32), {"padding": 1}),
        ((0, 1), (2, 8, 9, 16), (3, 3, 16, 32), {"padding": 1}),
        ((0, 1), (2, 9, 8, 16), (3, 3, 16, 32), {"padding": ((0, 0), (1, 1))}),
        ((0, 0), (2, 9, 9, 16), (3, 3, 16, 32), {"padding": 1, "stride": 2}),
        ((0, 0), (2, 9, 9, 15), (3, 3, 15, 32), {"padding": 1}),
        ((0, 0), (2, 5, 5, 16), (3, 3, 16, 32), {"padding": 1}),
    ],
)
def test_native_computes_more_where_that_is_faster(more, x, w, config):
    p = problem(x, w, **config)
    jaxpr = jax.make_jaxpr(lambda x, w: native.forward(x, w, p))(jnp.zeros(x, F32), jnp.zeros(w, F32))
    computed = jaxpr.eqns[0].outvars[0].aval.shape[1:-1]
    assert computed == tuple(n + m for n, m in zip(p.positions, more, strict=True))
    assert jaxpr.out_avals[0].shape[1:-1] == p.positions


def test_off_cpu_xla_chooses(monkeypatch):
    monkeypatch.setattr(kernel, "on_cpu", lambda: False)
    depthwise = problem((16, 56, 56, 128), (3, 3, 1, 128), padding=1, groups=128)
    pointwise = problem((64, 32, 32, 64), (1, 1, 64, 128))
    for p, expected in [(depthwise, "native"), (pointwise, "matmul")]:
        assert kernel._choose(p, None, kernel._fastest_forward) == expected


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of one or a few examples, so that small arrays go through the loops over blocks."""
    jax.clear_caches()  # of what was traced with blocks of the usual size
    monkeypatch.setattr(winograd, "GRADIENT_BYTES", 10_000)
    monkeypatch.setattr(winograd, "FORWARD_BYTES", 10_000)
    monkeypatch.setattr(depthwise, "BLOCK_BYTES", 1_500)
    monkeypatch.setattr(matmul, "BLOCK_BYTES", 10_000)
    yield
    jax.clear_caches()


LOOPS = {
    "winograd": ((12, 6, 6, 2), (3, 3, 2, 4), {"algorithm": "winograd"}),
    "matmul": ((12, 6, 6, 2), (3, 3, 2, 4), {"algorithm": "matmul"}),
    "taps": ((12, 6, 6, 2), (3, 3, 1, 4), {"groups": 2, "algorithm": "taps"}),
    "taps, large kernel": ((2, 10, 12, 2), (10, 10, 1, 2), {"groups": 2, "algorithm": "taps"}),
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.usefixtures("small_blocks")
def test_loops_over_blocks_and_their_transformations(name):
    x_shape, w_shape, config = LOOPS[name]
    plain = {**config, "algorithm": "native"}
    x, w = draw(x_shape), draw(w_shape)
    dy = draw(jax.eval_shape(lambda x, w: jcnn.conv(x, w, **config), x, w).shape)

    def maps(x, w, dy, config=config):
        return three_maps(lambda x, w: jcnn.conv(x, w, **config))(x, w, dy)

    assert "while" in jax.jit(maps).lower(x, w, dy).as_text()
    assert_close(jax.jit(maps)(x, w, dy), maps(x, w, dy, plain), 1e-11, "three maps")
    batch = jnp.stack([x, 2 * x]), w, jnp.stack([dy, -dy])
    mapped = [
        jax.jit(jax.vmap(functools.partial(maps, config=c), (0, None, 0)))(*batch) for c in (config, plain)
    ]
    assert_close(*mapped, 1e-11, "vmap")

    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.shard_map(
        lambda x, w, dy: maps(x, w, dy)[::2],
        mesh=mesh,
        in_specs=(P("i"), P(), P("i")),
        out_specs=(P("i"), P()),
    )
    assert_close(jax.jit(spread)(x, w, dy), maps(x, w, dy, plain)[::2], 1e-11, "shard_map")

    def second(w, config):
        return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.sin(jcnn.conv(x, w, **config))))(x) ** 2)

    twice = [jax.jit(jax.grad(functools.partial(second, config=c)))(w) for c in (config, plain)]
    assert_close(*twice, 1e-10, "reverse over reverse")


@pytest.mark.parametrize(
    ("batch", "most", "block"), [(64, 10, 8), (7, 6, 1), (6, 100, 6), (5, 0, 1), (0, 3, 1)]
)
def test_blocks_of(batch, most, block):
    assert blocks_of(batch, most) == block


@pytest.mark.parametrize(("algorithm", "worse"), [("winograd", 2), ("winograd4", 20)])
def test_error_of_winograd_against_direct(algorithm, worse):
    """F(2x2) is no less accurate than the direct sum, F(4x4) is: hence only by name."""
    x, w, dy = (draw(s).astype(F32) for s in ((4, 16, 16, 32), (3, 3, 32, 32), (4, 16, 16, 32)))
    exact = jax.jit(three_maps(lambda x, w: conv_reference(x, w, padding="SAME")))(
        *(a.astype("float64") for a in (x, w, dy))
    )

    def errors(algorithm):
        run = jax.jit(three_maps(lambda x, w: jcnn.conv(x, w, padding="SAME", algorithm=algorithm)))
        return np.array([np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(run(x, w, dy), exact, strict=True)])

    ratio = errors(algorithm) / errors("native")
    assert np.all(ratio < worse), ratio
    assert algorithm == "winograd" or np.all(ratio > 2), ratio


def test_unknown_and_unfit_algorithms_are_refused():
    x, w = jnp.ones((1, 5, 5, 2)), jnp.ones((3, 3, 2, 2))
    with pytest.raises(ValueError, match=r"conv: algorithm.*'fft'.*'native', 'matmul'"):
        jcnn.conv(x, w, algorithm="fft")
    with pytest.raises(ValueError, match=r"conv: algorithm.*'winograd'"):
        jcnn.conv(x, w, stride=2, algorithm="winograd")
    with pytest.raises(ValueError, match=r"conv_input_grad: algorithm.*'taps'"):
        jcnn.conv_input_grad(jnp.ones((1, 3, 3, 2)), w, input_size=5, algorithm="taps")
    with pytest.raises(ValueError, match=r"conv_weight_grad: algorithm.*'planes'"):
        jcnn.conv_weight_grad(x, jnp.ones((1, 3, 3, 2)), kernel_size=3, algorithm="planes")


@pytest.mark.skipif(not on_cpu(), reason="elsewhere XLA sums what it computes")
@pytest.mark.parametrize(("n", "left"), [(1, 1), (5, 1), (8, 1), (11, 11), (24, 3)])
def test_added_leaves_parts_of_the_sum(n, left):
    x, mean, row = draw((n, 3, 2)), draw((2,)), draw((1, 3, 1))
    parts = added(lambda x, mean, row: (x - mean) * row, x, mean, row)
    assert len(parts) == left
    np.testing.assert_allclose(parts.sum(0), ((x - mean) * row).sum(0), rtol=1e-12, atol=1e-12)
    along = added(lambda x: x, x, axis=1)
    np.testing.assert_allclose(along[:, 0], x.sum(1), rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(not on_cpu(), reason="elsewhere XLA decides what to compute anew")
def test_the_taps_are_added_up_once_for_all_readers():
    x, w = draw((4, 8, 8, 6)), draw((3, 3, 1, 6))

    def readers(x, w):
        y = jcnn.conv(x, w, padding=1, groups=6)
        return jnp.tanh(y), y**2, y[:, ::2].sum()

    program = jax.jit(readers).lower(x, w).compile().as_text()
    assert program.count("multiply(") <= 10, "nine taps, and a square"


@pytest.mark.parametrize("name", ["batch norm", "group norm", "max pool", "depthwise", "matmul", "winograd"])
@pytest.mark.usefixtures("small_blocks")
def test_without_jit_nothing_is_compiled_twice(name, caplog):
    x, ones = draw((4, 6, 6, 4)), jnp.ones(4)
    call = {
        "batch norm": lambda x: jcnn.batch_norm(x, ones, ones)[0],
        "group norm": lambda x: jcnn.group_norm(x, ones, ones, groups=2),
        "max pool": lambda x: jcnn.max_pool(x, window=2),
        "depthwise": lambda x: jcnn.conv(x, jnp.ones((3, 3, 1, 4)), groups=4),
        "matmul": lambda x: jcnn.conv(x, jnp.ones((3, 3, 4, 4)), algorithm="matmul"),
        "winograd": lambda x: jcnn.conv(x, jnp.ones((3, 3, 4, 4)), algorithm="winograd"),
    }[name]
    value_and_gradient = jax.value_and_grad(lambda x: call(x).sum())
    value_and_gradient(x)
    with jax.log_compiles():
        value_and_gradient(x)
    assert not [r for r in caplog.records if "Compiling" in r.getMessage()]
