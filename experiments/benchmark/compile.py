"""Time to trace, lower and compile forward and backward together: jcnn's rules and steps against autodiff's.

Every time a new function is compiled, with JAX's caches emptied and its persistent cache switched off.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

import jcnn
from experiments.benchmark import steps_memory
from experiments.benchmark.cases import Case
from experiments.benchmark.memory import arguments, forward_and_backward, forwards
from experiments.benchmark.ops import chosen
from experiments.benchmark.settings import Row, Settings, Task
from experiments.benchmark.timing import compilation, measure


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
    calls = {
        name: compilation(functools.partial(_lower, forward_and_backward(f, case), args))
        for name, f in forwards(case).items()
    }
    yield Row(case.name, "compile", measure(calls, settings.budget.unwarmed()), dtype)


def _lower(f: Callable, args: Sequence[Any]) -> jax.stages.Lowered:
    return jax.jit(lambda *a: f(*a)).lower(*args)
