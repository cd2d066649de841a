"""Rules of the house that a reader can check with grep."""

import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "jcnn").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_file_fits_on_a_page_and_keeps_to_its_layer(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    assert "import experiments" not in text
    assert "from experiments" not in text
    if path.name != "rule.py" and path.parent.name != "verify":
        assert "custom_vjp" not in text


def test_types_are_checked_in_tests():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["addopts"]
    checked = next(o for o in options if o.startswith("--jaxtyping-packages=")).partition("=")[2].split(",")
    modules = {f"jcnn.{m.name}" for m in pkgutil.iter_modules([str(ROOT / "jcnn")])}
    assert set(checked) == modules - {"jcnn.verify"} | {"beartype.beartype"}


def test_docstring_examples_print_what_they_say():
    """In a process of its own: the examples are in JAX's default precision, the tests are not."""
    code = (
        "import doctest, importlib, sys\n"
        "sys.exit(sum(doctest.testmod(importlib.import_module(m)).failed for m in sys.argv[1:]))"
    )
    modules = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in NAMES]
    done = subprocess.run([sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
