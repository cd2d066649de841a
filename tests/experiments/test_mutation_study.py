import json
import os

import pytest

from experiments.mutation_study import __main__ as mutation_study


def test_the_study_of_one_rule(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # the study adds to it
    path = tmp_path / "records.json"
    options = "--sets jcnn --rules relu --cases 1 --level quick --limit 2 --json"
    mutation_study.main([*options.split(), str(path)])
    outcomes = {record["name"]: record["outcomes"] for record in json.loads(path.read_text())}
    assert outcomes["derivative 1 at 0"]["verify"] == "killed"
    assert outcomes["derivative 1 at 0"]["uniform"] == "survived"
    said = capsys.readouterr().out
    assert "Not found by verify: 0" in said
    assert "relu: derivative 1 at 0: survived" in said


def test_the_cause_of_a_planted_error_is_compared(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    path = tmp_path / "records.json"
    options = "--sets classics --rules tanh --checkers verify --cases 1 --level quick --limit 1 --json"
    mutation_study.main([*options.split(), str(path)])
    named = [r["cause_named"] for r in json.loads(path.read_text()) if r["kind"] == "planted"]
    assert any(named)
    assert f"{sum(named)}/{len(named)}" in capsys.readouterr().out


def test_a_rule_that_there_is_not(capsys):
    with pytest.raises(SystemExit, match="2"):
        mutation_study.main(["--rules", "rellu"])
    said = capsys.readouterr().err
    assert said.startswith("error: --rules: got rellu, expected some of ")
    assert "relu" in said
