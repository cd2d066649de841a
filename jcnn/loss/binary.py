"""Losses of yes-or-no questions, one for each logit: binary cross-entropy and the focal loss.

Shapes.  logits z, labels y, loss and their cotangents: any shape, all the same;  pos_weight w [] or [C], the
last axis of z.

With p = sigmoid(z) and n = sigmoid(-z) = 1 - p, computed apart so that neither is rounded to 0,

    nll_p = softplus(-z) = -log p        nll_p' = -n z'
    nll_n = softplus(z)  = -log n        nll_n' =  p z'        p' = p n z' = -n'

Binary cross-entropy.  Forward, with label smoothing s,

    t    = (1 - s) y + s / 2
    loss = w t nll_p + (1 - t) nll_n               0 inf = 0: a certain label says nothing about the other

Backward, reading off the factors of z', y' and w',

    dz = dloss ((1 - t) p - w t n)                 without w and s: dloss (p - y)
    dy = dloss (1 - s) (w nll_p - nll_n)           None for int and bool labels
    dw = sum of dloss t nll_p                      over the axes that w does not have

Focal loss.  Forward, with the probability r of the wrong answer (in the paper 1 - p_t),

    r    = y n + (1 - y) p                         a = alpha y + (1 - alpha) (1 - y), or 1 without alpha
    ce   = y nll_p + (1 - y) nll_n
    loss = a r^gamma ce

Backward.  From r' = (1 - 2 y) p n z' + (n - p) y', ce' = ((1 - y) p - y n) z' - z y' (as nll_p - nll_n is -z)
and a' = (2 alpha - 1) y',

    dz = dloss a r^gamma ((1 - y) p - y n + gamma (1 - 2 y) p n ce / r)
    dy = dloss r^gamma ((2 alpha - 1) ce + a (gamma (n - p) ce / r - z))

Where y is 0 or 1 and the answer right, r, ce and p n go to 0 as one, ce / r to 1 and r^gamma, for any
gamma > 0, to 0: there is no r^(gamma - 1) to overflow.  Where r is 0 to the machine, dz and dy are 0.

Kept.  Labels that are ints or bools have no cotangent: loss' = slope z' is all that the backward needs, and
the slope is kept in place of z and y; otherwise the arguments are.
Decisions.  An int label other than 0 and 1 is an error where its value is known; under `jit` the loss and dz
of that element are NaN.
Kinks.  None.
Reference.  Goodfellow, Bengio & Courville 2016, Deep Learning, section 6.2.2.2; Lin et al. 2017,
arXiv:1708.02002, equations 4 and 5, with p_t and alpha_t linear in y between 0 and 1.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Integer

from jcnn import check
from jcnn.kernels import widen
from jcnn.kernels.softplus import softplus_of_both
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Elements = Float[Array, "*shape"]
Labels = Float[Array, "*shape"] | Integer[Array, "*shape"] | Bool[Array, "*shape"]
PosWeight = Float[Array, ""] | Float[Array, " c"]


@residuals
class Slope:
    slope: Elements  # of the loss in the logits: all that is needed where the labels have no cotangent


@residuals
class BinaryResiduals:
    logits: Elements  # the input
    labels: Labels  # as given
    pos_weight: PosWeight | None  # as given
    label_smoothing: float | int = static()


def _is_hard(labels: Array) -> bool:
    return not jnp.issubdtype(labels.dtype, jnp.floating)


def _soft(labels: Array, dtype) -> Array:
    """y in the accumulation dtype; NaN for ints that are no label."""
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return jnp.where((labels == 0) | (labels == 1), labels.astype(dtype), jnp.nan)
    return labels.astype(dtype)


def _cross_entropy(yes: Array, no: Array, z: Array) -> Array:
    """yes nll_p + no nll_n"""
    nll_p, nll_n = softplus_of_both(z)
    return jnp.where(yes == 0, 0, yes * nll_p) + jnp.where(no == 0, 0, no * nll_n)


def _cross_entropy_slope(yes: Array, no: Array, z: Array) -> Array:
    return no * lax.logistic(z) - yes * lax.logistic(-z)


def _targets(labels: Array, pos_weight: Array | None, label_smoothing: float | int, dtype) -> tuple:
    """t and the weights of nll_p and nll_n, w t and 1 - t."""
    t = (1 - label_smoothing) * _soft(labels, dtype) + label_smoothing / 2
    return t, t if pos_weight is None else widen(pos_weight) * t, 1 - t


def binary_cross_entropy_fwd(
    logits: Elements,
    labels: Labels,
    pos_weight: PosWeight | None = None,
    *,
    label_smoothing: float | int = 0.0,
) -> tuple[Elements, Slope | BinaryResiduals]:
    """Cross-entropy between sigmoid(logits) and labels, per element (take the mean yourself).

    Args:
        logits: any shape, infinities included.
        labels: of the same shape; probabilities in [0, 1] in logits' dtype, or ints or bools 0 and 1.
        pos_weight: factor of the loss of label 1, [] or one for each entry of the last axis, [C], in
            logits' dtype.
        label_smoothing: s in [0, 1]: the labels become (1 - s) labels + s / 2.

    Returns:
        Loss per element, an array like logits; nats.

    Raises:
        TypeError: logits not floating point, labels neither ints, bools nor of logits' dtype.
        ValueError: shapes that do not fit together, configuration out of range, or an int label that is
            neither 0 nor 1 (under `jit`, where values are unknown, such an element's loss is NaN).

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> jcnn.binary_cross_entropy(jnp.zeros(2), jnp.array([0, 1]))  # log 2
        Array([0.6931472, 0.6931472], dtype=float32)
    """
    z = widen(logits)
    _, yes, no = _targets(labels, pos_weight, label_smoothing, z.dtype)
    loss = _cross_entropy(yes, no, z).astype(logits.dtype)
    if _is_hard(labels) and pos_weight is None:
        return loss, Slope(_cross_entropy_slope(yes, no, z).astype(logits.dtype))
    return loss, BinaryResiduals(logits, labels, pos_weight, label_smoothing)


def binary_cross_entropy_bwd(res: Slope | BinaryResiduals, dloss: Elements):
    dloss = widen(dloss)
    if isinstance(res, Slope):
        return dloss * widen(res.slope), None, None
    z, w, smoothing = widen(res.logits), res.pos_weight, res.label_smoothing
    t, yes, no = _targets(res.labels, w, smoothing, z.dtype)
    dz = dloss * _cross_entropy_slope(yes, no, z)

    nll_p, nll_n = softplus_of_both(z)
    dy = dw = None
    if w is not None:
        of_each = dloss * jnp.where(t == 0, 0, t * nll_p)
        dw = jnp.sum(of_each, range(z.ndim - w.ndim))
    if not _is_hard(res.labels):
        dy = dloss * (1 - smoothing) * (-z if w is None else widen(w) * nll_p - nll_n)
    return dz, dy, dw


def binary_cross_entropy_reference(logits, labels, pos_weight=None, *, label_smoothing=0.0):
    t = (1 - label_smoothing) * _soft(labels, logits.dtype) + label_smoothing / 2
    yes = t if pos_weight is None else pos_weight * t
    nll_p, nll_n = -jax.nn.log_sigmoid(logits), -jax.nn.log_sigmoid(-logits)
    loss_p = jnp.where((yes == 0) & jnp.isinf(nll_p), 0, yes * nll_p)
    return loss_p + jnp.where((t == 1) & jnp.isinf(nll_n), 0, (1 - t) * nll_n)


def _check_labels(op: str, logits: Array, labels: Array) -> None:
    check.floating(op, logits=logits)
    kinds = (jnp.integer, jnp.bool_, logits.dtype)
    if not any(jnp.issubdtype(labels.dtype, kind) for kind in kinds):
        expected = f"ints, bools, or {logits.dtype} like logits"
        check.fail(op, "labels", f"dtype {labels.dtype}", expected, TypeError)
    check.shape(op, "labels", labels, logits.shape, "like logits")
    if jnp.issubdtype(labels.dtype, jnp.integer) and check.is_concrete(labels):
        known = np.asarray(labels)
        bad = known[(known != 0) & (known != 1)]
        if bad.size:
            check.fail(op, "labels", f"the label {bad[0]}", "0 and 1")


def _check_binary_cross_entropy(logits, labels, pos_weight=None, *, label_smoothing) -> None:
    op = "binary_cross_entropy"
    _check_labels(op, logits, labels)
    check.floating(op, logits=logits, pos_weight=pos_weight)
    if pos_weight is not None and pos_weight.shape != ():
        check.shape(op, "pos_weight", pos_weight, logits.shape[-1:], "like logits' last axis, or ()")
    check.number(op, "label_smoothing", label_smoothing, 0, 1)


binary_cross_entropy = Rule(
    binary_cross_entropy_fwd,
    binary_cross_entropy_bwd,
    binary_cross_entropy_reference,
    _check_binary_cross_entropy,
)


@residuals
class FocalResiduals:
    logits: Elements  # the input
    labels: Elements  # as given
    gamma: float | int = static()
    alpha: float | int | None = static()


def _balance(y: Array, alpha: float | int | None) -> Array:
    """a"""
    return jnp.ones_like(y) if alpha is None else alpha * y + (1 - alpha) * (1 - y)


def _wrong(z: Array, y: Array, gamma: float | int) -> tuple[Array, Array]:
    """r^gamma, and r with 1 for 0, where it can be divided by: JAX's derivative of 0^gamma is not finite."""
    r = y * lax.logistic(-z) + (1 - y) * lax.logistic(z)
    safe = jnp.where(r == 0, 1, r)
    return jnp.where(r == 0, 0.0**gamma, safe**gamma), safe


def _focal_slope(z: Array, y: Array, gamma: float | int, alpha: float | int | None) -> Array:
    power, r = _wrong(z, y, gamma)
    pn = lax.logistic(z) * lax.logistic(-z)
    bend = jnp.where(pn == 0, 0, pn * _cross_entropy(y, 1 - y, z) / r)
    return _balance(y, alpha) * power * (_cross_entropy_slope(y, 1 - y, z) + gamma * (1 - 2 * y) * bend)


def focal_loss_fwd(
    logits: Elements, labels: Labels, *, gamma: float | int = 2.0, alpha: float | int | None = 0.25
) -> tuple[Elements, Slope | FocalResiduals]:
    """Sigmoid focal loss of Lin et al. 2017 (arXiv:1708.02002), per element (take the sum yourself).

    Binary cross-entropy times a r^gamma, where r is the probability given to the wrong answer.

    Args:
        logits: any shape, infinities included.
        labels: of the same shape; probabilities in [0, 1] in logits' dtype, or ints or bools 0 and 1.
        gamma: >= 0, how much less an answer counts that is right already; 0 for not at all.
        alpha: in [0, 1], weight of label 1, where label 0 has 1 - alpha; None for no weights.

    Returns:
        Loss per element, an array like logits; nats.

    Raises:
        TypeError: logits not floating point, labels neither ints, bools nor of logits' dtype.
        ValueError: shapes that differ, configuration out of range, or an int label that is neither 0 nor 1
            (under `jit`, where values are unknown, such an element's loss is NaN).
    """
    z = widen(logits)
    y = _soft(labels, z.dtype)
    loss = _balance(y, alpha) * _wrong(z, y, gamma)[0] * _cross_entropy(y, 1 - y, z)
    if _is_hard(labels):
        return loss.astype(logits.dtype), Slope(_focal_slope(z, y, gamma, alpha).astype(logits.dtype))
    return loss.astype(logits.dtype), FocalResiduals(logits, labels, gamma, alpha)


def focal_loss_bwd(res: Slope | FocalResiduals, dloss: Elements):
    dloss = widen(dloss)
    if isinstance(res, Slope):
        return dloss * widen(res.slope), None
    z, y, gamma, alpha = widen(res.logits), widen(res.labels), res.gamma, res.alpha
    power, r = _wrong(z, y, gamma)
    ce, turn = _cross_entropy(y, 1 - y, z), lax.logistic(-z) - lax.logistic(z)
    of_balance = 0 if alpha is None else (2 * alpha - 1) * ce
    slope_in_y = of_balance + _balance(y, alpha) * (gamma * turn * ce / r - z)
    return dloss * _focal_slope(z, y, gamma, alpha), dloss * jnp.where(power == 0, 0, power * slope_in_y)


def focal_loss_reference(logits, labels, *, gamma=2.0, alpha=0.25):
    y = _soft(labels, logits.dtype)
    wrong = y * jax.nn.sigmoid(-logits) + (1 - y) * jax.nn.sigmoid(logits)
    loss = wrong**gamma * binary_cross_entropy_reference(logits, labels)
    return loss if alpha is None else (alpha * y + (1 - alpha) * (1 - y)) * loss


def _check_focal_loss(logits, labels, *, gamma, alpha) -> None:
    _check_labels("focal_loss", logits, labels)
    check.number("focal_loss", "gamma", gamma, 0)
    if alpha is not None:
        check.number("focal_loss", "alpha", alpha, 0, 1)


focal_loss = Rule(focal_loss_fwd, focal_loss_bwd, focal_loss_reference, _check_focal_loss)
