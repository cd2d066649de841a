"""Many reports as a table that grows by a row per report, and in one line."""

import collections
import shutil
import sys
from collections.abc import Iterable, Sequence

from jcnn.verify import wording
from jcnn.verify.report import Report

VERDICTS = ("CORRECT", "EXPECTED_DEVIATION", "INCONCLUSIVE", "WRONG")  # from best to worst
TITLES = ("verdict", "worst error", "tolerance", "seconds", "cause")


class Table:
    """Columns wide enough for labels that are known from the start.

    Args:
        titles: of the columns of labels.
        labels: for each row, one per title.
    """

    def __init__(self, titles: Sequence[str], labels: Iterable[Sequence[str]]):
        columns = zip(titles, *labels, strict=True)
        self.widths = [max(map(len, column)) for column in columns]
        self.header = self._line(titles, TITLES)

    def row(self, labels: Sequence[str], report: Report) -> str:
        """Labels, verdict, the failure or float64 error closest to its tolerance, seconds, first cause."""
        told = report.failures or [f for f in report.findings if f.dtype == "float64"]
        measured = [f for f in told if f.error is not None and f.tolerance]
        closest = min(measured, key=wording.margin, default=None)
        error = wording.number(closest.error) if closest else ""
        tolerance = wording.number(closest.tolerance) if closest else ""
        verdict = report.verdict.lower() if report.ok else report.verdict
        cause = "; ".join(report.causes[:1])
        return self._line(labels, (verdict, error, tolerance, f"{report.seconds:.1f}", cause))

    def _line(self, labels: Sequence[str], cells: Sequence[str]) -> str:
        """A row; on a terminal cut off at its right edge."""
        before = [f"{label:<{width}}" for label, width in zip(labels, self.widths, strict=True)]
        verdict, error, tolerance, seconds, cause = cells
        line = "  ".join((*before, f"{verdict:<18}{error:>11}  {tolerance:>9}  {seconds:>7}", cause)).rstrip()
        return line[: shutil.get_terminal_size().columns] if sys.stdout.isatty() else line


def summary(reports: Iterable[Report], seconds: float) -> str:
    """Such as "61 checked in 93 s: 60 correct, 1 wrong"."""
    counts = collections.Counter(report.verdict for report in reports)
    said = ", ".join(f"{counts[v]} {v.lower().replace('_', ' ')}" for v in VERDICTS if counts[v])
    return f"{counts.total()} checked in {seconds:.0f} s: {said}"
