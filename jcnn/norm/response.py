"""Local response normalisation: every channel over the energy of its neighbours.

Shapes.  x, y, s, dx, dy [N, *S, C].  W(c) are the `size` channels around c, low = size // 2 below it to
high = (size - 1) // 2 above it, without those that do not exist.  a = alpha / size.

Forward.
    s[c] = k + a sum over j in W(c) of x[j]^2
    y[c] = x[c] s[c]^(-beta)

Backward.  Perturb x by x':
    s'[c] = 2 a sum over j in W(c) of x[j] x'[j]
    y'[c] = s[c]^(-beta) x'[c] - beta x[c] s[c]^(-beta - 1) s'[c]
In sum(dy y'), x'[j] stands once by itself and once for every c with j in W(c): the c from high below j to
low above it, a window of the other alignment.  With V(j) for these,
    dx[j] = s[j]^(-beta) dy[j] - 2 a beta x[j] sum over c in V(j) of dy[c] x[c] s[c]^(-beta - 1)

Kinks.  None: alpha >= 0 and k > 0 keep s away from 0.
Reference.  Krizhevsky et al. 2012, section 3.3; PyTorch's definition, in which alpha is divided by `size`.
"""

import jax.numpy as jnp
from jaxtyping import Array

from jcnn import check
from jcnn.kernels import widen
from jcnn.norm.arguments import Images
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

Number = float | int


@residuals
class LocalResponseNormResiduals:
    x: Images  # the input; s is recomputed, it would take as much again
    size: int = static()
    alpha: Number = static()
    beta: Number = static()
    k: Number = static()


def _reach(size: int) -> tuple[int, int]:
    return size // 2, (size - 1) // 2


def _window_sum(a: Array, low: int, high: int) -> Array:
    """For every channel the sum over those from `low` below it to `high` above it.

    Runs of 1, 2, 4 ... channels are summed first, and windows are made of those.  Differences of running
    sums over all channels would cancel, and spread a NaN.
    """
    c = a.shape[-1]
    low, high = min(low, c), min(high, c)
    runs = jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(low, high)])
    window, total, start = low + high + 1, jnp.zeros_like(a), 0
    for length in (2**i for i in range(window.bit_length())):
        if window & length:
            total += runs[..., start : start + c]
            start += length
        runs = runs[..., :-length] + runs[..., length:]
    return total


def sum_of_squares(res: LocalResponseNormResiduals) -> Images:
    """s, in the accumulation dtype."""
    return res.k + res.alpha / res.size * _window_sum(widen(res.x) ** 2, *_reach(res.size))


def power(s: Array, beta: Number) -> Array:
    """s^(-beta).  Square roots do for the usual exponent what on CPU takes a power seven times as long."""
    if beta == 0.75:
        root = jnp.sqrt(s)
        return 1 / (root * jnp.sqrt(root))
    return s**-beta


def local_response_norm_fwd(
    x: Images, *, size: int, alpha: Number = 1e-4, beta: Number = 0.75, k: Number = 1.0
) -> tuple[Images, LocalResponseNormResiduals]:
    """x / (k + alpha / size * sum of squares of `size` neighbouring channels)^beta.

    Args:
        x: images [N, *S, C], or vectors [N, C].
        size: how many channels, those from size // 2 below to (size - 1) // 2 above; beyond the first and
            the last channel there are zeros.
        alpha: weight of their mean square, >= 0.
        beta: exponent, >= 0.
        k: what is added to it, > 0.

    Returns:
        An array like x.  Sums and powers are computed in at least float32.

    Raises:
        TypeError: x is not floating point.
        ValueError: x has no batch axis or too many spatial ones, or numbers out of range.
    """
    res = LocalResponseNormResiduals(x, size, alpha, beta, k)
    return (widen(x) * power(sum_of_squares(res), beta)).astype(x.dtype), res


def local_response_norm_bwd(res: LocalResponseNormResiduals, dy: Images) -> tuple[Images]:
    x, dy = widen(res.x), widen(dy)
    low, high = _reach(res.size)
    s = sum_of_squares(res)
    direct = dy * power(s, res.beta)
    shared = _window_sum(direct * x / s, high, low)
    return (direct - 2 * res.alpha / res.size * res.beta * x * shared,)


def local_response_norm_reference(x, *, size, alpha=1e-4, beta=0.75, k=1.0):
    wide, c = widen(x), x.shape[-1]
    windows = [slice(max(0, i - size // 2), i + (size - 1) // 2 + 1) for i in range(c)]
    sums = [jnp.sum(wide[..., w] ** 2, -1) for w in windows]
    s = k + alpha / size * (jnp.stack(sums, -1) if c else wide)
    return (wide / s**beta).astype(x.dtype)


def _local_response_norm_check(x, *, size, alpha, beta, k) -> None:
    op = "local_response_norm"
    check.floating(op, x=x)
    check.ranks(op, "x", x, range(2, 6), "[N, *S, C]")
    check.count(op, "size", size)
    check.number(op, "alpha", alpha, 0)
    check.number(op, "beta", beta, 0)
    check.positive(op, "k", k)


local_response_norm = Rule(
    local_response_norm_fwd,
    local_response_norm_bwd,
    local_response_norm_reference,
    _local_response_norm_check,
)
