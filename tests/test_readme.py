"""The README says what is true: its commands are those that CI runs, its examples work."""

import re
from pathlib import Path

import jcnn

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_exactly_the_test_command_of_the_readme():
    command = (ROOT / ".ci" / "run").read_text().splitlines()[-1]
    assert command.endswith("pytest -n 2")
    assert f"```sh\n{command}\n```" in README


def test_the_examples_of_the_readme_run():
    scope = {}
    for example in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(example, scope)
    assert scope["gradient"].shape == scope["w"].shape
    assert abs(scope["gradient"] - scope["auto"]).max() < 1e-12
    assert scope["dimages"].shape == (8, 28, 28, 1)


def test_the_wrong_batch_norm_of_the_readme_gets_the_report_it_shows():
    example = next(e for e in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "verify_vjp" in e)
    scope = {}
    exec(example, scope)
    shown = re.search(r"\nDIAGNOSIS\n.*?\n\n", README, re.DOTALL).group()
    assert scope["report"].verdict == "WRONG"
    assert shown in str(scope["report"])


def test_every_rule_is_in_the_table_of_ops():
    for name, value in vars(jcnn).items():
        if isinstance(value, jcnn.Rule):
            assert re.search(rf"`{name}[(`]", README), name
