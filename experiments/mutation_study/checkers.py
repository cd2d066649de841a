"""Checkers of gradients, each as a function that says whether it finds a rule wrong.

`verify` is jcnn's.  `check_grads` is JAX's, with its defaults, of reverse mode in first and in second order.
`uniform` compares the derivative of sum(f), by central differences in float64 in every coordinate, with the
backward of a cotangent of ones, as NNlib's `gradtest` and the exercises of CS231n do.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from jcnn.rule import Rule
from jcnn.verify import verify_vjp


class Case(NamedTuple):
    """Arguments of a rule, a `jcnn.Rule` or a triple (f, fwd, bwd)."""

    args: tuple
    static: dict[str, Any]


class Outcome(NamedTuple):
    """A word, killed or survived or what else became of the check, and the causes that were given."""

    word: str
    causes: list[str]


KILLED, SURVIVED = Outcome("killed", []), Outcome("survived", [])
UNUSABLE = Outcome("rejects the correct rule", [])


def is_float(a: Any) -> bool:
    return jnp.issubdtype(getattr(a, "dtype", type(a)), jnp.floating)


def cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda a: jnp.asarray(a, dtype) if is_float(a) else a, tree)


def of_floats(rule: Any, case: Case) -> tuple[Callable, list]:
    """The rule, with its derivative, as a function of its floating-point leaves, and those."""
    op = rule
    if not isinstance(rule, Rule):
        f, fwd, bwd = rule
        op = jax.custom_vjp(lambda *args: f(*args))
        op.defvjp(fwd, bwd)
    leaves, structure = jax.tree.flatten(case.args)

    def function(*floats):
        given = iter(floats)
        args = structure.unflatten([next(given) if is_float(a) else a for a in leaves])
        return op(*args, **case.static)

    return function, [a for a in leaves if is_float(a)]


def by_verify(rule: Any, case: Case, level: str, seed: int) -> Outcome:
    try:
        report = verify_vjp(rule, *case.args, level=level, seed=seed, **case.static)
    except Exception as error:  # a fault of verify's, to be listed
        return Outcome(f"raised {type(error).__name__}: {error}", [])
    words = {"WRONG": "killed", "CORRECT": "survived"}
    return Outcome(words.get(report.verdict, report.verdict.lower()), report.causes)


def by_check_grads(dtype: Any, order: int, rule: Any, case: Case, level: str, seed: int) -> Outcome:
    function, floats = of_floats(rule, case)
    try:
        check_grads(function, cast(floats, dtype), order, modes=["rev"])
    except Exception:  # AssertionError, or what JAX says of a cotangent that does not fit
        return KILLED
    return SURVIVED


def by_uniform(rule: Any, case: Case, level: str, seed: int, step: float = 1e-4) -> Outcome:
    """d sum(f) by central differences, in every coordinate, against the backward of a cotangent of ones."""
    function, floats = of_floats(rule, case)

    @jax.jit
    def total(floats):
        return sum(jnp.sum(y) for y in jax.tree.leaves(function(*floats)))

    try:
        hand = jax.grad(total)(floats)
        for i, a in enumerate(floats):
            flat, slope = np.array(a).ravel(), np.zeros(a.size)
            for j in range(a.size):
                ahead, behind = flat.copy(), flat.copy()
                ahead[j], behind[j] = flat[j] + step, flat[j] - step
                moved = ([*floats[:i], v.reshape(a.shape), *floats[i + 1 :]] for v in (ahead, behind))
                plus, minus = map(total, moved)
                slope[j] = (plus - minus) / (2 * step)
            if not np.allclose(np.ravel(hand[i]), slope, rtol=1e-5, atol=1e-7):
                return KILLED
    except Exception:
        return KILLED
    return SURVIVED


CHECKERS: dict[str, dict[str, Callable[..., Outcome]]] = {
    "verify": {"verify": by_verify},
    **{
        f"check_grads {short}": {
            f"check_grads {short} order {n}": functools.partial(by_check_grads, dtype, n) for n in (1, 2)
        }
        for short, dtype in (("f32", jnp.float32), ("f64", jnp.float64))
    },
    "uniform": {"uniform": by_uniform},
}
