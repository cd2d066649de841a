"""Broken rules, made from a correct one: what a gradient checker must be able to find.

    for broken in mutate(jcnn.batch_norm, x, gamma, beta):
        print(broken.name, verify_vjp(broken, x, gamma, beta).verdict)

Three kinds.  Semantic mutants have what people get wrong in that op (`semantic`).
Generic ones change what goes into the backward, residuals and dy, or what comes out (`generic_mutants`).
Those of the jaxpr change one equation of the backward (`jaxpr_mutants`).

A mutant that has the original's values, for all arguments, is no error; `equivalent` finds these.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jcnn
from jcnn.rule import Rule
from jcnn.verify import generic_mutants
from jcnn.verify.equivalence import Equivalence as Equivalence, equivalent as equivalent
from jcnn.verify.semantic import ERRORS as ERRORS

Functions = tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]


class Mutant(tuple):
    """A broken `(f, fwd, bwd)`; `name` says what was done to it."""

    name: str

    def __new__(cls, functions: Functions, name: str) -> "Mutant":
        made = super().__new__(cls, functions)
        made.name = name
        return made


def mutate(rule: Any, *args: Any, **static: Any) -> Iterator[Any]:
    """Broken variants of a rule, each with a `name` of its own that says what was done.

    Args:
        rule: a `jcnn.Rule`, a triple `(f, fwd, bwd)`, or a `jax.custom_vjp` function whose arguments are all
            differentiable.
        args: example arguments.  Without any, rules of jcnn take their first example, and of others only
            mutants that need no trace of the backward are made.
        static: the rule's configuration.

    Returns:
        An iterator over Rules for a Rule, over `Mutant`s, which are triples, for the others.

    Raises:
        TypeError: `rule` is none of the three.
        ValueError: it has non-differentiable arguments or symbolic zeros, or its rule is not set.
    """
    if not args and isinstance(rule, Rule) and rule == vars(jcnn).get(rule.name):
        from jcnn.verify.examples import EXAMPLES

        args, static = next(iter(EXAMPLES[rule.name].values()))
    if isinstance(rule, Rule):
        name, names, functions = rule.name, rule.array_names, (rule, rule.fwd, rule.bwd)
        for what, error in ERRORS.get(rule, {}).items():
            parts = {part: _signed(broken, getattr(rule, part)) for part, broken in error(rule).items()}
            yield _built(rule, f"{name}: {what}", functions, parts)
    else:
        functions, names = _functions(rule), None
        name = getattr(functions[0], "__name__", "rule")
    originals = {"fwd": functions[1], "bwd": functions[2]}
    for what, changed in generic_mutants.changes(*functions[1:], names, args, static):
        parts = {
            part: _signed(functools.partial(change, originals[part]), originals[part])
            for part, change in changed.items()
        }
        yield _built(rule, f"{name}: {what}", functions, parts)


def _functions(rule: Any) -> Functions:
    """f, fwd and bwd of a triple or of a custom_vjp function, in either of JAX's two classes of these."""
    if isinstance(rule, tuple) and len(rule) == 3 and all(map(callable, rule)):
        return rule[0], rule[1], rule[2]
    f = getattr(rule, "fun", getattr(rule, "f", None))
    fwd, bwd = getattr(rule, "fwd", None), getattr(rule, "bwd", None)
    if f is None or not hasattr(rule, "bwd"):
        expected = "a jcnn.Rule, a triple (f, fwd, bwd) or a jax.custom_vjp function"
        raise TypeError(f"jcnn.verify.mutate: rule: got {type(rule).__name__}, expected {expected}")
    if fwd is None or bwd is None:
        raise ValueError(f"jcnn.verify.mutate: {rule}: has no rule yet, expected one set by defvjp")
    for option in ("nondiff_argnums", "static_argnums", "symbolic_zeros", "symz"):
        if value := getattr(rule, option, None):
            raise ValueError(f"jcnn.verify.mutate: {rule}: got {option}={value}, expected none; use a triple")
    return f, fwd, bwd


def _signed(broken: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """`broken` with the signature, name and docstring of the original."""
    made = functools.wraps(original, updated=())(functools.partial(broken))
    owner = getattr(original, "__self__", None)
    if isinstance(owner, Rule) and original == owner.fwd:
        made.__wrapped__, made.__doc__ = owner, owner.__doc__
    return made


def _built(rule: Any, name: str, functions: Functions, parts: dict) -> Any:
    if isinstance(rule, Rule):
        return rule.replace(name=name, **parts)
    f, fwd, bwd = functions
    return Mutant((f, parts.get("fwd", fwd), parts.get("bwd", bwd)), name)
