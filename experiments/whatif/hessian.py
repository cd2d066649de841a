"""The largest eigenvalues of a Hessian, through backwards derived by hand and through autodiff.

Question: does differentiating the hand-derived backwards once more give the curvature of the loss, and at
what cost, compared with autodiff?

Mathematics.  Let g(w) be the gradient of the loss on a fixed batch by the weights w of a net, and H = g'(w)
the Hessian.  As H is symmetric, its product with a vector v is both

    H v = g'(w)^T v    in reverse mode, "reverse" over reverse
    H v = g'(w) v      in forward mode, "forward" over reverse

and g is the net's own backward, with no autodiff in it ("by hand"), or `jax.grad` of the net made of
references ("autodiff").  Such products are all that Lanczos iteration takes to the largest eigenvalues, here
to machine precision, in float64 (ARPACK through scipy; Lehoucq, Sorensen & Yang 1998).

Two nets: SiLU with average pooling is smooth; ReLU with max pooling is linear piece by piece, and has its
curvature from batch norm and the loss.

Command: `python -m experiments.whatif.hessian`

Result: digits, the 256 training images, nets with 1,922 weights; eigenvalues and times as mean ± standard
deviation (n = 3 seeds), the largest relative difference between the four ways, and the time of a product as a
multiple of that by hand in reverse, which takes 54 to 70 ms:
                        eigenvalues                              autodiff      by hand       autodiff
                        1st            10th          difference  reverse       forward       forward
    smooth, at first     2.62 ± 0.35   0.89 ± 0.06   6e-15       1.02 ± 0.03   0.91 ± 0.02   0.79 ± 0.06
    smooth, trained      5.20 ± 1.34   1.30 ± 0.15   3e-15       0.98 ± 0.04   0.92 ± 0.11   0.74 ± 0.02
    piecewise, at first 29.66 ± 2.48   2.99 ± 0.24   7e-15       0.91 ± 0.14   0.82 ± 0.25   0.80 ± 0.11
    piecewise, trained   7.53 ± 1.06   1.18 ± 0.23   3e-15       1.20 ± 0.28   1.05 ± 0.11   0.76 ± 0.04
Differentiating the hand-derived backwards gives the curvature to rounding, in the time that autodiff takes in
reverse; forward mode is cheaper.

Hardware: 2 cores of a shared AMD EPYC, beside other work.
Versions: jax 0.10.2, optax 0.2.8, jcnn 0.1.0, Python 3.11.7.
Date: 2026-11-23
"""

import itertools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.table import Table
from scipy.sparse.linalg import LinearOperator, eigsh

import jcnn
from experiments.benchmark.timing import Budget, call, measure, ratio
from experiments.training.loop import initial
from experiments.whatif import study
from jcnn import net

COUNT = 10  # eigenvalues
WIDTHS = (8, 16)
LAYERS = {"smooth": (jcnn.silu, net.avg_pool), "piecewise linear": (jcnn.relu, net.max_pool)}
Gradient = Callable[[Array], Array]
Product = Callable[[Array, Array], Array]


def make_net(classes: int, activation: jcnn.Rule, pool: Callable[[int], net.Net]) -> net.Net:
    stages = [(net.conv(width, 3, bias=False), net.batch_norm(), activation, pool(2)) for width in WIDTHS]
    return net.chain(*itertools.chain(*stages), net.flatten(), net.dense(classes))


def gradients(model: net.Net, params: Any, state: Any, x: Array, labels: Array) -> dict[str, Gradient]:
    """The gradient of the mean loss, by the weights as one vector."""
    unravel = ravel_pytree(params)[1]

    def loss(w: Array) -> Array:
        logits, _ = model.apply(unravel(w), state, x, train=True)
        return jcnn.softmax_cross_entropy(logits, labels).mean()

    def by_hand(w: Array) -> Array:
        (logits, _), res = model.fwd(unravel(w), state, x, train=True)
        losses, loss_res = jcnn.softmax_cross_entropy.fwd(logits, labels)
        dlogits = jcnn.softmax_cross_entropy.bwd(loss_res, jnp.full_like(losses, 1 / len(losses)))[0]
        return ravel_pytree(model.bwd(res, dlogits)[0])[0]

    return {"by hand": by_hand, "autodiff": jax.grad(jcnn.autodiff(loss))}


def reverse(gradient: Gradient, w: Array, v: Array) -> Array:
    return jax.vjp(gradient, w)[1](v)[0]


def forward(gradient: Gradient, w: Array, v: Array) -> Array:
    """In forward mode, the rules that backwards are made of give way to their references."""
    return jax.jvp(jcnn.autodiff(gradient), (w,), (v,))[1]


def products(gradients: dict[str, Gradient]) -> dict[str, Product]:
    """H v as a function of w and v, in every way."""

    def product(over: Callable[[Gradient, Array, Array], Array], gradient: Gradient) -> Product:
        return jax.jit(lambda w, v: over(gradient, w, v), compiler_options=jcnn.compiler_options())

    return {
        f"{name}, {over.__name__}": product(over, gradient)
        for over in (reverse, forward)
        for name, gradient in gradients.items()
    }


def largest_eigenvalues(product: Product, w: Array, v: Array, count: int) -> np.ndarray:
    """The `count` largest eigenvalues of H at w, in falling order, by Lanczos iteration from v."""
    H = LinearOperator((w.size, w.size), lambda v: np.asarray(product(w, v)), dtype=np.float64)
    return eigsh(H, count, which="LA", v0=np.asarray(v), return_eigenvectors=False)[::-1]


def at(ways: dict[str, Product], w: Array) -> dict[str, Any]:
    """Eigenvalues at w, and how long a product takes; differences and times relative to the first way."""
    v = jax.random.normal(jax.random.key(0), w.shape)
    values = {way: largest_eigenvalues(product, w, v, COUNT) for way, product in ways.items()}
    seconds = measure({way: call(product, w, v) for way, product in ways.items()}, Budget())
    first = next(iter(ways))
    return {
        "eigenvalues": values[first].tolist(),
        "differences": {way: float(np.max(np.abs(e / values[first] - 1))) for way, e in values.items()},
        "milliseconds": 1e3 * statistics.median(seconds[first]),
        "times": {way: ratio(s, seconds[first]).median for way, s in seconds.items()},
    }


def run(config: study.Config) -> dict[str, Any]:
    data = study.load(config)
    x, labels = study.batch(data, config.train_images)
    nets = {name: make_net(len(data.classes), *layers) for name, layers in LAYERS.items()}
    trained = study.compare(config, data, nets)
    seeds, places = range(config.seed, config.seed + config.seeds), {}
    for name, model in nets.items():
        first = [initial(model, seed, x.shape[1:]) for seed in seeds]
        last = [(t.params, t.state) for t in trained[name]]
        with jax.enable_x64(True):
            params, state = jax.tree.map(jnp.float64, first[0])
            ways = products(gradients(model, params, state, jnp.float64(x), labels))
            for when, weights in ((f"{name}, at first", first), (f"{name}, trained", last)):
                vectors = [ravel_pytree(jax.tree.map(jnp.float64, params))[0] for params, _ in weights]
                places[when] = [at(ways, w) for w in vectors]
    return findings(places)


def findings(places: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """A row for each net, at first and trained, and what all of them say together."""
    every = [found for seeds in places.values() for found in seeds]
    first, *others = every[0]["times"]

    def times(of: list[dict[str, Any]]) -> list[str]:
        return [study.spread([found["times"][way] for found in of]) for way in others]

    def worst(of: list[dict[str, Any]]) -> str:
        return f"{max(max(found['differences'].values()) for found in of):.0e}"

    table = Table("net", "largest", f"{COUNT}th", "difference", f"{first}, ms", *others)
    for name, seeds in places.items():
        largest, last = np.array([found["eigenvalues"] for found in seeds])[:, (0, -1)].T
        ms = study.spread([found["milliseconds"] for found in seeds], 0)
        table.add_row(name, study.spread(largest), study.spread(last), worst(seeds), ms, *times(seeds))
    Console(width=130).print(table)
    ratios = ", ".join(f"{way} {spread}" for way, spread in zip(others, times(every), strict=True))
    result = (
        f"the {COUNT} largest eigenvalues agree to {worst(every)}; "
        f"time of a product over that {first}: {ratios} (n = {len(every)})"
    )
    return {"result": result, "places": places}


DEFAULT = study.Config(dataset="digits", train_images=256, epochs=60)


def main(arguments: Sequence[str] | None = None) -> None:
    study.main(__spec__.name, run, arguments, DEFAULT)


if __name__ == "__main__":
    main()
