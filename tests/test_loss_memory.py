"""What the losses keep, and what they take on the way: with 50,000 classes, no second copy of the logits."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

import jcnn
from jcnn.kernels import classes, widen
from jcnn.verify.examples import normal
from tests.checks import assert_close

ROWS, CLASSES = 128, 50_000


def kept(op, *arrays, **static):
    return jax.tree.leaves(op.fwd(*arrays, **static)[1])


def test_cross_entropy_keeps_its_arguments_and_one_number_per_row():
    logits, labels, weights = normal(0, 3, 7), jnp.array([1, 0, 6]), normal(1, 7) ** 2
    *arguments, lse = kept(jcnn.softmax_cross_entropy, logits, labels, weights)
    assert [a is b for a, b in zip(arguments, (logits, labels, weights), strict=True)] == [True] * 3
    assert lse.shape == (3,)


def test_one_slope_is_kept_in_place_of_two_arguments():
    x, t, hard = normal(2, 3, 4), normal(3, 3, 4), normal(4, 3, 4) > 0
    for op, labels in (
        (jcnn.mse, t),
        (jcnn.huber, t),
        (jcnn.binary_cross_entropy, hard),
        (jcnn.focal_loss, hard.astype(int)),
    ):
        assert [(a.shape, a.dtype) for a in kept(op, x, labels)] == [((3, 4), x.dtype)], op.name


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("labels", ["classes", "distributions"])
def test_no_second_copy_of_the_logits(dtype, labels):
    """Compiled, not run: what is beside arguments and outputs, and the outputs hold the gradient."""
    logits = jax.ShapeDtypeStruct((ROWS, CLASSES), dtype)
    targets = jax.ShapeDtypeStruct((ROWS,), jnp.int32) if labels == "classes" else logits

    def loss(logits, targets):
        return jcnn.softmax_cross_entropy(logits, targets, label_smoothing=0.1, z_loss=1e-4).mean()

    compiled = jax.jit(jax.value_and_grad(loss)).lower(logits, targets).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < 0.1 * logits.size * logits.dtype.itemsize


def test_sum_in_parts_is_the_sum_under_every_transformation(monkeypatch):
    monkeypatch.setattr(classes, "FEW", 0)
    a, b = (normal(seed, 4, 19).astype(jnp.bfloat16) for seed in (5, 6))
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))

    def terms(a, b):
        return jnp.exp(widen(a)) * widen(b)

    def everywhere(total):
        def curvature(a):
            return jax.grad(lambda a: jnp.sum(total(a, b) ** 2))(a).astype(jnp.float32).sum()

        in_map = jax.shard_map(total, mesh=mesh, in_specs=PartitionSpec("d"), out_specs=PartitionSpec("d"))
        return total(a, b), in_map(a, b), jax.vmap(total)(a, b), jax.grad(curvature)(a)

    expected = jax.jit(lambda: everywhere(lambda a, b: jnp.sum(terms(a, b), -1)))()
    got = jax.jit(lambda: everywhere(functools.partial(classes.class_sum, terms)))()
    assert_close(got[:3], expected[:3], 1e-6, "sums")
    assert_close(got[3], expected[3], 0.02, "second order")
    assert "scan" in str(jax.make_jaxpr(functools.partial(classes.class_sum, terms))(a, b))
