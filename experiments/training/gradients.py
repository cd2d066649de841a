"""Loss and gradients of a net on a batch: by `jax.grad`, or by the net's own backward."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jcnn
from jcnn.net import Net


class Result(NamedTuple):
    """What a batch gives: its mean loss, its logits, the net's state after it and the loss's gradients."""

    loss: jax.Array
    logits: jax.Array
    state: Any
    grads: Any


Gradients = Callable[..., Result]  # of (params, state, x, labels, key)


def make_gradients(net: Net, backward: str, dtype: jnp.dtype, label_smoothing: float) -> Gradients:
    """Mixed precision: the net computes in `dtype`; loss and gradients are float32, as the parameters."""
    make = {"autodiff": by_autodiff, "explicit": by_hand}[backward]
    return make(net, dtype, functools.partial(jcnn.softmax_cross_entropy, label_smoothing=label_smoothing))


def cast(params: Any, dtype: jnp.dtype) -> Any:
    return jax.tree.map(lambda p: p.astype(dtype), params)


def by_autodiff(net: Net, dtype: jnp.dtype, loss_of: functools.partial) -> Gradients:
    def gradients(params, state, x, labels, key) -> Result:
        def loss(params):
            logits, after = net.apply(cast(params, dtype), state, x.astype(dtype), train=True, key=key)
            logits = logits.astype(jnp.float32)
            return loss_of(logits, labels).mean(), (logits, after)

        (mean, (logits, after)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return Result(mean, logits, after, grads)

    return gradients


def by_hand(net: Net, dtype: jnp.dtype, loss_of: functools.partial) -> Gradients:
    """There is no autodiff in it: every rule is asked for its forward, then, in reverse, for its backward."""

    def gradients(params, state, x, labels, key) -> Result:
        (out, after), res = net.fwd(cast(params, dtype), state, x.astype(dtype), train=True, key=key)
        logits = out.astype(jnp.float32)
        loss, loss_res = loss_of.func.fwd(logits, labels, **loss_of.keywords)
        dloss = jnp.full_like(loss, 1 / len(loss))  # of the mean
        dlogits = loss_of.func.bwd(loss_res, dloss)[0]
        dparams, _ = net.bwd(res, dlogits.astype(out.dtype))
        grads = jax.tree.map(lambda p, dp: dp.astype(p.dtype), params, dparams)
        return Result(loss.mean(), logits, after, grads)

    return gradients


def rematerialized(net: Net) -> Net:
    """The same net for `jax.grad`, in less memory and more time: it keeps the input of every few layers.

    Chen et al. 2016, arXiv:1604.06174: n layers are cut into about sqrt(n) segments; what the backward of a
    segment needs is computed again from its input when it is needed, by `jax.checkpoint`.
    """
    layers = net.children if net.name == "chain" else (net,)
    size = max(1, round(math.sqrt(len(layers))))

    def segment(layers, params, state, x, keys, *, train):
        after = []
        for layer, p, s, k in zip(layers, params, state, keys, strict=True):
            x, s = layer.apply(p, s, x, train=train, key=k)
            after.append(s)
        return x, tuple(after)

    def apply(params, state, x, *, train, key=None):
        keys = (None,) * len(layers) if key is None else tuple(jax.random.split(key, len(layers)))
        after = ()
        for start in range(0, len(layers), size):
            part = slice(start, start + size)
            run = jax.checkpoint(functools.partial(segment, layers[part], train=train))
            x, new = run(params[part], state[part], x, keys[part])
            after += new
        return x, after

    return dataclasses.replace(net, apply=apply) if net.name == "chain" else net
