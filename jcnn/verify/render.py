"""A report as plain text and, in colour, for a terminal.

Both say the same: verdict, what is wrong by how much, which oracles say so, the diagnosis, then all else
that was looked at.  The page (`as_html`) and the picture have modules of their own.
"""

import textwrap
from typing import Any, NamedTuple

from jcnn.verify import wording
from jcnn.verify.heatmap import save_picture as save_picture
from jcnn.verify.page import as_html as as_html
from jcnn.verify.report import Finding, Report, Status

WIDTH = 100
INDENT = "  "
COLUMNS = 3
PASSED = "PASSED: worst error, and how many times smaller it is than the tolerance"
COLOURS = {"CORRECT": "green", "WRONG": "red", "INCONCLUSIVE": "yellow", "EXPECTED_DEVIATION": "cyan"}


class Section(NamedTuple):
    """Lines under a title; cells of one width are set side by side."""

    title: str
    lines: list[str]
    colour: str = ""  # of the title in a terminal
    are_cells: bool = False


def as_text(report: Report) -> str:
    """The report in lines of at most 100 columns, save for the script and for what has no space in it."""
    verdict = f"{report.verdict}  {report.rule}"
    arguments = [" · ".join(report.arguments)] if report.arguments else []
    heading = wording.heading(report).rjust(WIDTH - len(verdict) - 2)
    blocks = [f"{verdict}  {heading}", *_wrapped(arguments)]
    for section in sections(report):
        lines = _in_columns(section.lines) if section.are_cells else section.lines
        blocks += ["", section.title, *_wrapped(lines)]
    if report.script:
        blocks += ["", f"── script {'─' * (WIDTH - 10)}", report.script.rstrip("\n")]
    return "\n".join(blocks)


def as_rich(report: Report) -> Any:
    """The report in colour, for rich's `print`; the plain text where rich is not installed."""
    try:
        from rich.columns import Columns
        from rich.console import Group
        from rich.padding import Padding
        from rich.panel import Panel
        from rich.syntax import Syntax
        from rich.text import Text
    except ImportError:
        return as_text(report)
    blocks: list[Any] = [Text(" · ".join(report.arguments), "dim")]
    for section in sections(report):
        lines = [Text(line) for line in section.lines]
        body = Columns(lines, padding=(0, 4)) if section.are_cells else Group(*lines)
        blocks += ["", Text(section.title, f"bold {section.colour}"), Padding(body, (0, 0, 0, 2))]
    colour = COLOURS[report.verdict]
    title = Text.assemble((report.verdict, f"bold {colour}"), f"  {report.rule}")
    about = wording.heading(report)
    panel = Panel(Group(*blocks), title=title, subtitle=about, border_style=colour, title_align="left")
    if not report.script:
        return panel
    script = Syntax(report.script.rstrip("\n"), "python", background_color="default", word_wrap=True)
    return Group(panel, script)


def sections(report: Report) -> list[Section]:
    """What is between the arguments and the script; sections that would be empty are left out."""
    told, others = wording.split_failures(report)
    causes = [f"{i}. {cause}" for i, cause in enumerate(report.causes, 1)]
    all_sections = [
        *(Section(wording.title(f), wording.evidence(f), "red") for f in told),
        Section("ORACLES", wording.context(report) if told else []),
        Section("DIAGNOSIS", causes, "magenta"),
        Section("ALSO WRONG", wording.briefly(others), "red"),
        Section("INCONCLUSIVE", wording.briefly(wording.with_status(report, Status.INCONCLUSIVE)), "yellow"),
        Section("AS DECLARED", wording.briefly(wording.with_status(report, Status.EXPECTED)), "cyan"),
        Section(PASSED, [_cell(f) for f in wording.passed(report)], "green", are_cells=True),
        Section("SKIPPED", wording.skipped(report)),
        Section("NOTES", wording.notes(report)),
    ]
    return [s for s in all_sections if any(s.lines)]


def _cell(finding: Finding) -> str:
    margin = f"{wording.number(wording.margin(finding))}x" if finding.error else ""
    return f"{finding.property:<13}{wording.number(finding.error):>8}{margin:>10}"


def _in_columns(cells: list[str]) -> list[str]:
    height = -(-len(cells) // COLUMNS)
    return ["  ".join(cells[i::height]).rstrip() for i in range(height)]


def _wrapped(lines: list[str]) -> list[str]:
    return [part for line in lines for part in _wrap(line)]


def _wrap(line: str) -> list[str]:
    """A line broken at its spaces where it is too long; one that fits keeps its alignment."""
    if len(INDENT + line) <= WIDTH:
        return [INDENT + line]
    return textwrap.wrap(
        line,
        WIDTH,
        initial_indent=INDENT,
        subsequent_indent=2 * INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
