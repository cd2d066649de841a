"""Memory of jcnn's rules and training steps against autodiff's.

Of an op: the bytes that its forward keeps for its backward, all of them ("residuals") and those that are
not among the arguments, which are often kept anyway ("residuals, new"); and the temporary memory of
forward and backward compiled together, by XLA's account of it ("temporaries").
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from jax.extend import core

import jcnn
from experiments.benchmark import plain, steps_memory
from experiments.benchmark.cases import Case, ours
from experiments.benchmark.ops import chosen
from experiments.benchmark.settings import OURS, Row, Settings, Task

NO_BAR = {"autodiff": -math.inf}


class Residuals(NamedTuple):
    """Bytes kept for the backward."""

    inputs: int  # that are arguments of the function
    new: int


def residuals(f: Callable, *args: Any) -> Residuals:
    """What `jax.vjp(f, *args)` keeps, where arguments may be shapes; JAX keeps no array twice."""
    jaxpr = jax.make_jaxpr(lambda *a: jax.tree.leaves(jax.vjp(f, *a)[1]))(*args).jaxpr
    kept = [v for v in jaxpr.outvars if not isinstance(v, core.Literal)]
    arguments = set(map(id, jaxpr.invars))
    inputs = sum(nbytes(v.aval) for v in kept if id(v) in arguments)
    return Residuals(inputs, sum(map(nbytes, (v.aval for v in kept))) - inputs)


def nbytes(aval: Any) -> int:
    return math.prod(aval.shape) * aval.dtype.itemsize


def temporaries(f: Callable, *args: Any) -> int:
    """Bytes of temporary memory of `f` compiled with default flags."""
    return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


def tasks(settings: Settings) -> list[Task]:
    """One task per case and dtype, then those of the training steps."""
    found = [
        Task(f"{case.name} {dtype}", functools.partial(run, case, dtype))
        for case, dtype in chosen(settings)
        if hasattr(jcnn, case.op)
    ]
    return found + steps_memory.memory_tasks(settings)


def run(case: Case, dtype: str) -> Iterator[Row]:
    """The rows of one op."""
    fs, args = forwards(case), arguments(case, dtype)
    kept = {name: residuals(f, *args) for name, f in fs.items()}
    never_more = {"autodiff": 1.0}
    total = {name: [float(sum(k))] for name, k in kept.items()}
    yield Row(case.name, "residuals", total, dtype, "B", never_more)
    yield Row(case.name, "residuals, new", {n: [float(k.new)] for n, k in kept.items()}, dtype, "B", NO_BAR)
    used = {name: [float(temporaries(forward_and_backward(f, case), *args))] for name, f in fs.items()}
    yield Row(case.name, "temporaries", used, dtype, "B", NO_BAR)
    jax.clear_caches()


def forwards(case: Case) -> dict[str, Callable]:
    """The op by jcnn and by plain JAX."""
    both = {OURS: ours(case.op), "autodiff": getattr(plain, case.op)}
    return {name: functools.partial(f, **case.config) for name, f in both.items()}


def arguments(case: Case, dtype: str) -> list[jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a case's arrays."""
    return jax.eval_shape(lambda: list(case.arrays(dtype).values()))


def forward_and_backward(f: Callable, case: Case) -> Callable:
    """A function of a case's arrays: output of `f` and all cotangents, given the output itself as dy."""
    wanted = [list(case.shapes).index(name) for name in case.floats]

    def run(*args: jax.Array) -> Any:
        y, vjp = jax.vjp(f, *args)
        cotangents = vjp(y)
        return y, [cotangents[i] for i in wanted]

    return run
