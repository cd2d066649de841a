"""Softmax, its logarithm, its normaliser, and the cross-entropy."""

import jax
import jax.numpy as jnp
from jax import lax

from experiments.classics import kit, misuse
from experiments.classics.kit import Classic, anew, back, labelled, normal, part, plant, post


def softmax(x):
    """x [N, C]"""
    e = jnp.exp(x - lax.stop_gradient(x.max(-1, keepdims=True)))
    return e / e.sum(-1, keepdims=True)


def softmax_fwd(x):
    y = softmax(x)
    return y, (y,)


def softmax_bwd(res, dy):
    (y,) = res
    return (y * (dy - (dy * y).sum(-1, keepdims=True)),)


def logsumexp(x):
    """x [N, C] to [N]"""
    top = lax.stop_gradient(x.max(-1))
    return top + jnp.log(jnp.exp(x - top[:, None]).sum(-1))


def logsumexp_fwd(x):
    y = logsumexp(x)
    return y, (x, y)


def logsumexp_bwd(res, dy):
    x, y = res
    return (jnp.exp(x - y[:, None]) * dy[:, None],)


def log_softmax(x):
    """x [N, C]"""
    return x - logsumexp(x)[:, None]


def log_softmax_fwd(x):
    y = log_softmax(x)
    return y, (y,)


def log_softmax_bwd(res, dy):
    return (dy - jnp.exp(*res) * dy.sum(-1, keepdims=True),)


def one_hot(labels, logits):
    return (labels[:, None] == jnp.arange(logits.shape[-1], dtype=labels.dtype)).astype(logits.dtype)


def cross_entropy(logits, labels):
    """logits [N, C], labels [N]; the mean over N"""
    return -(log_softmax(logits) * one_hot(labels, logits)).sum(-1).mean()


def cross_entropy_fwd(logits, labels):
    return cross_entropy(logits, labels), (logits, labels)


def cross_entropy_bwd(res, dy):
    logits, labels = res
    return (softmax(logits) - one_hot(labels, logits)) * (dy / len(labels)), None


SOFTMAX = softmax, softmax_fwd, softmax_bwd
LOGSUMEXP = logsumexp, logsumexp_fwd, logsumexp_bwd
LOG_SOFTMAX = log_softmax, log_softmax_fwd, log_softmax_bwd
CROSS_ENTROPY = cross_entropy, cross_entropy_fwd, cross_entropy_bwd

PROJECTION = rf"\bsum|project|diagonal|jacobian|cross|shift|invarian|{kit.FACTOR}"


def total(a):
    return a.sum(-1, keepdims=True)


def unshifted(x):
    return jnp.exp(x) / total(jnp.exp(x))


def softmax_dx(dx):
    """dx of y and dy"""
    return back(SOFTMAX, lambda res, dy: (dx(*res, dy),))


def jacobian_bwd(res, dy):
    return (jnp.einsum("nc,ncij->ij", dy, *res),)


def logsumexp_dx(dx):
    """dx of x, y and dy, all as matrices"""
    return back(LOGSUMEXP, lambda res, dy: (dx(res[0], res[1][:, None], dy[:, None]),))


def log_softmax_dx(dx):
    """dx of y and dy"""
    return back(LOG_SOFTMAX, lambda res, dy: (dx(*res, dy),))


def cross_entropy_dx(dx):
    """dx of logits, the one-hot labels and dy / N"""
    return part(CROSS_ENTROPY, 0, lambda res, dy: dx(res[0], one_hot(*res[::-1]), dy / len(res[1])))


RULES = [
    Classic(
        "softmax",
        SOFTMAX,
        normal((5, 5)),
        {
            "diagonal": plant(
                "the Jacobian's diagonal only", PROJECTION, softmax_dx(lambda y, dy: y * (1 - y) * dy)
            ),
            "unweighted": plant(
                "sum of dy, not dy y", PROJECTION, softmax_dx(lambda y, dy: y * (dy - total(dy)))
            ),
            "mean": plant(
                "mean of dy y, not its sum",
                rf"{PROJECTION}|{kit.COUNT}",
                softmax_dx(lambda y, dy: y * (dy - total(dy * y) / 5)),
            ),
            "batch_axis": plant(
                "sum over the batch, silent as x is square",
                rf"{PROJECTION}|{kit.TRANSPOSED}|batch",
                softmax_dx(lambda y, dy: y * (dy - (dy * y).sum(0))),
            ),
            "overflow": plant(
                "softmax made again without the shift by the maximum",
                kit.UNSTABLE,
                anew(SOFTMAX, lambda res, dy: softmax_bwd((unshifted(*res),), dy)),
                "for x > 709, in float32 > 88",
            ),
            "jacobian_saved": plant(
                "the batch's Jacobian [N, C, N, C] saved",
                r"residual|memor|bytes|bloat|quadratic",
                (softmax, lambda x: (softmax(x), (jax.jacobian(softmax)(x),)), jacobian_bwd),
                "in the residuals' size only, 25 times x's and growing with it",
            ),
        },
    ),
    Classic(
        "logsumexp",
        LOGSUMEXP,
        normal((5, 5)),
        {
            "dy_along_classes": plant(
                "dy not made a column, silent as x is square",
                rf"broadcast|{kit.TRANSPOSED}",
                logsumexp_dx(lambda x, y, dy: jnp.exp(x - y) * dy.T),
            ),
            "hard_max": plant(
                "gradient of the maximum",
                rf"maxim|argmax|one.?hot|smooth|{kit.FACTOR}",
                logsumexp_dx(lambda x, y, dy: jnp.where(x == x.max(-1, keepdims=True), dy, 0)),
            ),
            "not_normalised": plant(
                "exp(x) for the softmax",
                rf"normali|softmax|{kit.FACTOR}|{kit.UNSTABLE}",
                logsumexp_dx(lambda x, y, dy: jnp.exp(x) * dy),
            ),
            "overflow": plant(
                "softmax without the shift by the maximum",
                kit.UNSTABLE,
                logsumexp_dx(lambda x, y, dy: unshifted(x) * dy),
                "for x > 709, in float32 > 88",
            ),
            "frozen_y": misuse.frozen(LOGSUMEXP, 1),
            "rectified": misuse.rectified(LOGSUMEXP),
            "column": plant(
                "fwd's primal is a column, f's a vector",
                rf"primal|forward|fwd|{kit.SHAPE}",
                (logsumexp, lambda x: (y := logsumexp(x), (y[:, None], (x, y)))[1], logsumexp_bwd),
                "in fwd(*args)[0]",
            ),
        },
    ),
    Classic(
        "log_softmax",
        LOG_SOFTMAX,
        normal((4, 6)),
        {
            "not_summed": plant(
                "dy for its sum", PROJECTION, log_softmax_dx(lambda y, dy: dy - jnp.exp(y) * dy)
            ),
            "sum_is_one": plant(
                "sum of dy taken as 1",
                rf"{PROJECTION}|zero|affine|{kit.NONLINEAR}",
                log_softmax_dx(lambda y, dy: dy - jnp.exp(y)),
                "also at dy = 0",
            ),
            "sign": plant(
                "plus for minus", kit.SIGN, log_softmax_dx(lambda y, dy: dy + jnp.exp(y) * total(dy))
            ),
            "uniform": plant(
                "mean of dy subtracted, as if the softmax were 1/C",
                rf"{PROJECTION}|mean|uniform|softmax",
                log_softmax_dx(lambda y, dy: dy - total(dy) / dy.shape[-1]),
            ),
            "no_exp": plant(
                "y for exp(y)",
                rf"\bexp\b|\blog|softmax|{PROJECTION}",
                log_softmax_dx(lambda y, dy: dy - y * total(dy)),
            ),
            "traced_only": misuse.traced_only(LOG_SOFTMAX),
            "numpy": misuse.numpy_only(LOG_SOFTMAX),
        },
    ),
    Classic(
        "cross_entropy",
        CROSS_ENTROPY,
        labelled(5, 4),
        {
            "sum": plant("1/N forgotten", kit.COUNT, post(CROSS_ENTROPY, 0, lambda d: 5 * d)),
            "classes_too": plant("1/(NC) for 1/N", kit.COUNT, post(CROSS_ENTROPY, 0, lambda d: d / 4)),
            "no_one_hot": plant(
                "one-hot labels not subtracted",
                rf"one.?hot|label|\bsum|target|{kit.PARTIAL}",
                cross_entropy_dx(lambda x, right, dy: softmax(x) * dy),
            ),
            "no_softmax": plant(
                "logits for the softmax",
                rf"softmax|normali|logit|{kit.FACTOR}",
                cross_entropy_dx(lambda x, right, dy: (x - right) * dy),
            ),
            "underflow": plant(
                "through -1/p and the softmax's Jacobian",
                kit.UNSTABLE,
                cross_entropy_dx(
                    lambda x, right, dy: softmax_bwd((softmax(x),), -right / softmax(x) * dy)[0]
                ),
                "where the right label's p underflows: logits 750 apart, in float32 104",
            ),
            "loss_is_last": plant(
                "dy ignored, as the loss comes last",
                rf"ignor|upstream|incoming|unused|{kit.FACTOR}|{kit.NONLINEAR}",
                cross_entropy_dx(lambda x, right, dy: (softmax(x) - right) / len(x)),
                "for dy other than 1",
            ),
            "bare": misuse.bare(CROSS_ENTROPY),
        },
    ),
]
