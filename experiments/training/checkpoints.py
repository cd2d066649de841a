"""Checkpoints: all that a run needs to go on exactly as if it had never stopped.

Orbax writes them in the background and commits each as a whole, so that there is a checkpoint or there is
none. The newest two are kept. A checkpoint knows the names, shapes and dtypes of its arrays and a checksum of
their bytes: one that is damaged, or of another model, is never taken for good.
"""

import logging
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from experiments.data import UserError
from experiments.training.steps import TrainState

KEPT = 2
logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax's failures are told here, in one line


class Progress(NamedTuple):
    """How far a run has come, apart from its arrays."""

    records: tuple[dict[str, Any], ...] = ()  # the metrics of the epochs that are over
    metrics: tuple[tuple[float, ...], ...] = ()  # those of the steps of the one that is not
    seconds: float = 0.0  # that the steps of that epoch took


class Damaged(Exception):
    """A checkpoint is not what was saved."""


def named(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by their paths: copies on the host, which training cannot change."""
    return {
        jax.tree_util.keystr(path): np.array(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def shapes(arrays: dict[str, Any]) -> dict[str, str]:
    return {name: f"{a.dtype}{list(a.shape)}" for name, a in arrays.items()}


def packed(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """All bytes of the arrays, in order."""
    return np.frombuffer(b"".join(a.tobytes() for a in arrays.values()), np.uint8)


def unpacked(content: np.ndarray, like: dict[str, np.ndarray]) -> list[jax.Array]:
    """The arrays that were packed, of the shapes and dtypes of `like`."""
    parts = np.split(content, np.cumsum([a.nbytes for a in like.values()])[:-1])
    return [
        jnp.array(np.frombuffer(part.tobytes(), a.dtype).reshape(a.shape))
        for part, a in zip(parts, like.values(), strict=True)
    ]


def first_line(error: BaseException) -> str:
    """The beginning and the end of what it says: the one has what, the other why."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= 200 else f"{line[:60]} ... {line[-120:]}"


class Checkpoints:
    """The checkpoints of a run, in a folder of their own; `say` tells the user one line."""

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self.folder, self.say = folder.absolute(), say
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT, enable_async_checkpointing=True, cleanup_tmp_directories=True
        )
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, train_state: TrainState, progress: Progress) -> None:
        """Begins to save; if that fails, or what was begun before has, says so and lets training go on."""
        self.wait()
        if (step := int(train_state.step)) == self.saved():
            return
        arrays = named(train_state)
        # One array: Orbax reads several at once, and where one is damaged the others fail after it, noisily.
        content = packed(arrays)
        about = {"arrays": shapes(arrays), "checksum": zlib.crc32(content), "progress": progress._asdict()}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave({"bytes": content}), about=ocp.args.JsonSave(about)
        )
        self._try(lambda: self.manager.save(step, args=items, force=True))

    def wait(self) -> None:
        """Returns when what was begun is saved, or has failed."""
        self._try(self.manager.wait_until_finished)

    def close(self) -> None:
        self.wait()
        self._try(self.manager.close)

    def saved(self) -> int | None:
        """The step of the newest checkpoint."""
        return max(self.manager.all_steps(read=True), default=None)

    def restore(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """The newest checkpoint that is whole, None if there is none at all.

        Args:
            like: a state whose names, shapes and dtypes the checkpoint must have.

        Raises:
            UserError: it is of another model, or every one is damaged.
        """
        steps = sorted(self.manager.all_steps(read=True), reverse=True)
        for step in steps:
            try:
                return self._read(step, like)
            except UserError:
                raise
            except (
                Exception
            ) as error:  # Orbax and tensorstore raise whatever a damaged file makes them stumble on
                aside = self._set_aside(step)
                self.say(
                    f"warning: the checkpoint of step {step} is damaged ({first_line(error)}); now in {aside}"
                )
        if steps:
            raise UserError(
                f"--resume: got {self.folder} with damaged checkpoints only, expected a whole one; "
                "start again with another --out"
            )
        return None

    def _read(self, step: int, like: TrainState) -> tuple[TrainState, Progress]:
        about = self.manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about
        expected = named(like)
        self._same_arrays(step, about["arrays"], shapes(expected))
        size = sum(a.nbytes for a in expected.values())
        like_saved = {"bytes": np.zeros(size, np.uint8)}
        restore = ocp.args.Composite(state=ocp.args.StandardRestore(like_saved))
        content = np.asarray(self.manager.restore(step, args=restore).state["bytes"])
        if zlib.crc32(content) != about["checksum"]:
            raise Damaged("its bytes are not those that were saved")
        leaves = unpacked(content, expected)
        progress = about["progress"]
        metrics = tuple(tuple(row) for row in progress["metrics"])
        state = jax.tree.unflatten(jax.tree.structure(like), leaves)
        return state, Progress(tuple(progress["records"]), metrics, progress["seconds"])

    def _same_arrays(self, step: int, got: dict[str, str], expected: dict[str, str]) -> None:
        for name in sorted(got.keys() | expected.keys()):
            a, b = got.get(name, "no such array"), expected.get(name, "none")
            if a != b:
                raise UserError(
                    f"--resume: got a checkpoint of another model in {self.folder / str(step)} "
                    f"({name}: {a}), expected {b}; start again with another --out"
                )

    def _set_aside(self, step: int) -> Path:
        """Moves a damaged checkpoint away, so that one of the same step can be saved."""
        aside = self.folder.with_name(f"damaged-checkpoint-{step}")
        shutil.rmtree(aside, ignore_errors=True)
        (self.folder / str(step)).rename(aside)
        self.manager.reload()
        return aside

    def _try(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:  # of the disk, in whatever dress Orbax and tensorstore give it
            for rest in self.folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(rest, ignore_errors=True)
            newest = self.saved()
            last = "none is saved" if newest is None else f"the last one saved is of step {newest}"
            self.say(
                f"warning: got no checkpoint ({first_line(error)}), {last}; training goes on, "
                f"make space in {self.folder}"
            )
