"""Max pooling with other policies for ties.

Question: does it matter to training which of several equal maxima gets the gradient of a max pooling?

Mathematics.  y = max_t x_t over the taps t of a window, and several taps hold the maximum.  `holds` says
which, and a policy makes of it the `share` of dy that each tap gets:

    first    1 for the first one in row-major order          (the convention, and jcnn's default)
    random   1 for one of them, drawn for every place in a batch; an image changes places from epoch to epoch
    split    1 / q for each of the q                         (jcnn's ties="split")
    all      1 for each of the q, that is, q times the gradient

The first three are generalised gradients of the maximum; the last is not, unless q = 1.  Most ties after ReLU
are windows of zeros, where no policy does anything, as relu'(0) = 0.  Most of the others are in flat parts of
the image, where the taps tie because the same patch lies under each of them: the gradient of the weights is
made of dy times the patch, so it is the same whoever gets dy.  Policies can differ only where different
patches give equal values.  They rarely do, so each policy is tried a second time with ReLU's values rounded
to multiples of 1/2, its derivative as before ("rounded", not "exact").

Command: `python -m experiments.whatif.pool_ties`

Result: Fashion-MNIST, 10,000 training images, 3 epochs; test accuracy in percent, mean ± standard deviation,
n = 3; and, after training with seed 0, how far the gradient of the first convolution's weights is from that
of "first", relative to its length.
             exact                    rounded
    first    86.57 ± 0.12   0         86.10 ± 0.04   0
    random   86.57 ± 0.15   2e-7      86.28 ± 0.34   0.36
    split    86.56 ± 0.13   2e-7      86.20 ± 0.30   0.26
    all      86.51 ± 0.24   0.72      86.05 ± 0.34   2.70
Of the windows 53 % tie in the first pooling and 43 % in the second, 23 % and 6 % above 0; rounded, 82 % and
69 %, 30 % and 18 % above 0.  So the policy does not matter: exact, three of them are the same gradient but
for rounding errors; where the gradients do differ, the accuracies do not by more than between seeds.

Hardware: 2 cores of a shared AMD EPYC.
Versions: jax 0.10.2, optax 0.2.8, Python 3.11.7.
Date: 2026-11-23
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import jcnn
from experiments.training.gradients import make_gradients
from experiments.whatif import study
from jcnn import net
from jcnn.kernels import taps

POLICIES: dict[str, Callable[[Array], Array]] = {  # holds [T, ...] -> share [T, ...]
    "first": lambda holds: holds & (jnp.cumsum(holds, 0) == 1),
    "random": lambda holds: jax.nn.one_hot(
        jnp.where(holds, jax.random.uniform(jax.random.key(0), holds.shape), -1).argmax(0), len(holds), axis=0
    ),
    "split": lambda holds: holds / holds.sum(0),
    "all": lambda holds: holds,
}


def holders(x: Array, window: Any) -> tuple[Array, Array]:
    """The maximum of every window, and which of its taps hold it."""
    reads = jnp.stack(taps.gather(x, window, fill=-jnp.inf))
    return reads.max(0), reads == reads.max(0)


def max_pool_bwd(policy: Callable[[Array], Array], res: Any, dy: Array) -> tuple[Array]:
    """The backward of max pooling with a policy; `res` has x, as it has with ties="split"."""
    share = policy(holders(res.x, res.window)[1])
    return (taps.scatter(list(share * dy), res.window, res.size),)


def rounded_relu_fwd(x: Array) -> tuple[Array, Any]:
    y, res = jcnn.relu.fwd(x)
    return jnp.round(2 * y) / 2, res


RELUS = {"exact": jcnn.relu, "rounded": jcnn.relu.replace(fwd=rounded_relu_fwd)}


def variants(classes: int, relu: jcnn.Rule) -> dict[str, net.Net]:
    base = study.small_net(classes, net.max_pool(2, ties="split")).with_rules({jcnn.relu: relu})
    pools = {n: jcnn.max_pool.replace(bwd=functools.partial(max_pool_bwd, p)) for n, p in POLICIES.items()}
    return {name: base.with_rules({jcnn.max_pool: pool}) for name, pool in pools.items()}


def ties(model: net.Net, params: Any, x: Array) -> dict[str, list[float]]:
    """The share of windows that tie, and that tie above 0, for each pooling of the net."""
    found: dict[str, list[float]] = {"tied": [], "tied above 0": []}
    for layer, p in zip(model.children, params, strict=True):
        if layer.name.startswith("max_pool"):
            y, holds = holders(x, layer.window(x.shape[1:]))
            tied = holds.sum(0) > 1
            found["tied"].append(float(tied.mean()))
            found["tied above 0"].append(float((tied & (y > 0)).mean()))
        x, _ = layer.apply(p, {}, x, train=False)
    return found


def gradient(model: net.Net, params: Any, x: Array, labels: Array) -> Array:
    """Of the weights of the first convolution."""
    gradients = jax.jit(make_gradients(model, "explicit", jnp.dtype("float32"), 0.0))
    return gradients(params, ({},) * len(params), x, labels, None).grads[0]["w"]


def facts(nets: Mapping[str, net.Net], params: Any, x: Array, labels: Array) -> dict[str, Any]:
    """How often there are ties, and how far each gradient is from the first net's, relative to its length."""
    grads = {name: gradient(model, params, x, labels) for name, model in nets.items()}
    first, *_ = grads.values()
    size = jnp.linalg.norm(first)
    far = {name: float(jnp.linalg.norm(g - first) / size) for name, g in grads.items()}
    return ties(nets["first"], params, x) | {"gradient differs by": far}


def run(config: study.Config) -> dict[str, Any]:
    data = study.load(config)
    x, labels = study.batch(data, 1000)
    nets = {kind: variants(len(data.classes), relu) for kind, relu in RELUS.items()}
    all_nets = {f"{kind} {name}": model for kind in nets for name, model in nets[kind].items()}
    trained = study.compare(config, data, all_nets)
    found = {kind: facts(nets[kind], trained[f"{kind} first"][0].params, x, labels) for kind in nets}
    print(found)
    return study.findings(config, trained) | {"after training": found}


def main(arguments: Sequence[str] | None = None) -> None:
    study.main(__spec__.name, run, arguments)


if __name__ == "__main__":
    main()
