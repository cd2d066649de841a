"""What docs/differences.md says of PyTorch and of jcnn, line by line, is so."""

import pathlib
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from tests.conformance.torch_side import draw, functional, gradient, needs_torch, of_torch, t, torch

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "differences.md"
CHECKS: dict[str, tuple[int, Callable]] = {}
NAN, INF = float("nan"), float("inf")


def line_of(op: str, lines: int = 1):
    """Registers a check of the lines that begin with `op`, of which there are as many."""

    def register(check):
        CHECKS[op] = lines, check
        return check

    return register


def refused(f, *args, **config) -> bool:
    try:
        f(*args, **config)
    except (ValueError, TypeError, RuntimeError, IndexError):
        return True
    return False


def our_gradient(rule, x, **config) -> list:
    return jax.grad(lambda x: rule(x, **config).sum())(jnp.array(x, float)).tolist()


def image(*values: float):
    """One image of one row, channels last."""
    return jnp.array(values, float).reshape(1, -1, 1)


def same(a, b) -> bool:
    return np.allclose(a, b, 1e-12, 1e-12, equal_nan=True)


@line_of("conv", lines=2)
def _():
    x, w = draw(1, 1, 2, 7), draw(2, 3, 2, 3)
    assert refused(functional("conv1d"), t(x), t(w), stride=2, padding="same")
    assert jcnn.conv(x.swapaxes(1, 2), w.transpose(2, 1, 0), stride=2, padding="SAME").shape == (1, 4, 3)

    x, w = draw(1, 1, 8, 8, 1), draw(2, 3, 3, 1, 1)
    x[0, 0, 0, 0] = NAN
    spread = [np.isnan(jcnn.conv(x, w, algorithm=name)).sum() for name in ("native", "bands")]
    theirs = np.isnan(of_torch("conv2d", x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1))).sum()
    assert theirs == spread[0] == 1 < spread[1]


@line_of("pad")
def _():
    assert of_torch("pad", [[[1.0, 2, 3]]], pad=(-1, 0)) == [[[2, 3]]]
    assert refused(jcnn.pad, image(1, 2, 3), padding=((-1, 0),))
    assert refused(functional("pad"), t([[[1.0, 2]]]), (2, 2), mode="reflect")
    padded = jcnn.pad(image(1, 2), padding=2, mode="reflect")
    assert padded.ravel().tolist() == np.pad([1, 2], 2, "reflect").tolist()


@line_of("conv_transpose")
def _():
    x, w, config = draw(1, 1, 4, 2), draw(2, 3, 3, 2), {"dilation": 2, "output_padding": 1}
    theirs = t(x.swapaxes(1, 2)), t(w.transpose(2, 1, 0))
    assert not refused(functional("conv_transpose1d"), *theirs, **config)
    assert refused(jcnn.conv_transpose, x, w, **config)
    assert refused(functional("conv_transpose1d"), *theirs, padding="same")
    assert jcnn.conv_transpose(x, w, stride=3, padding="SAME").shape == (1, 12, 3)


@line_of("dense")
def _():
    x, w = draw(1, 2, 3), draw(2, 3, 4)
    assert same(jcnn.dense(x, w), of_torch("linear", x, w.T))


@line_of("relu, relu6, elu, selu, hard_swish")
def _():
    names = {"relu": "relu", "relu6": "relu6", "elu": "elu", "hard_swish": "hardswish"}
    assert [gradient(theirs, [NAN]) for theirs in names.values()] == [[1]] * 4
    assert our_gradient(jcnn.relu, [NAN]) == our_gradient(jcnn.relu6, [NAN]) == [0]
    assert np.isnan([our_gradient(rule, [NAN]) for rule in (jcnn.elu, jcnn.selu, jcnn.hard_swish)]).all()
    assert gradient("selu", [NAN])[0] > 1


@line_of("softplus")
def _():
    assert of_torch("softplus", 21.0) == 21
    assert float(jcnn.softplus(21.0)) == 21 + np.log1p(np.exp(-21)) > 21


@line_of("hard_sigmoid")
def _():
    assert 1e-9 < abs(gradient("hardsigmoid", [0.0])[0] - 1 / 6) < 1e-8
    assert abs(our_gradient(jcnn.hard_sigmoid, [0.0])[0] - 1 / 6) < 1e-16


@line_of("prelu")
def _():
    assert same(of_torch("prelu", [[-1.0, 2]], [0.5]), jcnn.prelu(np.array([[-1.0, 2]]), 0.5))


@line_of("max_pool", lines=3)
def _():
    x = image(1, 2, 3)
    assert refused(functional("max_pool1d"), t([[[1.0, 2, 3]]]), 2, 1, 2)
    y, res = jcnn.max_pool.fwd(x, window=2, stride=1, padding=2)
    assert y.ravel().tolist() == [-INF, 1, 2, 3, 3, -INF]
    assert jcnn.max_pool.bwd(res, jnp.ones_like(y))[0].ravel().tolist() == [1, 1, 2]

    assert gradient("max_pool1d", [[[1.0, NAN, NAN]]], kernel_size=3) == [[[0, 0, 1]]]
    assert our_gradient(jcnn.max_pool, image(1, NAN, NAN), window=3) == [[[0], [1], [0]]]

    _, indices = functional("max_pool1d")(t([[[1.0, 2]]]), 2, return_indices=True)
    ours = jcnn.max_pool(image(1, 2), window=2, return_indices=True)[1]
    assert (indices.dtype, ours.dtype) == (torch.int64, jnp.int32)


@line_of("avg_pool")
def _():
    assert of_torch("avg_pool1d", [[[2.0, 4]]], kernel_size=2, padding=1) == [[[1, 2]]]
    assert jcnn.avg_pool(image(2, 4), window=2, padding=1).ravel().tolist() == [2, 4]


@line_of("lp_pool")
def _():
    assert np.isnan(of_torch("lp_pool1d", [[[-1.0, -2]]], norm_type=3, kernel_size=2)).all()
    assert same(jcnn.lp_pool(image(-1, -2), window=2, p=3).ravel(), 9 ** (1 / 3))
    theirs = of_torch("lp_pool1d", [[[1.0, 2, 3]]], norm_type=2, kernel_size=2, ceil_mode=True)
    assert same(theirs, [[[5**0.5, 18**0.5]]])
    assert same(jcnn.lp_pool(image(1, 2, 3), window=2, p=2, ceil_mode=True).ravel(), [5**0.5, 3])


@line_of("global_max_pool")
def _():
    x = t([[[1.0, 1]]], requires_grad=True)
    x.amax(2).sum().backward()
    assert x.grad.tolist() == [[[0.5, 0.5]]]
    assert our_gradient(jcnn.global_max_pool, image(1, 1)) == [[[1], [0]]]


@line_of("upsample")
def _():
    assert len(of_torch("interpolate", [[[1.0, 2]]], size=3)[0][0]) == 3
    assert refused(jcnn.upsample, image(1, 2), factor=1.5)
    assert refused(jcnn.upsample, image(1, 2), factor=2, method="cubic")


@line_of("patches, fold")
def _():
    x = np.arange(8.0).reshape(1, 2, 2, 2)
    theirs = np.array(of_torch("unfold", np.moveaxis(x, -1, 1), kernel_size=2)).ravel()
    assert theirs.reshape(2, 4).T.ravel().tolist() == jcnn.patches(x, window=2).ravel().tolist()


@line_of("flatten")
def _():
    x = np.arange(4.0).reshape(1, 1, 2, 2)
    assert jcnn.flatten(x).tolist() == [[0, 1, 2, 3]]
    assert t(x).movedim(-1, 1).flatten(1).tolist() == [[0, 2, 1, 3]]


@line_of("dropout")
def _():
    assert of_torch("dropout", [1.0, 2], p=1.0) == [0, 0]
    assert refused(jcnn.dropout, jnp.ones(2), jax.random.key(0), rate=1.0)
    assert set(of_torch("dropout", np.ones(50), p=0.75)) == {0, 4}
    assert set(jcnn.dropout(jnp.ones(50), jax.random.key(0), rate=0.75).tolist()) == {0, 4}


BATCH = np.array([[1.0], [2], [6]])  # mean 3, variance 14 / 3, unbiased 7


@line_of("batch_norm", lines=2)
def _():
    running = t([0.0]), t([1.0])
    functional("batch_norm")(t(BATCH), *running, training=True, momentum=0.1)
    assert same(running[0], 0.1 * 3)
    assert same(running[1], 0.9 + 0.1 * 7)
    _, batch = jcnn.batch_norm(BATCH, np.ones(1), np.zeros(1))
    ours = jcnn.update_running_stats(jcnn.BatchStats(jnp.zeros(1), jnp.ones(1)), batch, momentum=0.9)
    assert same(ours.mean, 0.1 * 3)
    assert same(ours.var, 0.9 + 0.1 * 14 / 3)

    assert refused(functional("batch_norm"), t([[1.0]]), None, None, training=True)
    y, stats = jcnn.batch_norm(np.ones((1, 1)), np.ones(1), np.full(1, 5.0))
    assert (y.item(), stats.mean.item(), stats.var.item()) == (5, 1, 0)


@line_of("batch_norm_inference")
def _():
    one, mean = t([1.0]), t([3.0], requires_grad=True)
    x = t(BATCH, requires_grad=True)
    assert (
        refused(lambda: functional("batch_norm")(x, mean, one, one, one).sum().backward())
        or mean.grad is None
    )
    cotangent = jax.grad(lambda m: jcnn.batch_norm_inference(BATCH, *[np.ones(1)] * 2, m, np.ones(1)).sum())
    assert cotangent(jnp.array([3.0])).item() < -2.9


@line_of("instance_norm")
def _():
    assert refused(functional("instance_norm"), t([[[1.0]]]))
    assert jcnn.instance_norm(np.ones((1, 1, 1)), np.ones(1), np.full(1, 5.0)).item() == 5


@line_of("rms_norm")
def _():
    x = 1e-5 * np.ones((1, 2))
    assert same(of_torch("rms_norm", x, normalized_shape=(2,)), x / (1e-10 + np.finfo(float).eps) ** 0.5)
    assert same(jcnn.rms_norm(x, np.ones(2)), x / (1e-10 + 1e-5) ** 0.5)


Z = draw(5, 3, 4)


@line_of("softmax_cross_entropy", lines=4)
def _():
    labels = np.array([1, 0, 3])
    theirs = functional("cross_entropy")(t(Z), torch.tensor(labels))
    assert theirs.shape == ()
    ours = jcnn.softmax_cross_entropy(Z, labels)
    assert ours.shape == (3,)
    assert same(ours.mean(), theirs.item())

    labels = np.array([1, -100, -100])
    assert functional("cross_entropy")(t(Z), torch.tensor(labels)).isfinite()
    assert refused(jcnn.softmax_cross_entropy, Z, labels)
    ignored = np.full(3, -100)
    assert functional("cross_entropy")(t(Z), torch.tensor(ignored)).isnan()
    assert jcnn.softmax_cross_entropy(Z, ignored, ignore_index=-100).tolist() == [0, 0, 0]

    labels = np.array([1, 0, 4])
    assert refused(functional("cross_entropy"), t(Z), torch.tensor(labels))
    assert refused(jcnn.softmax_cross_entropy, Z, labels)
    assert np.isnan(jax.jit(jcnn.softmax_cross_entropy)(Z, labels)).tolist() == [False, False, True]

    z, q = np.array([[0.0, -INF]]), np.array([[1.0, 0]])
    assert np.isnan(of_torch("cross_entropy", z, q))
    assert jcnn.softmax_cross_entropy(z, q).tolist() == [0]


@line_of("binary_cross_entropy")
def _():
    config = {"reduction": "none"}
    assert np.isnan(of_torch("binary_cross_entropy_with_logits", [INF], [1.0], **config)).all()
    assert jcnn.binary_cross_entropy(np.array([INF]), np.array([1.0])).tolist() == [0]


@line_of("mse, huber, binary_cross_entropy")
def _():
    for op in ("mse_loss", "huber_loss", "binary_cross_entropy_with_logits"):
        assert functional(op)(t([1.0, 2]), t([1.0, 0])).shape == ()
    for rule in (jcnn.mse, jcnn.huber, jcnn.binary_cross_entropy):
        assert rule(np.array([1.0, 2]), np.array([1.0, 0])).shape == (2,)
    assert refused(jcnn.mse, np.ones((2, 1)), np.ones((1, 2)))


@line_of("kl_divergence")
def _():
    log_q, p = np.log([[0.5, 0.5]]), np.array([[0.2, 0.8]])
    assert functional("kl_div")(t(log_q), t(p), reduction="none").shape == (1, 2)
    assert jcnn.kl_divergence(log_q, p).shape == (1,)


@line_of("gelu")
def _():
    x = np.array([0.5])
    assert same(of_torch("gelu", x, approximate="tanh"), jcnn.gelu(x, approximate=True))


@needs_torch
@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("op", CHECKS)
def test_difference(op):
    CHECKS[op][1]()


def test_the_page_has_a_line_for_every_check():
    lines = re.findall(r"^\| `([^|]*)` \|", PAGE.read_text(), re.M)
    assert {op: number for op, (number, _) in CHECKS.items()} == {op: lines.count(op) for op in lines}
