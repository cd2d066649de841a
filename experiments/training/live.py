"""What a terminal shows while a net trains."""

import resource
import sys
import time

import jax
from rich.console import Console
from rich.live import Live
from rich.table import Table


def memory_bytes() -> int:
    """The most memory taken so far: of the device, or of the process where the device is its processor."""
    stats = jax.devices()[0].memory_stats()
    if stats:
        return stats["peak_bytes_in_use"]
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Rate:
    """Steps per second, of all since it was made."""

    def __init__(self):
        self.began, self.steps = time.perf_counter(), 0

    def step(self) -> None:
        self.steps += 1

    def per_second(self) -> float:
        return self.steps / max(time.perf_counter() - self.began, 1e-9)


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


class LiveTable:
    """One row that is renewed in place: where training is, how fast it goes and when it will be over.

    Where there is no terminal it shows nothing.
    """

    def __init__(self, console: Console, epochs: int, steps: int, batch_size: int):
        self.epochs, self.steps, self.batch_size = epochs, steps, batch_size  # steps of an epoch
        self.rate, self.live = Rate(), Live(console=console, auto_refresh=False, transient=True)
        self.shown, self.visible = 0.0, console.is_terminal

    def __enter__(self) -> "LiveTable":
        if self.visible:
            self.live.start()
        return self

    def __exit__(self, *_) -> None:
        self.live.stop()

    def step(self, epoch: int, step: int, loss: float, accuracy: float) -> None:
        """Shows that `step` steps of an epoch are done, four times a second at most."""
        self.rate.step()
        if self.visible and time.perf_counter() - self.shown > 0.25:
            self.shown = time.perf_counter()
            self.live.update(self.table(epoch, step, loss, accuracy), refresh=True)

    def table(self, epoch: int, step: int, loss: float, accuracy: float) -> Table:
        left = (self.epochs - epoch + 1) * self.steps - step
        row = {
            "epoch": f"{epoch}/{self.epochs}",
            "step": f"{step}/{self.steps}",
            "loss": f"{loss:.4f}",
            "accuracy": f"{accuracy:.2%}",
            "images/s": f"{self.rate.per_second() * self.batch_size:,.0f}",
            "left": duration(left / self.rate.per_second()),
            "peak memory": f"{memory_bytes() / 2**20:,.0f} MiB",
        }
        table = Table(*row)
        table.add_row(*row.values())
        return table
