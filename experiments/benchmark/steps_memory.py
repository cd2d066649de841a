"""Memory and time to compile of whole training steps: jcnn's against autodiff's."""

import functools
from collections.abc import Iterator

import jax

from experiments.benchmark.nets.zoo import Case
from experiments.benchmark.settings import OURS, Row, Settings, Task
from experiments.benchmark.steps import Problem, Program, chosen, program, task_name
from experiments.benchmark.timing import compilation, measure


def memory_tasks(settings: Settings) -> list[Task]:
    """One task per net."""
    return [Task(task_name(case), functools.partial(memory, case)) for case in chosen(settings)]


def compile_tasks(settings: Settings) -> list[Task]:
    """One task per net."""
    return [Task(task_name(case), functools.partial(compiling, case, settings)) for case in chosen(settings)]


def programs(case: Case) -> dict[str, Program]:
    """Both with the default flags."""
    problem = Problem.of(case)
    return {name: program(problem, name) for name in (OURS, "autodiff")}


def memory(case: Case) -> Iterator[Row]:
    """Bytes of temporary memory of the compiled steps, by XLA's account of it."""
    compiled = {name: program.lower().compile() for name, program in programs(case).items()}
    used = {name: [float(c.memory_analysis().temp_size_in_bytes)] for name, c in compiled.items()}
    yield Row(case.title, "step, temporaries", used, unit="B")
    jax.clear_caches()


def compiling(case: Case, settings: Settings) -> Iterator[Row]:
    """Seconds to trace, lower and compile the steps."""
    calls = {name: compilation(program.lower) for name, program in programs(case).items()}
    yield Row(case.title, "step, compile", measure(calls, settings.budget.unwarmed()))
