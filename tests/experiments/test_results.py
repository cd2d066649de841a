import json

import pytest

from experiments import results

ONE = {
    "script": "experiments.train",
    "command": "python -m experiments.train --seed 3",
    "config": {"dataset": "digits", "model": "vgg_small"},
    "versions": {"python": "3.11.7", "jax": "0.10.2", "optax": "0.2.8", "jcnn": "0.1.0", "numpy": "2"},
    "hardware": "2 cores of Z80",
    "date": "2026-11-23T06:00:00+00:00",
    "test_accuracy": 0.99,
    "seconds": 12.4,
}
MANY = ONE | {"seeds": [0, 1, 2], "test_accuracy_std": 0.0015, "seconds_std": 1.2}
STUDY = ONE | {
    "script": "experiments.whatif.pool_ties",
    "command": "python -m experiments.whatif.pool_ties",
    "result": "digits: first 90.00 ± 1.00, split 91.00 ± 2.00 % (n = 3)",
    "seconds": 99.6,
}


def write(folder, content):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_the_table_has_a_line_per_run_and_none_per_seed(tmp_path, capsys):
    write(tmp_path / "results/b", MANY)
    write(tmp_path / "results/b/seed0", ONE)
    write(tmp_path / "results/a", ONE)
    readme = tmp_path / "README.md"
    results.main(["--results", str(tmp_path / "results"), "--readme", str(readme)])
    assert capsys.readouterr().out == f"the table is in {readme}\n"
    assert readme.read_text().startswith("# Results\n")
    lines = [line for line in readme.read_text().splitlines() if line.startswith("|")]
    assert lines[0] == "| script | question | result | time | hardware | versions | date |"
    question = "do jcnn's hand-derived backwards train real networks to the accuracy these are known for?"
    versions = "python 3.11.7, jax 0.10.2, optax 0.2.8, jcnn 0.1.0"
    ends = [f"| 2 cores of Z80 | {versions} | 2026-11-23 |"] * 2
    begins = [f"| `python -m experiments.train --seed 3` | {question} |"] * 2
    found = [
        "digits, vgg_small: 99.00 % (n = 1) | 12 s",
        "digits, vgg_small: 99.00 ± 0.15 % (n = 3) | 12 ± 1 s",
    ]
    assert lines[2:] == [f"{a} {b} {c}" for a, b, c in zip(begins, found, ends, strict=True)]


def test_a_study_says_its_result_itself(tmp_path):
    write(tmp_path / "a", STUDY)
    *_, line, _ = results.table(tmp_path).split("\n")
    cells = line.split(" | ")
    assert cells[0] == "| `python -m experiments.whatif.pool_ties`"
    assert cells[1].endswith("?")
    assert cells[2:4] == [STUDY["result"], "100 s"]


@pytest.mark.parametrize("content", ["{", "{}", "[1]"])
def test_a_summary_that_is_none_is_refused(tmp_path, capsys, content):
    write(tmp_path / "results/a", content)
    with pytest.raises(SystemExit) as caught:
        results.main(["--results", str(tmp_path / "results"), "--readme", str(tmp_path / "README.md")])
    assert caught.value.code == 2
    assert f"error: {tmp_path / 'results/a/summary.json'}: got no readable summary" in capsys.readouterr().err
    assert not (tmp_path / "README.md").exists()
