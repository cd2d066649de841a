"""What the parts of the benchmark share: peers, settings, tasks and the rows they give."""

import importlib.util
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from experiments.benchmark.timing import Budget, Ratio, ratio
from experiments.data import UserError

PEERS = {"autodiff": "jax", "torch": "torch", "torch-compile": "torch", "flax": "flax", "equinox": "equinox"}
OURS = "jcnn"  # with the default flags of JAX, as the peers in JAX
TUNED = "jcnn+options"  # with jcnn.compiler_options(), against PyTorch
DTYPES = ("float32", "bfloat16")

# The least ratio (theirs / ours) of a case for which "better" is claimed, and of the geometric mean over all.
BARS = {
    "ops": {"autodiff": 0.95, "torch": 0.5},
    "steps": {"autodiff": 1.3, "torch": 1.0},
    "memory": {"autodiff": 1 / 0.8},
    "compile": {"autodiff": 1 / 1.3},
}
MEAN_BARS = {"ops": {"autodiff": 5.0, "torch": 1.0}}


@dataclass(frozen=True)
class Settings:
    """What the command line asked for, without what cannot be had here."""

    against: tuple[str, ...] = ("autodiff",)  # installed peers
    quick: bool = False
    budget: Budget = field(default_factory=Budget)
    dtypes: tuple[str, ...] | None = None  # None: float32, and bfloat16 for what is worth it


@dataclass(frozen=True)
class Row:
    """One line of the table: the figures of all contestants for one pass (stage) of one case.

    `figures` has one list per contestant, with one figure per round: `OURS` and usually `TUNED`, then peers
    by their names in `PEERS`. Smaller figures are better. `bars` overrides those of `BARS` for this row.
    """

    case: str
    stage: str  # "forward", "input gradient", "step", ...
    figures: dict[str, list[float]]
    dtype: str = "float32"
    unit: str = "s"  # or "B"
    bars: dict[str, float] = field(default_factory=dict)

    @property
    def peers(self) -> tuple[str, ...]:
        return tuple(name for name in self.figures if name in PEERS)

    def ours(self, peer: str) -> str:
        """Which contestant of ours a peer is compared with."""
        return TUNED if peer.startswith("torch") and TUNED in self.figures else OURS

    def ratio(self, peer: str) -> Ratio:
        """How many times our figure the peer's is: over 1, we are better."""
        return ratio(self.figures[peer], self.figures[self.ours(peer)])

    def bar(self, kind: str, peer: str) -> float:
        return self.bars.get(peer, BARS[kind].get(peer, -math.inf))

    def under(self, kind: str, peer: str) -> bool:
        """Whether we are too bad here for what is claimed."""
        return self.ratio(peer).median < self.bar(kind, peer)


class Task(NamedTuple):
    """A piece of work that gives rows, and remarks. `--only` looks for its pattern in `name`."""

    name: str
    run: Callable[[], Iterable[Row | str]]


class Disagreement(Exception):
    """Two contestants do not compute the same."""


def installed(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of the named peers that are installed, and those that are not.

    Raises:
        UserError: a name that is none of PEERS.
    """
    if unknown := [name for name in names if name not in PEERS]:
        raise UserError(f"--against: got {', '.join(unknown)}, expected some of {', '.join(PEERS)}")
    there = tuple(n for n in dict.fromkeys(names) if importlib.util.find_spec(PEERS[n]) is not None)
    return there, tuple(n for n in dict.fromkeys(names) if n not in there)
