"""The section on what the layers of the trained net have learned."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.lecture.page import Picture, Section, error, paragraph, table
from experiments.lecture.training import STAGES, Trained
from jcnn import inspect

TOP, SHOWN, SEARCHED = 9, 6, 2000


def hierarchy(trained: Trained) -> Section:
    model, params, state = trained.net, trained.params, trained.state
    images = trained.images(SEARCHED)
    labels = trained.data.test_labels[: len(images)]
    blocks, rows = [], []

    @jax.jit
    def look(x):
        """The largest activations of every channel, over all images."""
        maps = (inspect.feature_maps(model, params, state, x, layer) for layer in STAGES.values())
        return [jnp.sort(of_layer.max((1, 2)), 0, descending=True)[:TOP].T for of_layer in maps]

    for (name, layer), largest in zip(STAGES.items(), look(images), strict=True):
        found = inspect.top_patches(model, params, state, images, layer, k=TOP, batch_size=500)
        alive = found.scores[:, -1] > 0
        classes = np.sort(labels[found.images], 1)
        purity = np.array([np.bincount(line).max() / TOP for line in classes])
        size = " x ".join(map(str, found.patches.shape[2:4]))
        rows.append(
            (
                name,
                f"{len(alive)}",
                f"{alive.sum()}",
                size,
                f"{purity[alive].mean():.0%}",
                error(found.scores, largest, 1e-5),
            )
        )
        order = np.argsort(~alive, kind="stable")[:SHOWN]
        figure = inspect.show.patches(
            found._replace(
                channels=tuple(found.channels[i] for i in order),
                patches=found.patches[order],
            ),
            title=f"{name} stage: patches of {size}",
        )
        blocks.append(Picture(f"patches_{name}", f"The {TOP} patches that excite each channel most.", figure))
    few = images[:4]
    target = jnp.asarray(trained.data.test_labels[:4])
    slopes = jax.jit(lambda x: inspect.saliency(model, params, state, x, target))(few)
    names = [trained.data.classes[t] for t in target]
    return Section(
        "The hierarchy of features",
        (
            paragraph(
                "The first stage has filters of a few pixels: edges and spots. Those of the second see "
                "parts, those of the third most of an object. What a channel has learned shows in the "
                f"patches of {len(images):,} test images that excite it most, at most one of each image."
            ),
            Picture(
                "filters",
                "The filters of the first convolution: blue is negative, red is positive.",
                inspect.show.filters(inspect.filters(model, params, 0)),
            ),
            *blocks,
            paragraph(
                f"How much the {TOP} best patches of a channel are of one class (the share of the most "
                "frequent one, mean over active channels): what the last stage of a trained net responds "
                "to is objects rather than edges."
            ),
            table(("stage", "channels", "active", "sees", "of one class", "error of the scores"), rows),
            Picture(
                "saliency",
                "The gradient of the label's logit by the image: red pixels would add to it.",
                inspect.show.attributions(few, {"saliency": np.asarray(slopes)}, names=names),
            ),
        ),
    )
