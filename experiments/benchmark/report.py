"""What is seen and what is left of a run: lines and a table in the terminal, JSON, Markdown and a bar chart.

    with Report("ops", settings, out, command) as report:
        for task in report.track(tasks):
            for row in task.run():
                report.add(row)

Every row is printed and written as it comes (`ops.json`). When the block is left, be it by Ctrl-C, the
table is printed and everything else written: `ops.json`, `ops.md`, `ops.png`.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments.benchmark import chart
from experiments.benchmark.settings import MEAN_BARS, OURS, TUNED, Row, Settings, Task
from experiments.benchmark.summary import quantity, spread, summarise, times
from experiments.benchmark.surroundings import surroundings
from experiments.benchmark.timing import Ratio
from experiments.record import write_json

FAIR = 0.97, 1.03  # what jcnn against itself may read


class Report:
    """The results of one run; see the module's docstring.

    Args:
        kind: "ops", "steps", "memory" or "compile"; it decides on the bars and names the files.
        settings: as given to the tasks.
        out: folder for the files; None writes nothing.
        command: the command line, to be recorded.
        console: where to print; standard output by default.
    """

    def __init__(
        self,
        kind: str,
        settings: Settings,
        out: Path | None = None,
        command: str = "",
        console: Console | None = None,
    ):
        self.kind, self.out = kind, out
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.complete = False
        self.facts: dict[str, Any] = {
            "kind": kind,
            "command": command,
            "against": settings.against,
            "quick": settings.quick,
            **surroundings(),
        }

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.complete = error is None
        self._write_json()
        if not self.rows:
            return
        self.show()
        if self.out is not None:
            (self.out / f"{self.kind}.md").write_text(self.markdown(), "utf-8")
            chart.bars(self.kind, self.rows, self.out / f"{self.kind}.png")
            self.console.print(f"results are in {self.out}")

    def track(self, tasks: Sequence[Task]) -> Iterator[Task]:
        """The tasks one by one, with a bar that says how far we are."""
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        shown = self.console.is_terminal
        # It is drawn between tasks only: nothing else runs while something is timed.
        with Progress(*columns, console=self.console, disable=not shown, auto_refresh=False) as progress:
            bar = progress.add_task(self.kind, total=len(tasks))
            for task in tasks:
                progress.update(bar, description=task.name, refresh=True)
                yield task
                progress.update(bar, advance=1, refresh=True)

    def note(self, text: str) -> None:
        """Prints a remark and keeps it for the files: what was skipped, what is to be doubted."""
        self.notes.append(text)
        self.console.print(text, markup=False)

    def check(self, r: Ratio) -> None:
        """Notes the ratio of jcnn to itself, and warns if it is not 1."""
        self.facts["itself"] = r._asdict()
        self.note(f"jcnn against itself: {spread(r)}")
        if not FAIR[0] <= r.median <= FAIR[1]:
            self.note(
                f"WARNING: jcnn against itself should read {FAIR[0]} to {FAIR[1]}; this machine is too busy"
            )

    def add(self, row: Row | str) -> None:
        """Prints a row (or notes a remark) and writes all that there are so far."""
        if isinstance(row, str):
            return self.note(row)
        self.rows.append(row)
        figures = "  ".join(f"{name} {quantity(v, row.unit)}" for name, v in row.figures.items())
        ratios = "  ".join(f"{times(row.ratio(peer).median)} {peer}" for peer in row.peers)
        self.console.print(f"{row.case}, {row.stage}, {row.dtype}: {figures}; {ratios}", markup=False)
        self._write_json()

    def show(self) -> None:
        """The table, and below it the summaries."""
        columns, lines = self._table()
        table = Table(box=box.SIMPLE_HEAD, title=f"{self.kind}: ratios over 1 are in our favour")
        for column in columns:
            table.add_column(column, no_wrap=column != "case")
        for line, row in zip(lines, self.rows, strict=True):
            bad = any(row.under(self.kind, peer) for peer in row.peers)
            table.add_row(*line, style="red" if bad else None)
        width = None if self.console.is_terminal else 300
        Console(width=width, file=self.console.file, quiet=self.console.quiet).print(table)
        for line in self._summary_lines():
            self.console.print(line, markup=False)

    def markdown(self) -> str:
        """The table and all that has to be known about it, for the documentation."""
        facts = self.facts
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        columns, lines = self._table()
        body = ["| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *lines)]
        return "\n".join(
            [
                f"`{facts['command']}`",
                "",
                f"{facts['device']}; {facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads; "
                f"{versions}; {facts['date'][:10]}.{'' if self.complete else ' Interrupted.'}",
                "",
                *(f"- {line}" for line in (*self._summary_lines(), *self.notes)),
                "",
                *body,
                "",
            ]
        )

    def _table(self) -> tuple[list[str], list[list[str]]]:
        ours = [name for name in (OURS, TUNED) if any(name in row.figures for row in self.rows)]
        peers = list(dict.fromkeys(peer for row in self.rows for peer in row.peers))
        columns = ["case", "pass", "dtype", *ours, *peers, *(f"/ {peer}" for peer in peers)]
        lines = []
        for row in self.rows:
            figures = [quantity(row.figures[n], row.unit) if n in row.figures else "" for n in ours + peers]
            ratios = [self._ratio(row, peer) if peer in row.figures else "" for peer in peers]
            lines.append([row.case, row.stage, row.dtype, *figures, *ratios])
        return columns, lines

    def _ratio(self, row: Row, peer: str) -> str:
        mark = " !" if row.under(self.kind, peer) else ""
        return spread(row.ratio(peer)) + mark

    def _summary_lines(self) -> list[str]:
        lines = []
        for s in summarise(self.kind, self.rows):
            mean = "all together" if self.kind == "memory" else "geometric mean"
            of = ", ".join(filter(None, (s.peer, s.dtype, s.of)))
            bar = MEAN_BARS.get(self.kind, {}).get(s.peer)
            goal = f" (goal {bar:g}x)" if bar else ""
            under = f"; {s.under} of {s.rows} under their bar, marked !" if s.under else ""
            lines.append(
                f"{of}: {mean} {times(s.mean)}{goal}, smallest {times(s.smallest)} ({s.where}){under}"
            )
        return lines

    def _write_json(self) -> None:
        if self.out is None:
            return
        rows = [
            {
                "case": row.case,
                "stage": row.stage,
                "dtype": row.dtype,
                "unit": row.unit,
                "median": {name: statistics.median(v) for name, v in row.figures.items()},
                "ratio": {
                    peer: {"to": row.ours(peer), "under": row.under(self.kind, peer)}
                    | {k: _finite(v) for k, v in row.ratio(peer)._asdict().items()}
                    for peer in row.peers
                },
                "figures": row.figures,
            }
            for row in self.rows
        ]
        summary = [{k: _finite(v) for k, v in s._asdict().items()} for s in summarise(self.kind, self.rows)]
        content = self.facts | {
            "complete": self.complete,
            "notes": self.notes,
            "summary": summary,
            "rows": rows,
        }
        write_json(self.out / f"{self.kind}.json", content)


def _finite(value: Any) -> Any:
    return value if not isinstance(value, float) or math.isfinite(value) else None
