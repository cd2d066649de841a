"""Training with weights of +1 and -1.

Question: can a net learn weights that are only +1 or -1, although the derivative of the sign is zero?

Mathematics.  A convolution computes with b = sign(w), +1 for w = 0, and the optimizer keeps real weights w,
at first uniform from -1 to 1.  The sign is a rule of its own, in front of the convolution:

    true gradient      dw = 0                sign'(w) = 0 wherever it is defined
    straight-through   dw = db               as if b = w (Bengio, Leonard & Courville 2013, arXiv:1308.3432)
    clipped            dw = db [|w| <= 1]    as if b = min(max(w, -1), 1) (Courbariaux et al. 2016,
                                             arXiv:1602.02830)

With the true gradient the convolutions stay what they were at first, random, and the rest of the net learns:
batch norm after each of them, which undoes the scale of b, and the last layer, both with real weights.

Command: `python -m experiments.whatif.binarised`

Result: Fashion-MNIST, 10,000 training images, 3 epochs; test accuracy in percent and the share of the weights
whose sign training changed, in percent; mean ± standard deviation, n = 3.
    real weights        81.99 ± 0.71    10.4 ± 0.2
    straight-through    77.48 ± 0.11    13.2 ± 0.2
    clipped             77.56 ± 0.22    13.1 ± 0.1
    true gradient       70.38 ± 0.26     0.0 ± 0.0
It can, and clipping makes no difference here.  One learning rate for all variants, the
better of two (0.003 and 0.01) for each of them in a trial with seed 0.

Hardware: 2 cores of a shared AMD EPYC.
Versions: jax 0.10.2, optax 0.2.8, Python 3.11.7.
Date: 2026-11-23
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import jcnn
from experiments.training.loop import initial
from experiments.whatif import study
from jcnn import Rule, net


def sign_fwd(w: Array) -> tuple[Array, Array]:
    """+1 where w >= 0, else -1."""
    return jnp.where(w >= 0, 1, -1).astype(w.dtype), w


def sign_reference(w: Array) -> Array:
    return sign_fwd(w)[0]


sign = Rule(sign_fwd, lambda w, db: (jnp.zeros_like(w),), sign_reference)
straight_through = sign.replace(bwd=lambda w, db: (db,))
clipped = sign.replace(bwd=lambda w, db: (jnp.where(abs(w) <= 1, db, 0),))


def binarised(layer: net.Net, rule: Rule) -> net.Net:
    """The layer with the signs of its weights in their place; `rule` gives them, and its backward decides."""

    def apply(params, state, x, **mode):
        return layer.apply(params | {"w": rule(params["w"])}, state, x, **mode)

    def fwd(params, state, x, **mode):
        b, res = rule.fwd(params["w"])
        out, layer_res = layer.fwd(params | {"w": b}, state, x, **mode)
        return out, (res, layer_res)

    def bwd(residuals, dy):
        res, layer_res = residuals
        dparams, dx = layer.bwd(layer_res, dy)
        (dw,) = rule.bwd(res, dparams["w"])
        return dparams | {"w": dw}, dx

    return dataclasses.replace(layer, apply=apply, fwd=fwd, bwd=bwd)


def uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Initial weights, from -1 to 1."""
    return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def variants(classes: int) -> dict[str, net.Net]:
    def with_sign(rule: Rule | None) -> net.Net:
        layers = []
        for width in (16, 32, 64):
            conv = net.conv(width, 3, bias=False, init=uniform)
            layers += [binarised(conv, rule) if rule else conv, net.batch_norm(), jcnn.relu, net.max_pool(2)]
        return net.chain(*layers[:-1], net.global_avg_pool(), net.dense(classes))

    rules = {
        "real weights": None,
        "straight-through": straight_through,
        "clipped": clipped,
        "true gradient": sign,
    }
    return {name: with_sign(rule) for name, rule in rules.items()}


def flipped(model: net.Net, params: Any, seed: int, image_shape: tuple[int, ...]) -> float:
    """The share of the convolutions' weights whose sign is not what it was at first."""
    before, _ = initial(model, seed, image_shape)
    pairs = [(p["w"], q["w"]) for p, q in zip(before, params, strict=True) if "w" in p and p["w"].ndim == 4]
    return float(jnp.concatenate([(sign(v) != sign(w)).ravel() for v, w in pairs]).mean())


def run(config: study.Config) -> dict[str, Any]:
    data = study.load(config)
    nets = variants(len(data.classes))
    trained = study.compare(config, data, nets)
    changed = {
        name: [
            flipped(nets[name], t.params, config.seed + i, data.train_images.shape[1:])
            for i, t in enumerate(runs)
        ]
        for name, runs in trained.items()
    }
    for name, shares in changed.items():
        print(
            f"{name}: sign changed of {study.spread([100 * share for share in shares], 1)} % of the weights"
        )
    return study.findings(config, trained) | {"signs changed": changed}


def main(arguments: Sequence[str] | None = None) -> None:
    study.main(__spec__.name, run, arguments, study.Config(lr=1e-2))


if __name__ == "__main__":
    main()
