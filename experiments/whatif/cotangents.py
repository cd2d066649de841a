"""Noise on cotangents, and cotangents in few bits.

Question: how much noise, and how few bits, do the cotangents of backpropagation bear?

Mathematics.  Every cotangent, of the logits, of what is between the layers and of the weights, is changed
before it is used; forward, weights and optimizer stay in float32.  With d a cotangent and n, u random
numbers, one per entry and step, normal and uniform in [0, 1):

    noise s      d + s rms(d) n     (Neelakantan et al. 2015, arXiv:1511.06807, did it to the gradients of the
                                     weights, s rms(d) falling with the steps; here the learning rate does)
    nearest      the number of a narrow dtype that is nearest to d
    stochastic   ulp (down + (u < d / ulp - down)), ulp being the distance of the numbers beside d and
                 ulp down = ulp floor(d / ulp) the lower one: one of the two, on average d
    scaled       nearest, of d times what makes its largest entry the dtype's (Micikevicius et al. 2022,
                                     arXiv:2209.05433)

The smallest and the largest positive number: 2^-9 and 448 in float8_e4m3, 2^-16 and 57344 in float8_e5m2,
2^-24 and 65504 in float16; bfloat16 has the range of float32.

Command: `python -m experiments.whatif.cotangents --train-images 5000`

Result: test accuracy on Fashion-MNIST in percent, and less that of "none" with the same seed, mean ± standard
deviation (n = 3).
                               none    83.85 ± 0.41
    noise 0.3                          82.71 ± 0.62    -1.14 ± 0.21
    noise 1                            78.77 ± 1.16    -5.07 ± 0.81
    noise 3                            69.20 ± 1.25   -14.65 ± 0.92
    bfloat16                nearest    83.85 ± 0.39    +0.01 ± 0.05
    float16                 nearest    83.83 ± 0.43    -0.02 ± 0.05
    float8_e5m2             nearest    83.79 ± 0.43    -0.06 ± 0.02
                            stochastic 83.91 ± 0.36    +0.06 ± 0.10
                            scaled     83.84 ± 0.41    -0.01 ± 0.03
    float8_e4m3             nearest    81.39 ± 0.24    -2.45 ± 0.36
                            stochastic 83.30 ± 0.41    -0.54 ± 0.18
                            scaled     83.76 ± 0.39    -0.09 ± 0.04
Two bits of significand are enough here; what float8_e4m3 lacks is range, which a scale or chance make up for.
Noise only costs.

Hardware: 2 cores of a shared AMD EPYC, beside other work.
Versions: jax 0.10.2, optax 0.2.8, jcnn 0.1.0, Python 3.11.7.
Date: 2026-11-23
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import jcnn
from experiments.whatif import study
from jcnn.net import Net

Change = Callable[[Array, Array], Array]  # of a key and a cotangent


def noisy(strength: float) -> Change:
    def change(key: Array, d: Array) -> Array:
        return d + strength * jnp.sqrt((d**2).mean()) * jax.random.normal(key, d.shape, d.dtype)

    return change


def nearest(dtype: Any) -> Change:
    return lambda key, d: d.astype(dtype).astype(d.dtype)


def stochastic(dtype: Any) -> Change:
    """For d no larger than the dtype's largest number."""
    info = jnp.finfo(dtype)

    def change(key: Array, d: Array) -> Array:
        exponent = jnp.maximum(jnp.frexp(d)[1] - 1, info.minexp)
        ulp = jnp.ldexp(jnp.ones_like(d), exponent - info.nmant)
        down = jnp.floor(d / ulp)
        return ulp * (down + (jax.random.uniform(key, d.shape) < d / ulp - down))

    return change


def scaled(dtype: Any) -> Change:
    def change(key: Array, d: Array) -> Array:
        largest = jnp.abs(d).max()
        scale = jnp.where(largest > 0, jnp.finfo(dtype).max.astype(d.dtype) / largest, 1)
        return nearest(dtype)(key, d * scale) / scale

    return change


def changed(layer: Net, change: Change) -> Net:
    """The layer with its cotangents changed, that of its output and those of its parameters."""

    def fwd(params, state, x, *, train, key=None):
        y, res = layer.fwd(params, state, x, train=train, key=key)
        return y, (res, key)

    def bwd(saved, dy):
        res, key = saved
        dparams, dx = layer.bwd(res, change(key, dy))
        leaves, tree = jax.tree.flatten(dparams)
        keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
        return jax.tree.unflatten(tree, map(change, keys, leaves)), dx

    return dataclasses.replace(layer, fwd=fwd, bwd=bwd)


E4M3, E5M2 = jnp.float8_e4m3fn, jnp.float8_e5m2
CHANGES: dict[str, Change] = {
    "none": lambda key, d: d,
    **{f"noise {strength:g}": noisy(strength) for strength in (0.3, 1, 3)},
    "bfloat16": nearest(jnp.bfloat16),
    "float16": nearest(jnp.float16),
    **{
        " ".join([name, how.__name__]): how(dtype)
        for name, dtype in (("e4m3", E4M3), ("e5m2", E5M2))
        for how in (nearest, stochastic, scaled)
    },
}


def run(config: study.Config) -> dict[str, Any]:
    data = study.load(config)
    layers = study.small_net(len(data.classes)).children
    variants = {
        name: jcnn.chain(*(changed(layer, change) for layer in layers)) for name, change in CHANGES.items()
    }
    return study.findings(config, study.compare(config, data, variants))


def main(arguments: Sequence[str] | None = None) -> None:
    study.main(__spec__.name, run, arguments)


if __name__ == "__main__":
    main()
