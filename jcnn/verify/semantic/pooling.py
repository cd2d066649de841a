"""What people get wrong in the backwards of pools."""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from jcnn.kernels import taps, widen
from jcnn.pool import avg_pool, global_avg_pool, global_max_pool, max_pool
from jcnn.rule import Rule
from jcnn.verify.semantic.errors import Error, Parts, backward, cotangent, kept, one_late, residual


def _scatter(w: Any, size: tuple[int, ...], part: Array) -> Array:
    """`part` at every tap of the window."""
    return taps.scatter([part] * math.prod(w.kernel), w, size)


def _every_tie(res: Any, dy: Array) -> tuple[Array]:
    reads = taps.gather(res.x, res.window, fill=-jnp.inf)
    best = jnp.max(jnp.stack(reads), 0)
    parts = [jnp.where(read == best, widen(dy), 0) for read in reads]
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


MAX_POOL: dict[str, Error] = {
    "ties to the last tap": kept(_last_tap),
    "every tied tap gets all": kept(lambda res, x: {"winner": None, "x": x}, _every_tie),
    "first and split confused": _other_ties,
    "one pixel late": cotangent(0, one_late),
    "overlapping windows averaged": cotangent(
        0, lambda dx, res, dy: dx / jnp.maximum(_scatter(res.window, res.size, jnp.ones_like(widen(dy))), 1)
    ),
}
AVG_POOL: dict[str, Error] = {
    "1 / count forgotten": backward(lambda res, dy: (_scatter(res.window, res.size, widen(dy)),)),
    "padding counted the other way": residual(count_include_pad=lambda counted: not counted),
    "stride for window in the count": backward(
        lambda res, dy: (_scatter(res.window, res.size, widen(dy)) / math.prod(res.window.stride),)
    ),
    "one pixel late": cotangent(0, one_late),
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

ERRORS: dict[Rule, dict[str, Error]] = {
    max_pool: MAX_POOL,
    avg_pool: AVG_POOL,
    global_max_pool: GLOBAL_MAX_POOL,
    global_avg_pool: GLOBAL_AVG_POOL,
}
