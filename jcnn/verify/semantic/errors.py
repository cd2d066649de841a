"""The ways to put an error into a rule: pieces for the mutants that this package names after what people
get wrong.

An error is made against the public residuals and ops: by a change to what the forward keeps, to a residual
on its way into the backward, or to a cotangent on its way out.  Where it does not apply (channels swapped
where their counts differ, say) the rule stays as it was.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from jcnn.kernels import widen
from jcnn.rule import Rule

Parts = dict[str, Callable[..., Any]]  # a broken "fwd" or "bwd", or both
Error = Callable[[Rule], Parts]


def backward(broken: Callable[..., tuple]) -> Error:
    """Another backward altogether, `(res, dy) -> cotangents`."""
    return lambda rule: {"bwd": broken}


def residual(**changes: Callable[[Any], Any]) -> Error:
    """The backward reads other residuals: `field=change` of what was kept there."""

    def error(rule):
        def bwd(res, dy):
            fields = {name: change(getattr(res, name)) for name, change in changes.items()}
            return rule.bwd(dataclasses.replace(res, **fields), dy)

        return {"bwd": bwd}

    return error


def cotangent(i: int, change: Callable[[Array, Any, Any], Any]) -> Error:
    """Cotangent i is `change(cotangent, res, dy)`."""

    def error(rule):
        def bwd(res, dy):
            cts = list(rule.bwd(res, dy))
            cts[i] = None if cts[i] is None else change(widen(cts[i]), res, dy)
            return tuple(cts)

        return {"bwd": bwd}

    return error


def kept(change: Callable[[Any, Array], dict], bwd: Callable[..., tuple] | None = None) -> Error:
    """The forward keeps other residuals, fields `change(res, x)`, perhaps for another backward."""

    def error(rule):
        def fwd(x, **static):
            y, res = rule.fwd(x, **static)
            return y, dataclasses.replace(res, **change(res, x))

        return {"fwd": fwd} if bwd is None else {"fwd": fwd, "bwd": bwd}

    return error


def flipped(w: Array) -> Array:
    return jnp.flip(w, range(w.ndim - 2))


def channels_swapped(w: Array) -> Array:
    return w.swapaxes(-1, -2) if w.shape[-1] == w.shape[-2] else w


def one_late(ct: Array, res: Any, dy: Any) -> Array:
    """One pixel too far along the first spatial axis."""
    return jnp.roll(ct, 1, 1)


def rows(a: Array) -> int:
    return math.prod(a.shape[:-1])
