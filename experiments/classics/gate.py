"""An input times a gate: swish, gelu in its tanh form, dropout."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.classics import kit, misuse
from experiments.classics.activation import SLOPES, pointwise, sigmoid_slope, slope
from experiments.classics.kit import Classic, back, normal, plant

KEEP = 0.8
GELU_SCALE, GELU_CUBE = 0.7978845608028654, 0.044715  # sqrt(2 / pi), the paper's fit


def swish(x):
    return x * jax.nn.sigmoid(x)


def swish_slope(x):
    return swish_of(x, jax.nn.sigmoid(x))


def swish_of(x, s):
    return s + x * s * (1 - s)


def gelu(x):
    return x * (1 + jnp.tanh(gelu_inner(x))) / 2


def gelu_inner(x, cube=GELU_CUBE, scale=GELU_SCALE):
    return scale * (x + cube * x**3)


def gelu_slope(x, cube=GELU_CUBE, scale=GELU_SCALE, power=2, chain=3, product=1):
    t = jnp.tanh(gelu_inner(x, cube, scale))
    return (1 + t + product * x * (1 - t**power) * scale * (1 + chain * cube * x * x)) / 2


def dropout(x, mask):
    """x [N, C], mask [N, C] of bool, where x is kept"""
    return jnp.where(mask, x / KEEP, 0)


def dropout_fwd(x, mask):
    return dropout(x, mask), (mask,)


def dropout_bwd(res, dy):
    return dropout(dy, *res), None


def dropout_args(rng, dtype):
    return *normal((5, 8))(rng, dtype), jnp.asarray(rng.random((5, 8)) < KEEP)


SWISH = pointwise(swish, swish_slope)
GELU = pointwise(gelu, gelu_slope)
DROPOUT = dropout, dropout_fwd, dropout_bwd


def gelu_exact(x):
    """The slope of the gelu of the error function"""
    return jax.scipy.special.ndtr(x) + x * jnp.exp(-x * x / 2) * GELU_SCALE / 2


def gelu_by_sigmoid(x):
    s = jax.nn.sigmoid(1.702 * x)
    return s + 1.702 * x * s * (1 - s)


def drawn(mask):
    return jnp.asarray(np.random.default_rng().random(mask.shape) < KEEP)


def dropout_dx(dx):
    """dx of the mask and dy"""
    return back(DROPOUT, lambda res, dy: (dx(*res, dy), None))


RULES = [
    Classic(
        "swish",
        SWISH,
        normal((4, 5)),
        {
            "no_product_rule": plant(
                "x s' forgotten", rf"product|term|{SLOPES}", slope(SWISH, jax.nn.sigmoid)
            ),
            "other_term": plant(
                "s forgotten",
                rf"product|term|{SLOPES}",
                slope(SWISH, lambda x: x * sigmoid_slope(jax.nn.sigmoid(x))),
            ),
            "y_for_x": plant(
                "y for x in x s'",
                SLOPES,
                slope(SWISH, lambda x: swish_of(swish(x), jax.nn.sigmoid(x))),
            ),
            "quotient": plant(
                "s found as y / x",
                rf"divi|0/0|{kit.UNSTABLE}|{kit.KINK}",
                slope(SWISH, lambda x: swish_of(x, swish(x) / x)),
                "as nan at x == 0 only",
            ),
            "saturated": plant(
                "slope 1 for x > 4",
                rf"\blarge\b|satur|piecewise|{SLOPES}",
                slope(SWISH, lambda x: jnp.where(x > 4, jnp.ones_like(x), swish_slope(x))),
                "for x > 4 only",
            ),
            "extra": misuse.extra(SWISH),
        },
    ),
    Classic(
        "gelu",
        GELU,
        normal((4, 5)),
        {
            "no_product_rule": plant(
                "x times tanh' forgotten",
                rf"product|term|{SLOPES}",
                slope(GELU, lambda x: gelu_slope(x, product=0)),
            ),
            "chain_rule": plant(
                "factor 3 of x**3 forgotten",
                rf"chain|cub|{SLOPES}",
                slope(GELU, lambda x: gelu_slope(x, chain=1)),
            ),
            "not_squared": plant(
                "1 - t for 1 - t**2", rf"squar|{SLOPES}", slope(GELU, lambda x: gelu_slope(x, power=1))
            ),
            "rounded": plant(
                "0.044715 rounded to 0.0447",
                rf"approx|{kit.DTYPE}|{SLOPES}",
                slope(GELU, lambda x: gelu_slope(x, cube=0.0447)),
                "as a difference of 1e-5",
            ),
            "exact": plant(
                "slope of the gelu with erf, f has tanh",
                rf"erf|approx|exact|{SLOPES}",
                slope(GELU, gelu_exact),
                "as a difference of 1e-3",
            ),
            "by_sigmoid": plant(
                "slope of x sigmoid(1.702 x)",
                rf"sigmoid|approx|{SLOPES}",
                slope(GELU, gelu_by_sigmoid),
                "as a difference of 1e-2",
            ),
            "bfloat16": misuse.narrowed(GELU, jnp.bfloat16),
        },
    ),
    Classic(
        "dropout",
        DROPOUT,
        dropout_args,
        {
            "no_scale": plant(
                "not divided by the rate of keeping",
                rf"keep|{kit.FACTOR}",
                dropout_dx(lambda mask, dy: jnp.where(mask, dy, 0)),
            ),
            "scaled_twice": plant(
                "divided by the rate of keeping twice",
                rf"keep|{kit.FACTOR}",
                dropout_dx(lambda mask, dy: dropout(dy, mask) / KEEP),
            ),
            "inverted": plant(
                "mask inverted",
                rf"mask|invert|complement|zero|{kit.FACTOR}",
                dropout_dx(lambda mask, dy: dropout(dy, ~mask)),
            ),
            "no_mask": plant(
                "mask forgotten", rf"mask|zero|drop|{kit.FACTOR}", dropout_dx(lambda mask, dy: dy / KEEP)
            ),
            "first_mask": plant(
                "the first example's mask for all",
                rf"mask|batch|example|{kit.PARTIAL}",
                dropout_dx(lambda mask, dy: dropout(dy, mask[:1])),
                "for more than one example",
            ),
            "new_mask": plant(
                "a new mask drawn by NumPy in bwd",
                rf"mask|random|{kit.IMPURE}",
                dropout_dx(lambda mask, dy: dropout(dy, drawn(mask))),
            ),
            "mask_of_y": plant(
                "the mask found as y != 0",
                rf"mask|{kit.KINK}",
                (dropout, lambda x, mask: (y := dropout(x, mask), (y != 0,)), dropout_bwd),
                "at x == 0 only",
            ),
        },
    ),
]
