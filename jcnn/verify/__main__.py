"""The command line: `python -m jcnn.verify --help`."""

import argparse
import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jcnn.rule import Rule
from jcnn.verify import spec
from jcnn.verify.checker import LEVELS, verify_vjp
from jcnn.verify.locate import UsageError, locate, nearest
from jcnn.verify.page import as_html_list
from jcnn.verify.render import save_picture
from jcnn.verify.report import PROPERTIES, Report
from jcnn.verify.table import VERDICTS, Table, summary

PROG = "python -m jcnn.verify"
TWO_DEVICES = "--xla_force_host_platform_device_count"
EXIT_CODES = {"CORRECT": 0, "EXPECTED_DEVIATION": 0, "INCONCLUSIVE": 2, "WRONG": 1}
NO_RESULT, INTERRUPTED = 3, 130
WHOLE = 2  # examples of each rule that are checked at the standard level, the others quickly
CLEAR = "\x1b[2K"
EPILOG = """\
examples:
  python -m jcnn.verify                                   every rule of jcnn
  python -m jcnn.verify jcnn:conv                         one of them
  python -m jcnn.verify mine.ops:swish --args "f32[4,8]"  a jcnn.Rule or a jax.custom_vjp of yours
  python -m jcnn.verify ops.py:f,fwd,bwd --args "f32[2,8,8,3], i32[2]<10, key" --static stride=2

arguments, separated by commas:
  f64[2,3] f32 bf16[4] f16[4] i32[4] u8[4] bool[3]   arrays of that dtype and shape, values sampled
  i32[4]<10                                          integers from 0 to 9
  key, none, {w: f32[3,3], b: f32[3]}                a PRNG key, None, a dictionary

exit status: 0 correct, or deviating as declared; 1 wrong; 2 inconclusive; 3 nothing could be checked
"""


class Case(NamedTuple):
    """A rule at certain arguments."""

    rule_name: str
    name: str
    rule: Any
    args: tuple
    static: dict[str, Any]
    level: str = "standard"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    if TWO_DEVICES not in os.environ.get("XLA_FLAGS", ""):  # for the property shard_map
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {TWO_DEVICES}=2".strip()
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return _run(_parser().parse_args(arguments))
    except UsageError as error:
        print(f"{PROG}: {error}", file=sys.stderr)
        return NO_RESULT
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # head and the like have read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_RESULT
    except Exception:  # Python's own exit status for it is 1, which here means that a rule is wrong
        traceback.print_exc()
        return NO_RESULT


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {PROG} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROG,
        description="Checks backwards that were derived by hand against autodiff, differences and more.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("target", nargs="?", help="MODULE:NAME or FILE.py:NAME; without it, every rule of jcnn")
    add("--all", action="store_true", help="every rule of jcnn, at its examples")
    add("--args", metavar="SPEC", help="the arguments, see below; rules of jcnn have examples")
    add("--static", metavar="NAME=VALUE", nargs="+", default=[], help="static configuration")
    add("--reference", metavar="MODULE:NAME", help="a function to be held to, instead of the rule's own")
    add("--level", choices=LEVELS, help="how much to check (default: standard; of --all the first examples)")
    add("--seed", type=int, default=0, help="of all random values (default: 0)")
    add("--json", metavar="FILE", type=Path, help="write everything as JSON")
    add("--html", metavar="FILE", type=Path, help="write a page with pictures of the errors")
    add("--png", metavar="FILE", type=Path, help="write a picture of the errors (needs matplotlib)")
    add("--list-properties", action="store_true", help="list what is checked")
    add("--explain", metavar="PROPERTY", help="what one property means")
    return parser


def _run(options: argparse.Namespace) -> int:
    if options.list_properties:
        print("\n".join(f"{name:<14}{meaning}" for name, meaning in PROPERTIES.items()))
        return 0
    if options.explain:
        print(_explained(options.explain))
        return 0
    _check_outputs(options)
    cases = _cases(options)
    if len(cases) > 1:
        reports = _many(cases, options)
        _write(cases, reports, options)
    else:
        reports = [_check(cases[0], options)]
        _write(cases, reports, options)
        _show(reports[0])
    return EXIT_CODES[max((report.verdict for report in reports), key=VERDICTS.index)]


def _check_outputs(options: argparse.Namespace) -> None:
    """Raises UsageError now for what could not be written when all checks are done."""
    for path in filter(None, (options.json, options.html, options.png)):
        if not path.parent.is_dir():
            raise UsageError(f"no folder {str(path.parent)!r} to write {path.name} to")
    if options.png and not importlib.util.find_spec("matplotlib"):
        raise UsageError("--png needs matplotlib: pip install matplotlib")


def _explained(name: str) -> str:
    if name not in PROPERTIES:
        raise UsageError(f"--explain: no property {name!r}{nearest(name, PROPERTIES)}")
    return f"{name}: {PROPERTIES[name]}"


def _cases(options: argparse.Namespace) -> list[Case]:
    if options.target is None:
        if given := [f"--{name}" for name in ("args", "static", "reference") if getattr(options, name)]:
            raise UsageError(f"{', '.join(given)} without a MODULE:NAME to check")
        return _examples()
    if options.all:
        raise UsageError(f"--all and {options.target}: expected one of them")
    rule = locate(options.target)
    if options.args is not None:
        args, static = _parsed("args", options.args), _parsed("static", options.static)
        return [Case(options.target, "", rule, args, static)]
    if options.static:
        raise UsageError("--static needs --args: examples come with their own")
    examples = _examples() if isinstance(rule, Rule) else []
    if cases := [c._replace(rule=rule, level="standard") for c in examples if c.rule_name == rule.name]:
        return cases
    raise UsageError(f'{options.target} has no examples; give --args, such as "f32[2,8,8,3], f32[3]"')


def _examples() -> list[Case]:
    """All that jcnn brings, each with the rule of jcnn that it is for."""
    import jcnn
    from jcnn.verify.examples import EXAMPLES

    return [
        Case(rule_name, name, getattr(jcnn, rule_name), args, static, "standard" if i < WHOLE else "quick")
        for rule_name, cases in EXAMPLES.items()
        for i, (name, (args, static)) in enumerate(cases.items())
    ]


def _parsed(option: str, text: Any) -> Any:
    try:
        return getattr(spec, f"parse_{option}")(text)
    except ValueError as error:
        raise UsageError(f"--{option}: {error}") from None


def _check(case: Case, options: argparse.Namespace, before: str = "") -> Report:
    reference = locate(options.reference) if options.reference else None
    given = {"level": options.level or case.level, "seed": options.seed, "reference": reference}
    try:
        return verify_vjp(
            case.rule, *case.args, progress=lambda what: _on_terminal(before + what), **given, **case.static
        )
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    finally:
        _on_terminal("")


def _on_terminal(text: str) -> None:
    """Shows what is being done in the last line of the terminal, if stderr is one."""
    if sys.stderr.isatty():
        print(f"{CLEAR}{text}", end="\r", file=sys.stderr, flush=True)


def _many(cases: list[Case], options: argparse.Namespace) -> list[Report]:
    """A table that grows by a row per case, then the first report that is not ok, then all in one line."""
    start, reports = time.perf_counter(), []
    table = Table(("rule", "case"), [case[:2] for case in cases])
    print(table.header)
    for number, case in enumerate(cases, 1):
        before = f"[{number}/{len(cases)}] {case.rule_name}, {case.name}: "
        reports.append(_check(case, options, before))
        print(table.row(case[:2], reports[-1]), flush=True)
    for report in [report for report in reports if not report.ok][:1]:
        _show(report)
    print(summary(reports, time.perf_counter() - start))
    return reports


def _show(report: Report) -> None:
    if sys.stdout.isatty() and importlib.util.find_spec("rich"):
        from rich.console import Console

        Console().print(report)
    else:
        print(report)


def _write(cases: list[Case], reports: list[Report], options: argparse.Namespace) -> None:
    """The files that were asked for; with several cases the JSON is a list, the page has them all."""
    if options.json and len(cases) == 1:
        reports[0].to_json(options.json)
    elif options.json:
        listed = [{"case": c.name, **r.to_dict()} for c, r in zip(cases, reports, strict=True)]
        options.json.write_text(json.dumps(listed, indent=1), "utf-8")
    if options.html and len(cases) == 1:
        reports[0].to_html(options.html)
    elif options.html:
        labels = [f"{case.rule_name}, {case.name}" for case in cases]
        options.html.write_text(as_html_list(zip(labels, reports, strict=True)), "utf-8")
    if options.png:
        _write_picture(reports, options.png)


def _write_picture(reports: list[Report], path: Path) -> None:
    drawn = [report for report in reports if report.maps]
    if not drawn:
        print(f"{PROG}: no cotangent is wrong: {path} was not written", file=sys.stderr)
        return
    save_picture(drawn[0], path)


if __name__ == "__main__":
    sys.exit(main())
