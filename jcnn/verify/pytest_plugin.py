"""pytest plugin: `@pytest.mark.vjp` makes of one test function one test per property.

    # conftest.py
    pytest_plugins = ["jcnn.verify.pytest_plugin"]

    # test_ops.py
    @pytest.mark.vjp(swish, "f32[4,8]")
    def test_swish(vjp): ...

    @pytest.mark.vjp(jcnn.conv, "f32[2,8,8,3], f32[3,3,3,4]", static={"stride": 2}, id="strided")
    @pytest.mark.vjp(jcnn.conv, x, w, level="quick", id="plain")
    def test_conv(vjp):
        assert vjp.report.seconds < 60

gives test_swish[autodiff], test_swish[jit], test_conv[strided-autodiff], ...  The marker takes the rule and
its arguments (arrays, or one text in the grammar of `jcnn.verify.spec`), `static=`, `id=` and all options of
`verify_vjp`.  A test asks for the fixture `vjp`.  It fails, before its body runs, if its own property failed
or is inconclusive, and is skipped if that was skipped; the body may be empty.  The report is made once per
marker (and xdist worker).  It is `vjp.report`, the property's name is `vjp.property`.

It is no entry point: that would import jcnn, and with it jax, into every pytest session on the machine, and
before jaxtyping's import hook (`--jaxtyping-packages`) is there, which refuses to run then.

The property shard_map needs two devices, which a conftest.py can ask for before anything uses one:
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2".
"""

import functools
import re
from pathlib import Path
from typing import Any

import pytest

MARKER = "vjp(rule, *arguments, static={}, id='', **options): checks a backward, one test per property"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("jcnn", "backwards derived by hand (jcnn.verify)")
    group.addoption("--jcnn-level", metavar="LEVEL", help="level of all checks, whatever the markers say")
    group.addoption("--jcnn-seed", metavar="N", type=int, help="seed of all checks, whatever the markers say")
    group.addoption("--jcnn-json", metavar="DIR", type=Path, help="folder for a JSON file of each report")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per marker and property."""
    marks = list(metafunc.definition.iter_markers("vjp"))[::-1]
    if not marks:
        return
    if "vjp" not in metafunc.fixturenames:
        name = metafunc.definition.name
        raise pytest.Collector.CollectError(f"{name}: with the marker vjp, expected a parameter vjp as well")
    from jcnn.verify.report import PROPERTIES

    numbers = [""] if len(marks) == 1 else map(str, range(len(marks)))
    tests = {}
    for mark, number in zip(marks, numbers, strict=True):
        label = mark.kwargs.get("id", number)
        check = _Check(mark, f"{metafunc.definition.nodeid}-{label}", metafunc.config)
        tests |= {"-".join(filter(None, (label, name))): PropertyTest(name, check) for name in PROPERTIES}
    metafunc.parametrize("vjp", tests.values(), ids=tests.keys(), indirect=True)


@pytest.fixture
def vjp(request: pytest.FixtureRequest) -> "PropertyTest":
    """A property of the rule in the test's marker `vjp`, and the report on that rule."""
    if not hasattr(request, "param"):
        pytest.fail("the fixture vjp needs the marker @pytest.mark.vjp(rule, *arguments)", pytrace=False)
    return request.param


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """The check itself, before the body of the test."""
    test = pyfuncitem.funcargs.get("vjp")
    if isinstance(test, PropertyTest):
        test.check()


class PropertyTest:
    """What the fixture `vjp` is.

    Attributes:
        property: the name of the property that this test is about, one of `jcnn.verify.report.PROPERTIES`.
    """

    def __init__(self, name: str, check: "_Check"):
        self.property = name
        self._check = check

    @property
    def report(self) -> Any:
        """The `jcnn.verify.Report` on the rule, shared by the tests of all properties."""
        return self._check.report

    def check(self) -> None:
        """Fails or skips the test according to the findings of its property."""
        from jcnn.verify.report import Status

        findings = self.report.of(self.property)
        bad = [f for f in findings if f.status in (Status.FAIL, Status.INCONCLUSIVE)]
        if bad:
            pytest.fail(self._message(bad), pytrace=False)
        if all(f.status == Status.SKIPPED for f in findings):
            reasons = dict.fromkeys(f.detail for f in findings)
            level, verdict = self.report.level, self.report.verdict
            pytest.skip("; ".join(reasons) or f"not looked at: level {level}, verdict {verdict}")

    def _message(self, findings: list) -> str:
        from jcnn.verify import wording

        lines = [f"{self.report.rule}, seed {self.report.seed}"]
        for finding in findings:
            lines += [wording.title(finding), *(f"  {line}" for line in wording.evidence(finding))]
        causes = [f"  {i}. {cause}" for i, cause in enumerate(self.report.causes, 1)]
        return "\n".join([*lines, *(["diagnosis:", *causes] if causes else [])])


class _Check:
    """A marker, and the report that it asks for."""

    def __init__(self, mark: pytest.Mark, name: str, config: pytest.Config):
        self.mark, self.name, self.config = mark, name, config

    @functools.cached_property
    def report(self) -> Any:
        from jcnn.verify import verify_vjp

        rule, args = self.mark.args[0], self.mark.args[1:]
        options = {k: v for k, v in self.mark.kwargs.items() if k not in ("id", "static")}
        options |= {k: v for k in ("level", "seed") if (v := self.config.getoption(f"jcnn_{k}")) is not None}
        report = verify_vjp(rule, *_arguments(args), **options, **self.mark.kwargs.get("static", {}))
        self._write(report)
        return report

    def _write(self, report: Any) -> None:
        folder = self.config.getoption("jcnn_json")
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            report.to_json(folder / f"{re.sub(r'[^0-9A-Za-z_]+', '-', self.name).strip('-')}.json")


def _arguments(args: tuple) -> tuple:
    from jcnn.verify.spec import parse_args

    return parse_args(args[0]) if len(args) == 1 and isinstance(args[0], str) else args
