"""Backward rules that explain instead of differentiate: each is another `bwd` for a rule of jcnn.

    model.with_rules({jcnn.relu: guided(jcnn.relu)})

Rectifiers.  Let y = f(x) be an activation that passes what is positive, and dy the cotangent of y:

    gradient               dx = f'(x) dy
    deconvnet              dx = max(dy, 0)             the rectifier once more, on the way back
    guided backpropagation dx = f'(x) max(dy, 0)       both

Relevance (LRP).  Every neuron has a relevance, and a layer hands those of its outputs to its inputs, in the
proportion in which they contributed.  Of a layer z_j = sum_i x_i w_ij + b_j that is

    epsilon rule           R_i = sum_j x_i w_ij / (z_j + eps sign(z_j)) R_j           eps damps small z_j
    z+ rule                R_i = sum_j (x_i w_ij)+ / (sum_k (x_k w_kj)+) R_j          a+ = max(a, 0)

where the bias of the epsilon rule keeps its share.  Activations y = f(z) hand on what they get.

Neurons that are 0 have no relevance, so let R = x m: what is propagated is the multiplier m, as if it were a
cotangent, and relevance is input times multiplier at any layer one likes.  Put into the rules above:

    epsilon rule           m_i = sum_j w_ij (m_j z_j / (z_j + eps sign(z_j)))      the gradient's, of damped m
    z+ rule                m_i = sum_j w_ij [x_i w_ij > 0] (m_j z_j / sum_k (x_k w_kj)+)
    activations            m_z = m_y f(z) / z

So what is linear keeps its own backward: average pools, the sums of residual blocks, flattening, and
normalisation by given statistics (whose shift, like a bias, keeps its share).  Rectifiers do, as
relu(z) / z = relu'(z), and so does max pooling, where the winner takes all.  In a product of a signal and its
gate, the gate is a weight and gets nothing.

Reference.  Zeiler & Fergus 2014, arXiv:1311.2901 (deconvnet); Springenberg et al. 2015, arXiv:1412.6806
(guided backpropagation); Bach et al. 2015, PLoS ONE 10(7) e0130140 (epsilon; z+ is their rule of alpha 1,
beta 0); Montavon et al. 2017, arXiv:1512.02479 (z+); Ancona et al. 2018, arXiv:1711.06104, proposition 1 (LRP
as a gradient with other slopes); Arras et al. 2017, arXiv:1706.07206 (gates).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jcnn.rule import Rule


@functools.cache
def guided(rule: Rule) -> Rule:
    """An activation that hands back no negative gradients, besides what its derivative holds back."""

    def bwd(res: Any, dy: Array) -> tuple[Array]:
        return rule.bwd(res, jnp.maximum(dy, 0))

    return rule.replace(bwd=bwd)


@functools.cache
def deconvolution(rule: Rule) -> Rule:
    """An activation that hands back the positive gradients, whatever its input was."""

    def bwd(res: Any, dy: Array) -> tuple[Array]:
        return (jnp.maximum(dy, 0),)

    return rule.replace(bwd=bwd)


@functools.cache
def epsilon(rule: Rule, *, eps: float | int = 1e-6) -> Rule:
    """The epsilon rule of a layer `(x, w, b=None, **config)` that is linear in x, such as `jcnn.conv`."""

    @_like(rule)
    def fwd(x: Array, w: Array, b: Array | None = None, **config):
        z, res = rule.fwd(x, w, b, **config)
        return z, (res, z)

    def bwd(saved: tuple, m: Array) -> tuple:
        res, z = saved
        return rule.bwd(res, m * _ratio(z, z, eps))

    return rule.replace(fwd=fwd, bwd=bwd)


@functools.cache
def z_plus(rule: Rule) -> Rule:
    """The z+ rule of a layer `(x, w, b=None, **config)` that is linear in x and in w, such as `jcnn.conv`.

    A contribution is positive where x and w are both positive or both negative.
    """

    @_like(rule)
    def fwd(x: Array, w: Array, b: Array | None = None, **config):
        z = rule.fwd(x, w, b, **config)[0]
        above, res_above = rule.fwd(jnp.maximum(x, 0), jnp.maximum(w, 0), **config)
        below, res_below = rule.fwd(jnp.minimum(x, 0), jnp.minimum(w, 0), **config)
        return z, (x, (w, b), _ratio(z, above + below), res_above, res_below)

    def bwd(saved: tuple, m: Array) -> tuple:
        x, weights, ratio, res_above, res_below = saved
        m_above, m_below = (rule.bwd(res, m * ratio)[0] for res in (res_above, res_below))
        # What explains a decision does not train: weights have no cotangent.
        return jnp.where(x > 0, m_above, m_below), *jax.tree.map(jnp.zeros_like, weights)

    return rule.replace(fwd=fwd, bwd=bwd)


@functools.cache
def pass_through(rule: Rule) -> Rule:
    """An elementwise `(x, **config)` that hands the relevance of its output to its input."""

    @_like(rule)
    def fwd(x: Array, **config):
        y = rule.fwd(x, **config)[0]
        return y, (x, y)

    def bwd(saved: tuple, m: Array) -> tuple[Array]:
        x, y = saved
        return (m * _ratio(y, x),)

    return rule.replace(fwd=fwd, bwd=bwd)


@functools.cache
def ungated(rule: Rule) -> Rule:
    """A product `(x, numbers)` of a signal and what gates it: all relevance goes to the signal."""

    def bwd(res: Any, m: Array) -> tuple[Array, Array]:
        dx, dnumbers = rule.bwd(res, m)
        return dx, jnp.zeros_like(dnumbers)

    return rule.replace(bwd=bwd)


def _ratio(a: Array, b: Array, eps: float | int = 0) -> Array:
    """a / (b + eps sign(b)), and 0 where b is 0: there is nothing that could be handed on."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b + eps * jnp.sign(b)))


def _like(rule: Rule) -> Callable:
    """Gives a forward the signature, and the documentation, of the rule that it replaces."""
    return functools.wraps(rule, updated=())
