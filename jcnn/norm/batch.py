"""Batch normalisation in training, by the statistics of the batch.

Shapes.  x, y, dx, dy [N, *S, C];  gamma, beta, mean, var and their cotangents [C];  k [N, *S, 1] is 1 where
the mask counts a position and 0 where it does not (1 everywhere without a mask).  Sums run over N and S,
and over the devices of `axis_name`;  m = sum(k).

Forward.
    mean = sum(k x) / m
    var  = sum(k (x - mean)^2) / m           biased, in two passes: E[x^2] - E[x]^2 would cancel
    rstd = (var + eps)^(-1/2)
    xhat = (x - mean) rstd
    y    = gamma xhat + beta

Backward.  y, mean and var are all outputs, with cotangents dy, dmean, dvar.  Perturb x, gamma, beta:
    mean' = sum(k x') / m
    var'  = 2 sum(k (x - mean) x') / m                                     as sum(k (x - mean)) = 0
    xhat' = rstd (x' - mean') - xhat rstd^2 var' / 2
    y'    = gamma xhat' + gamma' xhat + beta'
Requiring sum(dy y') + sum(dmean mean') + sum(dvar var') = sum(dx x') + sum(dgamma gamma') + sum(dbeta beta'):
    dbeta  = sum(dy)
    dgamma = sum(dy xhat)
    dx     = gamma rstd (dy - k (dbeta + xhat dgamma) / m) + k (dmean + 2 (x - mean) dvar) / m
Each device returns its own part of dgamma and dbeta; dx needs the sums over all of them.

Kinks.  None for eps > 0.
Reference.  Ioffe & Szegedy 2015, arXiv:1502.03167, section 3 (there without dmean, dvar and k).
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jcnn import check
from jcnn.kernels import widen
from jcnn.kernels.reduce import added, deviation_times, pixel_sum, squared_deviation
from jcnn.norm.arguments import Channels, Images, check_images
from jcnn.residuals import residuals, static
from jcnn.rule import Rule, varying_axes

AxisName = str | tuple[str, ...] | None


class BatchStats(NamedTuple):
    """Mean and biased variance per channel, [C] each, in at least float32."""

    mean: Array
    var: Array


@residuals
class BatchNormResiduals:
    x: Images  # the input; xhat is recomputed, it would take as much again
    gamma: Channels
    mean: Channels
    rstd: Channels
    count: Float[Array, ""]  # m
    mask: Array | None  # as it was given
    axis_name: AxisName = static()


def _counted(x: Array, mask: Array | None) -> Array | None:
    """The mask as booleans [N, *S, 1], or None where everything counts."""
    if mask is None:
        return None
    mask = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)).astype(bool)
    return jnp.broadcast_to(mask, (*x.shape[:-1], 1))


def _only(counted: Array | None, values: Array) -> Array:
    return values if counted is None else jnp.where(counted, values, 0)


def _over_devices(local: Array, axis_name: AxisName) -> Array:
    """The sum of every member's `local` over the mapped axis, if there is one."""
    if axis_name is None:
        return local
    try:
        return lax.psum(local, axis_name)
    except NameError:
        # In grad(vmap(f)) JAX runs a backward where vmap's axis has no name, but still maps the primitive.
        names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
        return lax.psum_p.bind(local, axes=names, axis_index_groups=None)[0]


def _count(x: Array, counted: Array | None, axis_name: AxisName, dtype) -> Array:
    """m, the number of positions that the statistics are over; 1 if there are none."""
    local = jnp.full((), math.prod(x.shape[:-1]), dtype) if counted is None else jnp.sum(counted, dtype=dtype)
    return jnp.maximum(_over_devices(local, axis_name), 1)


def normalise(x: Array, gamma, beta, mean, rstd) -> Array:
    xhat = (widen(x) - widen(mean)) * rstd
    return (widen(gamma) * xhat + widen(beta)).astype(x.dtype)


def _squares_counted(x: Array, mean: Array, counted: Array | None) -> Array:
    return _only(counted, squared_deviation(x, mean))


def _statistics(x, mask, axis_name) -> tuple[BatchStats, Array]:
    """Mean and variance of each channel, and the number of positions they are over."""
    wide = widen(x)
    counted = _counted(x, mask)
    m = _count(x, counted, axis_name, wide.dtype)
    mean = _over_devices(pixel_sum(_only(counted, wide)), axis_name) / m
    squares = added(_squares_counted, x, mean, counted)
    return BatchStats(mean, _over_devices(pixel_sum(squares), axis_name) / m), m


def batch_norm_fwd(
    x: Images,
    gamma: Channels,
    beta: Channels,
    mask: Array | None = None,
    *,
    eps: float = 1e-5,
    axis_name: AxisName = None,
) -> tuple[tuple[Images, BatchStats], BatchNormResiduals]:
    """Normalisation of every channel by its mean and variance over the batch (training mode).

    Args:
        x: images [N, *S, C], or vectors [N, C].
        gamma, beta: scale and shift, [C], in x's dtype or float32.
        mask: what counts in the statistics (nonzero) and what does not (zero), [N], [N, *S] or [N, *S, 1];
            sizes of 1 broadcast.  All positions are normalised, counted or not, and all of dy goes into
            dgamma and dbeta: a NaN in x where the mask is zero stays out of the statistics, not of dgamma.
        eps: added to the variance, > 0.
        axis_name: mapped axis (or axes) of `vmap` or `shard_map` over which the batch is spread; statistics
            are then those of the whole batch, weighted by the number of positions on each device.

    Returns:
        (y, BatchStats(mean, var)): y like x; mean and biased variance [C] in at least float32, all three
        differentiable.  See `update_running_stats` for what to do with them.

    Raises:
        TypeError: dtypes not as above.
        ValueError: shapes that do not fit together, or eps <= 0.
    """
    stats, m = _statistics(x, mask, axis_name)
    rstd = lax.rsqrt(stats.var + eps)
    y = normalise(x, gamma, beta, stats.mean, rstd)
    res = BatchNormResiduals(x, gamma, stats.mean, rstd, m, mask, axis_name)
    return (y, _per_member(stats, x, gamma, beta, axis_name)), res


def batch_norm_bwd(
    res: BatchNormResiduals, cotangents: tuple[Images, BatchStats]
) -> tuple[Images, Channels, Channels, Array | None]:
    dy, dstats = cotangents
    dmean, dvar = _sum_over_members(dstats, res.x, res.axis_name)
    counted = _counted(res.x, res.mask)

    deviation = widen(res.x) - res.mean
    xhat = deviation * res.rstd
    dbeta = pixel_sum(dy)
    dgamma = pixel_sum(added(deviation_times, res.x, res.mean, dy)) * res.rstd
    all_dbeta, all_dgamma = (_over_devices(d, res.axis_name) for d in (dbeta, dgamma))
    mean_and_variance = _only(counted, (all_dbeta + xhat * all_dgamma) / res.count)
    through_y = widen(res.gamma) * res.rstd * (widen(dy) - mean_and_variance)
    through_stats = _only(counted, (dmean + 2 * deviation * dvar) / res.count)
    # Whether a position counts does not change with a small change of a mask given as floats.
    dmask = None if res.mask is None else jnp.zeros_like(res.mask)
    return through_y + through_stats, dgamma, dbeta, dmask


def _per_member(stats: BatchStats, x: Array, gamma: Array, beta: Array, axis_name: AxisName) -> BatchStats:
    """The statistics, mapped by `vmap` wherever y is.

    To an output that is not mapped, vmap gives one cotangent, of all members together, but it adds the
    results of the backward over the members, which would count it once for each.  So the statistics are
    made to depend, in name only, on all that y depends on; `_sum_over_members` adds over `axis_name`.
    `shard_map(check_vma=True)` knows which values are shared, and needs no such help.
    """
    if varying_axes(x):
        return stats
    also = [gamma, beta] if axis_name is None else [gamma, beta, lax.axis_index(axis_name)]

    def tied(s: Array) -> Array:
        for a in also:
            s = lax.select(jnp.ones(s.shape, bool), s, jnp.broadcast_to(a, s.shape).astype(s.dtype))
        return s

    return BatchStats(*map(tied, stats))


def _sum_over_members(dstats: BatchStats, x: Array, axis_name: AxisName) -> BatchStats:
    return dstats if varying_axes(x) else BatchStats(*(_over_devices(d, axis_name) for d in dstats))


def batch_norm_reference(x, gamma, beta, mask=None, *, eps=1e-5, axis_name=None):
    wide, counted = widen(x), _counted(x, mask)

    def total(a):
        a = jnp.sum(a, range(x.ndim - 1), where=counted)
        return a if axis_name is None else lax.psum(a, axis_name)

    m = jnp.maximum(total(jnp.ones((*x.shape[:-1], 1), wide.dtype)), 1)
    mean = total(wide) / m
    var = total((wide - mean) ** 2) / m
    y = widen(gamma) * (wide - mean) / jnp.sqrt(var + eps) + widen(beta)
    return y.astype(x.dtype), BatchStats(mean, var)


def _batch_norm_check(x, gamma, beta, mask=None, *, eps, axis_name) -> None:
    check_images("batch_norm", x, eps, gamma=gamma, beta=beta)
    if mask is not None:
        full = (*x.shape[:-1], 1)
        fits = 1 <= mask.ndim <= x.ndim and all(a in (1, b) for a, b in zip(mask.shape, full, strict=False))
        if not fits:
            check.fail("batch_norm", "mask", f"shape {mask.shape}", f"(N,), {full[:-1]} or {full}")


batch_norm = Rule(batch_norm_fwd, batch_norm_bwd, batch_norm_reference, _batch_norm_check)


def update_running_stats(
    running: BatchStats, batch: BatchStats, *, momentum: float | int = 0.9
) -> BatchStats:
    """momentum * running + (1 - momentum) * batch, for the mean and the biased variance.

    Args:
        running: averages so far, [C] each; start from mean 0, variance 1.
        batch: statistics of one batch, as `batch_norm` returns them.
        momentum: weight of the OLD value, in [0, 1].  PyTorch's `momentum` is the weight of the new one
            (its default 0.1 is 0.9 here), and PyTorch averages the unbiased variance.

    Raises:
        ValueError: momentum outside [0, 1].
    """
    check.number("update_running_stats", "momentum", momentum, 0, 1)

    def after(old: Array, new: Array) -> Array:
        return momentum * old + (1 - momentum) * new.astype(old.dtype)

    return BatchStats(after(running.mean, batch.mean), after(running.var, batch.var))
