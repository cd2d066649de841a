"""Sections on the trained net: its batch norm, its training and its invariance."""

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.ticker import NullFormatter

import jcnn
from experiments.lecture import plots
from experiments.lecture.page import Picture, Section, error, formula, paragraph, preformatted, table
from experiments.lecture.training import BATCH, POOLED, ROOM, Trained
from jcnn import inspect

MARGIN, SHIFTS, SHIFTED = 28, 8, 64
SUMS = 4  # row of the summary: the second convolution


def batch_norm(trained: Trained) -> Section:
    @jax.jit
    def before_and_after(images):
        x = inspect.feature_maps(trained.net, trained.params, trained.state, images, SUMS)
        ones = jnp.ones(x.shape[-1], x.dtype)
        return x, *jcnn.batch_norm(x, ones, 0 * ones)

    x, y, stats = before_and_after(trained.images(BATCH))
    wide = np.asarray(x, np.float64)
    mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
    expected = (wide - mean) / np.sqrt(var + 1e-5)
    chosen = np.argsort(mean)[np.linspace(0, len(mean) - 1, 4).astype(int)]
    figure = plots.canvas(7.5, 2.8)
    for axes, values, title in zip(figure.subplots(1, 2), (x, y), ("before", "after"), strict=True):
        for channel, colour in zip(chosen, plots.COLOURS, strict=True):
            numbers = np.asarray(values)[..., channel].ravel()
            style = {"bins": 80, "density": True, "histtype": "stepfilled", "alpha": 0.45, "color": colour}
            axes.hist(numbers, **style, label=f"channel {channel}")
        axes.set(title=title, yscale="log", xlabel="value")
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel("density")
    figure.axes[1].legend(frameon=False, fontsize="small")
    after = np.asarray(y, np.float64)
    return Section(
        "Batch norm",
        (
            paragraph(
                "Every channel is shifted and scaled to mean 0 and variance 1 over all images and places of "
                "the minibatch; then it may have another scale &gamma; and shift &beta;, which are trained. "
                f"Here are the outputs of the net's second convolution, of {len(x)} images, with &gamma; = 1 "
                "and &beta; = 0."
            ),
            formula(
                "x&#770; = (x - &mu;) / sqrt(&sigma;<sup>2</sup> + &epsilon;)\ny = &gamma; x&#770; + &beta;"
            ),
            Picture("batch_norm", "Four channels: the lowest mean, the highest, and two between.", figure),
            table(
                ("channel", "mean before", "std before", "mean after", "std after"),
                [
                    (
                        f"{c}",
                        f"{mean[c]:.3f}",
                        f"{var[c] ** 0.5:.3f}",
                        f"{after[..., c].mean():.1e}",
                        after[..., c].std(),
                    )
                    for c in chosen
                ],
            ),
            table(
                ("compared with NumPy", "error"),
                (
                    ("y", error(y, expected, 1e-4)),
                    ("mean", error(stats.mean, mean, 1e-5)),
                    ("variance", error(stats.var, var, 1e-5)),
                ),
            ),
        ),
    )


def the_net(trained: Trained) -> Section:
    figure = plots.canvas(7, 2.6)
    axes = figure.subplots()
    steps = np.arange(1, len(trained.losses) + 1)
    axes.plot(steps, trained.losses, color=plots.BLUE, lw=0.8, alpha=0.5, label="of a minibatch")
    width = max(1, len(steps) // 20)
    smooth = np.convolve(trained.losses, np.ones(width) / width, "valid")
    axes.plot(steps[width - 1 :], smooth, color=plots.ORANGE, label=f"mean of {width}")
    axes.set(xlabel="step", ylabel="loss", yscale="log")
    axes.set_yticks(ticks := [0.1, 0.2, 0.5, 1, 2, 5], map(str, ticks))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25, which="both")
    axes.legend(frameon=False)
    data = trained.data
    return Section(
        "A net, trained in this run",
        (
            paragraph(
                f"Three stages on {data.name}, {len(data.train_images):,} images: {len(trained.losses):,} "
                f"steps of {BATCH} images with Adam, every gradient from the backwards derived by hand. The "
                f"images stand on a black canvas that is {ROOM} pixels larger, at random places in training, "
                f"in the middle in testing. <b>Test accuracy {trained.accuracy:.2%}</b> on "
                f"{len(data.test_images):,} images after {trained.seconds:.0f} s, compilation and evaluation "
                "included."
            ),
            Picture("loss", "Loss of the training.", figure),
            preformatted(str(trained.net.summary(data.train_images.shape[1:], batch_size=BATCH))),
        ),
    )


def invariance(trained: Trained) -> Section:
    """An image on a larger black canvas, for which convolutions and global pooling need no change."""
    images = trained.images(SHIFTED)
    pad = ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
    wide = np.pad(images, pad)
    moved = [np.roll(wide, shift, 2) for shift in range(SHIFTS + 1)]

    @jax.jit
    def look(x):
        maps = inspect.feature_maps(trained.net, trained.params, trained.state, x, POOLED)
        return maps, trained.net.apply(trained.params, trained.state, x, train=False)[0]

    maps, logits = (np.stack(a) for a in zip(*(jax.device_get(look(x)) for x in moved), strict=True))
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    answer = p.argmax(-1)
    stays = (answer == answer[0]).mean(1)
    labels = trained.data.test_labels[:SHIFTED]
    rows = [
        (
            str(s),
            f"{stays[s]:.0%}",
            f"{(answer[s] == labels).mean():.0%}",
            np.abs(logits[s] - logits[0]).max(),
        )
        for s in range(SHIFTS + 1)
    ]
    inner = np.s_[:, 3:-3, 3:-3]  # away from the edge, where the padding is seen
    channel = int(np.ptp(maps[0, 0], (0, 1)).argmax())
    figure = plots.canvas(7.5, 4)
    grid = figure.subplot_mosaic([["x0", "x4", "x8", "p"], ["y0", "y4", "y8", "p"]])
    middle = np.s_[MARGIN - 6 : -MARGIN + 6, MARGIN - 6 : -MARGIN + 14]
    quarter = slice((MARGIN - 6) // 4, (6 - MARGIN) // 4), slice((MARGIN - 6) // 4, (14 - MARGIN) // 4)
    for shift in (0, 4, 8):
        plots.bare(grid[f"x{shift}"], moved[shift][0][middle].squeeze(), f"shifted by {shift}", cmap="gray")
        plots.bare(grid[f"y{shift}"], maps[shift, 0][quarter][..., channel], f"map, by {shift // 4}")
    chart = grid["p"]
    chart.plot(range(SHIFTS + 1), p[:, 0, answer[0, 0]], "o-", color=plots.BLUE)
    chart.set(xlabel="shift / pixels", ylim=(0, 1.05), title="probability\nof the answer")
    chart.title.set_fontsize("small")
    chart.grid(alpha=0.25)
    return Section(
        "Spatial invariance",
        (
            paragraph(
                "The same weights are everywhere. So a shifted image has shifted feature maps "
                "(<i>equivariance</i>), and after the maximum over all places the answer stays the same "
                "(<i>invariance</i>). Two poolings have a stride of 4 together: shifts by 4 pixels are "
                "shifts of the maps by 1 and change nothing at all; others do change the maps, and the net "
                "had to learn, from shifted images, to answer as before."
            ),
            formula("f(shift<sub>4</sub> x) = shift<sub>1</sub> f(x)\nmax f(shift<sub>4</sub> x) = max f(x)"),
            Picture(
                "invariance",
                "An image, one of the feature maps after the second pooling, the answer.",
                figure,
            ),
            table(
                ("compared", "error"),
                (
                    (
                        "maps of the shift by 4, and maps shifted by 1",
                        error(maps[4][inner], np.roll(maps[0], 1, 2)[inner], 1e-4),
                    ),
                    (
                        "maps of the shift by 8, and maps shifted by 2",
                        error(maps[8][inner], np.roll(maps[0], 2, 2)[inner], 1e-4),
                    ),
                    ("logits of the shift by 4, and without", error(logits[4], logits[0], 1e-4)),
                    ("logits of the shift by 8, and without", error(logits[8], logits[0], 1e-4)),
                ),
            ),
            paragraph(f"The first {SHIFTED} images of the test set on a black canvas:"),
            table(("shift", "answer stays", "answer is right", "largest change of a logit"), rows),
        ),
    )
