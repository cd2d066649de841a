"""Dropout.

Shapes.  x, y, dx, dy: any shape, all the same;  key: a PRNG key.

Forward.  With independent draws m that are 1 with probability 1 - rate and 0 otherwise,

    y = x m / (1 - rate)          so that the mean over m is x ("inverted" dropout)

Backward.  For the same draws y is linear in x:

    dx = dy m / (1 - rate)        m is kept, a byte each: to draw it again takes 20 times as long

Kinks.  None.  rate = 1 is refused: it would divide by zero.
Reference.  Srivastava et al. 2014, JMLR 15, section 4.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt32

from jcnn import check
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Values = Float[Array, "*shape"]
AnyKey = Key[Array, ""] | UInt32[Array, " words"]


@residuals
class DropoutResiduals:
    kept: Bool[Array, "*shape"]  # m
    rate: float | int = static()


def dropout_fwd(x: Values, key: AnyKey, *, rate: float | int) -> tuple[Values, DropoutResiduals]:
    """Sets each value to zero with probability `rate` and scales the others by 1 / (1 - rate).

    Args:
        x: values of any shape.
        key: a PRNG key, `jax.random.key(seed)`; the same key drops the same values.
        rate: probability of dropping a value, in [0, 1).

    Returns:
        An array like x.

    Raises:
        TypeError: x is not floating point, or key is not a PRNG key.
        ValueError: rate outside [0, 1).
    """
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), 0), DropoutResiduals(kept, rate)


def dropout_bwd(res: DropoutResiduals, dy: Values) -> tuple[Values, None]:
    return jnp.where(res.kept, dy / (1.0 - res.rate), 0), None


def dropout_reference(x, key, *, rate):
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape).astype(x.dtype)
    return x * keep / (1.0 - rate)


def _dropout_check(x, key, *, rate) -> None:
    check.floating("dropout", x=x)
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    if not (typed or (key.dtype == jnp.uint32 and key.ndim == 1)):
        check.fail("dropout", "key", f"{key.dtype} of shape {key.shape}", "one PRNG key", TypeError)
    check.number("dropout", "rate", rate, 0, 1, open_high=True)


dropout = Rule(dropout_fwd, dropout_bwd, dropout_reference, _dropout_check)
