"""What is checked, in one form: functions of the flat tuple of a rule's array leaves.

A rule's arguments are pytrees.  Leaves that are arrays or floats are traced, mapped and differentiated; all
others (Python ints, strings, None, static arguments) are held fixed.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jcnn.rule import Rule
from jcnn.verify import forms
from jcnn.verify.forms import Held, Parts

ARRAY = Held("the place of an array")


class ContractError(Exception):
    """A backward returned something other than one cotangent per argument."""


def is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | float)


def is_float(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A rule with everything fixed but its array leaves; equal subjects share jit's caches."""

    rule: Any
    override: Callable | None
    static: tuple[tuple[str, Held], ...]
    treedef: Any
    held: tuple[Held, ...]  # one per leaf; ARRAY where an array goes

    @functools.cached_property
    def parts(self) -> Parts:
        static = {name: held.value for name, held in self.static}
        parts = forms.parts(self.rule, static, jax.tree.unflatten(self.treedef, self.held))
        return parts._replace(reference=self.override or parts.reference)

    @property
    def name(self) -> str:
        return self.parts.name

    @property
    def is_rule(self) -> bool:
        return isinstance(self.rule, Rule)

    @functools.cached_property
    def leaf_labels(self) -> tuple[str, ...]:
        """What to call each leaf: "x", "params['w']"."""
        args = jax.tree.unflatten(self.treedef, self.held)
        names = []
        for i, (name, arg) in enumerate(zip(self.parts.argument_names, args, strict=True)):
            paths = jax.tree_util.tree_leaves_with_path(arg, is_leaf=_is_leaf)
            names += [(name or f"argument {i}") + jax.tree_util.keystr(path) for path, _ in paths]
        return tuple(names)

    @property
    def leaf_names(self) -> tuple[str, ...]:
        """The labels of the array leaves."""
        return tuple(n for n, h in zip(self.leaf_labels, self.held, strict=True) if h is ARRAY)

    def numbers(self) -> dict[str, float]:
        """Static numbers that the rule knows of: keyword arguments, held leaves, variables closed over."""
        found = {name: h.value for name, h in self.static}
        found |= {
            name: h.value for name, h in zip(self.leaf_labels, self.held, strict=True) if h is not ARRAY
        }
        for function in self.parts[2:5]:
            found |= inspect.getclosurevars(function).nonlocals if inspect.isfunction(function) else {}
        kept = {n: v for n, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        return {n: float(v) for n, v in kept.items()}

    def args(self, arrays: tuple) -> tuple:
        """The rule's arguments, with `arrays` in place of the array leaves."""
        given = iter(arrays)
        leaves = [next(given) if h is ARRAY else h.value for h in self.held]
        return jax.tree.unflatten(self.treedef, leaves)

    def f(self, arrays: tuple) -> Any:
        return self.parts.f(*self.args(arrays))

    def reference(self, arrays: tuple) -> Any:
        return self.parts.reference(*self.args(arrays))

    def fwd(self, arrays: tuple) -> tuple[Any, Any]:
        out = self.parts.fwd(*self.args(arrays))
        if not isinstance(out, tuple | list) or len(out) != 2:
            raise ContractError(f"fwd returned {_described(out)}, expected a pair (output, residuals)")
        return out[0], out[1]

    def bwd(self, res: Any, dy: Any) -> tuple:
        """What the backward returns, one item per array leaf; its shapes and dtypes are not looked at."""
        return self.per_leaf(self.parts.bwd(res, dy))

    def per_leaf(self, cts: Any) -> tuple:
        args = jax.tree.unflatten(self.treedef, self.held)
        if not isinstance(cts, tuple | list):
            raise ContractError(f"bwd returned {_described(cts)}, expected a tuple")
        if len(cts) != len(args):
            raise ContractError(f"bwd returned {len(cts)} cotangents, expected {len(args)}, one per argument")
        flat = []
        for i, (arg, ct) in enumerate(zip(args, cts, strict=True)):
            structure = jax.tree.structure(arg, is_leaf=_is_leaf)
            try:
                leaves = [None] * structure.num_leaves if ct is None else structure.flatten_up_to(ct)
            except (ValueError, TypeError):
                name = self.parts.argument_names[i] or f"argument {i}"
                got, expected = jax.tree.structure(ct), jax.tree.structure(self.args(self._blank())[i])
                raise ContractError(f"cotangent of {name!r} is {got}, expected {expected}") from None
            flat += leaves
        return tuple(ct for ct, h in zip(flat, self.held, strict=True) if h is ARRAY)

    def _blank(self) -> tuple:
        return (0.0,) * sum(h is ARRAY for h in self.held)

    @functools.cached_property
    def _wrapped(self) -> Callable:
        op = jax.custom_vjp(lambda *arrays: self.f(arrays))
        op.defvjp(lambda *arrays: self.fwd(arrays), self.bwd)
        return op

    def op(self, arrays: tuple) -> Any:
        """The differentiable function that a user of the rule calls."""
        return self._wrapped(*arrays) if self.parts.op is None else self.parts.op(*self.args(arrays))


def subject(rule: Any, args: tuple, static: dict, reference: Callable | None) -> tuple[Subject, tuple]:
    """The rule in this module's form, and its array leaves as they came; Python's floats in float32.

    Raises:
        TypeError: `rule` is none of the three forms, or its arguments do not fit its signature.
    """
    rule = forms.checked(rule)
    args, static = forms.bound(rule, args, static)
    leaves, treedef = jax.tree.flatten(args, is_leaf=_is_leaf)
    held = tuple(
        ARRAY if _is_variable(leaf) else leaf if isinstance(leaf, Held) else Held(leaf) for leaf in leaves
    )
    items = tuple((name, Held(value)) for name, value in static.items())
    made = Subject(rule, reference, items, treedef, held)
    arrays = (leaf for leaf, h in zip(leaves, held, strict=True) if h is ARRAY)
    return made, tuple(np.float32(a) if isinstance(a, float) else a for a in arrays)


def _is_leaf(x: Any) -> bool:
    return isinstance(x, Held)


def _is_variable(leaf: Any) -> bool:
    return is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _described(value: Any) -> str:
    return (
        f"a {type(value).__name__} of {len(value)}"
        if isinstance(value, tuple | list)
        else type(value).__name__
    )
