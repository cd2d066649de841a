"""Refusing bad input at the call: every error names op, argument, what came and what was expected."""

import math
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jcnn.kernels import accumulator


def fail(op: str, argument: str, got: Any, expected: str, error: type[Exception] = ValueError) -> NoReturn:
    raise error(f"jcnn.{op}: {argument}: got {got}, expected {expected}") from None


def floating(op: str, **arrays: jax.Array | None) -> None:
    """All arrays are real floating point, and of one dtype."""
    present = {name: a for name, a in arrays.items() if a is not None}
    for name, a in present.items():
        if not jnp.issubdtype(a.dtype, jnp.floating):
            fail(op, name, f"dtype {a.dtype}", "a floating-point array; convert it first", TypeError)
    first, *rest = present
    for name in rest:
        if present[name].dtype != present[first].dtype:
            fail(
                op, name, f"dtype {present[name].dtype}", f"{present[first].dtype} like {first!r}", TypeError
            )


def ranks(op: str, name: str, a: jax.Array, allowed: range | tuple[int, ...], layout: str) -> None:
    if a.ndim not in allowed:
        fail(op, name, f"shape {a.shape}", f"{layout}")


def images(op: str, x: jax.Array, name: str = "x", layout: str = "[N, *S, C]") -> None:
    """x is [N, *S, C] with 1, 2 or 3 spatial axes S."""
    ranks(op, name, x, range(3, 6), f"{layout} with 1, 2 or 3 spatial axes")


def pixels(op: str, x: jax.Array) -> None:
    """None of the spatial axes of x [N, *S, C] is empty."""
    if 0 in x.shape[1:-1]:
        fail(op, "x", f"shape {x.shape}", "at least one pixel on every spatial axis")


def shape(op: str, name: str, a: jax.Array | None, expected: tuple[int, ...], why: str = "") -> None:
    if a is not None and a.shape != expected:
        fail(op, name, f"shape {a.shape}", f"shape {expected}{why and ' ' + why}")


def per_channel(op: str, x: jax.Array, **arrays: jax.Array) -> None:
    """All arrays are [C] for x [..., C], in x's dtype or in the one that its sums are accumulated in."""
    for name, a in arrays.items():
        floating(op, **{name: a})
        shape(op, name, a, x.shape[-1:], "like x's last axis")
        as_x_or_wider(op, name, a, x)


def as_x_or_wider(op: str, name: str, a: jax.Array, x: jax.Array) -> None:
    """a has x's dtype, or the one that x's sums are accumulated in."""
    if a.dtype not in (x.dtype, accumulator(x.dtype)):
        fail(op, name, f"dtype {a.dtype}", f"{x.dtype} like x, or float32", TypeError)


def epsilon(op: str, value: Any) -> None:
    if not (isinstance(value, float) and value > 0):
        fail(op, "eps", repr(value), "a float > 0")


def choice(op: str, name: str, value: Any, allowed: tuple) -> None:
    if value not in allowed:
        fail(op, name, repr(value), "one of " + ", ".join(map(repr, allowed)))


def number(
    op: str, name: str, value: Any, low: int | float, high: int | float = float("inf"), *, open_high=False
) -> None:
    """`value` is a Python number in [low, high], or in [low, high)."""
    bracket = ")" if open_high or high == float("inf") else "]"
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (good and low <= value <= high and not (open_high and value == high)):
        fail(op, name, repr(value), f"a number in [{low}, {high}{bracket}")


def positive(op: str, name: str, value: Any) -> None:
    """`value` is a Python number above 0."""
    number(op, name, value, 0)
    if value == 0:
        fail(op, name, value, "a number > 0")


def count(op: str, name: str, value: Any) -> None:
    """`value` is a positive Python int."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        fail(op, name, repr(value), "an int >= 1")


def is_concrete(a: Any) -> bool:
    """Whether the values of `a` can be looked at now (not under jit, vmap or grad of them)."""
    return not isinstance(a, Tracer)
