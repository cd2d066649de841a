"""The three forms of a rule, made one: functions of positional arguments.

A rule is a `jcnn.Rule`, a `jax.custom_vjp` function (the classic class or its successor), or a triple
`(f, fwd, bwd)` in custom_vjp's convention.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.custom_derivatives import CustomVJPPrimal

from jcnn.rule import Rule

CustomVJP = type(jax.custom_vjp(lambda: None))
NOT_A_RULE = "expected a jcnn.Rule, a jax.custom_vjp function or a triple (f, fwd, bwd)"


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """A leaf that is not an array: fixed for the whole check.  Equal by value where it can be hashed."""

    value: Any

    @property
    def _key(self) -> Any:
        try:
            return type(self.value), hash(self.value), self.value
        except TypeError:
            return id(self.value)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self._key == other._key


class Parts(NamedTuple):
    """A rule's functions, of positional arguments only."""

    name: str
    argument_names: tuple[str, ...]
    f: Callable
    fwd: Callable
    bwd: Callable
    op: Callable | None  # differentiable; None: wrap the three above
    reference: Callable


def checked(rule: Any) -> Any:
    """`rule` if it has one of the three forms.

    Raises:
        TypeError: it has none.
    """
    if isinstance(rule, list):
        rule = tuple(rule)
    if isinstance(rule, tuple) and not (len(rule) == 3 and all(map(callable, rule))):
        raise TypeError(f"verify_vjp: rule: got a tuple of {len(rule)}, {NOT_A_RULE}")
    if not isinstance(rule, Rule | CustomVJP | tuple):
        raise TypeError(f"verify_vjp: rule: got {type(rule).__name__}, {NOT_A_RULE}")
    if isinstance(rule, CustomVJP) and (rule.fwd is None or rule.bwd is None):
        raise TypeError(
            f"verify_vjp: rule: got {_name(rule)} without rules, expected defvjp to have been called"
        )
    return rule


def bound(rule: Any, args: tuple, static: dict) -> tuple[tuple, dict]:
    """All array arguments in their places, for a Rule and a custom_vjp with defaults; and the static ones.

    Raises:
        TypeError: the arguments do not fit the signature.
    """
    try:
        signature = inspect.signature(_function(rule))
    except ValueError:  # a builtin
        return args, static
    try:
        call = signature.bind(*args, **static)
    except TypeError as e:
        form = rule._call_form() if isinstance(rule, Rule) else f"{_name(rule)}{signature}"
        raise TypeError(f"verify_vjp: {_name(rule)}: {e}; expected {form}") from None
    if isinstance(rule, tuple):
        return args, static
    call.apply_defaults()
    if isinstance(rule, Rule):
        left = {n: v for n, v in call.arguments.items() if n not in rule.array_names}
        return tuple(call.arguments[n] for n in rule.array_names), left
    return tuple(Held(a) if i in nondiff(rule) else a for i, a in enumerate(call.args)), {}


def parts(rule: Any, static: dict, args: tuple) -> Parts:
    if isinstance(rule, Rule):
        op, fwd = functools.partial(rule, **static), functools.partial(rule.fwd, **static)
        reference = functools.partial(rule.reference, **static)
        return Parts(rule.name, rule.array_names, lambda *a: fwd(*a)[0], fwd, rule.bwd, op, reference)
    if isinstance(rule, tuple):
        (f, fwd), bwd = (_with(function, static) for function in rule[:2]), _with(rule[2], static, 2)
        return Parts(_name(rule), _names(rule[0], len(args)), f, fwd, bwd, None, f)
    f, fixed = _function(rule), nondiff(rule)

    def fwd(*args):
        if getattr(rule, "symbolic_zeros", False) or getattr(rule, "symz", False):
            primals = [jax.tree.map(lambda x: CustomVJPPrimal(x, True), a) for a in args]
            args = tuple(a if i in fixed else p for i, (a, p) in enumerate(zip(args, primals, strict=True)))
        return rule.fwd(*args)

    def bwd(res, dy):
        cts = rule.bwd(*(args[i].value for i in fixed), res, dy)
        if not isinstance(cts, tuple | list):
            return cts
        cts = list(cts)
        for i in fixed:
            cts.insert(i, None)
        return cts

    return Parts(_name(rule), _names(f, len(args)), f, fwd, bwd, rule, f)


def _function(rule: Any) -> Callable:
    if isinstance(rule, Rule | tuple):
        return rule if isinstance(rule, Rule) else rule[0]
    return rule.fun if hasattr(rule, "fun") else rule.f


def nondiff(rule: Any) -> tuple[int, ...]:
    return tuple(
        sorted(getattr(rule, "nondiff_argnums", None) or getattr(rule, "static_argnums", None) or ())
    )


def _name(rule: Any) -> str:
    if isinstance(rule, tuple):
        return getattr(rule, "name", None) or getattr(rule[0], "__name__", "f")
    return rule.name if isinstance(rule, Rule) else getattr(_function(rule), "__name__", "f")


def _names(f: Callable, count: int) -> tuple[str, ...]:
    """The first `count` positional parameters of `f`; where it does not name them, their numbers."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        parameters = ()
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return tuple(named[:count]) + tuple(f"argument {i}" for i in range(len(named), count))


def _with(function: Callable, static: dict, others_at_least: int = 0) -> Callable:
    """`function` of its other arguments, those that `static` names set; a bwd keeps two in any case."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return functools.partial(function, **static) if static else function
    free = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    known = {name: value for name, value in static.items() if free or name in parameters}
    positional = [n for n, p in parameters.items() if p.kind == p.POSITIONAL_OR_KEYWORD]
    if len(positional) <= others_at_least:
        known = {name: value for name, value in known.items() if name not in positional}
    if not known:
        return function
    others = [name for name in positional if name not in known]

    def called(*args):
        if any(p.kind == p.VAR_POSITIONAL for p in parameters.values()):
            return function(*args, **known)
        if len(args) > len(others):
            raise TypeError(f"{len(args)} arguments, expected {len(others)}: {', '.join(others)}")
        return function(**dict(zip(others, args, strict=False)), **known)

    return called
