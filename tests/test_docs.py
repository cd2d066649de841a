"""The examples of the documentation run."""

import re
import textwrap
from pathlib import Path

import pytest

import jcnn

ROOT = Path(__file__).parent.parent
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))}
EXAMPLES = {
    name: re.findall(r"^( *)```python\n(.*?)^\1```", text, re.DOTALL | re.M) for name, text in PAGES.items()
}


@pytest.mark.parametrize("page", [name for name, examples in EXAMPLES.items() if examples])
def test_examples_run(page):
    scope = {}
    for _, example in EXAMPLES[page]:
        exec(compile(textwrap.dedent(example), page, "exec"), scope)


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    for page in PAGES:
        assert page.removeprefix("docs/") in navigation


def test_every_op_is_in_the_table_of_pages():
    shown = PAGES["docs/ops/index.md"]
    for name, value in vars(jcnn).items():
        if isinstance(value, jcnn.Rule):
            assert f"`{name}`" in shown, name
