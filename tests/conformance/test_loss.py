"""Losses against PyTorch's with reduction="none"."""

import functools

import numpy as np
import pytest

import jcnn
from tests.conformance.torch_side import draw, functional, grid, needs_torch, same_as_torch, torch

pytestmark = needs_torch

LABELS = np.array([3, 0, 4, 1, 4, 2])
CLASSES = {
    "shape": [(6,), (2, 3), (1, 6, 1)],
    "weights": ["no", "yes", "with a zero"],
    "ignore_index": [None, 4, -100, 0],
    "label_smoothing": [0.0, 0.1, 1.0],
}
ODD = [
    {"weights": "yes", "ignore_index": 4},
    {"weights": "with a zero", "ignore_index": 4, "label_smoothing": 0.1},
    {"ignore_index": -100, "label_smoothing": 0.1},
]


def class_weights(case) -> tuple:
    weights = draw(2, 5) ** 2
    weights[3] = 0 if case["weights"] == "with a zero" else weights[3]
    return () if case["weights"] == "no" else (weights,)


def cross_entropy(z, labels, weights=None, *, label_smoothing, ignore_index=None):
    """PyTorch's, with classes last; it has no gradient for the weights, which is that of their formula."""
    classes, soft = z.shape[-1], labels.is_floating_point()
    ignored = -1 if ignore_index is None else ignore_index
    config = {"reduction": "none", "label_smoothing": label_smoothing}
    if not soft:
        config["ignore_index"] = ignored
    flat = labels.reshape(-1, classes) if soft else labels.reshape(-1)
    fixed = None if weights is None else weights.detach()
    loss = functional("cross_entropy")(z.reshape(-1, classes), flat, fixed, **config).reshape(z.shape[:-1])
    if weights is None:
        return loss
    q = labels if soft else torch.nn.functional.one_hot(labels.clamp(min=0), classes).to(z.dtype)
    t = (1 - label_smoothing) * q + label_smoothing / classes
    counted = 1 if soft else (labels != ignored)[..., None]
    formula = -(weights * counted * t.detach() * torch.log_softmax(z.detach(), -1)).sum(-1)
    return loss + formula - formula.detach()


@pytest.mark.parametrize("case", grid(12, ODD, **CLASSES))
def test_cross_entropy_of_classes(case):
    shape, config = case["shape"], {key: case[key] for key in ("ignore_index", "label_smoothing")}
    labels = LABELS.copy()
    labels[[1, 4]] = labels[[1, 4]] if case["ignore_index"] is None else case["ignore_index"]
    arrays = 3 * draw(1, *shape, 5), labels.reshape(shape), *class_weights(case)
    theirs = functools.partial(cross_entropy, **config)
    same_as_torch(jcnn.softmax_cross_entropy, theirs, arrays, vjp=case["weights"] == "no", **config)


@pytest.mark.parametrize(
    "case", grid(5, **{key: CLASSES[key] for key in ("shape", "weights", "label_smoothing")})
)
def test_cross_entropy_of_distributions(case):
    shape, smoothing = case["shape"], case["label_smoothing"]
    targets = np.exp(draw(3, *shape, 5))
    arrays = 3 * draw(1, *shape, 5), targets / targets.sum(-1, keepdims=True), *class_weights(case)
    theirs = functools.partial(cross_entropy, label_smoothing=smoothing)
    same_as_torch(jcnn.softmax_cross_entropy, theirs, arrays, label_smoothing=smoothing)


@pytest.mark.parametrize("scale", [1e3, 1e300])
def test_cross_entropy_of_huge_logits(scale):
    theirs = functools.partial(cross_entropy, label_smoothing=0.0)
    same_as_torch(jcnn.softmax_cross_entropy, theirs, (scale * draw(4, 6, 5), LABELS))


def test_reduction_to_a_mean_is_left_to_the_user():
    """PyTorch's weighted mean: the sum over the sum of the weights of the labels that count."""
    z, weights = draw(5, 6, 5), draw(2, 5) ** 2
    expected = functional("cross_entropy")(*map(torch.tensor, (z, LABELS, weights)), ignore_index=4)
    loss = jcnn.softmax_cross_entropy(z, LABELS, weights, ignore_index=4)
    assert abs(loss.sum() / weights[LABELS][LABELS != 4].sum() - expected.item()) < 1e-9


BINARY = {
    "shape": [(4, 3), (5,), (2, 1, 3)],
    "pos_weight": ["no", "per entry", "one"],
    "labels": ["soft", "hard"],
}


@pytest.mark.parametrize("case", grid(6, **BINARY))
def test_binary_cross_entropy(case):
    """PyTorch has no gradient for `pos_weight`, either."""
    shape, rng = case["shape"], np.random.default_rng(6)
    labels = rng.random(shape) if case["labels"] == "soft" else rng.integers(0, 2, shape)
    weight = {"no": (), "per entry": (draw(7, shape[-1]) ** 2,), "one": (draw(7) ** 2,)}[case["pos_weight"]]

    def theirs(z, y, w=None):
        fixed = None if w is None else w.detach()
        op = functional("binary_cross_entropy_with_logits")
        loss = op(z, y.to(z.dtype), pos_weight=fixed, reduction="none")
        if w is None:
            return loss
        formula = w * (y * torch.nn.functional.softplus(-z)).detach()
        return loss + formula - formula.detach()

    z = np.where(np.arange(np.prod(shape)) == 1, 800.0, 3 * draw(8, np.prod(shape))).reshape(shape)
    same_as_torch(jcnn.binary_cross_entropy, theirs, (z, labels, *weight))


@pytest.mark.parametrize("delta", [1.0, 0.3, 5])
def test_squared_error_and_huber(delta):
    arrays = 2 * draw(9, 3, 4), draw(10, 3, 4)
    arrays[0][0, 0] = arrays[1][0, 0]
    arrays[0][1, 1] = arrays[1][1, 1] + delta  # at the kink of the slope
    same_as_torch(jcnn.mse, functools.partial(functional("mse_loss"), reduction="none"), arrays)
    huber = functools.partial(functional("huber_loss"), reduction="none", delta=delta)
    same_as_torch(jcnn.huber, huber, arrays, delta=delta)


@pytest.mark.parametrize("log_targets", [False, True])
def test_kl_divergence(log_targets):
    log_q, p = np.log(softmax(draw(11, 3, 5))), softmax(draw(12, 3, 5))

    def theirs(log_q, p):
        return functional("kl_div")(log_q, p, reduction="none", log_target=log_targets).sum(-1)

    same_as_torch(
        jcnn.kl_divergence, theirs, (log_q, np.log(p) if log_targets else p), log_targets=log_targets
    )


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x)
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0, None), (0.5, 0.9), (3, 0.0)], ids=str)
def test_focal_loss(gamma, alpha):
    """Torchvision's formula, which PyTorch does not have itself."""
    labels = np.array([[0, 1, 1], [1, 0, 0]])

    def theirs(z, y):
        y = y.to(z.dtype)
        ce = torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none")
        p = torch.sigmoid(z)
        wrong = 1 - (p * y + (1 - p) * (1 - y))
        balance = 1 if alpha is None else alpha * y + (1 - alpha) * (1 - y)
        return balance * wrong**gamma * ce

    same_as_torch(jcnn.focal_loss, theirs, (3 * draw(13, 2, 3), labels), gamma=gamma, alpha=alpha)
