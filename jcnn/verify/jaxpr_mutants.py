"""Mutants of a backward made from its jaxpr: one equation computes something else.

A mutant is named by the primitive, by how many live equations of that primitive come up to the mutated
one, and by what is done to it, as in "drop operand 2 of add #3".  The backward is traced anew whenever the
mutant runs, on whatever residuals and cotangent it is given, so a mutant works under jit, vmap and
shard_map, in every dtype, and can be differentiated.  In a configuration where the backward has no such
equation, or where the change would alter a shape, the mutant is the original.

Functions that the backward calls (jit, checkpoint, other handwritten rules) are opened where the mutated
equation is inside them, and run as they are elsewhere; loops and branches are not opened.  What no output
depends on is not mutated.
"""

import collections
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.extend.source_info_util import summarize

from jcnn.verify.equation_edits import Edit, bind, edits

OPENED = ("jit", "pjit", "closed_call", "core_call", "checkpoint", "remat", "remat2")


class Site(NamedTuple):
    """A live equation: its index in each jaxpr on the way down, and its constant operands."""

    path: tuple[int, ...]
    eqn: JaxprEqn
    constants: dict[int, Any]
    place: str  # where the author wrote it, as "norm.py:157"
    number: int = 0  # among the live equations of its primitive, from 1

    @property
    def name(self) -> str:
        return f"{self.eqn.primitive.name} #{self.number}"


class Trace:
    """A backward as a jaxpr, for the shapes and dtypes of one residual and cotangent.

    Attributes:
        cotangents: what the backward returns, as a pytree of ShapeDtypeStruct.
        used: for every leaf of (residuals, dy), whether any output depends on it.
        sites: the live equations, in order.
    """

    def __init__(self, bwd: Callable[..., Any], res: Any, dy: Any):
        leaves, tree = jax.tree.flatten((res, dy))
        traced = [isinstance(a, jax.Array) or _is_float(a) for a in leaves]

        def flat(*arrays):
            rest = iter(arrays)
            return bwd(*tree.unflatten([next(rest) if t else a for t, a in zip(traced, leaves, strict=True)]))

        self.arrays = [a for t, a in zip(traced, leaves, strict=True) if t]
        self.closed, self.cotangents = jax.make_jaxpr(flat, return_shape=True)(*self.arrays)
        known = dict(zip(self.closed.jaxpr.constvars, self.closed.consts, strict=True))
        found, used = _live(self.closed.jaxpr, known, [True] * len(self.closed.out_avals))
        flags = iter(used)
        self.used = [bool(t and next(flags)) for t in traced]
        self.sites = list(_numbered(found))

    def run(self, path: tuple[int, ...], compute: Callable[..., Any]) -> Any:
        """The cotangents, with `compute` in place of the equation at `path`."""
        out = _run(self.closed.jaxpr, self.closed.consts, self.arrays, path, compute)
        return jax.tree.unflatten(jax.tree.structure(self.cotangents), out)


def _is_float(a: Any) -> bool:
    """Whether this is a number or NumPy array of floats; ints may be shapes, and stay what they are."""
    return jnp.issubdtype(getattr(a, "dtype", type(a)), jnp.floating)


def mutants(trace: Trace) -> Iterator[tuple[str, Callable[..., Any]]]:
    """(what was done, the broken backward) for every change of one equation that keeps all shapes.

    The broken backward takes the original one before its own arguments.
    """
    for site in trace.sites:
        for edit in edits(site.eqn, site.constants):
            if _fits(edit, site.eqn):
                where = f" ({site.place})" if site.place else ""
                yield f"{edit.what} of {site.name}{where}", functools.partial(_broken, site.name, edit.what)


def _broken(name: str, what: str, bwd: Callable[..., Any], res: Any, dy: Any, **static: Any) -> Any:
    trace = Trace(functools.partial(bwd, **static), res, dy)
    for site in trace.sites:
        if site.name == name:
            for edit in edits(site.eqn, site.constants):
                if edit.what == what and _fits(edit, site.eqn):
                    return trace.run(site.path, functools.partial(_computed, edit, site.eqn))
    return bwd(res, dy, **static)


def _computed(edit: Edit, eqn: JaxprEqn, *values: Any) -> list:
    """The outputs of the edited equation; an operand that stands for a broadcast result is broadcast."""
    out = edit.compute(*values)
    if eqn.primitive.multiple_results:
        return list(out)
    shape = getattr(eqn.outvars[0].aval, "shape", ())
    return [jnp.broadcast_to(out, shape) if jnp.ndim(out) <= len(shape) else out]


def _fits(edit: Edit, eqn: JaxprEqn) -> bool:
    def shapes(atoms):
        return [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in atoms]

    try:
        got = jax.eval_shape(functools.partial(_computed, edit, eqn), *shapes(eqn.invars))
    except (TypeError, ValueError):
        return False
    return [(a.shape, a.dtype) for a in got] == [(a.shape, a.dtype) for a in shapes(eqn.outvars)]


def _numbered(sites: list[Site]) -> Iterator[Site]:
    count = collections.Counter()
    for site in sites:
        name = site.eqn.primitive.name
        count[name] += 1
        yield site._replace(number=count[name])


def _place(eqn: JaxprEqn) -> str:
    file, _, rest = summarize(eqn.source_info).partition(":")
    return f"{Path(file).name}:{rest.partition(':')[0]}" if rest else ""


def _inside(eqn: JaxprEqn) -> tuple[Jaxpr, list] | None:
    """The jaxpr that an equation calls, and its constants, if it does nothing but call it."""
    name = eqn.primitive.name
    if name in OPENED or (name.startswith("custom_") and name.endswith("_call")):
        called = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
        if isinstance(called, ClosedJaxpr):
            return called.jaxpr, list(called.consts)
        if isinstance(called, Jaxpr):
            return called, []
    return None


def _live(jaxpr: Jaxpr, known: dict, wanted: list[bool]) -> tuple[list[Site], list[bool]]:
    """The equations that wanted outputs depend on, and which of the jaxpr's inputs they need.

    `known` has the values of variables that are constants.
    """
    needed = {v for v, w in zip(jaxpr.outvars, wanted, strict=True) if w and not isinstance(v, Literal)}
    found: list[Site] = []
    for n, eqn in reversed(list(enumerate(jaxpr.eqns))):
        outputs = [v in needed for v in eqn.outvars]
        if not any(outputs):
            continue
        constants = {i: _value(v, known) for i, v in enumerate(eqn.invars) if _is_constant(v, known)}
        inside = _inside(eqn)
        if inside is None:
            found.append(Site((n,), eqn, constants, _place(eqn)))
            used = [True] * len(eqn.invars)
        else:
            inner, consts = inside
            names = {v: constants[i] for i, v in enumerate(inner.invars) if i in constants}
            names |= dict(zip(inner.constvars, consts, strict=True))
            below, used = _live(inner, names, outputs)
            place = {"place": _place(eqn)} if eqn.primitive.name in OPENED else {}
            found += [site._replace(path=(n, *site.path), **place) for site in reversed(below)]
        needed |= {v for v, u in zip(eqn.invars, used, strict=True) if u and not isinstance(v, Literal)}
    return found[::-1], [v in needed for v in jaxpr.invars]


def _is_constant(v: Any, known: dict) -> bool:
    return isinstance(v, Literal) or v in known


def _value(v: Any, known: dict) -> Any:
    return v.val if isinstance(v, Literal) else known[v]


def _run(jaxpr: Jaxpr, consts: list, args: list, path: tuple[int, ...], compute: Callable[..., Any]) -> list:
    env: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
    here, *below = path
    for n, eqn in enumerate(jaxpr.eqns):
        values = [_value(v, env) for v in eqn.invars]
        inside = _inside(eqn)
        if n != here:
            out = bind(eqn, *values)
        elif below and inside is not None:
            out = _run(*inside, values, tuple(below), compute)
        else:
            out = compute(*values)
        env.update(zip(eqn.outvars, out, strict=True))
    return [_value(v, env) for v in jaxpr.outvars]
