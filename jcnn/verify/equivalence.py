"""Whether a changed rule is still the same rule: the judge of mutants, independent of the checker.

Two rules are taken for the same if, at many random points, their outputs, their cotangents, and the
derivatives of these cotangents with respect to the arguments and dy agree, and the one keeps no more than
ten times what the other does.  The points are normal values of four sizes, and small integers, which hit
kinks and ties; derivatives of second order are not compared there, where no convention holds.  Positive
arguments stay positive, dy takes both signs.
"""

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.dtypes import float0

TOLERANCE = 1e-12  # of the largest entry; what is rounded otherwise in the same formula differs by less
SECOND_ORDER_TOLERANCE = 1e-9  # another order of summation is enough for more
SCALES = (1.0, 0.1, 10.0, 1000.0)
BLOAT = 10
QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Probe(NamedTuple):
    """The array leaves of the arguments, and cotangents of the outputs and weights of the results."""

    arrays: list
    dy: list
    weights: list


def equivalent(
    original: Any, mutant: Any, *args: Any, seeds: Sequence[int] = (0, 1), dtypes: tuple = (), **static: Any
) -> bool:
    """Whether no random probe tells the mutant from the original.

    Args:
        original: a `jcnn.Rule`, a triple `(f, fwd, bwd)`, or a `jax.custom_vjp` function.
        mutant: the same with something changed.
        args: example arguments; probes have their shapes, in float64.
        seeds: of the probes, five to a seed.
        dtypes: floating-point types in which the cotangents must also agree bit by bit.
        static: the rule's configuration.
    """
    return Equivalence(original, *args, seeds=seeds, dtypes=dtypes, **static)(mutant)


class Equivalence:
    """`equivalent` for many mutants of one rule at the same arguments: the original is run only once."""

    def __init__(
        self, original: Any, *args: Any, seeds: Sequence[int] = (0, 1), dtypes: tuple = (), **static: Any
    ):
        leaves, self._structure = jax.tree.flatten(args)
        self._held = [None if isinstance(a, jax.Array | np.ndarray | float) else (a,) for a in leaves]
        arrays = [a for a, held in zip(leaves, self._held, strict=True) if held is None]
        self._arrays = [a if _is_key(a) else np.asarray(a) for a in arrays]
        self._wide = _floats(lambda a: np.asarray(a, np.float64), self._arrays)
        self._static = static
        with jax.enable_x64(True):
            self._shapes = jax.eval_shape(self._first(original), self._wide, None)
            self._probes = [self._probe(seed, scale) for scale in (*SCALES, None) for seed in seeds]
            self._smooth = self._probes[: -len(seeds)]
            self._rounded = [(probe, dtype) for dtype in dtypes for probe in self._probes]
            self._expected = list(self._runs(original))

    def __call__(self, mutant: Any) -> bool:
        with jax.enable_x64(True):
            try:
                shapes = jax.eval_shape(self._first(mutant), self._wide, None)
                if not _fits(shapes, self._shapes):
                    return False
                pairs = zip(self._runs(mutant), self._expected, strict=True)
                return all(_close(got, expected, tolerance) for (got, tolerance), (expected, _) in pairs)
            except Exception:  # a rule that raises where the original does not is another rule
                return False

    def _runs(self, rule: Any):
        """The values of first order at every probe, then in other dtypes, then those of second order."""
        values = self._first(rule)
        first = jax.jit(lambda arrays, dy: values(arrays, dy)[:2], compiler_options=QUICK)
        for probe in self._probes:
            yield first(probe.arrays, probe.dy), TOLERANCE
        for probe, dtype in self._rounded:
            yield first(*_floats(lambda a, t=dtype: np.asarray(a, t), (probe.arrays, probe.dy))), 0.0
        gradient = jax.grad(functools.partial(self._projection, values), argnums=(0, 1))
        second = jax.jit(gradient, compiler_options=QUICK)
        for probe in self._smooth:
            floats = [a for a in probe.arrays if _is_float(a)]
            yield second(floats, probe.dy, probe), SECOND_ORDER_TOLERANCE

    def _first(self, rule: Any) -> Callable[[list, list | None], tuple]:
        """(output, cotangents, residuals) as a function of the arrays and of dy's floating-point leaves."""
        fwd, bwd = (rule.fwd, rule.bwd) if not isinstance(rule, tuple) else rule[1:]

        def values(arrays, floats):
            given = iter(arrays)
            leaves = [next(given) if h is None else h[0] for h in self._held]
            y, res = fwd(*self._structure.unflatten(leaves), **self._options(fwd))
            dys = itertools.repeat(None) if floats is None else iter(floats)
            dy = jax.tree.map(lambda a: _cotangent(a, next(dys) if _is_float(a) else None), y)
            return y, tuple(bwd(res, dy, **self._options(bwd))), res

        return values

    def _projection(self, first: Callable, floats: list, dy: list, probe: Probe) -> Any:
        """The cotangents, weighted and added up."""
        given = iter(floats)
        arrays = [next(given) if _is_float(a) else a for a in probe.arrays]
        cts = [ct for ct in jax.tree.leaves(first(arrays, dy)[1]) if _is_float(ct)]
        return sum(jnp.vdot(w, ct) for w, ct in zip(probe.weights, cts, strict=True))

    def _options(self, function: Callable) -> dict:
        parameters = inspect.signature(function).parameters
        free = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
        return {name: value for name, value in self._static.items() if free or name in parameters}

    def _probe(self, seed: int, scale: float | None) -> Probe:
        rng = np.random.default_rng([seed, int(10 * (scale or 0))])
        arrays = [_drawn(rng, a, scale) for a in self._arrays]
        dy, weights = (
            [3 * rng.standard_normal(a.shape) for a in jax.tree.leaves(tree) if _is_float(a)]
            for tree in self._shapes[:2]
        )
        return Probe(arrays, dy, weights)


def _drawn(rng: np.random.Generator, like: Any, scale: float | None) -> Any:
    """Values like those given: floats are drawn (integers where scale is None), all others shuffled."""
    if _is_key(like):
        return like
    if not _is_float(like):
        return rng.permutation(like.ravel()).reshape(like.shape)
    drawn = rng.standard_normal(like.shape)
    drawn = np.round(1.5 * drawn) if scale is None else scale * drawn
    return np.abs(drawn) + 0.01 if np.all(like > 0) else np.abs(drawn) if np.all(like >= 0) else drawn


def _is_key(a: Any) -> bool:
    return jnp.issubdtype(getattr(a, "dtype", float), jax.dtypes.prng_key)


def _is_float(a: Any) -> bool:
    return jnp.issubdtype(getattr(a, "dtype", type(a)), jnp.inexact)


def _floats(change: Callable[[Any], Any], tree: Any) -> Any:
    return jax.tree.map(lambda a: change(a) if _is_float(a) else a, tree)


def _cotangent(y: Any, value: Any) -> Any:
    if not _is_float(y):
        return np.zeros(jnp.shape(y), float0)
    return jnp.ones_like(y) if value is None else jnp.asarray(value, y.dtype)


def _fits(got: tuple, expected: tuple) -> bool:
    """The same structure, shapes and dtypes of outputs and cotangents, and no bloated residuals."""

    def kinds(tree):
        leaves, structure = jax.tree.flatten(tree)
        return structure, [(a.shape, a.dtype) for a in leaves]

    def size(tree):
        return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))

    return kinds(got[:2]) == kinds(expected[:2]) and size(got[2]) <= BLOAT * max(size(expected[2]), 100)


def _close(got: Any, expected: Any, tolerance: float) -> bool:
    return all(
        _close_arrays(np.asarray(a), np.asarray(b), tolerance)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True)
    )


def _close_arrays(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    if not _is_float(b):
        return True
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(np.where(finite, 0, a), np.where(finite, 0, b), equal_nan=True):
        return False
    scale = np.abs(b[finite]).max(initial=0)
    return bool((np.abs(a[finite] - b[finite]) <= tolerance * scale).all())
