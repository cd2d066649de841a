"""Blocks: nets inside of nets."""

import dataclasses
from typing import Any

import jax

from jcnn import check
from jcnn.activation import relu, sigmoid
from jcnn.layer_scale import scale_channels
from jcnn.net.core import Net, chain, output_shape
from jcnn.net.layers import dense
from jcnn.net.pools import global_avg_pool
from jcnn.rule import Rule


def gated(gate: Net, product: Net | None = None) -> Net:
    """x gate(x): every channel of an image times a number that `gate`, [N, *S, C] -> [N, C], makes from it.

    Params and state are pairs (the gate's, empty).  `product` is the net of pairs (x, gate) that multiplies
    them, by default `jcnn.scale_channels`.
    """
    branches = (gate, _product(scale_channels) if product is None else product)

    def init(key, shape):
        if (out := output_shape(gate, shape)) != shape[-1:]:
            check.fail("net.gated", "gate", f"output {out}", f"{shape[-1:]}, the image's channels")
        params, state = gate.init_layer(key, shape)
        return (params, {}), (state, {})

    def apply(params, state, x, *, train, key=None):
        numbers, after = branches[0].apply(params[0], state[0], x, train=train, key=key)
        y, _ = branches[1].apply({}, {}, (x, numbers), train=train)
        return y, (after, {})

    def fwd(params, state, x, *, train, key=None):
        (numbers, after), res_gate = branches[0].fwd(params[0], state[0], x, train=train, key=key)
        (y, _), res = branches[1].fwd({}, {}, (x, numbers), train=train)
        return (y, (after, {})), (res_gate, res)

    def bwd(residuals, dy):
        res_gate, res = residuals
        _, (dx, dnumbers) = branches[1].bwd(res, dy)
        dparams, dx_gate = branches[0].bwd(res_gate, dnumbers)
        return (dparams, {}), dx + dx_gate

    about = {"out_shape": lambda shape: shape, "children": branches, "rebuild": gated}
    return Net("gated", init, apply, fwd, bwd, **about)


def _product(rule: Rule) -> Net:
    """The net of pairs of arrays that is a rule of two arguments."""

    def apply(params, state, pair, *, train, key=None):
        return rule(*pair), state

    def fwd(params, state, pair, *, train, key=None):
        y, res = rule.fwd(*pair)
        return (y, state), res

    def bwd(res, dy) -> tuple[dict, Any]:
        return {}, rule.bwd(res, dy)

    about = {"out_shape": lambda shape: shape, "rule": rule, "rebuild": _product}
    return Net(rule.name, lambda key, shape: ({}, {}), apply, fwd, bwd, **about)


def frozen(net: Net, *names: str) -> Net:
    """The layer with those of its params named, or all of them, left as they are at first: they are state.

    Params are the other ones, state is the pair (frozen params, the layer's own state).

    Example:
        >>> import jax
        >>> from jcnn import net
        >>> layer = net.frozen(net.conv(8, 3), "w")
        >>> params, (kept, _) = layer.init(jax.random.key(0), (28, 28, 1))
        >>> list(params), list(kept)
        (['b'], ['w'])
    """

    if not isinstance(net, Net):
        check.fail("net.frozen", "net", repr(net), "a net", TypeError)

    def trained(params):
        return {n: p for n, p in params.items() if n not in names} if names else {}

    def all_of(params, kept, x):
        kept = jax.tree.map(lambda p: p.astype(x.dtype), kept)
        return params | kept if names else kept

    def init(key, shape):
        params, state = net.init_layer(key, shape)
        own = params if isinstance(params, dict) else {}
        if not set(names) <= set(own):
            expected = f"names of params of {net.name}: {', '.join(own) or 'it has none of its own'}"
            check.fail("net.frozen", "names", ", ".join(names), expected)
        kept = {n: params[n] for n in names} if names else params
        return trained(params), (kept, state)

    def apply(params, state, x, *, train, key=None):
        kept, own = state
        y, after = net.apply(all_of(params, kept, x), own, x, train=train, key=key)
        return y, (kept, after)

    def fwd(params, state, x, *, train, key=None):
        kept, own = state
        (y, after), res = net.fwd(all_of(params, kept, x), own, x, train=train, key=key)
        return (y, (kept, after)), res

    def bwd(res, dy):
        dparams, dx = net.bwd(res, dy)
        return trained(dparams), dx

    def rebuild(*parts: Rule | Net) -> Net:
        assert net.rebuild is not None
        return frozen(net.rebuild(*parts), *names)

    changed = {"init_layer": init, "apply": apply, "fwd": fwd, "bwd": bwd}
    return dataclasses.replace(net, name=f"frozen {net.name}", **changed, rebuild=net.rebuild and rebuild)


def squeeze_excitation(features: int, *, ratio: int = 16) -> Net:
    """Every one of `features` channels times a number in (0, 1) that a small net makes from the means of all.

    Hu et al. 2018, arXiv:1709.01507.  The net is dense(features / ratio), relu, dense(features), sigmoid;
    `gated` takes others.

    Example:
        >>> import jax, jcnn
        >>> from jcnn import net
        >>> block = jcnn.chain(net.conv(32, 3), net.squeeze_excitation(32))
        >>> print(block.summary((8, 8, 3)).rows[-1].receptive_field)
        None
    """
    check.count("net.squeeze_excitation", "features", features)
    check.count("net.squeeze_excitation", "ratio", ratio)
    hidden = max(1, features // ratio)
    return gated(chain(global_avg_pool(), dense(hidden), relu, dense(features), sigmoid))
