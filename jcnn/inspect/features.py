"""What a layer responds to: its weights, its feature maps, and the patches of images that excite it most."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jcnn import check
from jcnn.inspect.layers import LayerLike, below, entries, fail, find, receptive_field
from jcnn.net import Net


def filters(net: Net, params: Any, layer: LayerLike = 0) -> Array:
    """The weights of a layer, filter by filter.

    Args:
        net, params: the net.
        layer: a row of the summary, or a path.

    Returns:
        [O, *K, C/groups] of a convolution `[*K, C/groups, O]`, [O, C] of a dense layer.

    Raises:
        ValueError: the layer does not exist or has no weights `w`.
    """
    for i in find("filters", net, layer):
        net, params = net.children[i], params[i]
    if not isinstance(params, dict) or "w" not in params:
        fail("filters", "layer", f"{layer!r}, a layer {net.name!r}", "a layer with weights w")
    return jnp.moveaxis(params["w"], -1, 0)


def feature_maps(
    net: Net, params: Any, state: Any, x: Float[Array, "n *s c"], layer: LayerLike
) -> Float[Array, "n *shape"]:
    """The output of a layer in inference; only what comes before it is computed.

    Args:
        net, params, state: the net.
        x: images [N, *S, C].
        layer: a row of the summary, or a path.

    Returns:
        [N, *M, C'], or [N, C'] after the image has become a vector.

    Raises:
        ValueError: the layer does not exist.
    """
    path = find("feature_maps", net, layer)
    parts = entries(net, params, path), entries(net, state, path)
    return below(net, path).apply(*parts, x, train=False)[0]


class Patches(NamedTuple):
    """The k images that excite each of some channels most, cut to what the most excited neuron sees."""

    channels: tuple[int, ...]
    patches: np.ndarray  # [channels, k, *size, C]; 0 where there is no pixel, but padding
    scores: np.ndarray  # [channels, k], the activations, the largest first
    images: np.ndarray  # [channels, k], indices of the images
    positions: np.ndarray  # [channels, k, spatial axes], of the neuron in the feature map
    intervals: np.ndarray  # [channels, k, spatial axes, 2], start and stop of what it sees, in pixels


def top_patches(
    net: Net,
    params: Any,
    state: Any,
    images: np.ndarray | Array,
    layer: LayerLike,
    *,
    channels: Sequence[int] | None = None,
    k: int = 9,
    batch_size: int = 256,
) -> Patches:
    """The patches of images that excite the channels of a layer most (Zeiler & Fergus 2014, section 4).

    An image gives a channel at most one patch, that of its most excited neuron: neighbours would be much the
    same.  Of equal activations the first counts, in row-major order, then in the order of the images.

    Args:
        net, params, state: the net; used in inference.
        images: [N, *S, C].
        layer: a row of the summary, or a path.
        channels: which; all by default.
        k: patches per channel.
        batch_size: images that are in the net at a time.

    Raises:
        ValueError: a layer or channel that does not exist, or k not in 1 ... N.
    """
    check.count("inspect.top_patches", "batch_size", batch_size)
    check.count("inspect.top_patches", "k", k)
    if k > len(images):
        fail("top_patches", "k", k, f"at most the number of images, {len(images)}")
    spans = receptive_field(net, images.shape[1:], layer)
    shape = jax.eval_shape(lambda x: feature_maps(net, params, state, x, layer), images[:1]).shape[1:]
    channels = checked_channels("top_patches", channels, shape[-1])

    @jax.jit
    def best(params, state, x):
        """The largest activation of every channel in every image, and where it is."""
        neurons = feature_maps(net, params, state, x, layer).reshape(len(x), -1, shape[-1])
        neurons = neurons[..., np.array(channels)]
        return neurons.max(1), neurons.argmax(1)

    found = [best(params, state, images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
    scores, places = (np.concatenate(a).T for a in zip(*jax.device_get(found), strict=True))  # [channels, N]
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    scores, places = (np.take_along_axis(a, order, 1) for a in (scores, places))
    positions = np.stack(np.unravel_index(places, shape[:-1] or (1,) * len(spans)), -1)
    intervals = np.stack([span[positions[..., axis]] for axis, span in enumerate(spans)], -2)
    size = tuple(int((span[:, 1] - span[:, 0]).max()) for span in spans)
    images = np.asarray(images)
    patches = np.zeros((*order.shape, *size, images.shape[-1]), images.dtype)
    for at in np.ndindex(order.shape):
        _cut(images[order[at]], intervals[at].tolist(), patches[at])
    return Patches(channels, patches, scores, order, positions, intervals)


def _cut(image: np.ndarray, interval: list[list[int]], patch: np.ndarray) -> None:
    """Copies what lies in the interval, start and stop per axis, to its place in the patch."""
    inside = [(max(0, start), min(stop, n)) for (start, stop), n in zip(interval, image.shape, strict=False)]
    places = tuple(slice(a - start, b - start) for (a, b), (start, _) in zip(inside, interval, strict=True))
    if all(a < b for a, b in inside):
        patch[places] = image[tuple(slice(a, b) for a, b in inside)]


def checked_channels(op: str, channels: Sequence[int] | None, count: int) -> tuple[int, ...]:
    """The indices, checked against the number of channels that there are; all of them by default."""
    chosen = tuple(range(count)) if channels is None else tuple(channels)
    if not chosen or not all(isinstance(c, int | np.integer) and 0 <= c < count for c in chosen):
        fail(op, "channels", repr(channels), f"ints from 0 to {count - 1}")
    return tuple(map(int, chosen))
