"""bfloat16 and float16: long sums, and gradients no worse than autodiff's own in the same dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from tests.conformance.torch_side import draw

HALVES = (jnp.bfloat16, jnp.float16)
ONES = (1, 64, 64, 2)

MEANS = {
    "avg_pool": lambda x: jcnn.avg_pool(x, window=64),
    "avg_pool same": lambda x: jcnn.avg_pool(x, window=63, stride=64, padding="SAME"),
    "global_avg_pool": jcnn.global_avg_pool,
    "adaptive_avg_pool": lambda x: jcnn.adaptive_avg_pool(x, output_size=1),
    "batch_norm": lambda x: jcnn.batch_norm(x, x[0, 0, 0], x[0, 0, 0])[1].mean,
    "conv": lambda x: jcnn.conv(x, jnp.full((64, 64, 2, 1), 1 / 8192, x.dtype)),
    "dense": lambda x: jcnn.dense(x.reshape(2, 4096), jnp.full((4096, 1), 1 / 4096, x.dtype)),
    "mean of the bias's gradient": lambda x: (
        jcnn.layer_scale.bwd(jcnn.layer_scale.fwd(x, x[0, 0, 0])[1], x)[1] / 4096
    ),
}


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", MEANS)
def test_the_mean_of_4096_ones_is_1(name, dtype):
    """Of bfloat16 ones, a sum in bfloat16 stops at 256."""
    y = jax.jit(MEANS[name])(jnp.ones(ONES, dtype))
    assert np.asarray(y, float).ravel().tolist() == [1] * y.size


@pytest.mark.parametrize("dtype", HALVES, ids=lambda d: d.__name__)
def test_global_average_of_a_large_image_is_right_to_the_dtype(dtype):
    x = jnp.asarray(draw(1, 1, 512, 512, 1) + 1, dtype)
    (y, res), exact = jcnn.global_avg_pool.fwd(x), np.asarray(x, float).mean()
    assert abs(float(y[0, 0]) - exact) <= jnp.finfo(dtype).eps * exact
    (dx,) = jcnn.global_avg_pool.bwd(res, jnp.full((1, 1), 512, dtype))
    assert set(np.asarray(dx, float).ravel()) == {1 / 512}


def image(*others: tuple) -> tuple:
    return draw(2, 2, 24, 24, 4), *(draw(3 + i, *shape) for i, shape in enumerate(others))


LABELS = np.arange(1152) % 4
GRADIENTS = {
    "conv": (image((3, 3, 4, 3), (3,)), {"padding": 1}),
    "conv_transpose": (image((2, 2, 3, 4), (3,)), {"stride": 2}),
    "dense": (image((4, 3), (3,)), {}),
    "prelu": (image((4,)), {}),
    "gelu": (image(), {}),
    "softmax": (image(), {"axis": (1, 2)}),
    "log_softmax": (image(), {"axis": (1, 2)}),
    "avg_pool": (image(), {"window": 3, "stride": 2, "padding": 1}),
    "max_pool": (image(), {"window": 3, "stride": 2, "padding": 1}),
    "lp_pool": (image(), {"window": 2, "stride": 1, "p": 3}),
    "adaptive_avg_pool": (image(), {"output_size": 7}),
    "upsample": (image(), {"factor": 2, "method": "linear"}),
    "fold": (image(), {"window": 2, "output_size": 25}),
    "batch_norm": (image((4,), (4,)), {}),
    "layer_norm": (image((4,), (4,)), {}),
    "group_norm": (image((4,), (4,)), {"groups": 2}),
    "rms_norm": (image((4,)), {}),
    "local_response_norm": (image(), {"size": 3, "alpha": 1.0}),
    "layer_scale": (image((4,)), {}),
    "softmax_cross_entropy": ((draw(2, 1152, 4), LABELS, draw(3, 4) ** 2), {"label_smoothing": 0.1}),
    "binary_cross_entropy": (
        (draw(2, 1152, 4), (LABELS[:, None] == np.arange(4)) * 1.0, draw(3, 4) ** 2),
        {},
    ),
}


@pytest.mark.parametrize("op", GRADIENTS)
def test_gradients_are_within_twice_the_error_of_autodiff(op):
    """Root mean square over all entries; a result that is right to half a unit of rounding always passes."""
    arrays, static = GRADIENTS[op]
    rule = getattr(jcnn, op)
    shapes = jax.eval_shape(lambda *a: rule(*a, **static), *arrays)
    dys = jax.tree.map(lambda s: np.asarray(draw(9, *s.shape), jnp.bfloat16), shapes)

    def pulled(f, arrays):
        """The cotangents by `f`, a rule or a reference, in the dtype of the arrays."""
        floats = [a for a in arrays if jnp.issubdtype(a.dtype, jnp.floating)]

        def of_floats(*floats):
            rest = iter(floats)
            full = (next(rest) if jnp.issubdtype(a.dtype, jnp.floating) else a for a in arrays)
            return f(*full, **static)

        y, pullback = jax.vjp(of_floats, *floats)
        return pullback(jax.tree.map(lambda d, a: jnp.asarray(d, a.dtype), dys, y))

    def in_dtype(a, dtype):
        return jnp.asarray(a, dtype) if jnp.issubdtype(a.dtype, jnp.floating) else jnp.asarray(a)

    exactly = jax.jit(lambda wide: pulled(rule.reference, wide))
    for dtype in HALVES:
        low = [in_dtype(a, dtype) for a in arrays]
        hand, auto = jax.jit(lambda low: (pulled(rule, low), pulled(rule.reference, low)))(low)
        exact = exactly([in_dtype(a, jnp.float64) for a in low])
        for i, (h, a, e) in enumerate(zip(hand, auto, exact, strict=True)):
            e = np.asarray(e)
            own, other = (np.sqrt(np.mean((np.asarray(v, float) - e) ** 2)) for v in (h, a))
            unit = jnp.finfo(dtype).eps * np.sqrt(np.mean(e**2))
            assert own <= max(2 * other, unit / 2), f"{dtype.__name__}, cotangent {i}: {own} against {other}"
