"""Where the first number that is not finite comes from."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jcnn.inspect.layers import noting
from jcnn.net import Net

NOTED = {
    "params": "the parameters",
    "output": "the output",
    "cotangent": "the gradient of the output",
    "dparams": "the gradient of the parameters",
    "dx": "the gradient of the input",
}


def first_not_finite(
    net: Net,
    params: Any,
    state: Any,
    x: jax.Array,
    key: jax.Array | None = None,
    dlogits_of: Callable | None = None,
    *,
    train: bool = True,
) -> str:
    """Runs a net layer by layer, forward and back; says where the first NaN or infinity appears.

    Args:
        net: the net.
        params: its parameters.
        state: its state.
        x: the batch.
        key: random key of the step.
        dlogits_of: the cotangent of the logits, as a function of them; without it, only forward.
        train: as for `net.apply`.
    """
    found: list[str] = []

    def note(where: str, value: Any) -> None:
        if not found and (bad := not_finite(value)):
            found.append(f"first seen in {where}: {bad}")

    note("the images", x)
    watched = watch(net, note)
    (logits, _), res = watched.fwd(params, state, x, train=train, key=key)
    if not found and dlogits_of is not None:
        watched.bwd(res, dlogits_of(logits).astype(logits.dtype))
    return found[0] if found else "no layer shows it when the layers run one by one"


def not_finite(tree: Any) -> str:
    """How many numbers in the floating arrays of a tree are not finite; "" if none."""
    arrays = [a for a in jax.tree.leaves(tree) if jnp.issubdtype(a.dtype, jnp.inexact)]
    nan, infinite = (sum(int(test(a).sum()) for a in arrays) for test in (jnp.isnan, jnp.isinf))
    if nan + infinite == 0:
        return ""
    return f"{nan} NaN and {infinite} infinite of {sum(a.size for a in arrays)} numbers"


def watch(net: Net, note: Callable[[str, Any], None]) -> Net:
    """The same net, which shows `note` what goes into and comes out of every layer while it runs."""
    rows = itertools.count()

    def put(net: Net) -> Net:
        if net.children:
            return net.rebuild(*map(put, net.children))  # pyright: ignore
        where = f"of layer {next(rows)}, {net.name}"
        return noting(net, lambda what, value: note(f"{NOTED[what]} {where}", value))

    return put(net)
