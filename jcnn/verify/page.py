"""A report as one page of HTML that needs nothing else: no scripts, fonts or pictures from elsewhere."""

import html
from collections.abc import Iterable
from importlib import resources

import numpy as np

from jcnn.verify import heatmap, wording
from jcnn.verify.report import PROPERTIES, ErrorMap, Finding, Report, Status

TONE = {"CORRECT": "good", "WRONG": "bad", "INCONCLUSIVE": "warn", "EXPECTED_DEVIATION": "info"}
TONES = {Status.PASS: "good", Status.FAIL: "bad", Status.INCONCLUSIVE: "warn", Status.EXPECTED: "info"}
COLUMNS = ("property", "outcome", "error", "tolerance", "margin", "what was seen")


def as_html(report: Report) -> str:
    """The page of one report."""
    return _document(f"{report.verdict} {report.rule}", _article(report))


def as_html_list(labelled: Iterable[tuple[str, Report]]) -> str:
    """The page of many reports: each can be unfolded, those that are not ok are."""
    parts = [
        f"<details{'' if report.ok else ' open'}><summary>{_badge(report)} <b>{_text(label)}</b> "
        f"{_text('; '.join(report.causes[:1]))}</summary>{_article(report)}</details>"
        for label, report in labelled
    ]
    return _document("jcnn.verify", "".join(parts))


def _document(title: str, body: str) -> str:
    style = resources.files("jcnn.verify").joinpath("page.css").read_text("utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def _article(report: Report) -> str:
    parts = (_header, _diagnosis, _evidence, _maps, _rest)
    return f"<article>{''.join(part(report) for part in parts)}</article>"


def _header(report: Report) -> str:
    versions = (f"{name} {version}" for name, version in report.versions.items())
    return (
        f"<header>{_badge(report)}<h1>{_text(report.rule)}</h1>"
        f"<p>{_text(wording.MEANINGS[report.verdict])}</p>"
        f'<p class="arguments">{"".join(f"<code>{_text(a)}</code>" for a in report.arguments)}</p>'
        f'<p class="quiet">{_text(" · ".join((wording.heading(report), *versions)))}</p></header>'
    )


def _badge(report: Report) -> str:
    return f'<span class="badge {TONE[report.verdict]}">{report.verdict.replace("_", " ")}</span>'


def _diagnosis(report: Report) -> str:
    return _section("Diagnosis", _items("ol", report.causes), "diagnosis")


def _evidence(report: Report) -> str:
    told, _ = wording.split_failures(report)
    evidence = "".join(map(_tiles, told)) + _items("ul", wording.context(report))
    return _section("What is wrong", evidence) if told else ""


def _tiles(finding: Finding) -> str:
    """The numbers of a failure, each with its name above it."""
    numbers = {}
    if worst := finding.worst:
        numbers["by hand"], numbers["reference"] = wording.values(worst)
        numbers["ratio"] = wording.ratio(worst)
        numbers["at"] = str(worst.index or "")
        numbers["differ"] = f"{worst.differing} of {worst.size}"
    if finding.error is not None:
        numbers["error / tolerance"] = (
            f"{wording.number(finding.error)} / {wording.number(finding.tolerance)}"
        )
    tiles = (f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in numbers.items() if value)
    detail = f"<p>{_text(finding.detail)}</p>" if finding.detail else ""
    return f"<h3>{_text(wording.title(finding))}</h3><dl>{''.join(tiles)}</dl>{detail}"


def _maps(report: Report) -> str:
    return _section("Where it is wrong", "".join(_map(n, m) for n, m in report.maps.items()))


def _map(name: str, error_map: ErrorMap) -> str:
    """Error, hand and reference side by side; the last two on one scale."""
    picture = heatmap.plane(error_map)
    largest_error, largest = heatmap.limits(picture)
    figures = [
        _figure("|hand - reference|", picture.error, largest_error, 0.0),
        _figure("by hand", picture.hand, largest, -largest),
        _figure("reference", picture.reference, largest, -largest),
    ]
    caption = "In each cell the entry with the largest error." if len(error_map.hand.shape) > 2 else ""
    return (
        f'<h3>{_text(name)}</h3><p class="quiet">{_text(picture.caption)}. {caption}</p>'
        f'<div class="maps">{"".join(figures)}</div>'
    )


def _figure(title: str, cells: np.ndarray, high: float, low: float) -> str:
    bar = f'<i class="{"both" if low else "one"}"></i>'
    strange = "" if np.isfinite(cells).all() else '<span class="nan">■ not finite</span>'
    return (
        f"<figure><figcaption>{title}</figcaption>{heatmap.svg(cells, high, title)}"
        f'<p class="legend">{wording.number(low)}{bar}{wording.number(high)}{strange}</p></figure>'
    )


def _rest(report: Report) -> str:
    script = f"<pre><code>{_text(report.script)}</code></pre>" if report.script else ""
    return (
        _section("Notes", _items("ul", wording.notes(report)))
        + _section("Everything that was looked at", _table(report))
        + _section("A script that shows it", script)
    )


def _table(report: Report) -> str:
    """A row for each finding that is not a pass, one for each property that holds, the skipped ones last."""
    told = [
        f
        for status in (Status.FAIL, Status.INCONCLUSIVE, Status.EXPECTED)
        for f in wording.with_status(report, status)
    ]
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    rows = "".join(map(_row, [*told, *wording.passed(report), *wording.with_status(report, Status.SKIPPED)]))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _row(finding: Finding) -> str:
    about = "" if finding.status == Status.PASS else wording.label(finding)
    measured = finding.error is not None
    cells = (
        f'<span class="{TONES.get(finding.status, "quiet")}">{wording.WORDS[finding.status]}</span>',
        wording.number(finding.error),
        wording.number(finding.tolerance) if measured else "",
        f"{wording.number(wording.margin(finding))}x"
        if finding.error and finding.status == Status.PASS
        else "",
        _text(finding.detail or PROPERTIES.get(finding.property, "")),
    )
    name = f'<th scope="row">{finding.property} <small>{_text(about)}</small></th>'
    data = (f'<td data-name="{n}">{cell}</td>' for n, cell in zip(COLUMNS[1:], cells, strict=True))
    return f"<tr>{name}{''.join(data)}</tr>"


def _section(title: str, content: str, kind: str = "") -> str:
    return f'<section class="{kind}"><h2>{title}</h2>{content}</section>' if content else ""


def _items(tag: str, lines: Iterable[str]) -> str:
    items = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f"<{tag}>{items}</{tag}>" if items else ""


def _text(value: str) -> str:
    return html.escape(value)
