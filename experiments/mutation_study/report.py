"""What the study prints."""

import collections
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

KINDS = ("planted", "semantic", "generic", "equation")


@dataclass
class Record:
    """What became of an error: for each checker, one of the words of `checkers.Outcome`."""

    set: str
    rule: str
    name: str
    kind: str
    equivalent: bool = False
    outcomes: dict[str, str] = dataclasses.field(default_factory=dict)
    causes: list[str] = dataclasses.field(default_factory=list)
    cause_named: bool | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def counts(self) -> bool:
        return self.kind in KINDS and not self.equivalent


def show(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def summarise(records: list[Record], names: Sequence[str]) -> None:
    """Kill rates by set and kind of error, then what was wrongly refused, not counted, or missed."""
    groups = collections.defaultdict(list)
    for r in filter(lambda r: r.counts, records):
        for key in ((r.set, r.kind), ("all", "")):
            groups[key].append(r)
    rows = []
    for (name, kind), members in sorted(groups.items(), key=lambda item: (item[0][0] == "all", *item[0])):
        killed = [sum(r.outcomes[c] == "killed" for r in members) for c in names]
        rates = [f"{k} ({100 * k / len(members):.1f}%)" for k in killed]
        named = [r.cause_named for r in members if r.cause_named is not None]
        rows.append((name, kind, len(members), *rates, f"{sum(named)}/{len(named)}" if named else ""))
    seconds = [f"{sum(r.seconds.get(c, 0) for r in records):.0f} s" for c in names]
    show(
        "Errors found",
        ("rules", "errors", "number", *names, "cause named"),
        [*rows, ("", "", "", *seconds, "")],
    )
    correct = [r for r in records if r.kind == "correct"]
    alarms = [sum(r.outcomes[c] != "survived" for r in correct) for c in names]
    show("Correct rules not accepted", ("number", *names), [(len(correct), *alarms)])
    listed("", [f"{r.rule}: {c}: {o}" for r in correct for c, o in r.outcomes.items() if o != "survived"])
    listed("Equivalent mutants, not counted", [f"{r.rule}: {r.name}" for r in records if r.equivalent])
    for c in names:
        missed = [
            f"{r.rule}: {r.name}: {r.outcomes[c]}" for r in records if r.counts and r.outcomes[c] != "killed"
        ]
        listed(f"Not found by {c}", missed, limit=None if c == "verify" else 20)
    unnamed = [f"{r.rule}: {r.name}: {'; '.join(r.causes[:2])}" for r in records if r.cause_named is False]
    listed("Found by verify, cause not named", unnamed)


def listed(title: str, lines: list[str], limit: int | None = None) -> None:
    print(f"\n{title}: {len(lines)}" if title else "", *lines[:limit], sep="\n  ")
    if limit is not None and len(lines) > limit:
        print(f"  and {len(lines) - limit} more, see --json")
