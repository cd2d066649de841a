"""Ops against peers, pass by pass; see `cases.py` for what is timed and `contestants.py` for how."""

import functools
from collections.abc import Iterator

import jax

import jcnn
from experiments.benchmark.cases import CASES, Case
from experiments.benchmark.contestants import agree, entries, in_jax
from experiments.benchmark.settings import PEERS, Row, Settings, Task
from experiments.benchmark.timing import Budget, Ratio, measure, ratio


def chosen(settings: Settings) -> list[tuple[Case, str]]:
    """Cases and the dtypes they are run in."""
    if settings.dtypes is not None:
        return [(case, dtype) for dtype in settings.dtypes for case in CASES]
    found = [(case, "float32") for case in CASES]
    return found if settings.quick else found + [(case, "bfloat16") for case in CASES if case.half]


def tasks(settings: Settings) -> list[Task]:
    """One task per case and dtype."""
    return [
        Task(f"{case.name} {dtype}", functools.partial(run, case, dtype, settings))
        for case, dtype in chosen(settings)
    ]


def run(case: Case, dtype: str, settings: Settings) -> Iterator[Row | str]:
    """The rows of one case: every pass, compared first and then timed.

    Raises:
        Disagreement: somebody computes something else than jcnn.
    """
    if not hasattr(jcnn, case.op):
        yield f"{case.name}: jcnn.{case.op} does not exist, skipped"
        return
    contestants = entries(case, dtype, settings.against)
    for stage in case.stages:
        calls, results = {}, {}
        for name, contestant in list(contestants.items()):
            try:
                calls[name] = contestant.prepare(stage)
                arrays = calls[name]()
            except Exception as error:  # whatever goes wrong in a peer (a compiler, a missing kernel)
                if name not in PEERS:
                    raise
                del contestants[name]
                calls.pop(name, None)
                yield f"{case.name}, {dtype}: {name} failed, skipped: {first_line(error)}"
                continue
            names = case.wanted(stage) or ("y",)
            results[name] = [contestant.convert(n, a) for n, a in zip(names, arrays, strict=True)]
        agree(case, stage, dtype, results)
        del results
        yield Row(case.name, stage, measure(calls, settings.budget), dtype)
    jax.clear_caches()


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"


def against_itself(budget: Budget) -> Ratio:
    """jcnn's convolution against the same, compiled once more: 1, if this machine can be measured on."""
    case = CASES[0]
    arrays = case.arrays("float32")
    calls = {
        name: in_jax(functools.partial(jcnn.conv, **case.config), case, arrays, arrays["x"]).prepare(
            "forward"
        )
        for name in ("A", "B")
    }
    seconds = measure(calls, budget)
    return ratio(seconds["A"], seconds["B"])
