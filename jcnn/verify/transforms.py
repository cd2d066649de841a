"""Properties of the rule as a JAX function: it means the same however JAX transforms it.

Every check compares with cotangents that `fwd` and `bwd` gave at single points, so a wrong derivation is no
failure here.  What raises under a transformation fails, unless the forward alone raises there too.
"""

import contextlib
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


@functools.partial(oracles.program, static=2)
def _second(subject: Subject, whose: tuple, arrays: tuple, dys: tuple, weights: tuple) -> list[tuple]:
    """The gradients of <weights, J^T dy> in the arguments and in dy."""

    def of(f):
        def inner(values, dys):
            y, vjp = jax.vjp(lambda *v: f(merged(arrays, v)), *values)
            return _inner(weights, vjp(cotangent(y, dys)))

        of_arguments, of_dys = jax.grad(inner, argnums=(0, 1))(floats(arrays), dys)
        return *of_arguments, *of_dys

    return [of(getattr(subject, which)) for which in whose]


def _inner(p: tuple, q: tuple) -> jax.Array:
    return sum((jnp.vdot(a, b) for a, b in zip(p, q, strict=True)), jnp.zeros(()))


def second_order(trial: Trial) -> None:
    arrays, dys = trial.points[1].arrays, trial.dys(7)
    weights = trial.directions(trial.points[1], 2)

    def run(*whose):
        return _second(trial.subject, whose, arrays, dys, weights)

    def check():
        hand, reference = run("op", "reference")
        return agree(trial, "second_order", hand, reference, "reverse over reverse is wrong", 1e-8)

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


@functools.partial(oracles.program, static=2)
def _vmapped(subject: Subject, axes: tuple, arrays: tuple, values: list, dys: tuple) -> tuple[tuple, list]:
    """vmap of grad over the first set of axes, and grad of vmap over each."""

    def loss(v, d):
        return _loss(subject, arrays, v, d)

    of_each = jax.vmap(jax.grad(loss), (axes[0], 0))(values[0], dys)
    of_all = [
        jax.grad(lambda v, a=a: jax.vmap(loss, (a, 0))(v, dys).sum())(v)
        for a, v in zip(axes, values, strict=True)
    ]
    return of_each, of_all


def vmap(trial: Trial) -> None:
    """grad of vmap over every subset of the leaves (of more than three, each alone and all); vmap of grad."""
    count = len(trial.names)

    def check():
        subsets = itertools.product([True, False], repeat=count)
        batches = [Batch(trial, m) for m in subsets if any(m) and (count < 4 or sum(m) in (1, count))]
        first, axes, values = batches[0], tuple(b.axes for b in batches), [b.values for b in batches]
        of_each, of_all = _vmapped(trial.subject, axes, first.arrays, values, first.dys)
        if not agree(trial, "vmap", of_each, first.each, "vmap of grad"):
            return False
        for b, got in zip(batches, of_all, strict=True):
            over = ", ".join(n for n, m in zip(trial.names, b.mapped, strict=True) if m)
            if not agree(trial, "vmap", got, b.total, f"grad of vmap, over {over}"):
                return False
        return True

    def alone():
        b = Batch(trial, (True,) * count)
        jax.vmap(lambda v: trial.subject.f(merged(b.arrays, v)))(b.values)

    attempt(trial, "vmap", check, alone)


@functools.partial(oracles.program, static=2)
def _inside(subject: Subject, places: tuple[str, ...], arrays: tuple, dys: tuple) -> list[tuple]:
    def plain(values):
        return _loss(subject, arrays, values, dys)

    def scanned(values):
        return lax.scan(lambda total, _: (total + plain(values), None), jnp.zeros(()), length=2)[0] / 2

    def switched(values):
        return lax.cond(values[0].sum() < jnp.inf, plain, lambda values: jnp.zeros(()), values)

    losses = {"scan": scanned, "checkpoint": jax.checkpoint(plain), "cond": switched}
    return [jax.grad(losses[place])(floats(arrays)) for place in places]


def control_flow(trial: Trial) -> None:
    """scan, checkpoint and cond: compiled together, and if that raises one by one."""
    arrays, dys = trial.points[1].arrays, trial.dys(8)
    hand, places = trial.hand(arrays, dys)[1], ("scan", "checkpoint", "cond")
    found = {}

    with contextlib.suppress(Exception):
        found = dict(zip(places, _inside(trial.subject, places, arrays, dys), strict=True))
    for place in places:

        def check(place=place):
            got = found[place] if found else _inside(trial.subject, (place,), arrays, dys)[0]
            return agree(trial, place, got, hand, f"inside {place}")

        attempt(trial, place, check)
