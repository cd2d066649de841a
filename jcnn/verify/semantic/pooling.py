"""What people get wrong in the backwards of pools."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jcnn.kernels import spans, taps, widen
from jcnn.pool import (
    adaptive_avg_pool,
    adaptive_max_pool,
    avg_pool,
    global_avg_pool,
    global_max_pool,
    lp_pool,
    max_pool,
    max_unpool,
)
from jcnn.rule import Rule
from jcnn.verify.semantic.errors import Error, Parts, backward, cotangent, kept, one_late, residual


def _scatter(w: Any, size: tuple[int, ...], part: Array) -> Array:
    """`part` at every tap of the window."""
    return taps.scatter([part] * math.prod(w.kernel), w, size)


def _of_values(dy: Any) -> Array:
    """The cotangent of the pooled values, without that of their indices."""
    return widen(jax.tree.leaves(dy)[0])


def _every_tie(res: Any, dy: Any) -> tuple[Array]:
    reads = taps.gather(res.x, res.window, fill=-jnp.inf)
    best = jnp.max(jnp.stack(reads), 0)
    parts = [jnp.where(read == best, _of_values(dy), 0) for read in reads]
    return (taps.scatter(parts, res.window, res.size),)


def _last_tap(res: Any, x: Array) -> dict:
    reads = jnp.stack(taps.gather(x, res.window, fill=-jnp.inf)[::-1])
    last = len(reads) - 1 - jnp.argmax(reads, 0)
    return {} if res.winner is None else {"winner": last.astype(res.winner.dtype)}


def _last_pixel(res: Any, x: Array) -> dict:
    pixels = x.reshape(x.shape[0], -1, x.shape[-1])[:, ::-1]
    return {"winner": (pixels.shape[1] - 1 - jnp.argmax(pixels, 1)[:, None]).astype(res.winner.dtype)}


def _other_ties(rule: Rule) -> Parts:
    def fwd(x, **static):
        return rule.fwd(x, **static | {"ties": {"first": "split", "split": "first"}[static["ties"]]})

    return {"fwd": fwd}


def _spread(res: Any, dy: Array) -> tuple[Array]:
    share = (widen(dy) / math.prod(res.size))[:, None]
    return (jnp.broadcast_to(share, (len(dy), math.prod(res.size), dy.shape[-1])).reshape(
        len(dy), *res.size, dy.shape[-1]
    ),)  # fmt: skip


def _other_padding_counted(rule: Rule) -> Parts:
    def fwd(x, **static):
        other = static | {"count_include_pad": not static["count_include_pad"]}
        return rule.fwd(x, **static)[0], rule.fwd(x, **other)[1]

    return {"fwd": fwd}


def _root_forgotten(rule: Rule) -> Parts:
    return {"bwd": lambda res, dy: rule.bwd(res, widen(dy) * res.norms[-1] ** (res.p - 1))}


def _spread_over_blocks(res: Any, dy: Array) -> tuple[Array]:
    """As if the outputs shared the inputs without overlap."""
    dx = widen(dy) * math.prod(dy.shape[1:-1]) / math.prod(res.size)
    for axis, n in enumerate(res.size, start=1):
        dx = jnp.take(dx, jnp.arange(n) * dx.shape[axis] // n, axis)
    return (dx,)


def _last_place(rule: Rule) -> Parts:
    def fwd(x, **static):
        axes = range(1, x.ndim - 1)
        y, res = rule.fwd(x, **static)
        last = math.prod(res.size) - 1 - rule.fwd(jnp.flip(x, axes), **static)[1].winner
        return y, dataclasses.replace(res, winner=jnp.flip(last, axes))

    return {"fwd": fwd}


def _overwritten(res: Any, dy: Array) -> tuple[Array]:
    """Where windows share a winner, the cotangent of one of them arrives."""
    n, *_, c = dy.shape
    at = (jnp.arange(n)[:, None, None], res.winner.reshape(n, -1, c), jnp.arange(c))
    plane = jnp.zeros((n, math.prod(res.size), c), widen(dy).dtype)
    return (plane.at[at].set(widen(dy).reshape(n, -1, c)).reshape(n, *res.size, c),)


def _replaced_ones_too(rule: Rule) -> Parts:
    def fwd(y, indices, **static):
        x, res = rule.fwd(y, indices, **static)
        return x, dataclasses.replace(res, kept=indices)

    return {"fwd": fwd}


MAX_POOL: dict[str, Error] = {
    "ties to the last tap": kept(_last_tap),
    "every tied tap gets all": kept(lambda res, x: {"winner": None, "x": x}, _every_tie),
    "first and split confused": _other_ties,
    "one pixel late": cotangent(0, one_late),
    "overlapping windows averaged": cotangent(
        0,
        lambda dx, res, dy: (
            dx / jnp.maximum(_scatter(res.window, res.size, jnp.ones_like(_of_values(dy))), 1)
        ),
    ),
}
AVG_POOL: dict[str, Error] = {
    "1 / count forgotten": backward(lambda res, dy: (_scatter(res.window, res.size, widen(dy)),)),
    "padding counted the other way": _other_padding_counted,
    "overhang counted": kept(lambda res, x: {"counted": res.window.padding}),
    "stride for window in the count": backward(
        lambda res, dy: (_scatter(res.window, res.size, widen(dy)) / math.prod(res.window.stride),)
    ),
    "one pixel late": cotangent(0, one_late),
}
LP_POOL: dict[str, Error] = {
    "p for p - 1": residual(p=lambda p: p + 1),
    "sign forgotten": residual(x=jnp.abs),
    "root forgotten": _root_forgotten,
    "factor p left": cotangent(0, lambda dx, res, dy: dx * res.p),
}
GLOBAL_MAX_POOL: dict[str, Error] = {
    "ties to the last pixel": kept(_last_pixel),
    "one pixel late": residual(winner=lambda winner: winner + 1),
    "spread over all pixels": backward(_spread),
}
GLOBAL_AVG_POOL: dict[str, Error] = {
    "1 / count forgotten": cotangent(0, lambda dx, res, dy: dx * math.prod(res.size)),
    "only rows counted": cotangent(0, lambda dx, res, dy: dx * math.prod(res.size[1:])),
    "a mean over examples, too": cotangent(0, lambda dx, res, dy: dx / len(dy)),
}
ADAPTIVE_MAX_POOL: dict[str, Error] = {
    "ties to the last pixel": _last_place,
    "one pixel late": residual(winner=lambda winner: winner + 1),
    "shared winners overwritten": backward(_overwritten),
}
ADAPTIVE_AVG_POOL: dict[str, Error] = {
    "1 / count forgotten": backward(lambda res, dy: (spans.span_sum(dy, res.size),)),
    "windows without overlap": backward(_spread_over_blocks),
    "one pixel late": cotangent(0, one_late),
}
MAX_UNPOOL: dict[str, Error] = {
    "gradient for what was replaced": _replaced_ones_too,
    "one pixel late": residual(kept=lambda kept: kept + 1),
    "indices of the next window": residual(kept=lambda kept: jnp.roll(kept, -1, 1)),
}

ERRORS: dict[Rule, dict[str, Error]] = {
    max_pool: MAX_POOL,
    avg_pool: AVG_POOL,
    lp_pool: LP_POOL,
    global_max_pool: GLOBAL_MAX_POOL,
    global_avg_pool: GLOBAL_AVG_POOL,
    adaptive_max_pool: ADAPTIVE_MAX_POOL,
    adaptive_avg_pool: ADAPTIVE_AVG_POOL,
    max_unpool: MAX_UNPOOL,
}
