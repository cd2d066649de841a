"""Where a rule is looked at: sampled arguments, and points derived from them.

One point shows little: unit gammas hide a forgotten gamma, generic values never hit a kink.  From the given
arguments come others near them, at zeros, ties and integers, constant, tiny and huge ones.  Derived values
keep to the domain that the given ones suggest: masks stay as they are, probabilities still add up to one,
positive numbers stay positive.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jcnn.verify.judge import Array

GENERIC = ("given", "nearby", "nearby again")
KINKS = ("zeros", "integers")
EDGES = ("constant", "tiny", "wide", "huge")


class Point(NamedTuple):
    """Values of all array leaves; floating-point ones in float64."""

    kind: str
    arrays: tuple


def is_sampler(arg: Any) -> bool:
    return callable(arg) and not isinstance(arg, jax.Array)


def call_sampler(sampler: Callable, seed: int) -> Any:
    """`sampler(rng)` with a NumPy Generator; of a parameter called `key` or `seed`, with one of those."""
    try:
        names = list(inspect.signature(sampler).parameters)
    except (TypeError, ValueError):
        names = []
    first = names[0] if names else None
    if first is None and not names:
        return sampler()
    if first == "key":
        return sampler(jax.random.key(seed))
    return sampler(seed if first == "seed" else np.random.default_rng(seed))


def filled(leaves: tuple, seed: int) -> tuple:
    """`leaves` with normal values, small integers and random bits in place of the ShapeDtypeStructs."""
    rng = np.random.default_rng(seed)
    last = [a.shape[-1] for a in leaves if _is_float(a) and a.shape]
    classes = max(2, min(last, default=2))

    def fill(leaf):
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            keys = jax.random.split(jax.random.key(seed), leaf.shape)
            return keys
        if leaf.dtype == bool:
            return rng.random(leaf.shape) < 0.7
        if not _is_float(leaf):
            return rng.integers(0, classes, leaf.shape).astype(leaf.dtype)
        return np.asarray(rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    return tuple(map(fill, leaves))


def widened(leaves: tuple) -> tuple:
    """Floating-point leaves as float64 NumPy arrays of the same values."""
    return tuple(np.asarray(a, np.float64) if _is_float(a) else _array(a) for a in leaves)


def points(leaves: tuple, given: tuple, seed: int, specials: tuple[float, ...], restrict=lambda a: a):
    """All points of a check.

    Args:
        leaves: as the caller gave them, some perhaps ShapeDtypeStructs.
        given: `filled(leaves, seed)`.
        specials: values at which the rule's code branches.
        restrict: maps sampled values into the rule's domain.
    """
    rng = np.random.default_rng(seed + 1)
    free = [isinstance(a, jax.ShapeDtypeStruct) for a in leaves]

    def nearby(kind, number):
        fresh = filled(leaves, seed + number)
        return Point(
            kind,
            tuple(
                (restrict(f) if is_free else _nearby(rng, g)) if _is_float(g) else f
                for f, g, is_free in zip(widened(fresh), widened(given), free, strict=True)
            ),
        )

    first = Point(
        "given",
        tuple(restrict(a) if f and _is_float(a) else a for a, f in zip(widened(given), free, strict=True)),
    )
    second, third = nearby("nearby", 1), nearby("nearby again", 2)

    def derived(kind, change):
        return Point(kind, tuple(np.asarray(change(a)) if _is_unconstrained(a) else a for a in second.arrays))

    def planted(a):
        beside = rng.choice([0.0, 0.0, -0.7, 0.7], a.shape)
        return np.where(rng.random(a.shape) < 0.5, rng.choice(specials, a.shape) + beside, a)

    return [
        first,
        second,
        third,
        derived("zeros", planted),
        derived("integers", lambda a: rng.integers(-4, 5, a.shape).astype(np.float64)),
        derived("constant", lambda a: np.full_like(a, 0.5)),
        derived("tiny", lambda a: a * 1e-3),
        derived("wide", lambda a: a * 8),
        derived("huge", lambda a: a * 1e3),
    ]  # fmt: skip


def positive(a: Array) -> Array:
    return np.asarray(np.abs(a) + 0.25)


def unit(a: Array) -> Array:
    return np.asarray(0.05 + 0.9 / (1 + np.exp(-a)))


def _nearby(rng: np.random.Generator, a: Array) -> Array:
    noise = rng.standard_normal(a.shape)
    if a.size == 0:
        return a
    if _is_simplex(a):
        other = np.exp(noise) * a.sum(-1, keepdims=True)
        return 0.7 * a + 0.3 * other / np.exp(noise).sum(-1, keepdims=True)
    if _is_mask(a):
        return a
    if np.all((a > 0) & (a < 1)):
        return np.asarray(1 / (1 + (1 - a) / a * np.exp(0.5 * noise)))
    if np.all(a >= 0) and a.max() > 0:
        return np.asarray(a * np.exp(0.5 * noise))
    finite = a[np.isfinite(a)]
    scale = np.sqrt(np.mean(finite**2)) if finite.any() else 1.0
    return np.asarray(a + 0.5 * scale * noise)


def _is_unconstrained(a: Any) -> bool:
    """Has negative values, or nothing but zeros: any other values would make sense as well."""
    if not _is_float(a) or not a.size:
        return False
    return not a.any() or bool(a.min() < 0)


def _is_mask(a: Array) -> bool:
    return set(np.unique(a)) == {0.0, 1.0}


def _is_simplex(a: Array) -> bool:
    many = a.ndim > 0 and a.shape[-1] > 1
    return bool(many and np.all(a >= 0) and np.allclose(a.sum(-1), 1, atol=1e-2))


def _is_float(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)


def _array(a: Any) -> Any:
    return a if isinstance(a, jax.Array) else np.asarray(a)
