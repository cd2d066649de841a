"""What the set is made of: a rule, an error planted in it, and the ways of planting one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Rule = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]

# What a diagnosis may say, to be joined by "|", without what any report says (error, entry, expected).
FACTOR = r"factor|scale|scaling|ratio\b|multipl|coefficient|constant|twice|doubl|half\b|times (the|too)"
COUNT = rf"{FACTOR}|1/N|mean|average|\bsum|batch|count\b|counted|normali[sz]"
SIGN = r"\bsign|negat|minus|opposite|-1\b"
TRANSPOSED = r"transpos|swap|permut|exchang|\baxes|\baxis|\.T\b|channel"
FLIPPED = r"flip|revers|mirror|rotat|180|correlation"
SHIFTED = r"shift|\broll|offset|off.by.one|padd|border|edge|crop|displac|wrap"
PARTIAL = r"only (in|at|for|where|some|one)|single|isolated|\brow|column|channel|slice|first (example|row)"
STRUCTURE = r"structure|tree|tuple|container|None|missing|length|too (few|many)|\d cotangent|number of"
SHAPE = r"shape|\brank|ndim|broadcast"
DTYPE = r"dtype|precision|\bcast|round|int32|float32|single|bf16|bfloat|digits|accura"
SECOND = r"second|higher|hessian|stop.?gradient|grad.of.grad|differentia(ted|ble|ting)|reverse.mode"
NONLINEAR = r"linear|homogen|additiv|superpos|scale|\bsign|depends on dy|negative|proportional"
TRACED = r"\bjit|trace|tracing|concret|abstract|vmap|vectori|transformation|compile|numpy"
IMPURE = rf"state|determin|random|repro|repeat|noise|\bpure|impure|\bcall|side.?effect|again|leak|{TRACED}"
UNSTABLE = r"\bnan|\binf\b|finite|overflow|underflow|stable|stabil|\blarge\b|extreme|saturat"
KINK = r"kink|x ?==? ?0|\bzero|\bat 0|\btie|subgradient|non.?smooth|boundary|equal maxima"


@dataclasses.dataclass(frozen=True)
class Planted:
    """One error: what is wrong and where it is seen, the rule that has it, what a diagnosis should match."""

    what: str
    rule: Rule
    cause: str


@dataclasses.dataclass(frozen=True)
class Classic:
    """A correct rule, example arguments `args(rng, dtype)`, and the rule's variants that are wrong."""

    name: str
    rule: Rule
    args: Callable[[np.random.Generator, Any], tuple[Any, ...]]
    planted: dict[str, Planted]


def plant(what: str, cause: str, rule: Rule, seen: str = "in first order, anywhere") -> Planted:
    return Planted(f"{what}; seen {seen}", rule, cause)


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator, Any], tuple[Any, ...]]:
    """Arguments that are standard normal arrays of these shapes."""
    return lambda rng, dtype: tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)


def labelled(n: int, c: int) -> Callable[[np.random.Generator, Any], tuple[Any, ...]]:
    """Normal scores [N, C] and labels [N]."""

    def args(rng, dtype):
        return *normal((n, c))(rng, dtype), jnp.asarray(rng.integers(0, c, n), jnp.int32)

    return args


def part(rule: Rule, i: int, g: Callable[..., Any]) -> Rule:
    """Cotangent `i` is `g(res, dy)`."""
    f, fwd, bwd = rule

    def wrong(res, dy):
        cotangents = bwd(res, dy)
        return *cotangents[:i], g(res, dy), *cotangents[i + 1 :]

    return f, fwd, wrong


def post(rule: Rule, i: int, h: Callable[[Any], Any]) -> Rule:
    """`h` is applied to cotangent `i`."""
    f, fwd, bwd = rule

    def wrong(res, dy):
        cotangents = bwd(res, dy)
        return *cotangents[:i], jax.tree.map(h, cotangents[i]), *cotangents[i + 1 :]

    return f, fwd, wrong


def pre(rule: Rule, h: Callable[[Any], Any]) -> Rule:
    """`h` is applied to dy before the backward."""
    f, fwd, bwd = rule
    return f, fwd, lambda res, dy: bwd(res, jax.tree.map(h, dy))


def saved(rule: Rule, i: int, h: Callable[[Any], Any]) -> Rule:
    """`h` is applied to residual `i` before the backward."""
    f, fwd, bwd = rule
    return f, fwd, lambda res, dy: bwd((*res[:i], jax.tree.map(h, res[i]), *res[i + 1 :]), dy)


def back(rule: Rule, bwd: Callable[..., Any]) -> Rule:
    """Another backward."""
    return rule[0], rule[1], bwd


def anew(rule: Rule, bwd: Callable[..., Any]) -> Rule:
    """Another backward, whose residuals are the arguments."""
    f = rule[0]
    return f, lambda *args: (f(*args), args), bwd
