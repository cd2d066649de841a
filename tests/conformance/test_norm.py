"""Normalisations against PyTorch."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from tests.checks import assert_close
from tests.conformance.torch_side import (
    channels_first,
    channels_last,
    draw,
    functional,
    grid,
    needs_torch,
    on_images,
    same_as_torch,
    torch,
)

pytestmark = needs_torch

SHAPES = {"shape": [(4, 3, 5, 4), (6, 4), (2, 5, 4), (2, 3, 1, 2, 4), (1, 3, 2, 2), (3, 2, 1, 1)]}
EPS = {"eps": [1e-5, 0.1]}


def arrays_of(case, seed: int = 0) -> tuple:
    """x, gamma and beta."""
    shape = case["shape"]
    return 2 * draw(seed, *shape) + 3, draw(seed + 1, shape[-1]), draw(seed + 2, shape[-1])


@pytest.mark.parametrize("case", grid(5, **SHAPES, **EPS))
def test_batch_norm(case):
    """Mean and variance are outputs, too; PyTorch's are those that it is made of."""
    arrays, eps = arrays_of(case), case["eps"]

    def theirs(x, gamma, beta):
        rows = x.flatten(0, -2)
        y = functional("batch_norm")(channels_first(x), None, None, gamma, beta, training=True, eps=eps)
        return channels_last(y), rows.mean(0), rows.var(0, unbiased=False)

    same_as_torch(jcnn.batch_norm, theirs, arrays, vjp=eps == 0.1, eps=eps)


@pytest.mark.parametrize("shape", [(4, 3, 5, 4), (6, 4)], ids=str)
def test_running_statistics(shape):
    """PyTorch's momentum is the weight of the new value, and it averages the unbiased variance."""
    x, gamma, beta = arrays_of({"shape": shape})
    m = x.size // shape[-1]
    running = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    functional("batch_norm")(channels_first(torch.tensor(x)), *running, training=True, momentum=0.3)
    _, batch = jcnn.batch_norm(x, gamma, beta)
    old = jcnn.BatchStats(jnp.zeros(4), jnp.ones(4))
    mean, _ = got = jcnn.update_running_stats(old, batch, momentum=0.7)
    unbiased = 0.7 + (got.var - 0.7) * m / (m - 1)
    assert_close((mean, unbiased), [a.numpy() for a in running], 1e-9, "running statistics")


@pytest.mark.parametrize("case", grid(4, **SHAPES, **EPS))
def test_batch_norm_inference(case):
    """PyTorch has no cotangents of its running statistics: those are of the formula, term by term."""
    (x, gamma, beta), eps = arrays_of(case), case["eps"]
    mean, var = draw(3, x.shape[-1]), draw(4, x.shape[-1]) ** 2

    def theirs(x, gamma, beta, mean, var):
        y = functional("batch_norm")(channels_first(x), mean.detach(), var.detach(), gamma, beta, eps=eps)
        fixed = gamma.detach(), x.detach()
        through_statistics = fixed[0] * (fixed[1] - mean) / torch.sqrt(var + eps)
        return channels_last(y) + through_statistics - through_statistics.detach()

    same_as_torch(jcnn.batch_norm_inference, theirs, (x, gamma, beta, mean, var), eps=eps)


@pytest.mark.parametrize("case", grid(6, [{"shape": (3,)}], **SHAPES, **EPS))
def test_layer_norm_and_rms_norm(case):
    (x, gamma, beta), eps = arrays_of(case), case["eps"]

    def layer_norm(x, gamma, beta):
        return functional("layer_norm")(x, x.shape[-1:], gamma, beta, eps)

    def rms_norm(x, gamma):
        return functional("rms_norm")(x, x.shape[-1:], gamma, eps)

    same_as_torch(jcnn.layer_norm, layer_norm, (x, gamma, beta), eps=eps)
    same_as_torch(jcnn.rms_norm, rms_norm, (x, gamma), eps=eps)


def divides(case) -> bool:
    return case["shape"][-1] % case["groups"] == 0


@pytest.mark.parametrize("case", grid(8, [{"groups": 4}], valid=divides, **SHAPES, groups=[1, 2, 4], **EPS))
def test_group_norm(case):
    groups, eps = case["groups"], case["eps"]

    def theirs(x, gamma, beta):
        return on_images(functional("group_norm"))(x, num_groups=groups, weight=gamma, bias=beta, eps=eps)

    same_as_torch(jcnn.group_norm, theirs, arrays_of(case), groups=groups, eps=eps)


@pytest.mark.parametrize("case", grid(4, valid=lambda c: len(c["shape"]) > 2, **SHAPES, **EPS))
def test_instance_norm(case):
    def theirs(x, gamma, beta):
        return on_images(functional("instance_norm"))(x, weight=gamma, bias=beta, eps=case["eps"])

    same_as_torch(jcnn.instance_norm, theirs, arrays_of(case), eps=case["eps"])


RESPONSE = {"size": [3, 1, 2, 5, 9], "alpha": [0.5, 1e-4, 0], "beta": [0.75, 2.0, 0], "k": [1.0, 0.1]}


@pytest.mark.parametrize(
    "case", grid(8, [{"size": 1}, {"size": 9}], valid=lambda c: len(c["shape"]) > 2, **SHAPES, **RESPONSE)
)
def test_local_response_norm(case):
    config = {key: case[key] for key in RESPONSE}
    theirs = functools.partial(on_images(functional("local_response_norm")), **config)
    same_as_torch(jcnn.local_response_norm, theirs, (draw(5, *case["shape"]),), **config)


@pytest.mark.parametrize("shape", [(3, 3, 4, 5), (4, 2), (2, 3, 1)], ids=str)
def test_weight_standardize(shape):
    """PyTorch has no such op: it is an instance norm of every filter as one image."""

    def theirs(w):
        filters = w.reshape(1, -1, w.shape[-1]).transpose(1, 2)
        return functional("instance_norm")(filters, eps=1e-5).transpose(1, 2).reshape(w.shape)

    same_as_torch(jcnn.weight_standardize, theirs, (draw(6, *shape),))


@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
def test_a_bad_value_stays_in_its_block(bad):
    x, gamma, beta = arrays_of({"shape": (2, 3, 2, 4)})
    x[1, 2, 0, 1] = bad

    def group_norm(x, gamma, beta):
        return on_images(functional("group_norm"))(x, num_groups=2, weight=gamma, bias=beta)

    def layer_norm(x, gamma, beta):
        return functional("layer_norm")(x, (4,), gamma, beta)

    def batch_norm(x, gamma, beta):
        rows = x.flatten(0, -2)
        y = functional("batch_norm")(channels_first(x), None, None, gamma, beta, training=True)
        return channels_last(y), rows.mean(0), rows.var(0, unbiased=False)

    same_as_torch(jcnn.group_norm, group_norm, (x, gamma, beta), groups=2)
    same_as_torch(jcnn.layer_norm, layer_norm, (x, gamma, beta))
    same_as_torch(jcnn.batch_norm, batch_norm, (x, gamma, beta))
