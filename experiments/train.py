"""Training a network on a real data set.

Question: do jcnn's hand-derived backwards train real networks to the accuracy these are known for?

Command: `python -m experiments.train` (handwritten digits, under a minute on two cores),
`python -m experiments.train --dataset fashion_mnist` and so on; `--help` lists the options. What is not given
comes from the data set's recipe in `experiments/config.py`. A run leaves `summary.json`, `learning_curve.png`
and `filters.png` in a folder of its own.

Result: test accuracy in percent at the end, mean ± standard deviation over seeds.
    digits, vgg_small         99.04 ± 0.15 (n = 5), 12 s
    Fashion-MNIST, vgg_small  93.31 ± 0.17 (n = 3), 466 s
    Fashion-MNIST, lenet5     87.33 ± 0.13 (n = 3), 134 s; flags in the README
There is no validation split: a few settings were compared on these test sets, so the figures are slightly
optimistic. The recipes of MNIST and CIFAR-10 were not tuned or run to the end.

Hardware: 2 cores of a shared AMD EPYC with AVX-512.
Versions: jax 0.10.2, optax 0.2.8, Python 3.11.7.
Date: 2026-11-22.
"""

import dataclasses
import datetime
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import jcnn
from experiments import figures
from experiments.config import MODELS, OPTIMIZERS, SCHEDULES, Config, parse, resolve
from experiments.data import Dataset, UserError, load
from experiments.folder import result_folder

EVALUATION_BATCH = 500
PACKAGES = ("jax", "jaxlib", "numpy", "optax", "jcnn")


class TrainState(NamedTuple):
    """All that a step changes. `average` is the moving average of `(params, state)`."""

    params: Any
    state: Any
    opt_state: Any
    average: Any
    step: jax.Array


class Program(NamedTuple):
    """A net made ready for training: its initial state, the compiled steps and their random key."""

    train_state: TrainState
    train_step: Callable
    evaluate: Callable
    key: jax.Array


def augment(images: jax.Array, key: jax.Array, kind: str) -> jax.Array:
    """Flips and shifts, as `kind` says, each of the images `[N, H, W, C]` by itself; zeros move in."""
    n, h, w, c = images.shape
    shift_key, flip_key = jax.random.split(key)
    if "flip" in kind:
        images = jnp.where(jax.random.bernoulli(flip_key, shape=(n, 1, 1, 1)), images[:, :, ::-1], images)
    if "shift" in kind:
        most = max(1, h // 14)
        padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)))
        cut = jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, (*corner, 0), (h, w, c)))
        images = cut(padded, jax.random.randint(shift_key, (n, 2), 0, 2 * most + 1))
    return images


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of uint8 images `[N, H, W, C]`, float32 `[C]`."""
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(images, -1, 0)])
    level, share = np.arange(256), counts / counts.sum(1, keepdims=True)
    mean = share @ level
    return mean.astype(np.float32), np.sqrt(share @ level**2 - mean**2).astype(np.float32)


def make_optimizer(config: Config, steps: int) -> optax.GradientTransformation:
    """The optimizer for a run of so many steps; biases and the parameters of norms do not decay."""
    schedule = SCHEDULES[config.schedule](config.lr, steps)
    decay = optax.add_decayed_weights(
        config.weight_decay, lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    )
    return OPTIMIZERS[config.optimizer](schedule, decay)


def make_steps(config: Config, net: Any, optimizer: Any, mean: np.ndarray, std: np.ndarray):
    """The functions to be jitted: one trains on a batch, the other evaluates one.

    Both take all images (uint8 `[N, H, W, C]`), all labels and the indices `[B]` of the batch, and give loss
    and accuracy (float32 `[2]`): `train_step` their mean, `evaluate` their sum over the indices below N.
    """
    dtype = jnp.dtype(config.dtype)

    def forward(params, state, images, **mode):
        x = ((images - mean) / std).astype(dtype)
        logits, new = net.apply(jax.tree.map(lambda p: p.astype(dtype), params), state, x, **mode)
        return logits.astype(jnp.float32), new

    def train_step(train_state, images, labels, indices, key):
        augment_key, net_key = jax.random.split(jax.random.fold_in(key, train_state.step))
        x, y = augment(images[indices], augment_key, config.augment), labels[indices]

        def loss_of(params):
            logits, state = forward(params, train_state.state, x, train=True, key=net_key)
            loss = jcnn.softmax_cross_entropy(logits, y, label_smoothing=config.label_smoothing).mean()
            return loss, (state, (logits.argmax(-1) == y).mean())

        (loss, (state, accuracy)), grads = jax.value_and_grad(loss_of, has_aux=True)(train_state.params)
        updates, opt_state = optimizer.update(grads, train_state.opt_state, train_state.params)
        params = optax.apply_updates(train_state.params, updates)
        # At first a plain mean of the steps so far, so that the initial weights do not linger in the average.
        share = jnp.float32(jnp.maximum(1 - config.ema, 1 / (train_state.step + 1)))
        average = optax.incremental_update((params, state), train_state.average, share)
        after = TrainState(params, state, opt_state, average, train_state.step + 1)
        return after, jnp.stack([loss, accuracy])

    def evaluate(average, images, labels, indices):
        inside = jnp.minimum(indices, len(images) - 1)
        x = images[inside]
        logits, _ = forward(*average, x, train=False)
        if config.tta:
            logits = (logits + forward(*average, x[:, :, ::-1], train=False)[0]) / 2
        y = labels[inside]
        each = jnp.stack([jcnn.softmax_cross_entropy(logits, y), logits.argmax(-1) == y])
        return jnp.where(indices < len(images), each, 0).sum(1)

    return train_step, evaluate


def prepare(config: Config, data: Dataset, net: Any, params: Any, state: Any, key: jax.Array) -> Program:
    """Makes the optimizer and compiles the steps."""
    optimizer = make_optimizer(config, len(data.train_images) // config.batch_size * config.epochs)
    average = jax.tree.map(jnp.copy, (params, state))  # a copy, because a donated buffer cannot be shared
    train_state = TrainState(params, state, optimizer.init(params), average, jnp.int32(0))

    train_step, evaluate = make_steps(config, net, optimizer, *channel_statistics(data.train_images))
    options = jcnn.compiler_options()
    train_step = jax.jit(train_step, donate_argnums=0, compiler_options=options).lower(
        train_state, data.train_images, data.train_labels, np.arange(config.batch_size), key
    )
    evaluate = jax.jit(evaluate, compiler_options=options).lower(
        average, data.test_images, data.test_labels, np.arange(EVALUATION_BATCH)
    )
    return Program(train_state, train_step.compile(), evaluate.compile(), key)


def fit(
    config: Config, data: Dataset, program: Program, console: Console
) -> tuple[Any, list[dict[str, Any]]]:
    """Runs the epochs; the averaged parameters at the end, and each epoch's metrics."""
    train_set = jax.device_put((data.train_images, data.train_labels))
    test_set = jax.device_put((data.test_images, data.test_labels))
    n, n_test, batch = len(data.train_images), len(data.test_images), config.batch_size
    test_indices = np.arange(-(-n_test // EVALUATION_BATCH) * EVALUATION_BATCH).reshape(-1, EVALUATION_BATCH)
    shuffle = np.random.default_rng(config.seed)
    train_state, records = program.train_state, []
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=n // batch * config.epochs)
        for epoch in range(1, config.epochs + 1):
            began = time.perf_counter()
            metrics = []
            for indices in shuffle.permutation(n)[: n // batch * batch].reshape(-1, batch):
                train_state, of_batch = program.train_step(train_state, *train_set, indices, program.key)
                metrics.append(of_batch)
                # What is looked at is one step behind, so that the device always has a step to do.
                loss, accuracy = finite(metrics[-2:][0], config, epoch)
                shown = f"epoch {epoch}/{config.epochs}  loss {loss:.3f}  accuracy {accuracy:.3f}"
                progress.update(task, advance=1, description=shown)
            sums = [program.evaluate(train_state.average, *test_set, indices) for indices in test_indices]
            train_loss, train_accuracy = finite(np.mean(jax.device_get(metrics), 0), config, epoch)
            test_loss, test_accuracy = finite(np.sum(jax.device_get(sums), 0) / n_test, config, epoch)
            record = {
                "epoch": epoch,
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                "test_loss": test_loss,
                "test_accuracy": test_accuracy,
                "seconds": time.perf_counter() - began,
            }
            records.append(record)
            console.print(
                f"epoch {epoch:>3}/{config.epochs}  train loss {train_loss:.4f} accuracy {train_accuracy:.2%}"
                f"  test loss {test_loss:.4f} accuracy {test_accuracy:.2%}  {record['seconds']:.1f} s"
            )
    return train_state.average[0], records


def finite(metrics: Any, config: Config, epoch: int) -> list[float]:
    """Loss and accuracy as floats, refused if they are not finite: nothing good comes after that."""
    loss, accuracy = np.asarray(metrics, float).tolist()
    if not np.isfinite(loss):
        advice = f"a lower --lr than {config.lr:g} may help"
        raise UserError(
            f"loss: got {loss} in epoch {epoch} of {config.epochs}, expected a finite number; {advice}"
        )
    return [loss, accuracy]


def train(config: Config) -> dict[str, Any]:
    """Trains, evaluates after every epoch and writes the results; the dict is the content of `summary.json`.

    Raises:
        UserError: an option, the data or the folder for the results is bad, or the loss is not finite.
    """
    config = resolve(config)
    data = load(config.dataset, config.data_dir)
    image_shape = data.train_images.shape[1:]
    if config.batch_size > (n := len(data.train_images)):
        raise UserError(
            f"--batch-size: got {config.batch_size}, expected at most {n}, the training set's size"
        )
    net = MODELS[config.model](len(data.classes))
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    try:
        params, state = jax.tree.map(jnp.float32, net.init(init_key, image_shape))
    except ValueError as error:
        raise UserError(f"--model: got {config.model} for images of shape {image_shape}: {error}") from None
    config = dataclasses.replace(
        config, out=result_folder(config.out, f"{config.dataset}-{config.model}-seed{config.seed}")
    )
    console = Console(highlight=False, soft_wrap=True)
    print(net.summary(image_shape))

    began = time.perf_counter()
    program = prepare(config, data, net, params, state, step_key)
    compile_seconds = time.perf_counter() - began
    console.print(f"compiled in {compile_seconds:.1f} s")
    began = time.perf_counter()
    params, epochs = fit(config, data, program, console)
    summary = {
        "config": dataclasses.asdict(config),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES},
        "device": jax.devices()[0].device_kind,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": config.seed,
        "parameters": sum(p.size for p in jax.tree.leaves(params)),
        "epochs": epochs,
        "test_accuracy": epochs[-1]["test_accuracy"],
        "compile_seconds": compile_seconds,
        "seconds": time.perf_counter() - began,
    }
    write_results(config.out, summary, params)
    print(f"test accuracy {summary['test_accuracy']:.2%}, results are in {config.out}")
    return summary


def write_results(out: Path, summary: dict[str, Any], params: Any) -> None:
    """The pictures, then at one stroke `summary.json`: where it is, the results are complete."""
    what = f"{summary['config']['model']} on {summary['config']['dataset']}"
    title = f"{what}: test accuracy {summary['test_accuracy']:.2%}"
    figures.learning_curve(summary["epochs"], title, out / "learning_curve.png")
    first = next(p for p in jax.tree.leaves(params) if p.ndim == 4)
    figures.filters(np.asarray(first), f"first layer of {what}", out / "filters.png")
    with tempfile.TemporaryDirectory(dir=out, prefix="partial-") as scratch:
        path = Path(scratch, "summary.json")
        path.write_text(json.dumps(summary, indent=2, default=str) + "\n")
        path.replace(out / path.name)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; exits with 2 and one line on a user's error, with 130 when interrupted."""
    try:
        train(parse(arguments))
    except KeyboardInterrupt:
        print("interrupted: no results were written", file=sys.stderr)
        sys.exit(130)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
