"""Softmax cross-entropy, with everything that people add to it in one place.

Shapes.  logits z, dz [..., K];  labels: ints [...] or distributions [..., K];  class_weights v [K];
loss, dloss [...].  Sums run over the K classes.

Forward.  With the target t (one-hot, or the given distribution q, mixed with label smoothing s),

    t    = (1 - s) q + s / K
    lse  = log sum exp z                        shifted by max z, so that it never overflows
    nll  = lse - z                              the negative log-probability of every class
    loss = sum(v t nll) + zeta lse^2            0 log 0 = 0: a class of weight v t = 0 adds nothing

The one-hot q is never built: with ints, sum(v q nll) is v nll of one class, and sum(v q) its v.

Backward.  With p = exp(z - lse), lse' = sum(p z'), so

    loss' = sum(v t) lse' - sum(v t z') + 2 zeta lse lse' + sum(v' t nll) + sum(v t' nll)

and, reading off the factors of z', v' and q' (t' = (1 - s) q'),

    dz = dloss (p (sum(v t) + 2 zeta lse) - v t)            without smoothing, weights and zeta: dloss (p - q)
    dv = sum over examples of dloss t nll
    dq = dloss (1 - s) v nll                                None for int labels

Decisions.  `ignore_index`: where the label is that int, loss and cotangents are 0, whatever the logits.
An int label outside [0, K) is an error where its value is known; under `jit` the loss and dz of that
example are NaN, never those of another class.

Kinks.  None.
Reference.  Goodfellow, Bengio & Courville 2016, Deep Learning, section 6.2.2.3; label smoothing: Szegedy et
al. 2016, arXiv:1512.00567, section 7; z-loss: de Brébisson & Vincent 2016, arXiv:1604.08859.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from jcnn import check
from jcnn.kernels import widen
from jcnn.kernels.classes import class_sum
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Logits = Float[Array, "*n k"]
Labels = Integer[Array, "*n"] | Float[Array, "*n k"]
PerExample = Float[Array, "*n"]


@residuals
class CrossEntropyResiduals:
    logits: Logits  # the input
    labels: Labels  # as given
    class_weights: Float[Array, " k"] | None  # as given
    lse: PerExample  # log sum exp of the logits: the softmax is exp(logits - lse)
    label_smoothing: float | int = static()
    ignore_index: int | None = static()
    z_loss: float | int = static()


def _is_class(labels: Array) -> bool:
    return jnp.issubdtype(labels.dtype, jnp.integer)


def _distribution(labels: Array, classes: int, dtype) -> Array:
    """q [..., K]; for int labels a comparison with the class numbers, which XLA fuses away."""
    if _is_class(labels):
        labels = _widened(labels)
        labels = jnp.arange(classes, dtype=labels.dtype) == labels[..., None]
    return labels.astype(dtype)


def _weights(class_weights: Array | None, classes: int, dtype) -> Array:
    """v [K], of the accumulation dtype."""
    return jnp.ones(classes, dtype) if class_weights is None else widen(class_weights)


def _widened(labels: Array) -> Array:
    """Int labels in a dtype that holds every class number: uint8 would wrap at 256 classes."""
    return labels.astype(jnp.int64 if labels.dtype.itemsize == 8 else jnp.int32)


def _nan_if_invalid(values: Array, labels: Array, classes: int) -> Array:
    """Values [...], NaN for examples whose label names no class."""
    if not _is_class(labels):
        return values
    labels = _widened(labels)
    return jnp.where((labels < 0) | (labels >= classes), jnp.nan, values)


def _zero_if_ignored(values: Array, labels: Array, ignore_index: int | None) -> Array:
    """Values [...] or [..., K], 0 for ignored examples."""
    if ignore_index is None:
        return values
    ignored = jnp.expand_dims(_widened(labels) == ignore_index, range(labels.ndim, values.ndim))
    return jnp.where(ignored, 0, values)


def softmax_cross_entropy_fwd(
    logits: Logits,
    labels: Labels,
    class_weights: Float[Array, " k"] | None = None,
    *,
    label_smoothing: float | int = 0.0,
    ignore_index: int | None = None,
    z_loss: float | int = 0.0,
) -> tuple[PerExample, CrossEntropyResiduals]:
    """Cross-entropy between softmax(logits) and labels, per example (take the mean yourself).

    Args:
        logits: [..., K], any size, -inf included.
        labels: classes, ints [...] in [0, K), or distributions, [..., K] in logits' dtype.
        class_weights: weight of each class, [K] in logits' dtype.
        label_smoothing: s in [0, 1]: the target becomes (1 - s) labels + s / K.
        ignore_index: an int label whose examples have loss 0 and gradient 0.
        z_loss: zeta >= 0: adds zeta * log(sum(exp(logits)))^2.

    Returns:
        Loss per example, [...], in logits' dtype; nats.

    Raises:
        TypeError: logits not floating point, labels neither ints nor of logits' dtype.
        ValueError: shapes that do not fit together, configuration out of range, or a label outside [0, K)
            (under `jit`, where values are unknown, such an example's loss is NaN).

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> jcnn.softmax_cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))  # log 4
        Array([1.3862944], dtype=float32)
    """
    classes, lse = logits.shape[-1], _log_sum_exp(logits)
    v = _weights(class_weights, classes, lse.dtype)
    loss = z_loss * lse**2 if z_loss > 0 else jnp.zeros_like(lse)
    if label_smoothing < 1:
        loss += (1 - label_smoothing) * _nll_of_labels(logits, lse, labels, v)
    if label_smoothing > 0:
        everywhere = _weighted_nll(jnp.sum(v), lse, class_sum(_times, v, logits))
        loss += label_smoothing / classes * everywhere
    loss = _zero_if_ignored(_nan_if_invalid(loss, labels, classes), labels, ignore_index)
    return loss.astype(logits.dtype), CrossEntropyResiduals(
        logits, labels, class_weights, lse, label_smoothing, ignore_index, z_loss
    )


def _log_sum_exp(logits: Array) -> Array:
    """lse [...]; the maximum is taken of the narrow logits, so that no wide copy of them is made."""
    top = jax.lax.stop_gradient(widen(jnp.max(logits, -1)))
    top = jnp.where(jnp.isfinite(top), top, 0)
    return top + jnp.log(class_sum(lambda z: jnp.exp(widen(z) - top[..., None]), logits))


def _nll_of_labels(logits: Array, lse: Array, labels: Array, v: Array) -> Array:
    """sum(v q nll), [...]; for int labels of one class, without a pass over all of them."""
    weight = _weight_of_labels(labels, v)
    if _is_class(labels):
        nll = lse - widen(jnp.take_along_axis(logits, _index(labels, v)[..., None], -1)[..., 0])
        return jnp.where(weight == 0, 0, weight * nll)
    return _weighted_nll(weight, lse, class_sum(lambda q, v, z: _times(v * widen(q), z), labels, v, logits))


def _weighted_nll(weight: Array, lse: Array, weighted_logits: Array) -> Array:
    """sum(r nll) = lse sum(r) - sum(r z), [...], for which nll of every class is not written down."""
    return jnp.where(weight == 0, 0, lse * weight) - weighted_logits


def _times(weights: Array, z: Array) -> Array:
    return jnp.where(weights == 0, 0, weights * widen(z))


def _weight_of_labels(labels: Array, v: Array) -> Array:
    """sum(v q), [...]"""
    return v[_index(labels, v)] if _is_class(labels) else class_sum(lambda q, v: v * widen(q), labels, v)


def _index(labels: Array, v: Array) -> Array:
    """Labels as positions in v; those that name no class, see `_nan_if_invalid`, as any."""
    return jnp.clip(_widened(labels), 0, len(v) - 1)


def softmax_cross_entropy_bwd(res: CrossEntropyResiduals, dloss: PerExample):
    z = res.logits.astype(res.lse.dtype)
    classes, lse = z.shape[-1], res.lse[..., None]
    dloss = _nan_if_invalid(dloss.astype(z.dtype), res.labels, classes)[..., None]
    smoothing = res.label_smoothing
    v = _weights(res.class_weights, classes, z.dtype)
    t = (1 - smoothing) * _distribution(res.labels, classes, z.dtype) + smoothing / classes
    weight = (1 - smoothing) * _weight_of_labels(res.labels, v) + smoothing * jnp.mean(v)
    p = jnp.exp(z - lse)
    pull = weight[..., None]
    if res.z_loss > 0:
        pull += 2 * res.z_loss * lse
    dz = _zero_if_ignored(dloss * (p * pull - v * t), res.labels, res.ignore_index)

    dv = dq = None
    if res.class_weights is not None:
        per_class = dloss * t * jnp.where(t == 0, 0, lse - z)
        dv = jnp.sum(_zero_if_ignored(per_class, res.labels, res.ignore_index), range(z.ndim - 1))
    if not _is_class(res.labels):
        dq = dloss * (1 - smoothing) * v * (lse - z)
    return dz, dq, dv


def softmax_cross_entropy_reference(
    logits, labels, class_weights=None, *, label_smoothing=0.0, ignore_index=None, z_loss=0.0
):
    classes = logits.shape[-1]
    lse = jax.nn.logsumexp(logits, axis=-1)
    q = jax.nn.one_hot(labels, classes, dtype=logits.dtype) if _is_class(labels) else labels
    vt = (1 - label_smoothing) * q + label_smoothing / classes
    if class_weights is not None:
        vt = class_weights * vt
    log_p = jnp.where((vt == 0) & jnp.isneginf(logits), 0, logits - lse[..., None])
    loss = -jnp.sum(vt * log_p, -1)
    if z_loss > 0:
        loss += z_loss * lse**2
    return _zero_if_ignored(_nan_if_invalid(loss, labels, classes), labels, ignore_index)


def _check_all(logits, labels, class_weights=None, *, label_smoothing, ignore_index, z_loss) -> None:
    op = "softmax_cross_entropy"
    check.floating(op, logits=logits, class_weights=class_weights)
    if logits.ndim < 1 or logits.shape[-1] < 1:
        check.fail(op, "logits", f"shape {logits.shape}", "[..., K] with K >= 1")
    check.shape(op, "class_weights", class_weights, logits.shape[-1:], "like logits' last axis")
    check.number(op, "label_smoothing", label_smoothing, 0, 1)
    check.number(op, "z_loss", z_loss, 0)
    if _is_class(labels):
        check.shape(op, "labels", labels, logits.shape[:-1], "one class per row of logits")
        _check_labels(op, labels, logits.shape[-1], ignore_index)
    elif labels.dtype == logits.dtype:
        check.shape(op, "labels", labels, logits.shape, "like logits")
        if ignore_index is not None:
            check.fail(op, "ignore_index", ignore_index, "None for labels that are distributions")
    else:
        check.fail(op, "labels", f"dtype {labels.dtype}", f"ints, or {logits.dtype} like logits", TypeError)


def _check_labels(op: str, labels: Array, classes: int, ignore_index: int | None) -> None:
    if ignore_index is not None and (not isinstance(ignore_index, int) or isinstance(ignore_index, bool)):
        check.fail(op, "ignore_index", repr(ignore_index), "an int or None")
    if check.is_concrete(labels):
        known = np.asarray(labels)
        bad = known[(known < 0) | (known >= classes)]
        bad = bad[bad != ignore_index] if ignore_index is not None else bad
        if bad.size:
            check.fail(op, "labels", f"the class {bad[0]}", f"classes in [0, {classes})")


softmax_cross_entropy = Rule(
    softmax_cross_entropy_fwd, softmax_cross_entropy_bwd, softmax_cross_entropy_reference, _check_all
)
