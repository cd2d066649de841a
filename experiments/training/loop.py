"""The loop over epochs and steps, which can stop after any step and go on from there."""

import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import jcnn
from experiments.data import Dataset, UserError
from experiments.training.augment import View
from experiments.training.checkpoints import Checkpoints, Progress
from experiments.training.diagnose import first_not_finite
from experiments.training.gradients import cast
from experiments.training.interrupt import Interrupted, Stop, held_back
from experiments.training.live import LiveTable, memory_bytes
from experiments.training.log import Log
from experiments.training.optimizers import make_optimizer, make_schedule
from experiments.training.steps import (
    Evaluation,
    Steps,
    TrainState,
    channel_statistics,
    evaluate,
    evaluation_batches,
    make_steps,
)
from jcnn.net import Net

if TYPE_CHECKING:
    from experiments.config import Config


class Program(NamedTuple):
    """A net made ready for training on some data, with any seed."""

    config: "Config"
    data: Dataset
    net: Net
    steps: Steps  # compiled, the two of them that are run
    optimizer: Any
    compile_seconds: float

    def fresh(self, seed: int) -> TrainState:
        """The state before the first step."""
        params, state = initial(self.net, seed, self.data.train_images.shape[1:])
        average = jax.tree.map(jnp.copy, (params, state))  # a copy, as a donated buffer cannot be shared
        return TrainState(params, state, self.optimizer.init(params), average, jnp.int32(0))


def keys(seed: int) -> tuple[jax.Array, jax.Array]:
    """The keys of the initial weights and of all steps."""
    init_key, step_key = jax.random.split(jax.random.key(seed))
    return init_key, step_key


def initial(net: Net, seed: int, image_shape: tuple[int, ...]) -> tuple[Any, Any]:
    return jax.tree.map(jnp.float32, net.init(keys(seed)[0], image_shape))


def order(seed: int, epoch: int, n: int, batch_size: int) -> np.ndarray:
    """The batches of an epoch, indices `[steps, batch_size]`; what is left over of n is dropped."""
    permutation = np.random.default_rng([seed, epoch]).permutation(n)
    return permutation[: n // batch_size * batch_size].reshape(-1, batch_size)


def prepare(config: "Config", data: Dataset, net: Net) -> Program:
    """Makes the optimizer and compiles the steps."""
    began = time.perf_counter()
    per_epoch = len(data.train_images) // config.batch_size
    optimizer = make_optimizer(config, per_epoch * config.epochs)
    statistics = channel_statistics(data.train_images)
    steps = make_steps(config, net, optimizer, *statistics, len(data.classes), per_epoch)
    program = Program(config, data, net, steps, optimizer, 0.0)
    compiled = functools.partial(jax.jit, compiler_options=jcnn.compiler_options())
    state, indices = program.fresh(config.seed), np.arange(config.batch_size)
    train_step = compiled(steps.train_step, donate_argnums=0).lower(
        state, data.train_images, data.train_labels, indices, np.int32(0), keys(config.seed)[1]
    )
    logits = compiled(steps.logits).lower(
        state.average, data.test_images, evaluation_batches(len(data.test_images))[0], View()
    )
    steps = steps._replace(train_step=train_step.compile(), logits=logits.compile())
    return program._replace(steps=steps, compile_seconds=time.perf_counter() - began)


class Run:
    """One seed's training: its state, how far it has come and the folder that it is saved in."""

    def __init__(self, program: Program, seed: int, folder: Path, console: Console):
        self.program, self.config, self.data = program, program.config, program.data
        self.seed, self.folder, self.console, self.key = seed, folder, console, keys(seed)[1]
        self.checkpoints = Checkpoints(folder / "checkpoints", self.say)
        self.train_state, progress = program.fresh(seed), Progress()
        if (found := self.checkpoints.restore(self.train_state)) is not None:
            self.train_state, progress = found
            self.say(f"goes on after step {int(self.train_state.step)}")
        self.records, self.metrics = list(progress.records), list(progress.metrics)
        self.seconds, self.saved_at = progress.seconds, time.perf_counter()
        self.log = Log(folder, self.records, self.say)
        self.per_epoch = len(self.data.train_images) // self.config.batch_size
        self.train_set = jax.device_put((self.data.train_images, self.data.train_labels))
        self.test_set = jax.device_put((self.data.test_images, self.data.test_labels))
        self.live = LiveTable(console, self.config.epochs, self.per_epoch, self.config.batch_size)

    def say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def fit(self) -> None:
        """Trains to the end; afterwards `records` and `train_state` are complete, and saved.

        Raises:
            Interrupted: somebody asked for the end; all is saved.
            UserError: the loss is not finite.
        """
        try:
            with held_back() as stop, self.live:
                for epoch in range(len(self.records) + 1, self.config.epochs + 1):
                    self.train_epoch(epoch, stop)
                    self.end_epoch(epoch)
                self.save()
        finally:
            self.log.close()
            self.checkpoints.close()

    def train_epoch(self, epoch: int, stop: Stop) -> None:
        """The steps of an epoch that are still to be done."""
        began = time.perf_counter() - self.seconds
        batches = order(self.seed, epoch, len(self.data.train_images), self.config.batch_size)
        for i in range(len(self.metrics), self.per_epoch):
            step = np.int32((epoch - 1) * self.per_epoch + i)
            train_step = self.program.steps.train_step
            self.train_state, of_batch = train_step(
                self.train_state, *self.train_set, batches[i], step, self.key
            )
            self.metrics.append(of_batch)
            # What is looked at is one step behind, so that the device always has a step to do.
            loss, accuracy = self.checked(epoch, batches, max(0, i - 1))
            self.live.step(epoch, i + 1, loss, accuracy)
            self.seconds = time.perf_counter() - began
            if stop.requested:
                self.checked(epoch, batches, i)
                self.save()
                self.checkpoints.wait()
                raise Interrupted(f"after step {i + 1} of {self.per_epoch} of epoch {epoch}")
            if time.perf_counter() - self.saved_at >= self.config.save_every:
                self.checked(epoch, batches, i)
                self.save()
        self.checked(epoch, batches, self.per_epoch - 1)

    def end_epoch(self, epoch: int) -> None:
        """Evaluates, and writes down the metrics of the epoch."""
        began = time.perf_counter()
        train = np.mean([np.asarray(row, float) for row in self.metrics], 0).tolist()
        trained = self.per_epoch * self.config.batch_size
        test_loss, test_accuracy, _ = self.evaluate(epoch, "none")
        steps = self.per_epoch * self.config.epochs
        record = {
            "epoch": epoch,
            "train_loss": train[0],
            "train_accuracy": train[1],
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "learning_rate": float(make_schedule(self.config, steps)(epoch * self.per_epoch - 1)),
            "images_per_second": trained / self.seconds,
            "memory_bytes": memory_bytes(),
            "seconds": self.seconds + time.perf_counter() - began,
        }
        self.records.append(record)
        self.metrics, self.seconds = [], 0.0
        self.log.add(record)
        self.say(
            f"epoch {epoch:>3}/{self.config.epochs}  train loss {train[0]:.4f} accuracy {train[1]:.2%}"
            f"  test loss {test_loss:.4f} accuracy {test_accuracy:.2%}  {record['seconds']:.1f} s"
        )

    def evaluate(self, epoch: int, tta: str) -> Evaluation:
        """Of the averaged weights, on the test set."""
        found = evaluate(self.program.steps, self.train_state.average, *self.test_set, tta)
        if not np.isfinite(found.loss):
            bad = np.flatnonzero(~np.isfinite(found.logits).all(-1))[:1]
            raise self.not_finite("test loss", found.loss, epoch, self.test_diagnosis(bad))
        return found

    def save(self) -> None:
        metrics = tuple(tuple(np.asarray(row).astype(float).tolist()) for row in self.metrics)
        self.checkpoints.save(self.train_state, Progress(tuple(self.records), metrics, self.seconds))
        self.saved_at = time.perf_counter()

    def checked(self, epoch: int, batches: np.ndarray, i: int) -> tuple[float, float]:
        """Loss and accuracy of a step, refused if they, or its gradients, are not finite."""
        loss, accuracy, good = np.asarray(self.metrics[i], float).tolist()
        if good:
            return loss, accuracy
        what = "gradient" if np.isfinite(loss) else "loss"
        raise self.not_finite(what, loss, epoch, self.diagnosis(batches[i]))

    def not_finite(self, what: str, loss: float, epoch: int, cause: str) -> UserError:
        got = "numbers that are not finite" if what == "gradient" else str(loss)
        return UserError(
            f"{what}: got {got} in epoch {epoch} of {self.config.epochs}, expected finite numbers; {cause}; "
            f"a lower --lr than {self.config.lr:g} may help"
        )

    def test_diagnosis(self, indices: np.ndarray) -> str:
        """Where those test images bring the first number that is not finite."""
        params, state = self.train_state.average
        mean, std = channel_statistics(self.data.train_images)
        x, dtype = (self.data.test_images[indices] - mean) / std, jnp.dtype(self.config.dtype)
        return first_not_finite(self.program.net, cast(params, dtype), state, x.astype(dtype), train=False)

    def diagnosis(self, indices: np.ndarray) -> str:
        """Where that batch brings the first number that is not finite; the state is that before the step."""
        state, dtype = self.train_state, jnp.dtype(self.config.dtype)
        x, labels, net_key = self.program.steps.batch(state.step, *self.train_set, indices, self.key)

        def dlogits_of(logits: jax.Array) -> jax.Array:
            smoothing = self.config.label_smoothing
            loss, res = jcnn.softmax_cross_entropy.fwd(
                logits.astype(jnp.float32), labels, label_smoothing=smoothing
            )
            return jcnn.softmax_cross_entropy.bwd(res, jnp.full_like(loss, 1 / len(loss)))[0]

        params, x = cast(state.params, dtype), x.astype(dtype)
        return first_not_finite(self.program.net, params, state.state, x, net_key, dlogits_of)
