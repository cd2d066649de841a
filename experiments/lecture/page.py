"""One HTML page from sections: text, formulas, tables of numbers and figures, with nothing from outside."""

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --paper: #fff; --faint: #5b6575; --line: #d5dae2;
  --box: #f4f6f9; --accent: #1f5fa8; --good: #1b7a3d; --bad: #c0262d }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --paper: #14181f; --faint: #9aa5b5;
  --line: #363e4b; --box: #1d232c; --accent: #7db4f0; --good: #6fcf8e; --bad: #ff7b80 } }
body { margin: 0 auto; max-width: 46rem; padding: 1rem 1rem 4rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word }
h1 { line-height: 1.2; margin-bottom: .3rem }
h2 { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; line-height: 1.25 }
a { color: var(--accent) }
nav ol { columns: 16rem; padding-left: 1.5rem }
.formula, pre { background: var(--box); border-left: 3px solid var(--accent); padding: .6rem .8rem;
  overflow-x: auto; font: .9rem/1.5 ui-monospace, monospace; white-space: pre }
pre { font-size: .72rem }
code { font-family: ui-monospace, monospace; font-size: .9em }
.scroll { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th { color: var(--faint); font-weight: 600 }
td:first-child, th:first-child, td.text { text-align: left }
td.text { white-space: normal; min-width: 11rem }
.equation { display: flex; flex-wrap: wrap; gap: .8rem 1.4rem; align-items: center; margin: 1rem 0 }
.equation figure { margin: 0 } .equation figcaption { text-align: center }
.matrix td { border: 1px solid var(--line); text-align: center; min-width: 1.3rem }
figure { margin: 1.4rem 0 } figcaption, footer, .lead { color: var(--faint); font-size: .9rem }
img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; display: block; margin: 0 auto }
.good, .bad { white-space: nowrap } .good { color: var(--good) } .bad { color: var(--bad); font-weight: 700 }
"""


class Picture(NamedTuple):
    """A figure, the name of its PNG and what stands below it."""

    name: str
    caption: str
    figure: Figure


class Section(NamedTuple):
    """A part of the lecture: blocks of HTML and pictures, in order."""

    title: str
    blocks: tuple[str | Picture, ...]


class Counts(NamedTuple):
    """How many numbers of a page were compared, and how many of them were wrong."""

    good: int
    bad: int


def paragraph(text: str) -> str:
    return f"<p>{text}</p>"


def formula(text: str) -> str:
    """Formulas line by line; text is HTML, so that it may have `<sub>`."""
    return f'<div class="formula">{text.strip()}</div>'


def number(value: Any) -> str:
    """Whole numbers as they are, others with four significant digits; text is taken for HTML."""
    if isinstance(value, str):
        return value
    value = float(value)
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e12 else f"{value:.4g}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table with a header; columns of long text are narrow, and so have several lines."""
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    lines = [[number(cell) for cell in row] for row in rows]
    shown = (
        [len(re.sub("<[^>]*>|&[^;]*;", "", cell)) for cell in column] for column in zip(*lines, strict=True)
    )
    opening = ['<td class="text">' if max(lengths) > 24 else "<td>" for lengths in shown]
    body = "".join(
        f"<tr>{''.join(f'{td}{cell}</td>' for td, cell in zip(opening, line, strict=True))}</tr>"
        for line in lines
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def arrays(**named: Any) -> str:
    """Small vectors and matrices side by side, each with its name."""

    def one(name: str, array: Any) -> str:
        lines = np.atleast_2d(np.asarray(array))
        body = "".join(f"<tr>{''.join(f'<td>{number(v)}</td>' for v in line)}</tr>" for line in lines)
        name = name.replace("_", " ")
        return f'<figure><table class="matrix">{body}</table><figcaption>{name}</figcaption></figure>'

    return f'<div class="equation">{"".join(one(*item) for item in named.items())}</div>'


def error(got: Any, expected: Any, tolerance: float = 1e-12) -> str:
    """The largest difference of two arrays, relative to the largest number where that is above 1."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if got.shape != expected.shape:
        return f'<span class="bad">shape {got.shape}, expected {expected.shape}</span>'
    apart = np.max(np.abs(got - expected), initial=0) / max(1, np.max(np.abs(expected), initial=0))
    word = "good" if apart <= tolerance else "bad"
    return f'<span class="{word}">{"0" if apart == 0 else f"{apart:.1e}"}</span>'


def counts(page: str) -> Counts:
    """How many of the errors that a page shows are within their tolerance, and how many are not."""
    return Counts(*(len(re.findall(f'<span class="{word}">', page)) for word in Counts._fields))


def preformatted(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def write(folder: Path, title: str, lead: str, sections: Sequence[Section]) -> Counts:
    """Writes `index.html`, which has all figures in it, and the figures as PNG beside it."""

    def block(item: str | Picture) -> str:
        if isinstance(item, str):
            return item
        buffer = io.BytesIO()
        item.figure.savefig(buffer, format="png")
        (folder / f"{item.name}.png").write_bytes(buffer.getvalue())
        data = base64.b64encode(buffer.getvalue()).decode()
        caption = re.sub("<[^>]*>", "", item.caption)
        return (
            f'<figure><img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{item.caption}</figcaption></figure>"
        )

    parts = [
        f'<section id="s{i}"><h2>{i}. {section.title}</h2>{"".join(map(block, section.blocks))}</section>'
        for i, section in enumerate(sections, 1)
    ]
    contents = "".join(f'<li><a href="#s{i}">{s.title}</a></li>' for i, s in enumerate(sections, 1))
    body = "".join(parts)
    good, bad = counts(body)
    verdict = f"{good + bad} comparisons were made in this run; {bad or 'none'} disagreed."
    (folder / "index.html").write_text(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><header><h1>{title}</h1>"
        f'<p class="lead">{lead} {verdict}</p></header><nav><ol>{contents}</ol></nav>'
        f"<main>{body}</main></body></html>\n",
        encoding="utf-8",
    )
    return Counts(good, bad)
