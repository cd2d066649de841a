"""Noise in training that drops values, channels or whole examples.

Shapes.  dropout: x, y, dx, dy any shape, all the same, or [N, *S, C] with per_channel;  drop_path: [N, ...].
key: a PRNG key.

Forward.  With independent draws m that are 1 with probability 1 - rate and 0 otherwise,

    y = x m / (1 - rate)          so that the mean over m is x ("inverted" dropout)

    dropout                  a draw for every value
    dropout, per_channel     a draw for every channel of every image, m [N, *1, C]: neighbouring pixels are
                             alike, and would tell what was dropped between them
    drop_path                a draw for every example, m [N, *1]: at the end of the body of a residual block,
                             the net is a shorter one for the examples dropped ("stochastic depth")

Backward.  For the same draws y is linear in x:

    dx = dy m / (1 - rate)        m is kept, a byte each: to draw it again takes 20 times as long

Kinks.  None.  rate = 1 is refused: it would divide by zero.
Reference.  Srivastava et al. 2014, JMLR 15, section 4 (dropout); Tompson et al. 2015, arXiv:1411.4280,
section 3.2 (per channel); Huang et al. 2016, arXiv:1603.09382, section 3 (drop_path).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt32

from jcnn import check
from jcnn.kernels import widen
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Values = Float[Array, "*shape"]
AnyKey = Key[Array, ""] | UInt32[Array, " words"]


@residuals
class DropoutResiduals:
    kept: Bool[Array, "*draws"]  # m
    rate: float | int = static()


def _draws(x: Array, per_channel: bool) -> tuple[int, ...]:
    """The shape of dropout's m."""
    return (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]) if per_channel else x.shape


def _dropped(x: Array, kept: Array, rate: float | int) -> Array:
    """x m / (1 - rate); what is dropped is 0 even where x is not finite."""
    return jnp.where(kept, widen(x) / (1 - rate), 0).astype(x.dtype)


def dropout_fwd(
    x: Values, key: AnyKey, *, rate: float | int, per_channel: bool = False
) -> tuple[Values, DropoutResiduals]:
    """Sets each value to zero with probability `rate` and scales the others by 1 / (1 - rate).

    Args:
        x: values of any shape; images [N, *S, C], or vectors [N, C], if per_channel.
        key: a PRNG key, `jax.random.key(seed)`; the same key drops the same values.
        rate: probability of dropping a value, in [0, 1).
        per_channel: whether to drop channels of an image, with all of their pixels, instead of values.

    Returns:
        An array like x.

    Raises:
        TypeError: x is not floating point, or key is not a PRNG key.
        ValueError: rate outside [0, 1), or per_channel for an x that is not as above.
    """
    kept = jax.random.bernoulli(key, 1.0 - rate, _draws(x, per_channel))
    return _dropped(x, kept, rate), DropoutResiduals(kept, rate)


def dropout_bwd(res: DropoutResiduals, dy: Values) -> tuple[Values, None]:
    return _dropped(dy, res.kept, res.rate), None


def dropout_reference(x, key, *, rate, per_channel=False):
    kept = jax.random.bernoulli(key, 1.0 - rate, _draws(x, per_channel))
    return jnp.where(kept, widen(x) / (1.0 - rate), 0).astype(x.dtype)


def _check_noise(op: str, x: Array, key: Array, rate: float | int) -> None:
    check.floating(op, x=x)
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == ()
    if not (typed or (key.dtype == jnp.uint32 and key.ndim == 1)):
        check.fail(op, "key", f"{key.dtype} of shape {key.shape}", "one PRNG key", TypeError)
    check.number(op, "rate", rate, 0, 1, open_high=True)


def _dropout_check(x, key, *, rate, per_channel) -> None:
    _check_noise("dropout", x, key, rate)
    check.choice("dropout", "per_channel", per_channel, (False, True))
    if per_channel and x.ndim < 2:
        check.fail("dropout", "x", f"shape {x.shape}", "[N, *S, C] for per_channel")


dropout = Rule(dropout_fwd, dropout_bwd, dropout_reference, _dropout_check)


def drop_path_fwd(x: Values, key: AnyKey, *, rate: float | int) -> tuple[Values, DropoutResiduals]:
    """Sets each example to zero with probability `rate` and scales the others by 1 / (1 - rate).

    Args:
        x: examples, [N, ...].
        key: a PRNG key, `jax.random.key(seed)`; the same key drops the same examples.
        rate: probability of dropping an example, in [0, 1).

    Returns:
        An array like x.

    Raises:
        TypeError: x is not floating point, or key is not a PRNG key.
        ValueError: rate outside [0, 1), or x without axes.
    """
    kept = jax.random.bernoulli(key, 1.0 - rate, (x.shape[0], *(1,) * (x.ndim - 1)))
    return _dropped(x, kept, rate), DropoutResiduals(kept, rate)


def drop_path_reference(x, key, *, rate):
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape[:1])
    each = jax.vmap(lambda x, kept: jnp.where(kept, widen(x) / (1.0 - rate), 0).astype(x.dtype))
    return each(x, kept)


def _drop_path_check(x, key, *, rate) -> None:
    _check_noise("drop_path", x, key, rate)
    if x.ndim < 1:
        check.fail("drop_path", "x", f"shape {x.shape}", "[N, ...]")


drop_path = Rule(drop_path_fwd, dropout_bwd, drop_path_reference, _drop_path_check)
