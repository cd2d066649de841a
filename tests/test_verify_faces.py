"""What people see of `jcnn.verify`: text, page, picture, command line and pytest plugin."""

import builtins
import io
import json
import os
import re
import sys
import types
from html.parser import HTMLParser
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jcnn
from jcnn.verify import __main__ as cli, render, wording
from jcnn.verify.heatmap import image_axes, plane
from jcnn.verify.locate import UsageError, locate
from jcnn.verify.page import as_html_list
from jcnn.verify.report import PROPERTIES, ErrorMap, Finding, Report, Status, Worst
from jcnn.verify.spec import parse_args, parse_static
from jcnn.verify.table import Table, summary

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
ERROR = dict(error=0.16, tolerance=1e-9, resolution=1e-9)
GOOD = dict(error=3e-16, tolerance=1e-9, resolution=4e-10)
ARGUMENTS = ["x float64[2, 5, 6, 4]", "gamma float64[4]"]


def wrong() -> Report:
    findings = [
        Finding("primal", Status.PASS, error=0.0, tolerance=1e-12),
        Finding(
            "autodiff",
            Status.FAIL,
            argument="x",
            worst=Worst((1, 0, 3, 2), 0.4127, 0.3561, 180, 240),
            **ERROR,
        ),
        Finding("autodiff", Status.PASS, argument="gamma", **GOOD),
        Finding("autodiff", Status.PASS, argument="gamma", error=1e-16, tolerance=1e-9, resolution=2e-10),
        Finding("autodiff", Status.PASS, argument="beta", **GOOD),
        Finding("edges", Status.FAIL, "at huge arguments", "beta", **ERROR),
        Finding(
            "differences", Status.FAIL, "differences agree with autodiff, not with the backward", **ERROR
        ),
        *(
            Finding("precision", Status.FAIL, "2 eps of error " * 12, "x", f"f{i}", **ERROR)
            for i in range(20)
        ),
        Finding("linearity", Status.PASS, **GOOD),
        *(Finding(name, Status.PASS, **GOOD) for name in list(PROPERTIES)[9:17]),
        Finding("shard_map", Status.SKIPPED, "one device"),
        Finding("switch", Status.SKIPPED, "one device"),
    ]
    reference = np.arange(240.0).reshape(2, 5, 6, 4)
    maps = {
        "x": ErrorMap(reference + (reference == 135), reference),
        "gamma": ErrorMap(np.ones(4), np.full(4, np.nan)),
    }
    causes = ["the variance path is <2x> too large", "another cause " * 12]
    script = f"import jcnn  # {'long ' * 30}line\n"
    return Report(
        "batch_norm", ARGUMENTS, "standard", 7, findings, causes, ["a note"], script, maps, 3.2, {"jax": "1"}
    )


def correct() -> Report:
    return Report(
        "conv", ARGUMENTS, "standard", 0, [Finding(name, Status.PASS, **GOOD) for name in PROPERTIES]
    )


def inconclusive() -> Report:
    finding = Finding("autodiff", Status.INCONCLUSIVE, "the gradient is zero everywhere", "x")
    return Report("zero", [], "quick", 0, [finding, Finding("primal", Status.PASS)])


def declared() -> Report:
    return Report(
        "guided", ["x float64[3]"], "quick", 0, [Finding("autodiff", Status.EXPECTED, "as told", "x", **GOOD)]
    )


REPORTS = {make().verdict: make for make in (wrong, correct, inconclusive, declared)}
EVERY_VERDICT = pytest.mark.parametrize("make", REPORTS.values(), ids=REPORTS)


@EVERY_VERDICT
def test_text_starts_with_the_verdict_and_fits_into_100_columns(make):
    report = make()
    text = str(report)
    assert text.startswith(f"{report.verdict}  {report.rule} ")
    assert max(map(len, text.partition("── script")[0].splitlines())) <= 100
    assert not re.search(r" $|\n\n\n", text, re.MULTILINE)


def test_text_of_a_wrong_rule_says_what_where_by_how_much_and_why():
    text = str(wrong())
    for said in (
        "seed 7 · standard · 3.2 s",
        "hand 0.4127   reference 0.3561   ratio 1.15894   at (1, 0, 3, 2)",
        "error 0.16 = 1.6e8 x the tolerance of 1e-9, worst of 240; 180 differ",
        "  autodiff WRONG · differences agree with autodiff · linearity ok · primal ok",
        "correct: gamma to 3e-16\n",
        "1. the variance path is <2x> too large",
        "detectable in this run: relative errors above 4e-10",
        "shard_map, switch: one device",
        "and 10 more",
        "linearity       3e-16    3.3e6x",
    ):
        assert said in text, said
    assert text.count("precision of x") < 12
    assert text.endswith(wrong().script.rstrip())


def test_text_keeps_long_words_whole():
    report = correct()
    report.notes = [f"see {'word' * 40} there"]
    assert "word" * 40 in str(report)


def test_text_of_a_correct_rule_is_short():
    report = correct()
    report.findings.append(Finding("precision", Status.SKIPPED, "no float16 here", dtype="float16"))
    text = str(report)
    assert 5 < len(text.splitlines()) <= 20
    assert "precision       3e-16" in text
    assert "precision (float16): no float16 here" in text


def test_text_of_other_verdicts_gives_the_reason():
    assert "autodiff of x: the gradient is zero everywhere" in str(inconclusive())
    assert "AS DECLARED" in str(declared())


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (None, ""),
        (0.0, "0"),
        (99.7, "100"),
        (0.25, "0.25"),
        (1.6e8, "1.6e8"),
        (3e-16, "3e-16"),
        (np.inf, "inf"),
    ],
)
def test_numbers_have_two_digits(x, text):
    assert wording.number(x) == text


def test_values_are_written_so_that_they_differ():
    assert wording.values(Worst((), 1.0, 1.0 + 1e-9, 1, 1)) == ("1", "1.000000001")
    assert wording.ratio(Worst((), 1.0, 0.0, 1, 1)) == ""


@EVERY_VERDICT
def test_rich_says_the_same_in_colour(make):
    from rich.console import Console

    report, out = make(), io.StringIO()
    Console(file=out, width=120).print(report)
    plain = re.sub(r"[\s│]+", " ", out.getvalue())
    for section in render.sections(report):
        assert all(re.sub(r"\s+", " ", line) in plain for line in section.lines), section.title


def test_without_rich_the_text_is_printed(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", _refuse("rich"))
    assert render.as_rich(correct()) == str(correct())


def _refuse(package: str):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return original(name, *args, **kwargs)

    return refuse


class _Balance(HTMLParser):
    """Raises unless each element that is opened is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.text = [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert not {"src", "href"} & dict(attrs).keys()
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@EVERY_VERDICT
def test_page_is_well_formed_and_needs_nothing_from_elsewhere(make, tmp_path):
    page = make().to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text("utf-8") == page
    assert make().verdict.replace("_", " ") in _Balance(page).text
    assert "http" not in page
    assert "url(" not in page


def test_page_of_a_wrong_rule_has_causes_numbers_maps_and_script():
    page = wrong().to_html()
    text = _Balance(page).text
    for said in (*wrong().causes, "0.4127", "0.3561", "180 of 240", "not finite", wrong().script):
        assert said in text, said
    assert page.count("<svg") == 6
    assert "<2x>" not in page


def test_page_of_many_unfolds_what_is_not_ok():
    page = as_html_list([(make().rule, make()) for make in REPORTS.values()])
    _Balance(page)
    assert re.findall(r"<details( open)?>", page) == [" open", "", " open", ""]


def test_json_holds_all_findings(tmp_path):
    for make in REPORTS.values():
        make().to_json(tmp_path / "report.json")
        read = json.loads((tmp_path / "report.json").read_text())
        assert (read["verdict"], len(read["findings"])) == (make().verdict, len(make().findings))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((), ()),
        ((7,), (0,)),
        ((3, 4), (0, 1)),
        ((2, 9, 8), (1, 2)),
        ((50, 3, 4, 60), (1, 2)),
        ((2, 3, 5, 4, 9), (2, 3)),
    ],
)
def test_map_of_any_shape_shows_the_largest_error(shape, axes):
    reference = np.asarray(np.random.default_rng(0).standard_normal(shape))
    hand = reference.copy()
    hand[(-1,) * len(shape)] += 5
    picture = plane(ErrorMap(hand, reference))
    assert image_axes(shape) == picture.axes == axes
    assert picture.error[-1, -1] == pytest.approx(5)
    assert picture.error.sum() == pytest.approx(5)
    assert picture.hand[-1, -1] - picture.reference[-1, -1] == pytest.approx(5)


def test_map_of_a_large_array_is_made_of_blocks():
    reference = np.zeros((100, 70))
    hand = reference.copy()
    hand[99, 0] = np.nan
    picture = plane(ErrorMap(hand, reference))
    assert picture.error.shape == (25, 24)
    assert picture.error[24, 0] == np.inf
    assert "100 x 70" in picture.caption


def test_picture(tmp_path):
    render.save_picture(wrong(), tmp_path / "errors.png")
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="nothing to draw"):
        render.save_picture(correct(), tmp_path / "none.png")


def test_picture_without_matplotlib_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(builtins, "__import__", _refuse("matplotlib"))
    with pytest.raises(ImportError, match="pip install matplotlib"):
        render.save_picture(wrong(), tmp_path / "errors.png")


def test_spec_of_arrays():
    assert parse_args("f32[2,8,8,3], bf16 ,i32[4],bool[],u8[0], float64[ 2 ]") == tuple(
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (
            ((2, 8, 8, 3), jnp.float32),
            ((), jnp.bfloat16),
            ((4,), jnp.int32),
            ((), jnp.bool_),
            ((0,), jnp.uint8),
            ((2,), jnp.float64),
        )
    )
    assert parse_args(" ") == ()


def test_spec_of_samplers_and_trees():
    below, key, nothing, tree = parse_args("i32[50]<10, key, none, {w: f32[3], b: {c: f16}}")
    drawn = below(np.random.default_rng(0))
    assert (drawn.dtype, drawn.shape, drawn.min(), drawn.max()) == (np.int32, (50,), 0, 9)
    assert jnp.issubdtype(key(np.random.default_rng(0)).dtype, jax.dtypes.prng_key)
    assert nothing is None
    assert tree == {
        "w": jax.ShapeDtypeStruct((3,), jnp.float32),
        "b": {"c": jax.ShapeDtypeStruct((), jnp.float16)},
    }


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("f33[2]", 1, "did you mean f32"),
        ("f32[2,x]", 7, "a size"),
        ("f32[2", 6, "',' or ']'"),
        ("f32[2] f32", 8, "',' or the end"),
        ("f32,", 5, "f64, f32"),
        ("i8[3]<0", 7, "from 1 to 127"),
        ("i8[3]<128", 7, "from 1 to 127"),
        ("f32<3", 4, "',' or the end"),
        ("{w f32}", 4, "':'"),
        ("{w: f32", 8, "',' or '}'"),
        ("{3: f32}", 2, "a name"),
    ],
)
def test_errors_in_specs_name_the_position_and_what_was_expected(text, position, expected):
    with pytest.raises(ValueError) as error:
        parse_args(text)
    assert f"position {position}: got " in str(error.value)
    assert expected in str(error.value).partition("expected ")[2]


def test_static_values_are_literals_or_text():
    got = parse_static(["stride=2", "padding=SAME", "window=(2,3)", "ties='split'", "rate=.5", "x=a=b"])
    assert got == {"stride": 2, "padding": "SAME", "window": (2, 3), "ties": "split", "rate": 0.5, "x": "a=b"}
    with pytest.raises(ValueError, match="NAME=VALUE"):
        parse_static(["stride"])


EXAMPLES = {
    "relu": {"small": ((np.ones(2),), {}), "large": ((np.ones(3),), {})},
    "conv": {"strided": ((np.ones(4),), {"stride": 2})},
}


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command line on made-up examples, with made-up reports instead of checks."""
    calls = []

    def verify_vjp(rule, *args, **options):
        calls.append((rule, args, options))
        options["progress"]("autodiff")
        return run.reports.get(getattr(rule, "name", "f"), correct)()

    def run(*arguments):
        calls.clear()
        code = cli.main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    monkeypatch.setattr(cli, "verify_vjp", verify_vjp)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "jcnn.verify.examples", types.SimpleNamespace(EXAMPLES=EXAMPLES))
    run.reports, run.calls = {}, calls
    return run


@EVERY_VERDICT
def test_exit_status_and_report_of_one_check(run, make):
    run.reports["relu"] = make
    code, out, err = run("jcnn:relu", "--args", "f32[3]")
    assert code == {"WRONG": 1, "INCONCLUSIVE": 2}.get(make().verdict, 0)
    assert out == f"{make()}\n"
    assert err == ""


def test_everything_on_the_command_line_reaches_the_checker(run):
    options = (
        "--static",
        "stride=2",
        "padding=SAME",
        "--level",
        "quick",
        "--seed",
        "3",
        "--reference",
        "jcnn:conv",
    )
    assert run("jcnn:relu", "--args", "f32[3]", *options)[0] == 0
    ((rule, args, given),) = run.calls
    assert rule is jcnn.relu
    assert args == (jax.ShapeDtypeStruct((3,), jnp.float32),)
    del given["progress"]
    assert given == {"stride": 2, "padding": "SAME", "level": "quick", "seed": 3, "reference": jcnn.conv}


@pytest.mark.parametrize(
    ("verdicts", "code"), [("WRONG INCONCLUSIVE", 1), ("CORRECT INCONCLUSIVE", 2), ("CORRECT", 0)]
)
def test_all_rules_in_one_table_with_the_worst_exit_status(run, verdicts, code):
    run.reports = {name: REPORTS[v] for name, v in zip(("relu", "conv"), verdicts.split(), strict=False)}
    got, out, _ = run("--all")
    assert got == code
    assert run("")[0] == 3
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["rule", "case", "verdict"]
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["relu", "small"],
        ["relu", "large"],
        ["conv", "strided"],
    ]
    assert lines[-1].startswith("3 checked in ")
    bad = [report for name, report in run.reports.items() if not report().ok]
    assert (str(bad[0]()) in out) if bad else len(lines) == 5
    assert out.count("seed ") == len(bad[:1])


def test_a_rule_of_jcnn_brings_its_examples(run):
    assert run("jcnn:relu")[1].splitlines()[-1].startswith("2 checked")
    assert run("jcnn:conv")[1] == f"{correct()}\n"
    assert run.calls[0][2]["stride"] == 2


def test_files_of_one_check_and_of_many(run, tmp_path):
    run.reports["relu"] = wrong
    paths = [tmp_path / f"report.{kind}" for kind in ("json", "html", "png")]
    options = [word for path in paths for word in (f"--{path.suffix[1:]}", path)]
    assert run("jcnn:relu", "--args", "f32", *options)[0] == 1
    assert json.loads(paths[0].read_text())["verdict"] == "WRONG"
    assert paths[1].read_text("utf-8") == wrong().to_html()
    assert paths[2].stat().st_size > 1000
    assert run("--all", *options)[0] == 1
    assert [entry["case"] for entry in json.loads(paths[0].read_text())] == ["small", "large", "strided"]
    assert paths[1].read_text("utf-8").count("<details") == 3
    _, _, err = run("jcnn:conv", "--png", tmp_path / "none.png")
    assert "was not written" in err
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["jcn:conv"], "no module 'jcn'; did you mean jcnn"),
        (["jcnn.con:conv"], "no module 'jcnn.con'; did you mean conv"),
        (["jcnn:convv"], "jcnn has no 'convv'; did you mean conv"),
        (["jcnn:conv.fwdd"], "jcnn:conv has no 'fwdd'; did you mean fwd"),
        (["jcnn/rul.py:Rule"], "no file 'jcnn/rul.py'; did you mean rule.py"),
        (["jcnn"], "expected MODULE:NAME"),
        (["jcnn:update_running_stats"], "has no examples; give --args"),
        (["jcnn:relu", "--args", "f33"], "--args: 'f33', position 1"),
        (["jcnn:relu", "--args", "f32", "--static", "x"], "--static: got 'x'"),
        (["jcnn:relu", "--static", "x=1"], "--static needs --args"),
        (["jcnn:relu", "--all"], "expected one of them"),
        (["--args", "f32"], "--args without"),
        (["--level", "quik"], "invalid choice: 'quik'"),
        (["--html", "/no/such/folder/x.html"], "no folder '/no/such/folder'"),
        (["--explain", "lineary"], "did you mean linearity"),
    ],
)
def test_usage_errors_are_one_line_with_the_nearest_names(run, monkeypatch, arguments, said):
    monkeypatch.chdir(ROOT)
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert said in err


def test_what_the_checker_refuses_is_a_usage_error_and_what_crashes_it_no_verdict(run, monkeypatch):
    def refuse(error):
        def verify_vjp(*args, **options):
            raise error

        monkeypatch.setattr(cli, "verify_vjp", verify_vjp)
        return run("jcnn:relu", "--args", "f32")

    assert refuse(TypeError("too many arguments"))[::2] == (3, "python -m jcnn.verify: too many arguments\n")
    code, _, err = refuse(ZeroDivisionError("a bug"))
    assert code == 3
    assert err.startswith("Traceback")
    assert refuse(KeyboardInterrupt())[::2] == (130, "\ninterrupted\n")


def test_two_devices_are_asked_for_unless_a_number_is(run, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--other")
    run("--list-properties")
    assert os.environ["XLA_FLAGS"] == "--other --xla_force_host_platform_device_count=2"
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    run("--list-properties")
    assert os.environ["XLA_FLAGS"] == "--xla_force_host_platform_device_count=8"


def test_progress_is_shown_on_a_terminal_only(run, monkeypatch):
    assert run("--all")[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "[2/3] relu, large: autodiff\r" in run("--all")[2]


def test_properties_are_listed_and_explained(run):
    assert len(run("--list-properties")[1].splitlines()) == len(PROPERTIES)
    assert run("--explain", "jit")[:2] == (0, f"jit: {PROPERTIES['jit']}\n")


def test_targets_in_files_and_triples(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "neighbour.py").write_text("value = 4")
    (tmp_path / "ops.py").write_text(
        "from neighbour import value\nclass layer: rule = value\nf, fwd, bwd = 1, 2, 3"
    )
    path = str(tmp_path / "ops.py")
    assert locate(f"{path}:layer.rule") == 4
    assert locate(f"{path}:f, fwd, bwd") == (1, 2, 3)
    assert locate("jcnn:conv") is jcnn.conv
    (tmp_path / "broken.py").write_text("import no_such_module")
    with pytest.raises(UsageError, match=r"broken.py failed: ModuleNotFoundError: .*line 1"):
        locate(f"{tmp_path / 'broken.py'}:f")


def test_table_is_aligned_and_shows_what_is_closest_to_its_tolerance():
    labels = [("relu", "a longer case"), ("batch_norm", "x")]
    table = Table(("rule", "case"), labels)
    good = correct()
    good.findings.append(Finding("precision", Status.PASS, dtype="float32", error=0.1, tolerance=0.2))
    lines = [table.header, table.row(labels[0], good), table.row(labels[1], wrong())]
    assert (
        len({line.index(word) for line, word in zip(lines, ("verdict", "correct", "WRONG"), strict=True)})
        == 1
    )
    assert lines[1].split()[-3:-1] == ["3e-16", "1e-9"]
    assert lines[2].split()[2:7] == ["WRONG", "0.16", "1e-9", "3.2", "the"]
    assert summary([correct(), wrong(), correct()], 93.2) == "3 checked in 93 s: 2 correct, 1 wrong"


TESTS = """
import jax, jax.numpy as jnp, numpy as np, pytest

def rule(factor):
    op = jax.custom_vjp(jnp.sin)
    op.defvjp(lambda x: (jnp.sin(x), x), lambda x, dy: (factor * dy * jnp.cos(x),))
    return op

@pytest.mark.vjp(rule(1.0), "f32[3]", id="right")
@pytest.mark.vjp(rule(2.0), np.arange(3.0), static={}, seed=5)
def test_sin(vjp):
    assert vjp.report.level == "quick"

def test_unmarked(vjp):
    pass
"""


@pytest.fixture
def plugin(pytester):
    pytester.makeconftest("pytest_plugins = ['jcnn.verify.pytest_plugin']")
    return pytester


def test_plugin_makes_a_test_of_each_property(plugin):
    plugin.makepyfile(test_ops=TESTS)
    result = plugin.runpytest_inprocess(
        "-v", "--strict-markers", "--jcnn-level=quick", "--jcnn-json=out", "-rs"
    )
    result.stdout.fnmatch_lines_random(
        [
            "*test_sin[[]right-autodiff[]] PASSED*",
            "*test_sin[[]1-autodiff[]] FAILED*",
            "*test_sin[[]1-primal[]] PASSED*",
            "*test_sin[[]right-jit[]] SKIPPED*",
            "*not looked at: level quick*",
            "*ratio 2*",
            "*the fixture vjp needs the marker*",
        ]
    )
    counts = result.parseoutcomes()
    assert sum(counts[k] for k in ("passed", "failed", "skipped")) == 2 * len(PROPERTIES)
    names = {path.name: json.loads(path.read_text())["seed"] for path in (plugin.path / "out").iterdir()}
    assert names == {"test_ops-py-test_sin-right.json": 0, "test_ops-py-test_sin-1.json": 5}


def test_plugin_refuses_a_marked_test_that_would_check_nothing(plugin):
    plugin.makepyfile("import pytest\n@pytest.mark.vjp(None)\ndef test_it(): pass")
    result = plugin.runpytest_inprocess()
    result.stdout.fnmatch_lines(["*test_it: with the marker vjp, expected a parameter vjp as well*"])
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_plugin_is_loaded_after_the_import_hook_and_imports_no_jax_itself(plugin):
    """In a process of its own, since jcnn is imported here already."""
    plugin.makepyfile(
        """
        import sys
        def test_hook():
            import jcnn.verify.wording
            for module in ("jcnn", "jcnn.verify.wording", "jcnn.verify.pytest_plugin"):
                assert "Jaxtyping" in type(sys.modules[module].__loader__).__name__, module
        """
    )
    result = plugin.runpytest_subprocess("--jaxtyping-packages=jcnn,beartype.beartype")
    result.assert_outcomes(passed=1)
    path = ROOT / "jcnn" / "verify" / "pytest_plugin.py"
    code = f"import runpy, sys; runpy.run_path({str(path)!r}); assert 'jax' not in sys.modules"
    assert plugin.run(sys.executable, "-c", code).ret == 0
