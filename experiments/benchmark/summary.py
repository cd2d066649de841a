"""Rows of a benchmark put into a few words."""

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.benchmark.settings import Row
from experiments.benchmark.timing import Ratio, geometric_mean, ratio


class Summary(NamedTuple):
    """How a peer compares over all rows of a dtype; in memory, of one kind."""

    peer: str
    dtype: str
    of: str  # the kind of memory, or ""
    rows: int
    mean: float  # geometric mean of the ratios; in memory, the ratio of the sums
    smallest: float
    where: str  # case and stage of the smallest ratio
    under: int  # rows under their bar


def summarise(kind: str, rows: Sequence[Row]) -> list[Summary]:
    """One summary per peer, dtype and kind of memory, in the order in which they appear."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        for peer in row.peers:
            of = row.stage if kind == "memory" else ""
            groups.setdefault((row.dtype, peer, of), []).append(row)
    found = []
    for (dtype, peer, of), members in groups.items():
        ratios = [row.ratio(peer).median for row in members]
        smallest = min(range(len(ratios)), key=ratios.__getitem__)
        where = f"{members[smallest].case}, {members[smallest].stage}"
        under = sum(row.under(kind, peer) for row in members)
        mean = _of_sums(members, peer) if kind == "memory" else geometric_mean(ratios)
        found.append(Summary(peer, dtype, of, len(ratios), mean, ratios[smallest], where, under))
    return found


def _of_sums(rows: Sequence[Row], peer: str) -> float:
    ours = sum(statistics.median(row.figures[row.ours(peer)]) for row in rows)
    return ratio([sum(statistics.median(row.figures[peer]) for row in rows)], [ours]).median


def quantity(figures: Iterable[float], unit: str) -> str:
    """The median with a unit: "12.3 ms", "1.57 MB"."""
    value = statistics.median(figures)
    if unit == "s":
        return f"{value:.3g} s" if value >= 10 else f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.2f} s"
    for factor, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= factor:
            return f"{value / factor:.3g} {name}"
    return f"{value:g} B"


def times(r: float) -> str:
    """A ratio in words: "4.91x", with fewer digits where they mean nothing."""
    return f"{r:.2f}x" if r < 100 else f"{float(f'{r:.3g}'):.0f}x"


def spread(r: Ratio) -> str:
    """A ratio with its quartiles: "4.91x (4.80-5.02)"; without them where they are the same."""
    low, high = (times(quartile).removesuffix("x") for quartile in (r.low, r.high))
    return times(r.median) + ("" if r.low == r.high else f" ({low}-{high})")
