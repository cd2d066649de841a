"""Mutants that need no knowledge of the op: changes of what goes into a backward and of what comes out."""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.dtypes import float0

from jcnn.verify import jaxpr_mutants

Change = Callable[..., Any]  # (bwd, res, dy) -> cotangents, or (fwd, *args, **static) -> (y, res)
Changes = Iterator[tuple[str, dict[str, Change]]]  # what is done; the changed "fwd" or "bwd", or both

COPIES = 1000  # in the mutant that keeps too much
NOISE = np.random.default_rng()


def changes(
    fwd: Callable[..., Any], bwd: Callable[..., Any], names: tuple[str, ...] | None, args: tuple, static: dict
) -> Changes:
    """All changes of a rule's forward and backward, those of the backward's jaxpr last.

    Args:
        fwd, bwd: the rule.
        names: of its arguments if it is a `jcnn.Rule`, None for a triple.
        args: example arguments, or none.
        static: the configuration that goes with them.
    """
    is_triple, trace, res = names is None, None, None
    yield from _forwards(is_triple)
    if args:
        y, res = fwd(*args, **_named(fwd, static))
        dy = jax.tree.map(_ones, y)
        trace = jaxpr_mutants.Trace(functools.partial(bwd, **_named(bwd, static)), res, dy)
        yield from _outputs(dy)
        yield from _residuals(res, trace)
        names = names or _argument_names(fwd, len(trace.cotangents))
    yield from _results(names, trace, is_triple)
    yield from _uses_of_dy()
    if trace is None or any(_is_float(a) and u for a, u in zip(*_leaves(res, trace), strict=True)):
        yield "residuals without gradient", {"bwd": lambda bwd, res, dy, **s: bwd(_stopped(res), dy, **s)}
    if trace is not None:
        for what, change in jaxpr_mutants.mutants(trace):
            yield what, {"bwd": change}


def _forwards(is_triple: bool) -> Changes:
    def off(fwd, *args, **static):
        y, res = fwd(*args, **static)
        return _floats(lambda a: a * (1 + 1e-3), y), res

    def bloated(fwd, *args, **static):
        y, res = fwd(*args, **static)
        copies = [
            jnp.tile(a, (COPIES, *(1,) * jnp.ndim(a))) for a in jax.tree.leaves((y, args)) if _is_float(a)
        ]
        return y, (res, copies)

    yield "forward's output times 1+1e-3", {"fwd": off}
    if is_triple:
        kept = {"fwd": bloated, "bwd": lambda bwd, res, dy, **static: bwd(res[0], dy, **static)}
        yield f"{COPIES} copies in the residuals", kept


VALUES: dict[str, Callable[[Array], Array]] = {
    "negated": jnp.negative,
    "doubled": lambda a: 2 * a,
    "times 1+1e-6": lambda a: a * (1 + 1e-6),
    "zero": jnp.zeros_like,
    "rounded to bfloat16": lambda a: a.astype(jnp.bfloat16).astype(a.dtype),
    "rounded to float32": lambda a: a.astype(jnp.float32).astype(a.dtype),
    "with noise of 1e-6": lambda a: a * jnp.asarray(1 + 1e-6 * NOISE.standard_normal(a.shape), a.dtype),
}


def _results(names: tuple[str, ...] | None, trace: Any, is_triple: bool) -> Changes:
    """Changes of what the backward returns."""
    shapes = None if trace is None else trace.cotangents
    if names is None:
        chosen: dict[str, tuple[int, ...] | None] = {"all cotangents": None}
    else:
        indices = [
            i for i in range(len(names)) if shapes is None or any(map(_is_float, jax.tree.leaves(shapes[i])))
        ]
        chosen = {f"d{names[i]}": (i,) for i in indices}
        if len(indices) > 1:
            chosen["all cotangents"] = tuple(indices)
    for target, indices in chosen.items():
        for what, change in VALUES.items():
            yield f"{target} {what}", _on(indices, functools.partial(_floats, change))
        yield f"{target} None", _on(indices, lambda ct: None)
        yield f"{target} of another shape", _on(indices, functools.partial(_floats, _reshaped))
        if is_triple:
            yield f"{target} of another dtype", _on(indices, functools.partial(_floats, _retyped))
    if shapes is not None and names is not None:
        for i, j in itertools.combinations(range(len(names)), 2):
            if jax.tree.leaves(shapes[i]) and _same(shapes[i], shapes[j]):
                yield f"d{names[i]} and d{names[j]} swapped", {"bwd": functools.partial(_swapped, i, j)}
    yield "last cotangent left out", {"bwd": lambda bwd, res, dy, **s: tuple(bwd(res, dy, **s))[:-1]}
    yield "one cotangent too many", {"bwd": lambda bwd, res, dy, **s: (*bwd(res, dy, **s), None)}


def _on(indices: tuple[int, ...] | None, change: Callable[[Any], Any]) -> dict[str, Change]:
    def changed(bwd, res, dy, **static):
        cts = list(bwd(res, dy, **static))
        for i in range(len(cts)) if indices is None else indices:
            cts[i] = None if cts[i] is None else change(cts[i])
        return tuple(cts)

    return {"bwd": changed}


def _swapped(i: int, j: int, bwd: Change, res: Any, dy: Any, **static: Any) -> tuple:
    cts = list(bwd(res, dy, **static))
    cts[i], cts[j] = cts[j], cts[i]
    return tuple(cts)


def _reshaped(a: Array) -> Array:
    return a.T if a.ndim > 1 and a.shape != a.shape[::-1] else a[..., None]


def _retyped(a: Array) -> Array:
    return a.astype(jnp.bfloat16 if a.dtype == jnp.float32 else jnp.float32)


COTANGENTS: dict[str, Callable[[Array], Array]] = {
    "dy ignored": jnp.ones_like,
    "|dy| for dy": jnp.abs,
    "dy |dy| for dy": lambda a: a * jnp.abs(a),
    "max(dy, 0) for dy": lambda a: jnp.maximum(a, 0),
    "dy clipped to [-1, 1]": lambda a: jnp.clip(a, -1, 1),
    "dy without gradient": lax.stop_gradient,
}


def _uses_of_dy() -> Changes:
    for what, change in COTANGENTS.items():
        yield what, {"bwd": lambda bwd, res, dy, c=change, **s: bwd(res, _floats(c, dy), **s)}


def _outputs(dy: Any) -> Changes:
    """Of several outputs, the cotangent of one is forgotten."""
    leaves = jax.tree_util.tree_leaves_with_path(dy)
    for k, (path, leaf) in enumerate(leaves):
        if len(leaves) > 1 and _is_float(leaf):
            ignored = functools.partial(_leaves_changed, {k: jnp.zeros_like})
            name = jax.tree_util.keystr(path)
            yield f"dy{name} ignored", {"bwd": lambda bwd, res, dy, c=ignored, **s: bwd(res, c(dy), **s)}


def _residuals(res: Any, trace: Any) -> Changes:
    """Changes of the residuals that any cotangent depends on."""
    used = [i for i, u in enumerate(_leaves(res, trace)[1]) if u]
    leaves = jax.tree_util.tree_leaves_with_path(res)
    names = [jax.tree_util.keystr(path) for path, _ in leaves]

    def reads(change):
        return {"bwd": lambda bwd, res, dy, **static: bwd(change(res), dy, **static)}

    for i in used:
        if _is_float(leaves[i][1]):
            yield f"residual {names[i]} negated", reads(functools.partial(_leaves_changed, {i: jnp.negative}))
            yield f"residual {names[i]} zero", reads(functools.partial(_leaves_changed, {i: jnp.zeros_like}))
    for i, j in itertools.combinations(range(len(leaves)), 2):
        if {i, j} & {*used} and _same(leaves[i][1], leaves[j][1]):
            yield f"residuals {names[i]} and {names[j]} swapped", reads(functools.partial(_exchanged, i, j))


def _leaves_changed(changes: dict[int, Callable], tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure.unflatten([changes.get(i, lambda a: a)(a) for i, a in enumerate(leaves)])


def _exchanged(i: int, j: int, tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    leaves[i], leaves[j] = leaves[j], leaves[i]
    return structure.unflatten(leaves)


def _leaves(res: Any, trace: Any) -> tuple[list, list[bool]]:
    """The leaves of the residuals, and whether any cotangent depends on each."""
    leaves = jax.tree.leaves(res)
    return leaves, trace.used[: len(leaves)]


def _stopped(res: Any) -> Any:
    return _floats(lax.stop_gradient, res)


def _is_float(a: Any) -> bool:
    return jnp.issubdtype(getattr(a, "dtype", type(a)), jnp.inexact)


def _floats(change: Callable[[Array], Any], tree: Any) -> Any:
    """`change` of every floating-point leaf."""
    return jax.tree.map(lambda a: change(jnp.asarray(a)) if _is_float(a) else a, tree)


def _ones(a: Array) -> Any:
    return jnp.ones_like(a) if _is_float(a) else np.zeros(jnp.shape(a), float0)


def _same(a: Any, b: Any) -> bool:
    """Whether two pytrees have the same structure, shapes and dtypes."""

    def kinds(tree):
        leaves, structure = jax.tree.flatten(tree)
        return structure, [(jnp.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in leaves]

    return kinds(a) == kinds(b)


def _named(function: Callable[..., Any], static: dict) -> dict:
    """Those of the static arguments that the function takes."""
    parameters = inspect.signature(function).parameters
    free = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    return {name: value for name, value in static.items() if free or name in parameters}


def _argument_names(f: Callable[..., Any], count: int) -> tuple[str, ...]:
    parameters = inspect.signature(f).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return tuple(named[i] if i < len(named) else str(i) for i in range(count))
