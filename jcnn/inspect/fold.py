"""Batch norm of inference as a part of the layer before it.

With running statistics batch norm is an affine map of every channel, y = s z + t with s = gamma rstd and
t = beta - mean s, and after z = x w + b it is

    y = x (s w) + (s b + t)

a layer of the same kind with other weights.  The net stays as it is, only its arrays change: batch norm
becomes the identity, gamma = 1 / rstd, beta = mean = 0.
"""

from typing import Any

import jax.numpy as jnp

from jcnn.conv import conv
from jcnn.kernels import widen
from jcnn.linear import dense
from jcnn.net import Net

FOLDABLE = (conv, dense)


def fold_batch_norm(net: Net, params: Any, state: Any) -> tuple[Any, Any]:
    """Parameters and state with which `net` computes the same in inference, its batch norms being identities.

    Only a batch norm that comes directly after a convolution or a dense layer is folded.

    Args:
        net: the net.
        params, state: as for `net.apply`.

    Returns:
        (params, state) for `net.apply(..., train=False)`.  The folded layers have a bias.
    """
    if not net.children:
        return params, state
    folded = [fold_batch_norm(*part) for part in zip(net.children, params, state, strict=True)]
    if net.name == "chain":
        for i, (before, after) in enumerate(zip(net.children, net.children[1:], strict=False)):
            if _weighs(before) and after.name == "batch_norm":
                folded[i : i + 2] = _fold(after, *folded[i], *folded[i + 1])
    return tuple(p for p, _ in folded), tuple(s for _, s in folded)


def _weighs(net: Net) -> bool:
    """Whether the layer is its rule and nothing else; standardised weights, say, stand in its name."""
    return any(net.rule == rule and net.name.split()[0] == rule.name for rule in FOLDABLE)


def _fold(batch_norm: Net, weights: dict, state: Any, norm: dict, stats: dict) -> list[tuple[Any, Any]]:
    ones, zeros = jnp.ones_like(stats["mean"]), jnp.zeros_like(stats["mean"])
    # The layer knows its eps: normalising a 1 gives rstd.
    plain, centred = {"gamma": ones, "beta": zeros}, {"mean": zeros, "var": stats["var"]}
    rstd = batch_norm.apply(plain, centred, ones[None], train=False)[0][0]
    s = widen(norm["gamma"]) * rstd
    t = widen(norm["beta"]) - widen(stats["mean"]) * s
    w, b = weights["w"], weights.get("b", 0)
    folded = {"w": (s * w).astype(w.dtype), "b": (s * b + t).astype(w.dtype)}
    identity = {"gamma": (1 / rstd).astype(norm["gamma"].dtype), "beta": jnp.zeros_like(norm["beta"])}
    return [(folded, state), (identity, centred)]
