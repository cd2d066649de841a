import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from experiments.data import SOURCES
from experiments.lecture import page, training
from experiments.lecture.__main__ import main
from experiments.results import row

FIGURES = {
    *("one_dimension", "two_dimensions", "edges", "padding_and_stride", "channels", "receptive_field"),
    *("fields", "pooling", "batch_norm", "softmax_cross_entropy", "backpropagation", "loss", "invariance"),
    *("filters", "patches_first", "patches_second", "patches_third", "saliency"),
}


class Reader(HTMLParser):
    """Holds the tags to be closed in order, and collects titles, links and sources."""

    def __init__(self):
        super().__init__()
        self.open, self.titles, self.links, self.ids = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [attributes[name] for name in ("href", "src") if name in attributes]
        self.ids.add(attributes.get("id"))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


def test_two_steps_make_the_whole_page(tmp_path, capsys):
    main(["--dataset", "digits", "--steps", "2", "--out", str(tmp_path)])
    text = (tmp_path / "index.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert [title.split(". ")[0] for title in reader.titles] == [str(i) for i in range(1, 14)]
    inside = [link for link in reader.links if link.startswith("#")]
    pictures = [link for link in reader.links if link.startswith("data:image/png;base64,")]
    assert len(inside) + len(pictures) == len(reader.links)  # nothing from outside
    assert {link[1:] for link in inside} <= reader.ids
    assert {path.stem for path in tmp_path.glob("*.png")} == FIGURES
    assert len(pictures) == len(FIGURES)
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 100
    found = page.counts(text)
    assert found == (55, 0)
    assert "55 comparisons were made in this run; none disagreed." in text
    said = capsys.readouterr().out
    assert said == f"55 comparisons agree, 0 do not; the page is {tmp_path / 'index.html'}\n"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["result"].startswith("55 comparisons agree, 0 do not; digits: ")
    assert row(summary)[0] == "`python -m experiments.lecture`"


def test_wrong_numbers_show():
    y = np.arange(3.0)
    assert page.counts(page.error(y, y)) == page.counts(page.error(y, y + 1e-13)) == (1, 0)
    assert page.counts(page.error(y, y + 1e-11)) == (0, 1)
    assert page.counts(page.error(y, y[None])) == (0, 1)
    assert page.counts(page.error(y, y * np.nan)) == page.counts(page.error(y * np.nan, y)) == (0, 1)
    assert ">5.0e-01<" in page.error([0, 0], [0.5, 0])


def test_a_number_that_is_wrong_fails_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiments.lecture.__main__.lecture", lambda config: (tmp_path, page.Counts(3, 1)))
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 1
    assert capsys.readouterr().out.startswith("3 comparisons agree, 1 do not")


def test_the_data_set_is_fashion_mnist_if_it_is_there(tmp_path, monkeypatch):
    assert training.dataset(None, tmp_path).name == "digits"
    monkeypatch.setattr(training, "load", lambda name, folder: name)
    for file in SOURCES["fashion_mnist"].files:
        (tmp_path / file).touch()
    assert training.dataset(None, tmp_path) == "fashion_mnist"
    monkeypatch.setenv("JCNN_DATA", str(tmp_path))
    assert training.dataset(None, None) == "fashion_mnist"
    assert training.dataset("mnist", None) == "mnist"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--steps 0", "--steps: got 0, expected at least 1"),
        ("--seed -1", "--seed: got -1, expected at least 0"),
        ("--dataset svhn", "--dataset: got 'svhn', expected one of digits, mnist"),
        ("--out file/out", "--out: got file/out (Not a directory), expected a folder"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {message}")
    assert said.err.count("\n") == 1
