"""Backpropagation without the transposed weights.

Question: does a convolutional net learn if the error comes back through fixed random weights?

Mathematics.  Layer i computes a_i = h_i w_i (a convolution or a product) and h_{i+1} = relu(norm(a_i)),
pooled after a convolution; e is the cotangent of the logits.  The weights' gradients, dw_i = h_i^T da_i, and
the way from dh_{i+1} to da_i are the true ones in all variants.  They differ in what a layer hands down:

    backpropagation              dh_i = da_i w_i^T
    feedback alignment           dh_i = da_i B_i^T    B_i like w_i, random and fixed (Lillicrap et al. 2016,
                                                      Nature Communications 7:13276)
    direct feedback alignment    dh_i = e B_i         B_i from the classes to h_i, random and fixed
                                                      (Nokland 2016, arXiv:1609.01596)
    dense layers only            as backpropagation, but 0 for the convolutions, which stay random: a control
    last layer only              dh_i = 0, all but the last layer stay random: another

Alignment means that the w_i come to suit the B_i: dw_i turns towards the true gradient, less than 90 degrees
away from it.  The net has batch norm since, in a trial without it, both came within a point or so of the last
layer alone; Liao, Leibo & Poggio 2016, arXiv:1510.05067, found that it matters, too.

Command: `python -m experiments.whatif.feedback_alignment`

Result: Fashion-MNIST, 10,000 training images, 3 epochs; test accuracy in percent and degrees between the
gradients and the true ones after training, for the two convolutions and the dense layer between; mean ±
standard deviation, n = 3.
    backpropagation              88.26 ± 0.06
    feedback alignment           86.21 ± 0.17    95 ± 24   92 ± 3   60 ± 4
    direct feedback alignment    86.11 ± 0.23    85 ± 7    94 ± 6   63 ± 2
    dense layers only            87.27 ± 0.16
    last layer only              67.92 ± 2.31
The net learns, but only the dense layer is aligned.  The convolutions are not: what they learn makes them
worse than random ones that stay as they are.  One learning rate for all variants, tuned for none of them.

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
from experiments.training.gradients import make_gradients
from experiments.whatif import study
from jcnn import net
from jcnn.net.core import output_shape
from jcnn.net.layers import HE_NORMAL

WEIGHTED = (jcnn.conv, jcnn.dense)


def feedback_alignment(layer: net.Net) -> net.Net:
    """The layer, the cotangent of whose input goes through random weights kept in the state."""

    def init(key, shape):
        params, _ = layer.init_layer(key, shape)
        return params, {"feedback": HE_NORMAL(jax.random.fold_in(key, 1), params["w"].shape)}

    def fwd(params, state, x, **mode):
        out, res = layer.fwd(params, state, x, **mode)
        return out, (res, state["feedback"])

    def bwd(residuals, dy):
        res, feedback = residuals
        dparams, _ = layer.bwd(res, dy)
        _, dx = layer.bwd(dataclasses.replace(res, w=feedback), dy)
        return dparams, dx

    return dataclasses.replace(layer, init_layer=init, fwd=fwd, bwd=bwd)


def direct_feedback_alignment(base: net.Net, classes: int) -> net.Net:
    """The chain, in which each layer with weights hands down what random weights make of dlogits."""
    layers = base.children

    def init(key, shape):
        params, state = base.init_layer(key, shape)
        feedback = []
        for i, layer in enumerate(layers):
            random = jax.random.normal(jax.random.fold_in(key, i), (classes, *shape))
            feedback.append(random if layer.rule in WEIGHTED else None)
            shape = output_shape(layer, shape)
        return params, (state, tuple(feedback))

    def apply(params, state, x, **mode):
        y, after = base.apply(params, state[0], x, **mode)
        return y, (after, state[1])

    def fwd(params, state, x, **mode):
        (y, after), res = base.fwd(params, state[0], x, **mode)
        return (y, (after, state[1])), (res, state[1])

    def bwd(residuals, dlogits):
        dparams, dx = [], dlogits
        for layer, res, feedback in zip(*map(reversed, (layers, *residuals)), strict=True):
            dp, dx = layer.bwd(res, dx)
            if feedback is not None:
                dx = jnp.tensordot(dlogits, feedback, 1)
            dparams.append(dp)
        return tuple(reversed(dparams)), dx

    return dataclasses.replace(base, init_layer=init, apply=apply, fwd=fwd, bwd=bwd)


def make_net(classes: int) -> net.Net:
    layers = []
    for width in (16, 32):
        layers += [net.conv(width, 3, bias=False), net.batch_norm(), jcnn.relu, net.max_pool(2)]
    layers += [net.flatten(), net.dense(64, bias=False), net.batch_norm(), jcnn.relu]
    return net.chain(*layers, net.dense(classes))


def variants(base: net.Net, classes: int) -> dict[str, net.Net]:
    aligned = (feedback_alignment(c) if c.rule in WEIGHTED else c for c in base.children)
    no_relu = jcnn.relu.replace(bwd=lambda res, dy: (jnp.zeros_like(dy),))
    no_flatten = jcnn.flatten.replace(bwd=lambda res, dy: (jnp.zeros(res.shape),))
    return {
        "backpropagation": base,
        "feedback alignment": net.chain(*aligned),
        "direct feedback alignment": direct_feedback_alignment(base, classes),
        "dense layers only": base.with_rules({jcnn.flatten: no_flatten}),
        "last layer only": base.with_rules({jcnn.relu: no_relu}),
    }


def gradients(model: net.Net, params: Any, state: Any, x: Array, labels: Array) -> list[Array]:
    """Of the weights of each layer but the last, whose gradient is the true one."""
    of = jax.jit(make_gradients(model, "explicit", jnp.dtype("float32"), 0.0))
    return [dp["w"].ravel() for dp in of(params, state, x, labels, None).grads if "w" in dp][:-1]


def degrees(a: Array, b: Array) -> float:
    """The angle between two vectors."""
    return float(jnp.degrees(jnp.arccos(a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b))))


def run(config: study.Config) -> dict[str, Any]:
    data = study.load(config)
    classes = len(data.classes)
    nets = variants(make_net(classes), classes)
    trained = study.compare(config, data, nets)
    x, labels = study.batch(data, 1000)
    base, found = nets["backpropagation"], {}
    for name in ("feedback alignment", "direct feedback alignment"):
        angles = []
        for own, other in zip(trained[name], trained["backpropagation"], strict=True):
            wrong = gradients(nets[name], own.params, own.state, x, labels)
            true = gradients(base, own.params, other.state, x, labels)  # training does not read that state
            angles.append(list(map(degrees, wrong, true)))
        found[name] = angles
        layers = ", ".join(study.spread(layer, 0) for layer in zip(*angles, strict=True))
        print(f"{name}: the gradients of the layers are {layers} degrees from the true ones")
    return study.findings(config, trained) | {"degrees": found}


def main(arguments: Sequence[str] | None = None) -> None:
    study.main(__spec__.name, run, arguments)


if __name__ == "__main__":
    main()
