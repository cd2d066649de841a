"""The nets of the benchmark are jcnn's in every framework: same loss, same gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmark import nets, steps
from experiments.benchmark.nets import zoo
from experiments.benchmark.settings import Disagreement
from jcnn import models
from tests.checks import assert_close, draw

INVERTED = ((1, 32, 1, 2), (2, 8, 1, 2))
CASES = {
    case.name: case
    for case in (
        zoo.Case("lenet5", models.lenet5, zoo.lenet5(), (28, 28, 1), 2),
        zoo.Case(
            "vgg_small",
            lambda: models.vgg_small(widths=(3, 4), depths=(1, 1)),
            zoo.vgg_small((3, 4), (1, 1)),
            (6, 6, 2),
            3,
        ),
        zoo.Case(
            "resnet", lambda: models.resnet(width=4, blocks=(1, 1)), zoo.resnet(4, (1, 1)), (6, 6, 2), 3
        ),
        zoo.Case(
            "resnext",
            lambda: models.resnext(groups=2, width=16, blocks=(0, 1)),
            zoo.resnext(2, 4, 16, (0, 1)),
            (5, 6, 2),
            3,
        ),
        zoo.Case(
            "mobilenet_v2",
            lambda: models.mobilenet_v2(stages=INVERTED, dropout=0.0),
            zoo.mobilenet_v2(INVERTED),
            (6, 6, 2),
            3,
        ),
        zoo.Case(
            "convnext",
            lambda: models.convnext(widths=(4, 6), blocks=(0, 1), patch=2, kernel=3),
            zoo.convnext((4, 6), (0, 1), 2, 3),
            (8, 8, 2),
            3,
        ),
    )
}


def problem_of(case):
    """Random parameters: scales of 1 or 0 and shifts of 0, as at first, would hide errors."""
    shapes = jax.eval_shape(functools.partial(case.net().init, image_shape=case.image), jax.random.key(0))
    images = jax.ShapeDtypeStruct((case.batch, *case.image), np.float64)
    params, state, images = jax.tree.map(lambda a: 0.5 * a, draw(0, (*shapes, images)))
    return steps.Problem(case, images, jnp.arange(case.batch), params, state)


@functools.cache
def ours(name):
    problem = problem_of(CASES[name])
    return problem, steps.contestant(problem, "jcnn").first()


@pytest.mark.parametrize("peer", ["autodiff", "flax", "equinox", "torch"])
@pytest.mark.parametrize("name", CASES)
def test_first_step_is_that_of_jcnn(name, peer):
    if name in ("resnext", "mobilenet_v2") and peer in ("flax", "equinox"):
        pytest.skip("has the layers that other nets have, and takes long to compile")
    pytest.importorskip({"autodiff": "jax"}.get(peer, peer))
    problem, expected = ours(name)
    got = steps.contestant(problem, peer).first()
    steps.agree(expected, got, peer, loss_tolerance=1e-12, tolerance=1e-8)


@pytest.mark.parametrize("peer", ["autodiff", "flax"])
def test_running_statistics_are_those_of_jcnn(peer):
    pytest.importorskip({"autodiff": "jax"}.get(peer, peer))
    problem = problem_of(CASES["vgg_small"])
    mine, theirs = problem.twin("jcnn"), problem.twin(peer)
    before = jax.tree.unflatten(jax.tree.structure(mine.state), jax.tree.leaves(theirs.state))
    after = []
    for twin in (mine._replace(state=before), theirs):
        after.append(jax.jit(twin.loss)(twin.params, twin.state, twin.images, problem.labels)[1])
    assert_close(after[1], after[0], 1e-12, "statistics")


def test_what_differs_is_named():
    loss, gradients = np.float64(2.0), [{"w": np.ones(3)}, {"gamma": np.ones(2), "beta": np.full(2, 1e-9)}]
    off = [gradients[0], {"gamma": np.array([1.0, 1.1]), "beta": np.zeros(2)}]
    steps.agree((loss, gradients), (loss, [gradients[0], gradients[1] | {"beta": np.zeros(2)}]), "net: peer")
    with pytest.raises(
        Disagreement, match=r"net: peer: the gradient of gamma in layer 1 is off .* by 7.1e-02"
    ):
        steps.agree((loss, gradients), (loss, off), "net: peer")
    with pytest.raises(Disagreement, match=r"net: peer: the loss is 2\.1, jcnn's is 2\.0"):
        steps.agree((loss, gradients), (np.float64(2.1), gradients), "net: peer")
    with pytest.raises(Disagreement, match="gamma"):
        steps.agree(
            (loss, gradients), (loss, [gradients[0], gradients[1] | {"gamma": np.full(2, np.nan)}]), "x"
        )


def test_weights_to_channels_first_and_back():
    rng = np.random.default_rng(0)
    dense, conv = nets.Dense(3, flattened=4), nets.Conv(6, 3, groups=2, bias=True)
    for layer, weights in (
        (dense, {"w": rng.normal(size=(20, 3)), "b": rng.normal(size=3)}),
        (conv, {"w": rng.normal(size=(3, 5, 2, 6)), "b": rng.normal(size=6)}),
        (nets.BatchNorm(), {"gamma": rng.normal(size=4), "beta": rng.normal(size=4)}),
        (nets.Scale(), {"gamma": rng.normal(size=4)}),
    ):
        first = nets.channels_first(layer, weights)
        assert_close(nets.channels_last(layer, first), weights, 0, str(layer))
    image = rng.normal(size=(5, 4))
    first = nets.channels_first(dense, {"w": (w := rng.normal(size=(20, 3)))})
    np.testing.assert_allclose(first["weight"] @ image.T.ravel(), image.ravel() @ w)
