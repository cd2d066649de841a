"""The net of the lecture, trained by explicit backpropagation."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jcnn
from experiments.data import Dataset, load, on_disk
from jcnn import net

WIDTHS = 16, 32, 64
STAGES = {"first": 2, "second": 6, "third": 10}  # rows of the summary: the ReLU of each stage
BATCH, RATE = 128, 4e-3
EVALUATION_BATCH = 500
ROOM = 4  # pixels, as many as the poolings have for stride: what a shift by them does need not be learned
POOLED = 7  # after the second pooling


class Trained(NamedTuple):
    """A trained net, what it was trained on, and how that went."""

    net: net.Net
    params: Any
    state: Any
    data: Dataset
    losses: np.ndarray
    accuracy: float
    seconds: float

    def images(self, count: int) -> np.ndarray:
        """The first test images, scaled as the net takes them."""
        return scaled(self.data, self.data.test_images[:count])


def dataset(name: str | None, folder: Path | None) -> Dataset:
    """The data set of that name; by default Fashion-MNIST if it is on this machine, else digits."""
    if name is None:
        name = "fashion_mnist" if on_disk("fashion_mnist", folder) else "digits"
    return load(name, folder)


def scaled(data: Dataset, images: np.ndarray) -> np.ndarray:
    """Images in 0 ... 1: what is black is 0, as the padding is."""
    return images.astype(np.float32) / np.float32(data.train_images.max())


def placed(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Images at a place of a black canvas with `ROOM` pixels more."""
    shifts = ((down, ROOM - down), (right, ROOM - right))
    return np.pad(images, ((0, 0), *shifts, (0, 0)))


def make_net(classes: int) -> net.Net:
    """Three stages of convolution, batch norm and ReLU, with pooling between them."""
    layers = []
    for stage, width in enumerate(WIDTHS):
        if stage:
            layers.append(net.max_pool(2))
        layers += [net.conv(width, 3 if stage else 5, bias=False), net.batch_norm(), jcnn.relu]
    return net.chain(*layers, net.global_max_pool(), net.dense(classes))


def train(data: Dataset, steps: int, seed: int) -> Trained:
    """Adam with a learning rate that falls to 0 as a cosine."""
    start = time.perf_counter()
    model = make_net(len(data.classes))
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    @jax.jit
    def initial(key):
        arrays = model.init(key, data.train_images.shape[1:])
        params, state = jax.tree.map(lambda a: a.astype(jnp.float32), arrays)
        return params, state, optimizer.init(params)

    @jax.jit
    def step(params, state, opt_state, x, labels):
        (logits, state), res = model.fwd(params, state, x, train=True)
        losses, loss_res = jcnn.softmax_cross_entropy.fwd(logits, labels)
        dlogits = jcnn.softmax_cross_entropy.bwd(loss_res, jnp.full_like(losses, 1 / len(x)))[0]
        grads, _ = model.bwd(res, dlogits)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), state, opt_state, losses.mean()

    rng, order, losses = np.random.default_rng(seed), np.empty(0, int), []
    params, state, opt_state = initial(jax.random.key(seed))
    for _ in range(steps):
        if len(order) < BATCH:
            order = rng.permutation(len(data.train_images))
        batch, order = order[:BATCH], order[BATCH:]
        x = placed(scaled(data, data.train_images[batch]), *rng.integers(0, ROOM + 1, 2))
        params, state, opt_state, loss = step(params, state, opt_state, x, data.train_labels[batch])
        losses.append(loss)
    losses = np.asarray(jax.device_get(losses))
    accuracy = evaluate(model, params, state, data)
    return Trained(model, params, state, data, losses, accuracy, time.perf_counter() - start)


def evaluate(model: net.Net, params: Any, state: Any, data: Dataset) -> float:
    """Accuracy on the test set."""
    predict = jax.jit(lambda x: model.apply(params, state, x, train=False)[0].argmax(-1))
    parts = range(0, len(data.test_images), EVALUATION_BATCH)
    middle = ROOM // 2, ROOM // 2
    images = (placed(scaled(data, data.test_images[i : i + EVALUATION_BATCH]), *middle) for i in parts)
    return float(np.mean(np.concatenate([predict(x) for x in images]) == data.test_labels))
