"""Sections on sizes: what a neuron sees, and what a minibatch is."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.patches import Rectangle

import jcnn
from experiments.lecture import plots
from experiments.lecture.page import Picture, Section, error, formula, paragraph, preformatted, table
from experiments.lecture.training import STAGES, Trained
from jcnn import inspect

FIELD = 40  # pixels of an image that has room for every receptive field


def receptive_field(trained: Trained) -> Section:
    w = jnp.ones((3, 1, 1), jnp.float32)

    def neuron(x):
        for _ in range(3):
            x = jcnn.conv(x, w, padding="SAME")
        return x[0, 4, 0]

    seen = np.flatnonzero(jax.jit(jax.grad(neuron))(jnp.zeros((1, 9, 1), jnp.float32)).ravel())
    image = trained.images(1)
    room = [(0, 0), *(((FIELD - n) // 2, (FIELD - n + 1) // 2) for n in image.shape[1:3]), (0, 0)]
    image = np.pad(image, room)
    figure = plots.canvas(7, 2.7)
    rows = []
    for axes, (name, layer), colour in zip(
        figure.subplots(1, 3), STAGES.items(), plots.COLOURS, strict=False
    ):
        spans = inspect.receptive_field(trained.net, image.shape[1:], layer)
        middle = [len(span) // 2 for span in spans]
        (top, bottom), (left, right) = (span[i] for span, i in zip(spans, middle, strict=True))
        size = bottom - top, right - left
        measured = field_of_gradient(trained, layer)
        rows.append((name, " x ".join(map(str, size)), " x ".join(map(str, measured)), error(measured, size)))
        plots.bare(axes, image[0].squeeze(), f"{name} stage: {size[0]} x {size[1]}", cmap="gray")
        box = (left - 0.5, top - 0.5), size[1], size[0]
        axes.add_patch(Rectangle(*box, fc=colour, ec=colour, alpha=0.35))
        axes.add_patch(Rectangle(*box, fill=False, ec=colour, lw=2))
    return Section(
        "Receptive field",
        (
            paragraph(
                "What of the input an output depends on. Every layer adds (k - 1) times the strides of all "
                "layers below it, so that neurons far up see much."
            ),
            formula(
                "r<sub>i</sub> = r<sub>i-1</sub> + (k<sub>i</sub> - 1) s<sub>1</sub> ... s<sub>i-1</sub>    "
                "r<sub>0</sub> = 1"
            ),
            Picture(
                "receptive_field",
                f"Three layers of kernel 3, padded: the output in the middle sees {len(seen)} inputs.",
                plots.network((9, 9, 9, 9), 1, 3, 4),
            ),
            table(
                ("three layers of kernel 3", "error"),
                (("inputs with a gradient, and 1 + 2 + 2 + 2 of them", error(seen, np.arange(1, 8))),),
            ),
            paragraph("A neuron of each stage of the net that is trained below:"),
            table(("stage", "sees, by arithmetic", "has a gradient from", "error"), rows),
            Picture(
                "fields",
                "What one neuron in the middle sees, of an image of the test set (with black around it).",
                figure,
            ),
        ),
    )


def field_of_gradient(trained: Trained, layer: int) -> list[int]:
    """Extent, per axis, of the pixels of a large enough image that a neuron has a gradient from."""
    part = inspect.layers(trained.net)[: layer + 1]
    found = ((row.net.window((FIELD, FIELD, 1)), row.name) for row in part)
    kernels = [(window.kernel[0], name) for window, name in found if window]

    def neuron(x):
        for kernel, name in kernels:  # of ones, and with pools that average: no gradient is 0 by chance
            if name.startswith("conv"):
                x = jcnn.conv(x, jnp.ones((kernel, kernel, 1, 1), jnp.float32), padding="SAME")
            else:
                x = jcnn.avg_pool(x, window=kernel)
        return x[0, x.shape[1] // 2, x.shape[2] // 2, 0]

    g = np.asarray(jax.jit(jax.grad(neuron))(jnp.zeros((1, FIELD, FIELD, 1), jnp.float32)))[0, ..., 0]
    return [int(np.ptp(np.flatnonzero(g.any(1 - axis)))) + 1 for axis in (0, 1)]


def minibatch(seed: int) -> Section:
    rng = np.random.default_rng(seed)
    image = rng.random((1, 256, 256, 3), np.float32)
    w = rng.standard_normal((5, 5, 3, 96)).astype(np.float32)
    layer = jax.jit(lambda x, w: jcnn.conv(x, w, stride=2, padding="SAME"))
    summary = jcnn.chain(jcnn.net.conv(96, 5, stride=2)).summary((256, 256, 3), batch_size=64)
    shape = jax.eval_shape(layer, jax.ShapeDtypeStruct((64, 256, 256, 3), jnp.float32), w)
    y = np.asarray(layer(image, w))
    part = image[0, 19:24, 39:44]  # padding is 1 before, 2 after: output (10, 20) begins at (20 - 1, 40 - 1)
    sizes = {"input": (64, 256, 256, 3), "weights": w.shape, "output": shape.shape}
    return Section(
        "A minibatch of 64 images",
        (
            paragraph(
                "Images of 256 x 256 in three colours, 64 at a time, are an array of four axes. A layer of "
                "96 filters of 5 x 5 and stride 2 turns it into another one; its weights are few, as all "
                "places share them. A dense layer of the same output would have "
                f"{256 * 256 * 3 * 128 * 128 * 96:,} weights."
            ),
            formula("[64, 256, 256, 3]  *  [5, 5, 3, 96]  &rarr;  [64, 128, 128, 96]"),
            table(
                ("", "shape", "numbers", "MB in float32"),
                [
                    (name, "x".join(map(str, s)), np.prod(s), np.prod(s) * 4 / 1e6)
                    for name, s in sizes.items()
                ],
            ),
            preformatted(str(summary)),
            table(
                ("compared", "error"),
                (
                    ("shape of the output", error(shape.shape, (64, 128, 128, 96))),
                    (
                        "one image was run: 96 numbers at (10, 20), with NumPy's einsum",
                        error(y[0, 10, 20], np.einsum("abc,abco->o", part, w), 1e-5),
                    ),
                ),
            ),
        ),
    )
