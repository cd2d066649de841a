"""Properties of the rule as a JAX function: it means the same however JAX transforms it.

Every check compares with cotangents that `fwd` and `bwd` gave at single points, so a wrong derivation is no
failure here.  What raises under a transformation fails, unless the forward alone raises there too.
"""

import functools
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jcnn.verify import oracles
from jcnn.verify.judge import compare
from jcnn.verify.oracles import cotangent, float_leaves, floats, merged
from jcnn.verify.report import Status
from jcnn.verify.subject import Subject
from jcnn.verify.trial import Arrays, Trial, said

SAME = 1e-10  # relative; two computations of one thing
COUNT = 2  # examples under vmap, and devices


def transformations(trial: Trial) -> None:
    """All of this module."""
    if not trial.traceable or trial.raw:
        return trial.note("transformations were not looked at: they need a rule that can be jitted")
    for check in (jit, second_order, vmap, control_flow):
        check(trial)
    return None


def agree(trial: Trial, name: str, got: tuple, expected: tuple, detail: str, rtol: float = SAME) -> bool:
    """Whether `got` equals `expected`; if not, that is a failure of the property."""
    labels = trial.names if len(expected) == len(trial.names) else ("",) * len(expected)
    for label, g, e in zip(labels, got, expected, strict=True):
        c = compare(np.asarray(g, np.float64), np.asarray(e, np.float64), 0.0, trial.length, 1.0, rtol)
        if not c.ok:
            trial.record(name, Status.FAIL, c, detail, label)
            return False
    return True


def attempt(
    trial: Trial, name: str, check: Callable[[], bool], alone: Callable[[], object] | None = None
) -> None:
    """Records the property `name`; where `check` raises and the forward alone does so too, it is skipped."""
    try:
        if check():
            trial.add(name, Status.PASS)
    except Exception as e:
        try:
            (alone or (lambda: None))()
            trial.add(name, Status.FAIL, f"raised {said(e)}")
        except Exception as own:
            trial.add(name, Status.SKIPPED, f"the forward alone raises {said(own, 100)}")


def determinism(trial: Trial) -> None:
    """The same call again, eagerly and with another forward between: the same bits."""
    subject, dys = trial.subject, tuple(map(jnp.asarray, trial.dys(0)))
    here, there = (jax.tree.map(jnp.asarray, p.arrays) for p in trial.points[:2])

    def backward(y, res):
        return tuple(map(np.asarray, oracles.dense(subject.bwd(res, cotangent(y, dys)), here)))

    def check():
        y, res = subject.fwd(here)
        first = backward(y, res)
        again = float_leaves(subject.fwd(here)[0])
        subject.fwd(there)
        second, third = backward(y, res), backward(y, res)
        if not _identical(float_leaves(y), again) or not _identical(second, third):
            trial.add("determinism", Status.FAIL, "the same call gives other numbers")
        elif not _identical(first, second):
            trial.add(
                "determinism", Status.FAIL, "after another forward, bwd gives other numbers: it keeps state"
            )
        elif trial.traceable and not trial.raw:
            jitted = trial.hand(trial.points[0].arrays, trial.dys(0))[1]
            agree(trial, "jit", jitted, first, "jitted and eager cotangents differ")
        return not trial.failed("determinism")

    attempt(trial, "determinism", check)


def _identical(these: tuple, those: tuple) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(these, those, strict=True))


def _vjp(subject: Subject, arrays: tuple, dys: tuple) -> tuple:
    y, vjp = jax.vjp(lambda *v: subject.op(merged(arrays, v)), *floats(arrays))
    return vjp(cotangent(y, dys))


def _apart(subject: Subject, arrays: tuple):
    y, res = subject.fwd(arrays)
    return float_leaves(y), res


def _backward_apart(subject: Subject, arrays: tuple, res, dys: tuple) -> tuple:
    y = jax.eval_shape(subject.f, arrays)
    return oracles.dense(subject.bwd(res, cotangent(y, dys)), arrays)


_vjp_program, _apart_program, _backward_program = map(oracles.program, (_vjp, _apart, _backward_apart))


def jit(trial: Trial) -> None:
    """`jax.vjp` of the rule, and fwd and bwd jitted apart with the residuals passing between them."""
    arrays, dys = trial.points[1].arrays, trial.dys(0)
    hand = trial.hand(arrays, dys)[1]

    def check():
        through = _vjp_program(trial.subject, arrays, dys)
        res = _apart_program(trial.subject, arrays)[1]
        apart = _backward_program(trial.subject, arrays, res, dys)
        return agree(trial, "jit", through, hand, "jax.vjp and bwd differ") and agree(
            trial, "jit", apart, hand, "fwd and bwd jitted apart give other cotangents"
        )

    if not trial.failed("jit"):
        attempt(trial, "jit", check)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=oracles.QUICK_TO_COMPILE)
def _second(subject: Subject, whose: str, arrays: tuple, dys: tuple, weights: tuple) -> tuple:
    """The gradient of <weights, J^T dy> in the arguments and in dy."""
    f = getattr(subject, whose)

    def inner(values, dys):
        y, vjp = jax.vjp(lambda *v: f(merged(arrays, v)), *values)
        return _inner(weights, vjp(cotangent(y, dys)))

    of_arguments, of_dys = jax.grad(inner, argnums=(0, 1))(floats(arrays), dys)
    return (*of_arguments, *of_dys)


def _inner(p: tuple, q: tuple) -> jax.Array:
    return sum((jnp.vdot(a, b) for a, b in zip(p, q, strict=True)), jnp.zeros(()))


def second_order(trial: Trial) -> None:
    arrays, dys = trial.points[1].arrays, trial.dys(7)
    weights = trial.directions(trial.points[1], 2)

    def run(whose):
        return _second(trial.subject, whose, arrays, dys, weights)

    def check():
        return agree(
            trial, "second_order", run("op"), run("reference"), "reverse over reverse is wrong", 1e-8
        )

    if trial.expect is None and trial.trusted:
        attempt(trial, "second_order", check, lambda: run("reference"))


def _loss(subject: Subject, arrays: tuple, values: tuple, dys: tuple) -> jax.Array:
    """<dy, y>: its gradient is J^T dy."""
    return _inner(dys, float_leaves(subject.op(merged(arrays, values))))


class Batch:
    """Two examples: the values of some leaves, `mapped`, differ; the others are shared."""

    def __init__(self, trial: Trial, mapped: tuple[bool, ...]):
        self.mapped = mapped
        self.arrays = trial.points[0].arrays
        here, there = (floats(p.arrays) for p in trial.points[:COUNT])
        both = list(zip(here, there, strict=True))
        self.values = tuple(np.stack(ab) if m else ab[0] for ab, m in zip(both, mapped, strict=True))
        self.dys = tuple(map(np.stack, zip(*(trial.dys(20 + k) for k in range(COUNT)), strict=True)))
        single = [
            trial.hand(
                merged(
                    self.arrays, tuple(v[k] if m else v for v, m in zip(self.values, mapped, strict=True))
                ),
                tuple(dy[k] for dy in self.dys),
            )[1]
            for k in range(COUNT)
        ]
        self.each = tuple(map(np.stack, zip(*single, strict=True)))  # one cotangent per example

    @property
    def total(self) -> Arrays:
        """Cotangents of the batch: shared leaves collect those of all examples."""
        return tuple(ct if m else ct.sum(0) for ct, m in zip(self.each, self.mapped, strict=True))

    @property
    def axes(self) -> tuple[int | None, ...]:
        return tuple(0 if m else None for m in self.mapped)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=oracles.QUICK_TO_COMPILE)
def _vmap_of_grad(subject: Subject, axes: tuple, arrays: tuple, values: tuple, dys: tuple) -> tuple:
    gradient = jax.grad(lambda v, d: _loss(subject, arrays, v, d))
    return jax.vmap(gradient, (axes, 0))(values, dys)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=oracles.QUICK_TO_COMPILE)
def _grad_of_vmap(subject: Subject, axes: tuple, arrays: tuple, values: tuple, dys: tuple) -> tuple:
    loss = jax.vmap(lambda v, d: _loss(subject, arrays, v, d), (axes, 0))
    return jax.grad(lambda v: loss(v, dys).sum())(values)


def vmap(trial: Trial) -> None:
    """grad of vmap over every subset of the leaves (of more than three, each alone and all); vmap of grad."""
    count = len(trial.names)

    def check():
        for mapped in itertools.product([True, False], repeat=count):
            if not any(mapped) or (count > 3 and sum(mapped) not in (1, count)):
                continue
            b = Batch(trial, mapped)
            arguments = (trial.subject, b.axes, b.arrays, b.values, b.dys)
            over = ", ".join(n for n, m in zip(trial.names, mapped, strict=True) if m)
            if not agree(trial, "vmap", _grad_of_vmap(*arguments), b.total, f"grad of vmap, over {over}"):
                return False
            if all(mapped) and not agree(
                trial, "vmap", _vmap_of_grad(*arguments), b.each, f"vmap of grad, over {over}"
            ):
                return False
        return True

    def alone():
        b = Batch(trial, (True,) * count)
        jax.vmap(lambda v: trial.subject.f(merged(b.arrays, v)))(b.values)

    attempt(trial, "vmap", check, alone)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=oracles.QUICK_TO_COMPILE)
def _inside(subject: Subject, where: str, arrays: tuple, dys: tuple) -> tuple:
    def plain(values):
        return _loss(subject, arrays, values, dys)

    def scanned(values):
        return lax.scan(lambda total, _: (total + plain(values), None), jnp.zeros(()), length=2)[0] / 2

    def switched(values):
        return lax.cond(values[0].sum() < jnp.inf, plain, lambda values: jnp.zeros(()), values)

    return jax.grad({"scan": scanned, "checkpoint": jax.checkpoint(plain), "cond": switched}[where])(
        floats(arrays)
    )


def control_flow(trial: Trial) -> None:
    arrays, dys = trial.points[1].arrays, trial.dys(8)
    hand = trial.hand(arrays, dys)[1]

    for where in ("scan", "checkpoint", "cond"):

        def check(where=where):
            return agree(trial, where, _inside(trial.subject, where, arrays, dys), hand, f"inside {where}")

        attempt(trial, where, check)
