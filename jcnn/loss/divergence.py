"""Kullback-Leibler divergence of predicted distributions from given ones, as in distillation.

Shapes.  log_predictions q, targets p, dq, dp [..., K];  loss, dloss [...].  Sums run over the K classes.

Forward.  With targets that are probabilities p, or their logarithms, p = exp(log p),

    loss = sum(p (log p - q))              KL(p || exp q); 0 log 0 = 0: a class of p = 0 adds nothing

Neither p nor exp q is normalized here.  For q = log_softmax(logits) the loss is the softmax cross-entropy
with labels p less the entropy of p, which the logits do not move.

Backward.  loss' = sum(p' (log p - q) + p (log p)' - p q'), and p (log p)' = p', so

    dq     = -dloss p
    dp     = dloss (log p - q + 1)         of probabilities
    dlog p = dloss p (log p - q + 1)       of their logarithms, as p' = p (log p)'

Kinks.  At p = 0 the derivative in p is -inf, and NaN times dloss = 0; that in log p is 0.  Decided: dp = 0 of
a class of p = 0, which has no part in the loss.
Reference.  Kullback & Leibler 1951, Annals of Mathematical Statistics 22; Hinton, Vinyals & Dean 2015,
arXiv:1503.02531.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jcnn import check
from jcnn.kernels import widen
from jcnn.kernels.classes import class_sum
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Distributions = Float[Array, "*n k"]
PerExample = Float[Array, "*n"]


@residuals
class KlResiduals:
    log_predictions: Distributions  # q, the input
    targets: Distributions  # as given
    log_targets: bool = static()


def _both(targets: Array, log_targets: bool) -> tuple[Array, Array]:
    """p and, where it is not 0, log p."""
    targets = widen(targets)
    if log_targets:
        return jnp.exp(targets), targets
    return targets, jnp.log(jnp.where(targets == 0, 1, targets))


def kl_divergence_fwd(
    log_predictions: Distributions, targets: Distributions, *, log_targets: bool = False
) -> tuple[PerExample, KlResiduals]:
    """KL(targets || exp(log_predictions)), per example: sum(targets (log targets - log_predictions)).

    Args:
        log_predictions: logarithms of probabilities, [..., K], as of `log_softmax`; neither logits nor
            probabilities.
        targets: probabilities, or with `log_targets` their logarithms, [..., K], in the same dtype.
        log_targets: whether `targets` are logarithms.

    Returns:
        Divergence per example, [...], in the dtype of the arguments; nats.  Take the mean yourself.

    Raises:
        TypeError: not floating point, or of two dtypes.
        ValueError: shapes that differ, no axis of classes, or a `log_targets` that is no bool.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> uniform, sure = jnp.log(jnp.full((1, 4), 0.25)), jnp.array([[0.0, 1, 0, 0]])
        >>> jcnn.kl_divergence(uniform, sure)  # log 4
        Array([1.3862944], dtype=float32)
    """

    def term(q: Array, targets: Array) -> Array:
        p, log_p = _both(targets, log_targets)
        return jnp.where(p == 0, 0, p * (log_p - widen(q)))

    loss = class_sum(term, log_predictions, targets)
    return loss.astype(log_predictions.dtype), KlResiduals(log_predictions, targets, log_targets)


def kl_divergence_bwd(res: KlResiduals, dloss: PerExample) -> tuple[Distributions, Distributions]:
    p, log_p = _both(res.targets, res.log_targets)
    dloss = widen(dloss)[..., None]
    slope = jnp.where(p == 0, 0, log_p - widen(res.log_predictions) + 1)
    return -dloss * p, dloss * (p * slope if res.log_targets else slope)


def kl_divergence_reference(log_predictions, targets, *, log_targets=False):
    if log_targets:
        p = jnp.exp(targets)
        return jnp.sum(jnp.where(p == 0, 0, p * (targets - log_predictions)), -1)
    log_p = jnp.log(jnp.where(targets == 0, 1, targets))
    return jnp.sum(jnp.where(targets == 0, 0, targets * (log_p - log_predictions)), -1)


def _kl_divergence_check(log_predictions, targets, *, log_targets) -> None:
    op = "kl_divergence"
    check.floating(op, log_predictions=log_predictions, targets=targets)
    if log_predictions.ndim == 0:
        check.fail(op, "log_predictions", "shape ()", "[..., K]")
    check.shape(op, "targets", targets, log_predictions.shape, "like log_predictions")
    check.choice(op, "log_targets", log_targets, (True, False))


kl_divergence = Rule(kl_divergence_fwd, kl_divergence_bwd, kl_divergence_reference, _kl_divergence_check)
