"""The table of results: what every experiment asked and found.

Command: `python -m experiments.results` writes `experiments/README.md` from every `summary.json` below
`experiments/results/`. To put a run there: `python -m experiments.train --out experiments/results/NAME`, or
any of `experiments.whatif`, of which `summary.json` alone is committed.
"""

import ast
import importlib.util
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.data import UserError
from experiments.options import ending, parse

HERE = Path(__file__).parent
COLUMNS = ("script", "question", "result", "time", "hardware", "versions", "date")
HEAD = """# Results

Written by `python -m experiments.results` from the runs in `experiments/results/`. Test accuracy in percent
at the end of training, mean ± standard deviation of the sample over n seeds; time of training and
evaluation of one seed, of a study (`experiments.whatif`) that of all of it.

"""


@dataclass(frozen=True)
class Config:
    """Makes the table of results."""

    results: Path = HERE / "results"
    """Folder below which the summaries are."""
    readme: Path = HERE / "README.md"
    """File to write."""


def question(script: str) -> str:
    """The paragraph "Question: ..." of a module's docstring, without its first word."""
    spec = importlib.util.find_spec(script)
    source = Path(spec.origin).read_text() if spec and spec.origin else ""
    text = ast.get_docstring(ast.parse(source)) or ""
    match = re.search(r"^Question: (.*?)(\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    return " ".join(match[1].split()) if match else ""


def row(summary: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a run; a study says its result itself."""
    study = "result" in summary
    result, seconds = (summary["result"], f"{summary['seconds']:.0f}") if study else found(summary)
    return (
        f"`{summary['command']}`",
        question(summary["script"]),
        result,
        f"{seconds} s",
        summary["hardware"],
        ", ".join(f"{name} {summary['versions'][name]}" for name in ("python", "jax", "optax", "jcnn")),
        summary["date"][:10],
    )


def found(summary: dict[str, Any]) -> tuple[str, str]:
    """What a training run found, and its seconds."""
    n = len(summary.get("seeds", [0]))
    accuracy, seconds = f"{100 * summary['test_accuracy']:.2f}", f"{summary['seconds']:.0f}"
    if n > 1:
        accuracy += f" ± {100 * summary['test_accuracy_std']:.2f}"
        seconds += f" ± {summary['seconds_std']:.0f}"
    config = summary["config"]
    return f"{config['dataset']}, {config['model']}: {accuracy} % (n = {n})", seconds


def read(path: Path) -> tuple[str, ...]:
    try:
        return row(json.loads(path.read_text()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: got no readable summary ({error!r}), expected that of a run") from None


def table(folder: Path) -> str:
    """Markdown, a line per run; the seeds of a run have none of their own."""
    paths = sorted(folder.rglob("summary.json"))
    rows = [read(p) for p in paths if not (p.parent.parent / "summary.json").exists()]
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    with ending("interrupted: there is no table"):
        config = parse(Config(), "experiments.results", arguments)
        config.readme.write_text(HEAD + table(config.results))
        print(f"the table is in {config.readme}")


if __name__ == "__main__":
    main()
