"""Losses, and the moments of a batch."""

import jax.numpy as jnp

from experiments.classics import kit, misuse
from experiments.classics.kit import Classic, back, labelled, normal, part, plant, post, pre
from experiments.classics.softmax import one_hot


def mse(x, target):
    """x and target [N, C]; the mean over both"""
    return jnp.square(x - target).mean()


def mse_fwd(x, target):
    return mse(x, target), (x - target,)


def mse_bwd(res, dy):
    (error,) = res
    dx = error * (2 * dy / error.size)
    return dx, -dx


def margins(scores, labels, delta=1):
    """How far each wrong score comes too close to the right one, [N, C]"""
    right = jnp.take_along_axis(scores, labels[:, None], 1)
    margin = scores - right + delta
    return jnp.where((margin > 0) & (one_hot(labels, scores) == 0), margin, 0)


def squared_hinge(scores, labels):
    """scores [N, C], labels [N]; the mean over N"""
    return jnp.square(margins(scores, labels)).sum(-1).mean()


def squared_hinge_fwd(scores, labels):
    return squared_hinge(scores, labels), (scores, labels)


def squared_hinge_bwd(res, dy):
    scores, labels = res
    return pushed(margins(scores, labels), one_hot(labels, scores)) * (2 * dy / len(labels)), None


def pushed(margin, right):
    """The wrong scores go down, the right one up by their sum."""
    return margin - right * margin.sum(-1, keepdims=True)


def moments(x):
    """x [N, C] to the means and variances [C]"""
    return x.mean(0), x.var(0)


def moments_fwd(x):
    return moments(x), (x,)


def moments_bwd(res, dy):
    (x,) = res
    return (mean_dx(x, dy[0]) + var_dx(x - x.mean(0), dy[1]),)


def mean_dx(x, dmean):
    return jnp.broadcast_to(dmean / len(x), x.shape)


def var_dx(centred, dvar):
    return 2 * centred * dvar / len(centred)


MSE = mse, mse_fwd, mse_bwd
HINGE = squared_hinge, squared_hinge_fwd, squared_hinge_bwd
MOMENTS = moments, moments_fwd, moments_bwd

LABEL = rf"label|right|\bcorrect class|target|one.?hot|{kit.PARTIAL}"


def hinge_dx(dx):
    """dx of the margins, the one-hot labels and dy / N"""

    def wrong(res, dy):
        return dx(margins(*res), one_hot(*res[::-1]), dy / len(res[1]))

    return part(HINGE, 0, wrong)


def hinge_dx_no_delta(res, dy):
    return pushed(margins(*res, 0), one_hot(*res[::-1])) * (2 * dy / len(res[1]))


def hinge_dx_first_label(res, dy):
    scores, labels = res
    return squared_hinge_bwd((scores, jnp.broadcast_to(labels[0], labels.shape)), dy)[0]


def moments_dx(dx):
    """dx of x, dmean and dvar"""
    return back(MOMENTS, lambda res, dy: (dx(*res, *dy),))


def moments_dy(mean=1, var=1):
    """dmean and dvar in other proportions"""
    return back(MOMENTS, lambda res, dy: moments_bwd(res, (dy[0] * mean, dy[1] * var)))


RULES = [
    Classic(
        "mse",
        MSE,
        normal((4, 3), (4, 3)),
        {
            "half": plant("factor 2 missing", kit.FACTOR, pre(MSE, lambda dy: dy / 2)),
            "batch_mean": plant("1/N for 1/(NC)", kit.COUNT, pre(MSE, lambda dy: dy * 3)),
            "swapped": plant(
                "dx and dtarget swapped",
                rf"swap|exchang|{kit.SIGN}|{kit.FACTOR}",
                back(MSE, lambda res, dy: mse_bwd(res, dy)[::-1]),
            ),
            "absolute_error": plant(
                "gradient of the absolute error",
                rf"\babs\b|{kit.FACTOR}|{kit.SIGN}",
                back(MSE, lambda res, dy: mse_bwd((jnp.sign(*res) / 2,), dy)),
            ),
            "zeros": misuse.zeros(MSE, 1),
            "frozen_error": misuse.frozen(MSE, 0),
        },
    ),
    Classic(
        "squared_hinge",
        HINGE,
        labelled(5, 4),
        {
            "half": plant("factor 2 missing", kit.FACTOR, post(HINGE, 0, lambda d: d / 2)),
            "right_forgotten": plant(
                "the right score not pushed up",
                rf"\bsum|{LABEL}",
                hinge_dx(lambda m, right, dy: m * (2 * dy)),
            ),
            "not_squared": plant(
                "gradient of the hinge, not of its square",
                rf"squar|margin|{kit.FACTOR}",
                hinge_dx(lambda m, right, dy: pushed(jnp.sign(m), right) * dy),
            ),
            "right_counted": plant(
                "the right score's own margin counted, which is 1",
                rf"margin|{LABEL}",
                hinge_dx(lambda m, right, dy: (m + right - right * m.sum(-1, keepdims=True)) * (2 * dy)),
            ),
            "no_delta": plant(
                "margin 0 for 1", rf"margin|delta|{kit.FACTOR}", part(HINGE, 0, hinge_dx_no_delta)
            ),
            "first_label": plant(
                "the first example's label for all",
                rf"batch|example|{LABEL}",
                part(HINGE, 0, hinge_dx_first_label),
                "for labels that differ",
            ),
        },
    ),
    Classic(
        "moments",
        MOMENTS,
        normal((6, 4)),
        {
            "no_dvar": plant(
                "dvar ignored",
                r"dvar|variance|second|output|ignor|zero|unused",
                moments_dy(var=0),
                "for dvar other than 0",
            ),
            "half": plant("factor 2 missing in dvar's part", kit.FACTOR, moments_dy(var=0.5)),
            "unbiased": plant(
                "1/(n - 1) for 1/n in dvar's part",
                rf"n ?- ?1|bessel|unbiased|{kit.COUNT}",
                moments_dy(var=6 / 5),
            ),
            "summed": plant("1/n missing in dmean's part", kit.COUNT, moments_dy(mean=6)),
            "not_centred": plant(
                "x for x - mean",
                rf"mean|centr|{kit.FACTOR}",
                moments_dx(lambda x, dmean, dvar: mean_dx(x, dmean) + var_dx(x, dvar)),
            ),
            "swapped": plant(
                "dmean and dvar swapped",
                r"swap|exchang|\border|output|mean|varian",
                back(MOMENTS, lambda res, dy: moments_bwd(res, dy[::-1])),
            ),
        },
    ),
]
