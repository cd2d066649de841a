"""What runs on the device: a step of training, and the evaluation of a batch."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jcnn
from experiments.training.augment import augment, flip, mixup, seen, split, views
from experiments.training.gradients import Result, cast, make_gradients, rematerialized
from jcnn.net import Net

if TYPE_CHECKING:
    from experiments.config import Config


EVALUATION_BATCH = 500


class TrainState(NamedTuple):
    """All that a step changes. `average` is the moving average of `(params, state)` over the steps."""

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
    logits: Callable  # (average, images, indices, view) -> float32 [B, K]
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
    config: "Config",
    net: Net,
    optimizer: Any,
    mean: np.ndarray,
    std: np.ndarray,
    num_classes: int,
    per_epoch: int,
) -> Steps:
    """The functions to be jitted, for so many steps per epoch."""
    dtype = jnp.dtype(config.dtype)
    trained = rematerialized(net) if config.remat else net
    gradients = make_gradients(trained, config.backward, dtype, config.label_smoothing)

    def batch(step, images, labels, indices, key):
        augment_key, mixup_key, net_key = jax.random.split(jax.random.fold_in(key, step), 3)
        x = images[indices]
        if "flip" in split(config.augment):
            x = flip(x, indices, len(images), step // per_epoch, key)
        x = augment(x, augment_key, config.augment, fill=jnp.round(mean))
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
        after = jax.tree.map(lambda new, old: jnp.where(good, new, old), update(before, result), before)
        return after, jnp.stack([result.loss, accuracy, good])

    def update(before: TrainState, result: Result) -> TrainState:
        updates, opt_state = optimizer.update(result.grads, before.opt_state, before.params)
        params = optax.apply_updates(before.params, updates)
        n = before.step + 1
        now = (params, result.state)
        if config.lookahead:
            now, average = lookahead(now, before.average, n, per_epoch * config.epochs)
        else:
            average = moving_average(now, before.average, n, config.ema)
        return TrainState(*now, opt_state, average, n)

    def logits(average, images, indices, view):
        params, state = average
        x = ((seen(images[indices], view) - mean) / std).astype(dtype)
        return net.apply(cast(params, dtype), state, x, train=False)[0].astype(jnp.float32)

    return Steps(train_step, logits, batch, gradients)


class Evaluation(NamedTuple):
    """What the net makes of the test images."""

    loss: float
    accuracy: float
    logits: np.ndarray  # [N, K]


def evaluation_batches(n: int) -> np.ndarray:
    """Indices of n images `[batches, size]`, in which the last image fills up the last batch."""
    size = min(n, EVALUATION_BATCH)
    return np.minimum(np.arange(-(-n // size) * size), n - 1).reshape(-1, size)


def evaluate(steps: Steps, average: Any, images: jax.Array, labels: jax.Array, tta: str) -> Evaluation:
    """Mean loss and accuracy over images `[N, H, W, C]`, labels `[N]`, by the mean logits of all views."""
    of_batches = [
        sum(weight * steps.logits(average, images, indices, view) for view, weight in views(tta).items())
        for indices in evaluation_batches(len(images))
    ]
    logits = np.concatenate(jax.device_get(of_batches))[: len(images)]
    loss = jcnn.softmax_cross_entropy(logits, labels).mean()
    return Evaluation(float(loss), float((logits.argmax(-1) == np.asarray(labels)).mean()), logits)


def moving_average(now: Any, before: Any, n: jax.Array, decay: float) -> Any:
    """The average after the `n`th step has made `(params, state)` what they are `now`.

    It is at first a plain mean of the steps so far, so that the initial weights do not linger in it.
    """
    return optax.incremental_update(now, before, jnp.float32(jnp.maximum(1 - decay, 1 / n)))


def lookahead(now: Any, before: Any, n: jax.Array, steps: int) -> tuple[Any, Any]:
    """The same, and what `(params, state)` are when every fifth step, and the last, goes on from the average.

    Jordan 2024, arXiv:2404.00498, section 3.4: its decay rises from 0 to 0.95 ** 5 with the cube of the time.
    """
    due = (n % 5 == 0) | (n == steps)
    moved = optax.incremental_update(now, before, 1 - 0.95**5 * (n / steps) ** 3)

    def moved_if_due(other):
        return jax.tree.map(lambda a, b: jnp.where(due, a, b), moved, other)

    return moved_if_due(now), moved_if_due(before)


def all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(a).all() for a in jax.tree.leaves(tree)]).all()
