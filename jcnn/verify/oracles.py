"""Three independent oracles for J^T dy, each a jitted function of a subject and its array leaves.

    autodiff      J^T dy by `jax.vjp` of the reference, entry by entry
    differences   J v by central differences of the forward, extrapolated: C. Ridders, "Accurate computation
                  of F'(x) and F'(x) F''(x)", Advances in Engineering Software 4 (1982)
    forward       J v by `jax.jvp` of the reference, for the adjoint identity <dy, J v> = <J^T dy, v>

Differences are taken at steps 2^-1 ... 2^-16.  From every five successive steps h, h/2, ... Richardson's
extrapolation removes the errors of order h^2 ... h^8; each output entry takes the five with the smallest
change in the last extrapolation.  Linear functions use the widest step, entries next to a kink a narrow one.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.dtypes import float0

from jcnn.verify.judge import EPS, Array
from jcnn.verify.subject import Subject, is_float

QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
REMEMBERED = 8  # subjects whose compiled programs are kept
STEPS = 0.5 ** np.arange(1, 17)
WINDOW = 5

_programs: list = []
_subjects: set[Subject] = set()


def program(f: Callable, static: int = 1) -> Callable:
    """`f(subject, ...)` jitted for being compiled fast; equal subjects share the compilation.

    Its first `static` arguments are static.
    """
    made = jax.jit(f, static_argnums=tuple(range(static)), compiler_options=QUICK_TO_COMPILE)
    _programs.append(made)
    return made


def remember(subject: Subject) -> None:
    """Keeps the compiled programs of the last few subjects; of more than that, frees them all."""
    _subjects.add(subject)
    if len(_subjects) > REMEMBERED:
        _subjects.clear()
        for made in _programs:
            made.clear_cache()


def floats(arrays: tuple) -> tuple:
    return tuple(a for a in arrays if is_float(a))


def merged(arrays: tuple, values: tuple) -> tuple:
    """`arrays` with its floating-point leaves replaced."""
    given = iter(values)
    return tuple(next(given) if is_float(a) else a for a in arrays)


def float_leaves(y: Any) -> tuple:
    return tuple(a for a in jax.tree.leaves(_arrays(y)) if is_float(a))


def cotangent(y: Any, dys: tuple) -> Any:
    """`dys` in the tree and dtypes of `y`, with float0 zeros for outputs that are not floating-point."""
    given = iter(dys)
    return jax.tree.map(
        lambda a: jnp.asarray(next(given), a.dtype) if is_float(a) else np.zeros(a.shape, float0), _arrays(y)
    )


def _arrays(y: Any) -> Any:
    return jax.tree.map(lambda a: a if hasattr(a, "dtype") else jnp.asarray(a), y)


def dense(cts: tuple, arrays: tuple) -> tuple:
    """Cotangents of the floating-point leaves, zeros for None."""
    pairs = zip(cts, arrays, strict=True)
    return tuple(jnp.zeros_like(a) if ct is None else ct for ct, a in pairs if is_float(a))


def by_hand(subject: Subject, arrays: tuple, dys: tuple) -> tuple[tuple, tuple]:
    """Outputs of fwd and cotangents of the floating-point leaves, just as the rule returns them."""
    y, res = subject.fwd(arrays)
    cts = subject.bwd(res, cotangent(y, dys))
    return float_leaves(y), tuple(ct for ct, a in zip(cts, arrays, strict=True) if is_float(a))


def by_autodiff(subject: Subject, arrays: tuple, dys: tuple) -> tuple[tuple, tuple]:
    y, vjp = jax.vjp(lambda *v: subject.reference(merged(arrays, v)), *floats(arrays))
    return float_leaves(y), vjp(cotangent(y, dys))


def by_both(subject: Subject, arrays: tuple, dys: tuple) -> tuple[tuple, tuple]:
    return by_hand(subject, arrays, dys), by_autodiff(subject, arrays, dys)


def outputs(subject: Subject, arrays: tuple) -> tuple:
    return float_leaves(subject.f(arrays))


def by_forward_mode(subject: Subject, arrays: tuple, v: tuple) -> tuple:
    return jax.jvp(
        lambda *values: float_leaves(subject.reference(merged(arrays, values))), floats(arrays), v
    )[1]


def along(subject: Subject, arrays: tuple, v: tuple) -> tuple:
    """The forward's outputs at arrays + t v, t = STEPS and then -STEPS, stacked."""

    def at(t):
        moved = tuple(a + t * d for a, d in zip(floats(arrays), v, strict=True))
        return outputs(subject, merged(arrays, moved))

    return lax.map(at, jnp.concatenate([STEPS, -STEPS]))


forward_program, hand_program, autodiff_program, both_program, tangent_program, line_program = map(
    program, (outputs, by_hand, by_autodiff, by_both, by_forward_mode, along)
)


def extrapolated(values: Array) -> tuple[Array, Array]:
    """The derivative at t = 0 of values [2 STEPS, ...], and an estimate of its error."""
    ahead, back = np.split(np.asarray(values, np.float64), 2)
    steps = STEPS.reshape(-1, *[1] * (ahead.ndim - 1))
    with np.errstate(all="ignore"):
        table = (ahead - back) / (2 * steps)
        rounding = EPS * np.maximum(np.abs(ahead), np.abs(back)) / steps
        change = np.abs(table)
        for order in range(1, WINDOW):
            factor = 4.0**order
            finer = (factor * table[1:] - table[:-1]) / (factor - 1)
            change = np.abs(finer - table[1:])
            table = finer
        error = change + rounding[WINDOW - 1 :]
        error = np.where(np.isfinite(error) & np.isfinite(table), error, np.inf)
    best = error.argmin(0)[None]
    return np.take_along_axis(table, best, 0)[0], np.take_along_axis(error, best, 0)[0]


def special_values(subject: Subject, arrays: tuple) -> tuple[float, ...]:
    """0 and the scalar constants in the jaxprs of forward and backward: where their code may branch."""
    found = {0.0}

    def visit(jaxpr):
        for eqn in jaxpr.eqns:
            found.update(float(v.val) for v in eqn.invars if _is_scalar_constant(v))
            for value in jax.tree.leaves(tuple(eqn.params.values())):
                if inner := getattr(value, "jaxpr", value if hasattr(value, "eqns") else None):
                    visit(inner)

    def both(arrays):
        y, res = subject.fwd(arrays)
        cts = subject.bwd(res, cotangent(y, float_leaves(y)))
        return [ct for ct, a in zip(cts, arrays, strict=True) if is_float(a)]

    with contextlib.suppress(Exception, SystemExit):
        visit(jax.make_jaxpr(both)(arrays).jaxpr)
    return tuple(sorted((v for v in found if abs(v) <= 100), key=abs)[:8])


def _is_scalar_constant(var: Any) -> bool:
    value = getattr(var, "val", None)
    return value is not None and np.ndim(value) == 0 and jnp.issubdtype(jnp.result_type(value), jnp.floating)


def depends_on_cotangent(subject: Subject, arrays: tuple, dys: tuple) -> list[bool]:
    """For each floating-point leaf: whether autodiff's cotangent is more than a structural zero."""
    jaxpr = jax.make_jaxpr(lambda dys: by_autodiff(subject, arrays, dys)[1])(dys).jaxpr
    tainted = set(jaxpr.invars)
    for eqn in jaxpr.eqns:
        if any(not hasattr(v, "val") and v in tainted for v in eqn.invars):
            tainted.update(eqn.outvars)
    return [not hasattr(v, "val") and v in tainted for v in jaxpr.outvars]
