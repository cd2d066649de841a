"""Time to trace, lower and compile forward and backward together: jcnn's rules and steps against autodiff's.

Every time a new function is compiled, with JAX's caches emptied and its persistent cache switched off.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

import jcnn
from experiments.benchmark import steps_memory
from experiments.benchmark.cases import Case
from experiments.benchmark.memory import arguments, forward_and_backward, forwards
from experiments.benchmark.ops import chosen
from experiments.benchmark.settings import Row, Settings, Task
from experiments.benchmark.timing import Budget, Call, measure


def tasks(settings: Settings) -> list[Task]:
    """One task per case and dtype, then those of the training steps."""
    found = [
        Task(f"{case.name} {dtype}", functools.partial(run, case, dtype, settings))
        for case, dtype in chosen(settings)
        if hasattr(jcnn, case.op)
    ]
    return found + steps_memory.compile_tasks(settings)


def run(case: Case, dtype: str, settings: Settings) -> Iterator[Row]:
    """The row of one op."""
    args = arguments(case, dtype)
    calls = {name: compilation(forward_and_backward(f, case), *args) for name, f in forwards(case).items()}
    yield Row(case.name, "compile", measure(calls, unwarmed(settings.budget)), dtype)


def unwarmed(budget: Budget) -> Budget:
    """The budget for calls that are the same every time, warmed up or not."""
    return dataclasses.replace(budget, warm=False, section=0.0)


def compilation(f: Callable, *args: Any) -> Call:
    """A contestant that compiles `f` for arguments like `args`, as if for the first time."""

    def compile_anew() -> None:
        jax.clear_caches()
        jax.config.update("jax_enable_compilation_cache", False)
        jax.jit(lambda *a: f(*a)).lower(*args).compile()

    return compile_anew
