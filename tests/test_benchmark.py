"""The benchmark: its statistics, reports, command line, and that its contestants compute the same."""

import functools
import importlib.util
import json
import math
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

import jcnn
from experiments.benchmark import __main__ as cli, chart, compile as compiling, memory, ops, plain
from experiments.benchmark.cases import CASES, ours
from experiments.benchmark.contestants import agree, entries, in_jax, to_first, to_last
from experiments.benchmark.report import Report
from experiments.benchmark.settings import Disagreement, Row, Settings, Task, installed
from experiments.benchmark.summary import quantity, spread, summarise
from experiments.benchmark.timing import Budget, Ratio, geometric_mean, measure, ratio
from experiments.data import UserError
from experiments.options import command, parse

HAVE = {case.name: case for case in CASES if hasattr(jcnn, case.op)}
OF_PEERS = ["conv 3x3 stride 2", "edge-padded", "transposed 4x4", "avg pool 3x3", "dense"]


@pytest.fixture(autouse=True)
def _caches_stay(monkeypatch):
    monkeypatch.setattr(jax, "clear_caches", lambda: None)


class Clock:
    """A clock that goes on only while contestants work; it notes who does."""

    def __init__(self):
        self.now, self.log = 0.0, []

    def __call__(self):
        self.log.append("tick")
        return self.now

    def contestant(self, name, *seconds):
        durations = iter(seconds)
        last = seconds[-1]

        def work():
            self.now += next(durations, last)
            self.log.append(name)

        return work


def quiet() -> Console:
    return Console(quiet=True)


# ---- timing ----


def test_every_timed_call_follows_an_untimed_one_of_the_same_contestant():
    clock = Clock()
    contestants = {name: clock.contestant(name, 1.0) for name in "ab"}
    seconds = measure(contestants, Budget(seconds=100, fewest=4, most=4, longest=1e9), clock=clock)
    assert seconds == {"a": [1.0] * 4, "b": [1.0] * 4}
    rounds = "".join(clock.log).replace("tick", "|")[2 * len("a|a|") :]
    assert sorted(set(rounds[i : i + 4] for i in range(0, len(rounds), 4))) == ["a|a|", "b|b|"]
    assert len(rounds) == 4 * 2 * 4


def test_order_within_rounds_varies():
    clock = Clock()
    measure({n: clock.contestant(n, 1.0) for n in "abc"}, Budget(100, 20, 20, 1e9), clock=clock)
    order = [n for n in clock.log if n != "tick"][6::2]
    firsts = order[::3]
    assert set(firsts) == set("abc")


def test_short_calls_are_repeated_within_the_timed_section():
    clock = Clock()
    seconds = measure({"a": clock.contestant("a", 0.0005)}, Budget(1.0, 5, 5, section=0.002), clock=clock)
    assert seconds["a"] == pytest.approx([0.0005] * 5)
    assert clock.log[-6:] == ["tick", "a", "a", "a", "a", "tick"]


def test_rounds_are_bounded():
    budget = Budget(seconds=2.5, fewest=5, most=25, longest=30)
    assert [budget.rounds(one) for one in (1e-6, 0.25, 2.0, 8.0, 100.0)] == [25, 10, 5, 3, 3]


def test_ratio_is_the_median_of_ratios_within_rounds():
    theirs, ours = [2.0, 20.0, 4.0, 9.0, 50.0], [1.0, 10.0, 1.0, 3.0, 10.0]
    assert ratio(theirs, ours) == Ratio(3.0, 2.0, 4.0)
    assert ratio([0.0], [0.0]).median == 1
    assert ratio([1.0], [0.0]).median == math.inf
    assert ratio([0.0], [1.0]).median == 0


def test_geometric_mean_of_what_is_finite():
    assert geometric_mean([2.0, 8.0, math.inf, 0.0]) == pytest.approx(4.0)
    assert math.isnan(geometric_mean([]))


# ---- report ----

ROWS = [
    Row(
        "a",
        "forward",
        {"jcnn": [2.0, 2.0], "jcnn+options": [1.0, 1.0], "autodiff": [8.0, 4.0], "torch": [0.4, 0.4]},
    ),
    Row("a", "backward", {"jcnn": [1.0, 1.0], "jcnn+options": [1.0, 1.0], "autodiff": [0.9, 0.9]}),
]


def test_peers_are_compared_with_the_contestant_of_the_same_flags():
    assert [ROWS[0].ours(peer) for peer in ("autodiff", "torch")] == ["jcnn", "jcnn+options"]
    assert ROWS[0].ratio("autodiff").median == 3.0
    assert ROWS[0].ratio("torch").median == pytest.approx(0.4)


def test_summary_has_mean_smallest_and_what_is_under_its_bar():
    auto, torch = summarise("ops", ROWS)
    assert (auto.peer, auto.rows, auto.under, auto.where) == ("autodiff", 2, 1, "a, backward")
    assert (auto.mean, auto.smallest) == pytest.approx((math.sqrt(2.7), 0.9))
    assert (torch.rows, torch.under) == (1, 1)


def test_bar_of_a_row_goes_before_that_of_its_kind():
    row = Row("net", "step", {"jcnn": [1.0], "autodiff": [1.5]})
    assert not row.under("steps", "autodiff")
    assert Row(row.case, row.stage, row.figures, bars={"autodiff": 2.0}).under("steps", "autodiff")


def test_memory_is_summed_and_may_be_zero():
    rows = [Row(str(i), "new", {"jcnn": [i], "autodiff": [3.0]}, unit="B", bars={}) for i in (0.0, 1.0)]
    (summary,) = summarise("memory", rows)
    assert (summary.mean, summary.smallest, summary.of) == (6.0, 3.0, "new")


def test_files_hold_all_figures(tmp_path):
    with Report("ops", Settings(("autodiff", "torch")), tmp_path, "the command", quiet()) as report:
        report.check(Ratio(1.2, 1.1, 1.3))
        for row in ("a remark", *ROWS):
            report.add(row)
    found = json.loads((tmp_path / "ops.json").read_text())
    assert found["complete"]
    assert found["command"] == "the command"
    assert found["versions"]["jax"] == jax.__version__
    assert found["itself"]["median"] == 1.2
    assert found["notes"][0] == "jcnn against itself: 1.20x (1.10-1.30)"
    assert found["notes"][1].startswith("WARNING")
    assert found["notes"][2] == "a remark"
    assert found["rows"][0]["figures"] == ROWS[0].figures
    assert found["rows"][0]["ratio"]["torch"] == {
        "to": "jcnn+options",
        "under": True,
        "median": 0.4,
        "low": 0.4,
        "high": 0.4,
    }
    markdown = (tmp_path / "ops.md").read_text()
    assert (
        "| a | forward | float32 | 2.00 s | 1.00 s | 6.00 s | 400 ms | 3.00x (2.50-3.50) | 0.40x ! |"
        in markdown
    )
    assert "1 of 2 under their bar" in markdown
    assert (tmp_path / "ops.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ops.json", "ops.md", "ops.png"]


def test_interrupted_run_leaves_what_there_was(tmp_path):
    def run():
        yield ROWS[0]
        raise KeyboardInterrupt

    def record():
        with Report("ops", Settings(), tmp_path, console=quiet()) as report:
            for task in report.track([Task("a", run), Task("b", run)]):
                for row in task.run():
                    report.add(row)

    with pytest.raises(KeyboardInterrupt):
        record()
    found = json.loads((tmp_path / "ops.json").read_text())
    assert not found["complete"]
    assert len(found["rows"]) == 1
    assert "Interrupted." in (tmp_path / "ops.md").read_text()


def test_infinite_ratios_are_null_in_json(tmp_path):
    row = Row("a", "new", {"jcnn": [0.0], "autodiff": [1.0]}, unit="B")
    with Report("memory", Settings(), tmp_path, console=quiet()) as report:
        report.add(row)
    assert (
        json.loads((tmp_path / "memory.json").read_text())["rows"][0]["ratio"]["autodiff"]["median"] is None
    )


def test_quantities_have_units():
    figures = [(0.0123, "s"), (1.5, "s"), (12.3456, "s"), (1.57e6, "B"), (12.0, "B")]
    assert [quantity([v], u) for v, u in figures] == ["12.3 ms", "1.50 s", "12.3 s", "1.57 MB", "12 B"]


def test_ratios_have_the_digits_that_mean_something():
    assert spread(Ratio(4.913, 4.8, 5.02)) == "4.91x (4.80-5.02)"
    assert spread(Ratio(9414.0, 99.0, 12345.0)) == "9410x (99.00-12300)"
    assert spread(Ratio(2.0, 2.0, 2.0)) == "2.00x"
    assert spread(Ratio(math.inf, math.inf, math.inf)) == "infx"


def test_chart_without_peers_is_not_drawn(tmp_path):
    chart.bars("ops", [Row("a", "forward", {"jcnn": [1.0]})], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


# ---- command line ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "autodiff,theano"], "--against: got theano, expected some of autodiff, torch,"),
        (["--dtype", "float8"], "--dtype: got float8, expected some of float32, bfloat16"),
        (["--only", "("], "--only: got '(', expected a regular expression"),
        (["--only", "nothing at all"], "--only: got 'nothing at all', expected to find one of: conv 3x3"),
        (["--rounds", "0"], "--rounds: got 0, expected a positive number"),
        (["--only", "relu", "--out", "/dev/null/x"], "--out: got /dev/null/x (Not a directory)"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: " + message)
    assert error.count("\n") == 1


def test_absent_peers_are_skipped_by_name(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "flax" else find(name))
    assert installed(["autodiff", "flax"]) == (("autodiff",), ("flax",))
    with pytest.raises(UserError, match="theano"):
        installed(["theano"])


def test_a_run_from_the_command_line(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "flax" else find(name))
    monkeypatch.setattr(ops, "CASES", [case.shrunk() for case in CASES])
    monkeypatch.setattr(ops, "against_itself", lambda budget: Ratio(1.0, 1.0, 1.0))
    arguments = ["ops", "--only", "^leaky relu", "--against", "autodiff,flax", "--rounds", "2"]
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--out", str(tmp_path)])
    assert stop.value.code == 0
    assert "flax: not installed, skipped" in capsys.readouterr().out
    found = json.loads((tmp_path / "ops.json").read_text())
    assert found["command"] == (
        "python -m experiments.benchmark ops --against autodiff,flax --only '^leaky relu' --rounds 2"
    )
    assert [(row["stage"], len(row["figures"]["autodiff"])) for row in found["rows"]] == [
        ("forward", 2),
        ("backward", 2),
    ]


def test_the_command_of_a_run_gives_its_configuration():
    config = cli.Config("memory", quick=True, only="a b", keep_memory=True)
    told = command(config, cli.Config(), "experiments.benchmark memory", ("what", "out"))
    assert told == "python -m experiments.benchmark memory --quick --only 'a b' --keep-memory"
    assert parse(cli.Config(), cli.SCRIPT, shlex.split(told)[3:]) == config


def test_a_failing_case_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def fail():
        raise Disagreement("a and b differ")

    tasks = [Task("bad", fail), Task("good", lambda: iter(ROWS))]
    monkeypatch.setattr(ops, "tasks", lambda settings: tasks)
    monkeypatch.setattr(ops, "against_itself", lambda budget: Ratio(1.0, 1.0, 1.0))
    with pytest.raises(SystemExit) as stop:
        cli.main(["--out", str(tmp_path)])
    assert stop.value.code == 1
    assert "ERROR: bad: Disagreement: a and b differ" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "ops.json").read_text())["rows"]) == 2


# ---- cases and contestants ----


def results(case, peers, stage, dtype="float32"):
    names = case.wanted(stage) or ("y",)
    return {
        name: [c.convert(n, a) for n, a in zip(names, c.prepare(stage)(), strict=True)]
        for name, c in entries(case, dtype, peers).items()
    }


def test_cases_are_many_and_named_apart():
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)
    assert len([case for case in CASES if case.half]) >= 8


def test_standard_set_has_float32_and_some_bfloat16():
    assert len(ops.chosen(Settings())) == len(CASES) + sum(case.half for case in CASES)
    assert {dtype for _, dtype in ops.chosen(Settings(quick=True))} == {"float32"}
    assert {dtype for _, dtype in ops.chosen(Settings(dtypes=("bfloat16",)))} == {"bfloat16"}


@pytest.mark.parametrize("name", HAVE)
def test_jcnn_and_plain_jax_agree(name):
    case = HAVE[name].shrunk()
    wanted = [list(case.shapes).index(n) for n in case.floats]

    @jax.jit
    def both(*arrays):
        found = []
        for f in (ours(case.op), getattr(plain, case.op)):
            y, vjp = jax.vjp(functools.partial(f, **case.config), *arrays)
            cotangents = vjp(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))
            found.append([y, *(cotangents[i] for i in wanted)])
        return found

    for got, expected in zip(*both(*case.arrays("float32").values()), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_passes_apart_give_what_they_are_named_after(dtype):
    case = next(case for case in CASES if case.name.startswith("depthwise 3x3 stride 2")).shrunk()
    for stage, shape in zip(case.stages, [(2, 4, 4, 12), (2, 7, 7, 12), (3, 3, 1, 12)], strict=True):
        found = results(case, ["autodiff"], stage, dtype)
        agree(case, stage, dtype, found)
        assert [a.shape for a in found["autodiff"]] == [shape]


@pytest.mark.parametrize("peer", ["torch", "flax", "equinox"])
@pytest.mark.parametrize("start", OF_PEERS)
def test_peers_agree(peer, start):
    pytest.importorskip(peer)
    case = next(case for case in HAVE.values() if case.name.startswith(start)).shrunk()
    for stage in case.stages:
        try:
            found = results(case, [peer], stage)
        except NotImplementedError:
            assert (peer, start) in (("flax", "edge-padded"), ("equinox", "avg pool 3x3"))
            return
        assert peer in found
        agree(case, stage, "float32", found)


def test_a_wrong_contestant_is_named():
    case = next(case for case in CASES if case.op == "relu").shrunk()
    arrays = case.arrays("float32")
    wrong = in_jax(lambda x: jnp.where(x > 0, 1.01 * x, 0), case, arrays, arrays["x"])
    found = results(case, ["autodiff"], "backward")
    found["autodiff"] = [wrong.convert("x", a) for a in wrong.prepare("backward")()]
    with pytest.raises(Disagreement, match=r"^relu .*, backward, float32: autodiff and jcnn differ in dx by"):
        agree(case, "backward", "float32", found)


def test_dropout_is_compared_without_its_mask():
    case = next(case for case in CASES if case.op == "dropout").shrunk()
    x = case.arrays("float32")["x"]
    keep = jax.random.bernoulli(jax.random.key(7), 0.5, x.shape)
    mine = results(case, [], "forward")["jcnn"]
    agree(case, "forward", "float32", {"jcnn": mine, "other": [np.asarray(jnp.where(keep, 2 * x, 0))]})
    with pytest.raises(Disagreement, match="other"):
        agree(case, "forward", "float32", {"jcnn": mine, "other": [np.asarray(jnp.where(keep, x, 0))]})


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6)])
def test_layouts_are_each_others_inverse(shape):
    a = np.arange(math.prod(shape)).reshape(shape)
    for name in ("x", "w"):
        np.testing.assert_array_equal(to_last(name, to_first(name, a)), a)
    assert to_first("w", a).shape == (shape[-1], shape[-2], *shape[:-2])


# ---- memory and compilation ----


def test_residuals_are_told_apart_from_inputs_and_counted_once():
    x, w = (jax.ShapeDtypeStruct((10,), jnp.float32) for _ in range(2))
    assert memory.residuals(lambda x, w: x * w, x, w) == (80, 0)
    assert memory.residuals(lambda x: x * x, x) == (40, 0)
    assert memory.residuals(lambda x: x * jnp.sin(x), x) == (40, 80)
    assert memory.residuals(jcnn.tanh, x) == (0, 40)


def test_memory_and_compile_rows():
    case = next(case for case in CASES if case.op == "max_pool").shrunk()
    rows = {row.stage: row.figures for row in memory.run(case, "float32")}
    assert list(rows) == ["residuals", "residuals, new", "temporaries"]
    outputs = 8 * 2 * 2 * 8
    assert rows["residuals"] == {"jcnn": [outputs], "autodiff": [outputs * 4 * 4]}
    (row,) = compiling.run(case, "float32", Settings(budget=Budget(0.0, 1, 1)))
    assert list(row.figures) == ["jcnn", "autodiff"]
    assert all(seconds > 0 for figures in row.figures.values() for seconds in figures)
