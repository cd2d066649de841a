"""Contestants of a case: for every pass a call that computes it, and its result as jcnn would give it.

In JAX a forward and its backward are compiled apart, so that the backward can be timed given the
residuals:

    y, vjp = jit(lambda *a: jax.vjp(f, *a))(*args)      vjp is a pytree, and its leaves are the residuals
    dx     = jit(lambda vjp, dy: vjp(dy)[i])(vjp, dy)   what the other cotangents need is dead code
"""

import functools
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jcnn
from experiments.benchmark import plain
from experiments.benchmark.cases import Case, ours
from experiments.benchmark.settings import OURS, TUNED, Disagreement
from experiments.benchmark.timing import Call, call

IN_JAX = {"flax": "peers_flax", "equinox": "peers_equinox"}


class Contestant(NamedTuple):
    """What computes the passes of a case."""

    prepare: Callable[[str], Call]  # for a pass: a call that runs it, waits, and gives its arrays in a list
    convert: Callable[[str, Any], np.ndarray]  # such an array, by name, in float64 and in jcnn's layout


def to_first(name: str, a: Any) -> Any:
    """From channels last to channels first; weights [*K, C, O] become [O, C, *K]. A view, where it can be."""
    if name == "w":
        return a.transpose((a.ndim - 1, a.ndim - 2, *range(a.ndim - 2)))
    return a.transpose((0, a.ndim - 1, *range(1, a.ndim - 1))) if a.ndim > 2 else a


def to_last(name: str, a: Any) -> Any:
    """The inverse of `to_first`."""
    if name == "w":
        return a.transpose((*range(2, a.ndim), 1, 0))
    return a.transpose((0, *range(2, a.ndim), 1)) if a.ndim > 2 else a


def in_jax(
    f: Callable,
    case: Case,
    arrays: dict[str, jax.Array],
    dy: jax.Array,
    options: dict[str, str] | None = None,
    channels_first: bool = False,
) -> Contestant:
    """A contestant from a function of a case's arrays."""
    jit = functools.partial(jax.jit, compiler_options=options)
    names = list(arrays)
    if channels_first:
        arrays, dy = {name: to_first(name, a) for name, a in arrays.items()}, to_first("y", dy)
    args = tuple(arrays.values())

    @functools.cache
    def residuals() -> Any:
        return jit(lambda *a: jax.vjp(f, *a)[1])(*args)

    def prepare(stage: str) -> Call:
        if stage == "forward":
            return call(jit(lambda *a: [f(*a)]), *args)
        chosen = [names.index(name) for name in case.wanted(stage)]
        backward = jit(lambda vjp, dy: [vjp(dy)[i] for i in chosen])
        return call(backward, residuals(), dy)

    def convert(name: str, a: jax.Array) -> np.ndarray:
        found = np.asarray(a.astype(jnp.float32), np.float64)
        return to_last(name, found) if channels_first else found

    return Contestant(prepare, convert)


def entries(case: Case, dtype: str, against: Sequence[str]) -> dict[str, Contestant]:
    """The contestants of a case: ours, and those peers who have the op."""
    f = functools.partial(ours(case.op), **case.config)
    arrays = case.arrays(dtype)
    y = jax.eval_shape(f, *arrays.values())
    dy = jnp.asarray(np.random.default_rng(1).standard_normal(y.shape, np.float32), dtype)
    found = {OURS: in_jax(f, case, arrays, dy)}
    options = jcnn.compiler_options()
    if options and any(peer.startswith("torch") for peer in against):
        found[TUNED] = in_jax(f, case, arrays, dy, options)
    for peer in against:
        if peer.startswith("torch"):
            module = importlib.import_module("experiments.benchmark.peers_torch")
            if hasattr(module, case.op):
                found[peer] = module.contestant(case, arrays, dy, compiled=peer == "torch-compile")
            continue
        module = importlib.import_module(f"experiments.benchmark.{IN_JAX[peer]}") if peer in IN_JAX else plain
        if hasattr(module, case.op):
            g = functools.partial(getattr(module, case.op), **case.config)
            found[peer] = in_jax(g, case, arrays, dy, channels_first=peer == "equinox")
    return found


def agree(case: Case, stage: str, dtype: str, results: dict[str, list[np.ndarray]]) -> None:
    """Holds what the contestants computed to what jcnn did.

    Args:
        case, stage, dtype: what was computed.
        results: for each contestant its arrays, in jcnn's layout.

    Raises:
        Disagreement: naming case, pass, contestant and array.
    """
    names = case.wanted(stage) or ("y",)
    for contestant, arrays in results.items():
        for name, got, expected in zip(names, arrays, results[OURS], strict=True):
            what = name if stage == "forward" else f"d{name}"
            where = f"{case.name}, {stage}, {dtype}: {contestant} and {OURS} differ in {what}"
            if got.shape != expected.shape:
                raise Disagreement(f"{where}: shape {got.shape}, expected {expected.shape}")
            allowed = tolerance(dtype, name)
            if case.op == "dropout":  # masks differ
                got, expected, allowed = _of_mask(got), _of_mask(expected), 8 / math.sqrt(got.size)
            scale = max(float(np.abs(expected).max()), 1e-30)
            error = float(np.abs(got - expected).max()) / scale
            if not error <= allowed:
                raise Disagreement(f"{where} by {error:.1e} of its largest value")


def tolerance(dtype: str, name: str) -> float:
    """How far the values of the array `name`, or its cotangent's, may be apart, as a share of the largest."""
    if dtype == "bfloat16":
        return 0.25 if name in ("gamma", "beta") else 0.05  # PyTorch adds up the former in bfloat16
    return 1e-4 if jax.default_backend() == "cpu" else 5e-3  # GPUs multiply in TF32


def _of_mask(a: np.ndarray) -> np.ndarray:
    """What the results of two masks have in common: the share of zeros and the mean square."""
    return np.array([(a == 0).mean(), (a**2).mean()])
