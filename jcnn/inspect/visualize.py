"""Feature visualisation: images made to excite a channel, by gradient ascent.

Of an image x let g be the gradient of the mean activation of a channel, from explicit backpropagation through
the layers up to it.  A step is

    x <- x + rate (g / rms(g) - l2 x - tv D^T D x)

with D the differences of neighbouring pixels, so that the image stays small (the gradient of |x|^2 / 2) and
smooth (that of |D x|^2 / 2, the total variation of Mahendran & Vedaldi 2015, arXiv:1412.0035, with beta = 2).
For g the image is shifted by a few pixels at random, around the edges, so that it does not depend on the
grid of strides and pools (jitter; Olah et al. 2017, Distill, "Feature Visualization").
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jcnn import check
from jcnn.geometry import Ints
from jcnn.inspect.features import checked_channels
from jcnn.inspect.layers import LayerLike, below, entries, find, pull_back
from jcnn.net import Net, output_shape


def visualize_features(
    net: Net,
    params: Any,
    state: Any,
    image_shape: Ints,
    layer: LayerLike,
    *,
    key: Array,
    channels: Sequence[int] | None = None,
    steps: int = 256,
    rate: float | int = 0.05,
    l2: float | int = 0.25,
    tv: float | int = 0.25,
    jitter: int = 1,
) -> Float[Array, "n *s c"]:
    """Images that excite the channels of a layer, for images of mean 0 and variance 1.

    Args:
        net, params, state: the net; used in inference.
        image_shape: (*S, C), without the batch axis.
        layer: a row of the summary, or a path.
        key: of the noise to start from and of the jitter.
        channels: which; all by default.
        steps: of gradient ascent.
        rate: length of a step, in the root mean square over pixels.
        l2, tv: how strongly large, and rough, images are held back.
        jitter: pixels of the largest shift on every axis; more suit images larger than digits.

    Returns:
        [channels, *S, C].

    Raises:
        ValueError: a layer or channel that does not exist, or a negative number.
    """
    op = "visualize_features"
    check.count(f"inspect.{op}", "steps", steps)
    for name, value in {"rate": rate, "l2": l2, "tv": tv, "jitter": jitter}.items():
        check.number(f"inspect.{op}", name, value, 0)
    image_shape = tuple(image_shape)
    path = find(op, net, layer)
    part = below(net, path)
    channels = checked_channels(op, channels, output_shape(part, image_shape)[-1])
    axes = tuple(range(1, len(image_shape)))

    def mean_of_channel(y: Array) -> Array:
        """The cotangent of y for the mean over positions of each image's own channel."""
        chosen = jax.nn.one_hot(np.array(channels), y.shape[-1], dtype=y.dtype)
        chosen = jnp.expand_dims(chosen, range(1, y.ndim - 1))
        return jnp.broadcast_to(chosen / max(1, np.prod(y.shape[1:-1])), y.shape)

    @jax.jit
    def ascend(params, state, x, key):
        def step(i, x):
            shift = jax.random.randint(jax.random.fold_in(key, i), (len(axes),), -jitter, jitter + 1)
            g = pull_back(part, params, state, jnp.roll(x, shift, axes), mean_of_channel)
            g = jnp.roll(g, -shift, axes)
            rms = jnp.sqrt(jnp.mean(g**2, (*axes, -1), keepdims=True))
            rough = sum(_roughness(x, axis) for axis in axes)
            return x + rate * (g / jnp.where(rms > 0, rms, 1) - l2 * x - tv * rough)

        return lax.fori_loop(0, steps, step, x)

    start, shifts = jax.random.split(key)
    parts = entries(net, params, path), entries(net, state, path)
    dtype = jnp.result_type(*jax.tree.leaves(params))
    x = 0.1 * jax.random.normal(start, (len(channels), *image_shape), dtype)
    return ascend(*parts, x, shifts)


def _roughness(x: Array, axis: int) -> Array:
    """D^T D x, the gradient of half the squares of the differences along an axis."""
    edges = [(1, 1) if a == axis else (0, 0) for a in range(x.ndim)]
    return -jnp.diff(jnp.pad(jnp.diff(x, axis=axis), edges), axis=axis)
