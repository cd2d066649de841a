"""Mean and maximum over as many windows as outputs are wanted, whatever the size of the image.

Shapes.  x, dx [N, *S, C];  y, dy [N, *M, C] with M given.  i runs over outputs, j over inputs.

Forward.    On an axis of n inputs and m outputs, output i sees
            span(i) = [floor(i n / m), ceil((i + 1) n / m)),
            in more dimensions the product of those.  Spans may overlap, and m may be larger than n.

            mean      y[i] = sum of x[j] over j in span(i), / |span(i)|
            maximum   y[i] = max of x[j] over j in span(i) = x[j*(i)]

Backward.   mean      dx[j] = sum of dy[i] / |span(i)| over all i with j in span(i)
            maximum   dx[j] = sum of dy[i] over all i with j*(i) = j

The i with j in span(i) are themselves the span of j with n and m exchanged (see `jcnn.kernels.spans`): the
backward of the mean is an adaptive sum from M to S.

Kinks.  Where several pixels hold the maximum, j* is the first of them in row-major order.  A NaN is the
maximum of its spans and takes their gradient.

Reference.  He et al. 2014, arXiv:1406.4729, section 2.3, with PyTorch's spans.
"""

import functools
import itertools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jcnn import check
from jcnn.geometry import Ints
from jcnn.kernels import maxima, spans, widen
from jcnn.pool.windows import Images, Pooled, check_pixels
from jcnn.residuals import residuals, static
from jcnn.rule import Rule

OutputSize = int | tuple[int | None, ...] | None


def _outputs(op: str, x: Array, output_size) -> Ints:
    """The spatial shape M of the outputs: given for all axes or one by one, None for what x has there."""
    size = x.shape[1:-1]
    given = output_size if isinstance(output_size, tuple) else (output_size,) * len(size)
    good = all(m is None or (isinstance(m, int) and not isinstance(m, bool) and m >= 1) for m in given)
    if len(given) != len(size) or not good:
        expected = f"an int >= 1 or None, or {len(size)} of them for {len(size)} spatial axes"
        check.fail(op, "output_size", repr(output_size), expected)
    return tuple(n if m is None else m for m, n in zip(given, size, strict=True))


def _check(op: str, x: Array, *, output_size) -> None:
    check_pixels(op, x)
    _outputs(op, x, output_size)


def _windows(size: Ints, outputs: Ints) -> list[tuple[slice, ...]]:
    """Every output's part of the image, in row-major order."""
    axes = [[slice(*span) for span in spans.spans(n, m)] for n, m in zip(size, outputs, strict=True)]
    return list(itertools.product(*axes))


@residuals
class AdaptiveAvgPoolResiduals:
    size: Ints = static()  # spatial shape of x


def _counts(size: Ints, outputs: Ints) -> np.ndarray:
    """Number of pixels that each mean is over, [*M, 1]."""
    counts = np.ones((), int)
    for n, m in zip(size, outputs, strict=True):
        counts = counts[..., None] * np.array([stop - start for start, stop in spans.spans(n, m)])
    return counts[..., None]


def adaptive_avg_pool_fwd(x: Images, *, output_size: OutputSize) -> tuple[Pooled, AdaptiveAvgPoolResiduals]:
    """The mean over windows that share the image among a given number of outputs.

    Args:
        x: images, [N, *S, C] with 1, 2 or 3 spatial axes S.
        output_size: M, an int >= 1 or one per spatial axis, None for as many as x has there.  Output i of an
            axis sees the inputs from floor(i S / M) up to, not including, ceil((i + 1) S / M).

    Returns:
        [N, *M, C] in x's dtype; sums are accumulated in at least float32.

    Raises:
        TypeError: x is not floating point.
        ValueError: x is not [N, *S, C] or has no pixels, or output_size is not as above.

    Example:
        >>> import jax.numpy as jnp, jcnn
        >>> jcnn.adaptive_avg_pool(jnp.arange(5.0).reshape(1, 5, 1), output_size=3).ravel()
        Array([0.5, 2. , 3.5], dtype=float32)
    """
    size, outputs = x.shape[1:-1], _outputs("adaptive_avg_pool", x, output_size)
    total = spans.span_sum(x, outputs)
    y = total / _counts(size, outputs).astype(total.dtype)
    return y.astype(x.dtype), AdaptiveAvgPoolResiduals(size)


def adaptive_avg_pool_bwd(res: AdaptiveAvgPoolResiduals, dy: Pooled) -> tuple[Images]:
    wide = widen(dy)
    share = wide / _counts(res.size, dy.shape[1:-1]).astype(wide.dtype)
    return (spans.span_sum(share, res.size),)


def adaptive_avg_pool_reference(x, *, output_size):
    outputs = _outputs("adaptive_avg_pool", x, output_size)
    axes = tuple(range(1, x.ndim - 1))
    means = [jnp.mean(x[:, *part], axes) for part in _windows(x.shape[1:-1], outputs)]
    return jnp.stack(means, 1).reshape(x.shape[0], *outputs, x.shape[-1])


adaptive_avg_pool = Rule(
    adaptive_avg_pool_fwd,
    adaptive_avg_pool_bwd,
    adaptive_avg_pool_reference,
    functools.partial(_check, "adaptive_avg_pool"),
)


@residuals
class AdaptiveMaxPoolResiduals:
    winner: Int[Array, "n *m c"]  # where every maximum is, in row-major order over S
    size: Ints = static()  # spatial shape of x


def adaptive_max_pool_fwd(x: Images, *, output_size: OutputSize) -> tuple[Pooled, AdaptiveMaxPoolResiduals]:
    """The maximum over windows that share the image among a given number of outputs.

    Args:
        x: images, [N, *S, C] with 1, 2 or 3 spatial axes S.
        output_size: M, as for `adaptive_avg_pool`.

    Returns:
        [N, *M, C] in x's dtype.

    Raises:
        TypeError: x is not floating point.
        ValueError: x is not [N, *S, C] or has no pixels, or output_size is not as above.
    """
    y, winner = spans.span_argmax(x, _outputs("adaptive_max_pool", x, output_size))
    return y, AdaptiveMaxPoolResiduals(winner, x.shape[1:-1])


def adaptive_max_pool_bwd(res: AdaptiveMaxPoolResiduals, dy: Pooled) -> tuple[Images]:
    return (maxima.put_at(widen(dy), res.winner, res.size),)


def adaptive_max_pool_reference(x, *, output_size):
    n, *size, c = x.shape
    outputs = _outputs("adaptive_max_pool", x, output_size)
    best = []
    for part in _windows(tuple(size), outputs):
        inside = x[:, *part]
        pixels = inside.reshape(n, math.prod(inside.shape[1:-1]), c)
        first = jnp.argmax(pixels, 1, keepdims=True)
        best.append(jnp.take_along_axis(pixels, first, 1)[:, 0])
    return jnp.stack(best, 1).reshape(n, *outputs, c)


adaptive_max_pool = Rule(
    adaptive_max_pool_fwd,
    adaptive_max_pool_bwd,
    adaptive_max_pool_reference,
    functools.partial(_check, "adaptive_max_pool"),
)
