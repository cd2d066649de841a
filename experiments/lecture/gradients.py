"""Sections on gradients: of softmax cross-entropy, and of a whole net, step by step."""

import jax
import jax.numpy as jnp
import numpy as np

import jcnn
from experiments.lecture import plots
from experiments.lecture.page import Picture, Section, error, formula, paragraph, table
from experiments.lecture.training import Trained

IMAGES, FILTERS = 8, 4


def softmax_cross_entropy() -> Section:
    z, label, step = np.array([2.0, 1.0, -1.0, 0.5]), 1, 1e-5

    def loss(z):
        """In NumPy, in two lines, for the differences."""
        return np.log(np.sum(np.exp(z))) - z[label]

    @jax.jit
    def rule(z):
        value, res = jcnn.softmax_cross_entropy.fwd(z, jnp.array(label))
        return value, jcnn.softmax_cross_entropy.bwd(res, jnp.ones(()))[0]

    value, by_hand = map(np.asarray, rule(z))
    by_autodiff = np.asarray(
        jax.jit(jax.grad(jcnn.autodiff(lambda z: jcnn.softmax_cross_entropy(z, label))))(z)
    )
    moves = step * np.eye(len(z))
    by_differences = np.array([(loss(z + move) - loss(z - move)) / (2 * step) for move in moves])
    p, t = np.exp(z) / np.exp(z).sum(), np.eye(len(z))[label]
    ways = {"p - t": by_hand, "autodiff": by_autodiff, "differences": by_differences}
    figure = plots.canvas(7, 2.5)
    axes = figure.subplots()
    for i, ((name, slope), colour) in enumerate(zip(ways.items(), plots.COLOURS, strict=False)):
        axes.bar(np.arange(len(z)) + 0.27 * (i - 1), slope, 0.25, label=name, color=colour)
    axes.axhline(0, color="#111", lw=0.8)
    axes.set_xticks(range(len(z)), [f"class {k}" + " (label)" * (k == label) for k in range(len(z))])
    axes.set_ylabel("gradient")
    axes.legend(frameon=False)
    return Section(
        "The gradient of softmax cross-entropy, three ways",
        (
            paragraph(
                "The loss is the surprise at the label. Its gradient is what the net says less what it "
                "should have said: it sums to 0, pulls the label up and pushes the others down by "
                "their probability."
            ),
            formula(
                "p<sub>k</sub> = exp z<sub>k</sub> / &Sigma;<sub>j</sub> exp z<sub>j</sub>\n"
                "L = -log p<sub>label</sub>\n"
                "&part;L / &part;z<sub>k</sub> = p<sub>k</sub> - t<sub>k</sub>    t = 1 at the label, else 0"
            ),
            table(
                ("class", "z", "p", "t", *ways),
                [
                    (str(k), z[k], p[k], t[k], *(f"{slope[k]:+.10f}" for slope in ways.values()))
                    for k in range(len(z))
                ],
            ),
            table(
                ("jcnn's backward, compared with", "error"),
                (
                    ("p - t in NumPy", error(by_hand, p - t)),
                    ("autodiff of the plain definition", error(by_hand, by_autodiff)),
                    ("central differences, step 1e-5", error(by_hand, by_differences, 1e-9)),
                    ("0, the sum of the gradient", error(by_hand.sum(), 0)),
                    (f"the loss, {float(value):.6f}, in NumPy", error(value, loss(z))),
                ),
            ),
            Picture("softmax_cross_entropy", "Three gradients that are the same one.", figure),
        ),
    )


BACKWARD = (
    ("logits", "softmax cross-entropy", "dz = (p - t) / N", ()),
    (
        "flat",
        "dense",
        "da = dz W<sup>T</sup>, dW = a<sup>T</sup> dz, db = &Sigma; dz",
        ("dense_w", "dense_b"),
    ),
    ("pooled", "flatten", "the same numbers, as images", ()),
    ("active", "max pool", "dy to where the maximum was, 0 elsewhere", ()),
    ("normal", "ReLU", "dx = dy where x &gt; 0, else 0", ()),
    (
        "sums",
        "batch norm",
        "dx = &gamma; / &sigma; (dy - mean dy - x&#770; mean(dy x&#770;))",
        ("gamma", "beta"),
    ),
    ("image", "convolution", "dx = dy on the turned kernel, dw = x correlated with dy", ("conv_w",)),
)


def net_loss(probes, params, x, labels):
    """The net with rules as they are called; `probes` are zeros, and have the cotangents as gradients."""
    x = x + probes["image"]
    sums = jcnn.conv(x, params["conv_w"]) + probes["sums"]
    normal = jcnn.batch_norm(sums, params["gamma"], params["beta"])[0] + probes["normal"]
    active = jcnn.relu(normal) + probes["active"]
    pooled = jcnn.max_pool(active, window=2) + probes["pooled"]
    flat = jcnn.flatten(pooled) + probes["flat"]
    logits = jcnn.dense(flat, params["dense_w"], params["dense_b"]) + probes["logits"]
    return jcnn.softmax_cross_entropy(logits, labels).mean()


def forward_and_back(params, x, labels):
    """Every value on the way up, then every cotangent on the way down, by the rules' own backwards."""
    a, da, dparams = {"image": x}, {}, {}
    a["sums"], of_conv = jcnn.conv.fwd(x, params["conv_w"])
    (a["normal"], stats), of_norm = jcnn.batch_norm.fwd(a["sums"], params["gamma"], params["beta"])
    a["active"], of_relu = jcnn.relu.fwd(a["normal"])
    a["pooled"], of_pool = jcnn.max_pool.fwd(a["active"], window=2)
    a["flat"], of_flatten = jcnn.flatten.fwd(a["pooled"])
    a["logits"], of_dense = jcnn.dense.fwd(a["flat"], params["dense_w"], params["dense_b"])
    losses, of_loss = jcnn.softmax_cross_entropy.fwd(a["logits"], labels)

    dlosses = jnp.full_like(losses, 1 / len(losses))
    da["logits"], *_ = jcnn.softmax_cross_entropy.bwd(of_loss, dlosses)
    da["flat"], dparams["dense_w"], dparams["dense_b"] = jcnn.dense.bwd(of_dense, da["logits"])
    (da["pooled"],) = jcnn.flatten.bwd(of_flatten, da["flat"])
    (da["active"],) = jcnn.max_pool.bwd(of_pool, da["pooled"])
    (da["normal"],) = jcnn.relu.bwd(of_relu, da["active"])
    no_dstats = jax.tree.map(jnp.zeros_like, stats)
    da["sums"], dparams["gamma"], dparams["beta"], _ = jcnn.batch_norm.bwd(of_norm, (da["normal"], no_dstats))
    da["image"], dparams["conv_w"] = jcnn.conv.bwd(of_conv, da["sums"])[:2]
    return losses.mean(), a, da, dparams


def backpropagation(trained: Trained, seed: int) -> Section:
    rng = np.random.default_rng(seed)
    x = jnp.asarray(trained.images(IMAGES), jnp.float64)
    labels = jnp.asarray(trained.data.test_labels[:IMAGES])
    h, w, c = x.shape[1:]
    features, classes = (h - 2) // 2 * ((w - 2) // 2) * FILTERS, len(trained.data.classes)
    params = {
        "conv_w": rng.standard_normal((3, 3, c, FILTERS)) * np.sqrt(2 / (9 * c)),
        "gamma": rng.uniform(0.5, 1.5, FILTERS),
        "beta": rng.uniform(-0.5, 0.5, FILTERS),
        "dense_w": rng.standard_normal((features, classes)) / np.sqrt(features),
        "dense_b": np.zeros(classes),
    }
    params = jax.tree.map(jnp.asarray, params)
    value, a, da, dparams = jax.jit(forward_and_back)(params, x, labels)
    probes = jax.tree.map(jnp.zeros_like, a)
    derivative = jax.jit(jax.value_and_grad(jcnn.autodiff(net_loss), (0, 1)))
    expected, (probe_grads, param_grads) = derivative(probes, params, x, labels)

    def scale(cotangent, other):
        """The error of numbers that are all small, relative to the largest of them."""
        size = np.abs(other).max()
        return error(cotangent / size, other / size)

    rows, weights = [], []
    for name, op, rule, of_params in BACKWARD:
        shape = " x ".join(map(str, a[name].shape))
        rows.append((op, rule, shape, float(np.abs(da[name]).max()), scale(da[name], probe_grads[name])))
        weights += [
            (
                f"{op}: {p.split('_')[-1]}",
                " x ".join(map(str, dparams[p].shape)),
                scale(dparams[p], param_grads[p]),
            )
            for p in of_params
        ]
    return Section(
        "Backpropagation through a CNN, step by step",
        (
            paragraph(
                f"Convolution, batch norm, ReLU, max pool, dense layer, loss, on {IMAGES} images in float64. "
                "On the way up every layer keeps what its backward needs. On the way down each turns the "
                "cotangent of its output, the derivative of the loss by it, into those of its input and its "
                "weights. No autodiff is in this; it is what every cotangent is compared with, by adding "
                "zeros to each intermediate array and differentiating by them. "
                f"The loss is {float(value):.6f} (error {error(value, expected)})."
            ),
            formula(
                "x<sub>i</sub> = f<sub>i</sub>(x<sub>i-1</sub>)\n"
                "dx<sub>i-1</sub> = J<sub>i</sub><sup>T</sup> dx<sub>i</sub>"
            ),
            table(("through", "backward", "shape of the result", "largest", "error"), rows),
            table(("gradient of the weights", "shape", "error"), weights),
            Picture(
                "backpropagation",
                "One image and one filter: what goes up, and the cotangents that come down. Pooling hands a "
                "cotangent to one of four places, ReLU to those that were positive, and batch norm to all.",
                up_and_down(a, da),
            ),
        ),
    )


def up_and_down(a, da):
    names = {
        "image": "image",
        "sums": "convolution",
        "normal": "batch norm",
        "active": "ReLU",
        "pooled": "max pool",
    }
    figure = plots.canvas(8, 3.6)
    axes = figure.subplots(2, len(names))
    for column, (name, title) in enumerate(names.items()):
        up, down = (np.asarray(arrays[name])[0, ..., 0] for arrays in (a, da))
        plots.bare(axes[0, column], up, title, cmap="gray" if name == "image" else "viridis")
        limit = np.abs(down).max() or 1
        plots.bare(axes[1, column], down, f"at most {limit:.1g}", cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes[0, 0].set_ylabel("value \u2192")
    axes[1, 0].set_ylabel("\u2190 cotangent")
    return figure
