"""The fully connected layer and flatten."""

import jax
import jax.numpy as jnp
import numpy as np

import jcnn
from jcnn.verify.examples import normal
from tests.checks import assert_close


def test_dense_by_hand():
    x, w, b = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 2, 3], [4, 5, 6]]), jnp.array([10.0, 20, 30])
    y, res = jcnn.dense.fwd(x, w, b)
    assert y.tolist() == [[19, 32, 45]]
    dx, dw, db = jcnn.dense.bwd(res, jnp.array([[1.0, 10, 100]]))
    assert dx.tolist() == [[321, 654]]
    assert dw.tolist() == [[1, 10, 100], [2, 20, 200]]
    assert db.tolist() == [1, 10, 100]


def test_dense_sums_weight_and_bias_gradients_over_all_leading_axes():
    x, w, dy = normal(0, 2, 3, 4), normal(1, 4, 5), normal(2, 2, 3, 5)
    _, res = jcnn.dense.fwd(x, w, jnp.zeros(5))
    dx, dw, db = jcnn.dense.bwd(res, dy)
    assert_close(dx, np.einsum("abo,io->abi", dy, w), 1e-13, "dx")
    assert_close(dw, np.einsum("abi,abo->io", x, dy), 1e-13, "dw")
    assert_close(db, np.einsum("abo->o", dy), 1e-13, "db")


def test_dense_of_an_empty_batch_has_zero_weight_gradient():
    y, res = jcnn.dense.fwd(jnp.zeros((0, 3)), normal(0, 3, 2), jnp.ones(2))
    dx, dw, db = jcnn.dense.bwd(res, y)
    assert (y.shape, dx.shape) == ((0, 2), (0, 3))
    assert (dw.tolist(), db.tolist()) == ([[0, 0]] * 3, [0, 0])


def test_dense_accumulates_4096_ones_exactly_in_low_precision():
    for dtype in (jnp.bfloat16, jnp.float16):

        def ones(*shape, dtype=dtype):
            return jnp.ones(shape, dtype)

        y, res = jcnn.dense.fwd(ones(1, 4096), ones(4096, 1))
        assert (y.dtype, float(y[0, 0])) == (dtype, 4096)
        _, res = jcnn.dense.fwd(ones(4096, 1), ones(1, 1), ones(1))
        _, dw, db = jcnn.dense.bwd(res, ones(4096, 1))
        assert (dw.dtype, db.dtype) == (dtype, dtype)
        assert (float(dw[0, 0]), float(db[0])) == (4096, 4096)
        _, res = jcnn.dense.fwd(ones(1, 1), ones(1, 4096))
        assert float(jcnn.dense.bwd(res, ones(1, 4096))[0][0, 0]) == 4096


def test_dense_asks_xla_to_accumulate_in_float32():
    """XLA's CPU kernels do so unasked, so values do not show it."""
    x, w = jnp.ones((2, 3), jnp.bfloat16), jnp.ones((3, 4), jnp.bfloat16)

    def both(x, w):
        y, res = jcnn.dense.fwd(x, w)
        return y, jcnn.dense.bwd(res, y)[:2]

    text = str(jax.make_jaxpr(both)(x, w))
    assert text.count("dot_general[") == 3
    assert text.count("preferred_element_type=float32") == 3


def test_flatten_is_row_major_and_its_backward_the_reshape_back():
    x = jnp.arange(24.0).reshape(2, 3, 2, 2)
    y, res = jcnn.flatten.fwd(x)
    assert y.tolist() == [list(range(12)), list(range(12, 24))]
    (dx,) = jcnn.flatten.bwd(res, 10 * y)
    assert dx.tolist() == (10 * x).tolist()
    assert not jax.tree.leaves(res)


def test_flatten_of_an_empty_batch_and_of_scalars_per_example():
    assert jcnn.flatten(jnp.zeros((0, 3, 2))).shape == (0, 6)
    assert jcnn.flatten(jnp.zeros(4)).shape == (4, 1)
