"""Timing of contestants against each other on a machine that is shared, noisy and full of spinning threads.

Contestants run in rounds. In a round each of them, in an order drawn anew, makes one untimed call and
directly after it a timed one, so that caches, clock speed and threads are its own by then (PyTorch's
threads go on spinning after a call, and would slow down whoever comes next). Calls that are shorter than
`Budget.section` are repeated within the timed section. What is compared are figures of the same round:
the ratio of two contestants is the median of their ratios over the rounds, with its quartiles as spread.

    seconds = measure({"jcnn": call(f, x), "autodiff": call(g, x)}, Budget(seconds=2.5))
    ratio(seconds["autodiff"], seconds["jcnn"])    # Ratio(median=4.9, low=4.8, high=5.1)
"""

import dataclasses
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

Call = Callable[[], Any]


@dataclass(frozen=True)
class Budget:
    """How long a comparison may take."""

    seconds: float = 2.5  # aimed at for all rounds together
    fewest: int = 5  # rounds, even if that takes longer
    most: int = 25  # rounds, even if there is time left
    longest: float = 30.0  # seconds; beyond it three rounds must do
    section: float = 0.002  # shortest timed section; shorter calls are repeated
    warm: bool = True  # whether an untimed call goes before each timed one

    @classmethod
    def quick(cls) -> "Budget":
        return cls(seconds=0.3, fewest=3, most=7, longest=5.0)

    def unwarmed(self) -> "Budget":
        """For calls that are the same every time, warmed up or not."""
        return dataclasses.replace(self, warm=False, section=0.0)

    def rounds(self, one: float) -> int:
        """The number of rounds if one takes so many seconds."""
        wanted = min(self.most, max(self.fewest, int(self.seconds / max(one, 1e-9))))
        return wanted if wanted * one <= self.longest else min(wanted, max(3, int(self.longest / one)))


class Ratio(NamedTuple):
    """Median and quartiles of per-round ratios; over 1 means that we are better."""

    median: float
    low: float
    high: float


def call(f: Callable, *args: Any) -> Call:
    """A contestant from a (jitted) JAX function: runs it and waits for its result, which is returned."""
    return lambda: jax.block_until_ready(f(*args))


def compilation(lower: Callable[[], jax.stages.Lowered]) -> Call:
    """A contestant that compiles what `lower` gives, as if for the first time."""

    def compile_anew() -> None:
        jax.clear_caches()
        jax.config.update("jax_enable_compilation_cache", False)
        lower().compile()

    return compile_anew


def measure(
    contestants: Mapping[str, Call],
    budget: Budget = Budget(),
    *,
    clock: Callable[[], float] = time.perf_counter,
    seed: int = 0,
) -> dict[str, list[float]]:
    """Seconds per call of every contestant, one figure per round.

    Args:
        contestants: functions without arguments that return when their work is done. Each is called twice
            before the rounds begin, so that compilation is not timed; what they return is dropped.
        budget: how many rounds there are, and how long a timed section is.
        clock: gives seconds.
        seed: of the order within the rounds.
    """
    repeats, one_round = {}, 0.0
    for name, f in contestants.items():
        if budget.warm:
            f()
        once = _timed(f, 1, clock)
        repeats[name] = max(1, math.ceil(budget.section / max(once, 1e-9)))
        one_round += (repeats[name] + budget.warm) * once
    order, shuffle = list(contestants), random.Random(seed).shuffle
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(budget.rounds(one_round)):
        shuffle(order)
        for name in order:
            if budget.warm:
                contestants[name]()
            seconds[name].append(_timed(contestants[name], repeats[name], clock))
    return seconds


def _timed(f: Call, repeats: int, clock: Callable[[], float]) -> float:
    began = clock()
    for _ in range(repeats):
        f()
    return (clock() - began) / repeats


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Ratio:
    """Their figure over ours, round by round; where both are 0 (bytes may be) the ratio is 1."""
    pairs = zip(theirs, ours, strict=True)
    each = [1.0 if a == b else a / b if b else math.inf for a, b in pairs]
    if math.inf in each:
        return Ratio(math.inf, math.inf, math.inf)
    return Ratio(*map(float, np.quantile(each, (0.5, 0.25, 0.75))))


def geometric_mean(values: Sequence[float]) -> float:
    """Of what is finite and positive among the values; NaN if nothing is."""
    logs = [math.log(v) for v in values if 0 < v < math.inf]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan
