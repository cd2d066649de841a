"""Augmentation, on the device: each image by itself, whatever batch it is in."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

KINDS = ("flip", "shift", "translate", "cutout", "mixup")
TTA = ("none", "flip", "translate", "flip_translate")
MIXUP_ALPHA = 0.2


def split(kinds: str) -> tuple[str, ...]:
    """The kinds that `kinds`, such as "flip_shift" or "none", is made of."""
    return () if kinds == "none" else tuple(kinds.split("_"))


def augment(images: jax.Array, key: jax.Array, kinds: str, fill: ArrayLike = 0) -> jax.Array:
    """Changes images `[N, H, W, C]` without changing what they show.

    shift, translate: moved by up to 1/14 of the height; zeros move in, or reflections.  cutout (DeVries &
    Taylor 2017, arXiv:1708.04552): `fill` takes the place of a square of half the height, whose centre is
    anywhere in the image.
    """
    shift_key, cutout_key = jax.random.split(key)
    for kind, mode in (("shift", "constant"), ("translate", "reflect")):
        if kind in split(kinds):
            images = shift(images, shift_key, mode)
    if "cutout" in split(kinds):
        images = cutout(images, cutout_key, fill)
    return images


def flip(images: jax.Array, indices: jax.Array, n: int, epoch: jax.Array, key: jax.Array) -> jax.Array:
    """Mirrors images, left and right: a random half of all `n` in even epochs, the others in odd ones.

    Jordan 2024, arXiv:2404.00498, section 3.6: so each is seen as often one way as the other.

    Args:
        images: `[N, H, W, C]`.
        indices: which of the `n` images these are, ints `[N]`.
        n: number of images in the training set.
        epoch: number of the epoch.
        key: random key, the same in all epochs.
    """
    mirrored = jax.random.bernoulli(key, shape=(n,))[indices] ^ (epoch % 2 == 1)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def shift(images: jax.Array, key: jax.Array, mode: str) -> jax.Array:
    n, h, w, c = images.shape
    most = max(1, h // 14)
    padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode)
    cut = jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, (*corner, 0), (h, w, c)))
    return cut(padded, jax.random.randint(key, (n, 2), 0, 2 * most + 1))


def cutout(images: jax.Array, key: jax.Array, fill: ArrayLike) -> jax.Array:
    n, h, w, _ = images.shape
    size = h // 2
    inside = []
    for axis_key, length in zip(jax.random.split(key), (h, w), strict=True):
        first = jax.random.randint(axis_key, (n, 1), 0, length) - size // 2
        inside.append((jnp.arange(length) >= first) & (jnp.arange(length) < first + size))
    square = inside[0][:, :, None, None] & inside[1][:, None, :, None]
    return jnp.where(square, jnp.asarray(fill).astype(images.dtype), images)


class View(NamedTuple):
    """How an image is looked at to evaluate it."""

    shift: int = 0  # pixels down and to the right, -1, 0 or 1; reflections move in
    mirrored: bool = False


def views(tta: str) -> dict[View, float]:
    """The views of test-time augmentation, and the weight that each has in the mean."""
    shifts = {-1: 0.25, 0: 0.5, 1: 0.25} if "translate" in split(tta) else {0: 1.0}
    mirrored = (False, True) if "flip" in split(tta) else (False,)
    return {View(by, mirror): w / len(mirrored) for by, w in shifts.items() for mirror in mirrored}


def seen(images: jax.Array, view: View) -> jax.Array:
    """Images `[N, H, W, C]` as they look in a view, whose numbers may be traced."""
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    start = 1 - jnp.asarray(view.shift)
    cut = jax.lax.dynamic_slice(padded, (0, start, start, 0), images.shape)
    return jnp.where(view.mirrored, cut[:, :, ::-1], cut)


def mixup(x: jax.Array, labels: jax.Array, key: jax.Array, num_classes: int) -> tuple[jax.Array, jax.Array]:
    """Every image mixed with the one before it in the batch, a random one, and so its label.

    Zhang et al. 2018, arXiv:1710.09412.  The share of each image is its own draw from Beta(0.2, 0.2).

    Args:
        x: images `[N, H, W, C]`, floating.
        labels: ints `[N]`.
        key: random key.
        num_classes: number of classes K.

    Returns:
        Images of the same shape, labels `[N, K]`.
    """
    share = jax.random.beta(key, MIXUP_ALPHA, MIXUP_ALPHA, (len(x),), jnp.float32)
    onehot = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)

    def mix(a: jax.Array) -> jax.Array:
        own = share.reshape(-1, *(1,) * (a.ndim - 1)).astype(a.dtype)
        return own * a + (1 - own) * jnp.roll(a, 1, axis=0)

    return mix(x), mix(onehot)
