"""What runs on the device: a step of training, and the evaluation of a batch."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jcnn
from experiments.training.augment import augment, mixup, split
from experiments.training.gradients import Result, make_gradients, rematerialized
from jcnn.net import Net

if TYPE_CHECKING:
    from experiments.config import Config


class TrainState(NamedTuple):
    """All that a step changes. `average` is the moving average of `(params, state)`."""

    params: Any
    state: Any
    opt_state: Any
    average: Any
    step: jax.Array


class Steps(NamedTuple):
    """Functions of images, uint8 `[N, H, W, C]`, their labels, and the indices `[B]` of a batch of them.

    Images and labels are all there are: what is put on the device once need not be sent for every batch.
    """

    train_step: (
        Callable  # (train_state, images, labels, indices, step, key) -> train_state, [loss, acc, good]
    )
    evaluate: Callable  # (average, images, labels, indices) -> [loss, accuracy], summed over indices below N
    batch: (
        Callable  # (step, images, labels, indices, key) -> x, labels, the net's key, as train_step has them
    )
    gradients: Callable  # (params, state, x, labels, key) -> Result


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of uint8 images `[N, H, W, C]`, float32 `[C]`."""
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(images, -1, 0)])
    level, share = np.arange(256), counts / counts.sum(1, keepdims=True)
    mean = share @ level
    return mean.astype(np.float32), np.sqrt(share @ level**2 - mean**2).astype(np.float32)


def make_steps(
    config: "Config", net: Net, optimizer: Any, mean: np.ndarray, std: np.ndarray, num_classes: int
) -> Steps:
    """The functions to be jitted."""
    dtype = jnp.dtype(config.dtype)
    trained = rematerialized(net) if config.remat else net
    gradients = make_gradients(trained, config.backward, dtype, config.label_smoothing)

    def batch(step, images, labels, indices, key):
        augment_key, mixup_key, net_key = jax.random.split(jax.random.fold_in(key, step), 3)
        x = augment(images[indices], augment_key, config.augment, fill=jnp.round(mean))
        x, y = (x - mean) / std, labels[indices]
        if "mixup" in split(config.augment):
            x, y = mixup(x, y, mixup_key, num_classes)
        return x, y, net_key

    def train_step(before: TrainState, images, labels, indices, step, key):
        x, y, net_key = batch(before.step, images, labels, indices, key)
        result = gradients(before.params, before.state, x, y, net_key)
        classes = y if y.ndim == 1 else y.argmax(-1)
        accuracy = (result.logits.argmax(-1) == classes).mean(dtype=jnp.float32)
        # A step that gives no finite numbers, and those already under way after it, change nothing, so that
        # what went wrong can still be looked at: from then on, `step` is ahead of the state's own count.
        good = all_finite((result.loss, result.grads)) & (before.step == step)
        after = jax.tree.map(
            lambda new, old: jnp.where(good, new, old), update(before, result, optimizer, config.ema), before
        )
        return after, jnp.stack([result.loss, accuracy, good])

    def logits_of(average, x):
        params, state = average
        params = jax.tree.map(lambda p: p.astype(dtype), params)
        return net.apply(params, state, x.astype(dtype), train=False)[0].astype(jnp.float32)

    def evaluate(average, images, labels, indices):
        inside = jnp.minimum(indices, len(images) - 1)
        x, y = (images[inside] - mean) / std, labels[inside]
        logits = logits_of(average, x)
        if config.tta:
            logits = (logits + logits_of(average, x[:, :, ::-1])) / 2
        each = jnp.stack([jcnn.softmax_cross_entropy(logits, y), logits.argmax(-1) == y])
        return jnp.where(indices < len(images), each, 0).sum(1)

    return Steps(train_step, evaluate, batch, gradients)


def update(before: TrainState, result: Result, optimizer: Any, decay: float) -> TrainState:
    """The state after a step with these gradients."""
    updates, opt_state = optimizer.update(result.grads, before.opt_state, before.params)
    params = optax.apply_updates(before.params, updates)
    # At first a plain mean of the steps so far, so that the initial weights do not linger in the average.
    share = jnp.float32(jnp.maximum(1 - decay, 1 / (before.step + 1)))
    average = optax.incremental_update((params, result.state), before.average, share)
    return TrainState(params, result.state, opt_state, average, before.step + 1)


def all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(a).all() for a in jax.tree.leaves(tree)]).all()
