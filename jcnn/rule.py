"""The law that every op obeys, written once.

An op is a `Rule`: a forward and a backward that was derived by hand, both public and pure.

    y       = op(*arrays, **static)            # jax.grad runs the backward below
    y, res  = op.fwd(*arrays, **static)        # res: everything the backward needs
    cts     = op.bwd(res, dy)                  # one cotangent per array, in order
    y       = op.reference(*arrays, **static)  # plain JAX: the oracle
    op2     = op.replace(bwd=other)            # same forward, another backward

Derivation of the contract.  Let f map arrays a_1 ... a_n to y, and let J_i be its Jacobian with respect
to a_i.  Reverse mode needs, for a cotangent dy of y, the n products da_i = J_i^T dy.  `bwd` computes
them from `res` and `dy` alone, each with the shape and dtype of a_i, and None for an a_i that has no
tangent space (integers, booleans, PRNG keys, an absent optional argument).

Sharding.  Under `jax.shard_map(check_vma=True)` a replicated weight meets sharded activations.  Before
the rule runs, every argument is cast to vary over the mesh axes that any argument varies over.  That
cast is the identity, and its transpose is the sum over those axes: a replicated weight gets the
gradient summed over the devices, and no backward has to know.
"""

import dataclasses
import functools
import inspect
import numbers
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.dtypes import float0

from jcnn import check

P = ParamSpec("P")
Y = TypeVar("Y")


class Signature(NamedTuple):
    """Shapes and dtypes of a rule's arguments and outputs, as pytrees of ShapeDtypeStruct."""

    arrays: Any
    outputs: Any


_use_references = jax.make_user_context(False)


def autodiff(f: Callable[P, Y]) -> Callable[P, Y]:
    """`f` with every rule replaced by its plain-JAX reference, differentiated by JAX.

    A rule is a `custom_vjp`, which JAX cannot differentiate in forward mode.  The returned function has
    no such rule in it, so `jax.jvp`, `jax.jacfwd` and `jax.hessian` work, and a script can be compared
    with itself, derived by hand against derived by JAX.  It reaches into functions that were jitted
    (and traced) before, and into scan, cond, while, checkpoint and shard_map: the choice is part of
    the key of every cache that JAX keeps of a traced function.

    Example:
        >>> import jax, jcnn
        >>> f = lambda x: jcnn.sigmoid(x).sum()
        >>> slope = jax.jvp(jcnn.autodiff(f), (0.0,), (1.0,))[1]
        >>> float(slope)
        0.25
    """

    @functools.wraps(f)
    def with_references(*args: P.args, **kwargs: P.kwargs) -> Y:
        with _use_references(True):
            return f(*args, **kwargs)

    return with_references


class Rule(Generic[P, Y]):
    """A forward with a backward derived by hand; see the module's docstring.

    Args:
        fwd: `(*arrays, **static) -> (y, residuals)`.  Arrays are positional, static configuration is
            keyword-only.  Its signature and docstring become the rule's.
        bwd: `(residuals, dy) -> tuple of cotangents`, one per array, None where there is none.
        reference: `(*arrays, **static) -> y` in plain JAX.
        check: `(*arrays, **static) -> None`, raises for arguments that make no sense.
        name: what errors and profiles call the op; by default `reference`'s name without `_reference`.

    Rules made of the same functions are equal, and share JAX's caches.

    Raises (when called):
        TypeError: unknown or missing arguments, things that are not arrays, unhashable configuration.
        ValueError: whatever `check` refuses.
    """

    def __init__(
        self,
        fwd: Callable[P, tuple[Y, Any]],
        bwd: Callable[[Any, Y], tuple],
        reference: Callable[P, Y],
        check: Callable[..., None] | None = None,
        name: str = "",
    ):
        self.name = name or reference.__name__.removesuffix("_reference")
        self.reference = reference
        self._parts = {"fwd": fwd, "bwd": bwd, "reference": reference, "check": check, "name": self.name}
        self.__name__ = self.__qualname__ = self.name
        self.__module__, self.__doc__ = fwd.__module__, fwd.__doc__
        self.__signature__ = inspect.signature(fwd)
        parameters = self.__signature__.parameters.values()
        self.array_names = tuple(p.name for p in parameters if p.kind != p.KEYWORD_ONLY)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule) and self._parts == other._parts

    def __hash__(self) -> int:
        return hash(tuple(self._parts.values()))

    def __repr__(self) -> str:
        return f"<jcnn rule {self._call_form()}>"

    def _call_form(self) -> str:
        plain = [p.replace(annotation=p.empty) for p in self.__signature__.parameters.values()]
        return f"{self.name}{inspect.Signature(plain)}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Y:
        arrays, static = self._bind(args, kwargs)
        if _use_references.value:
            with jax.named_scope(f"jcnn.{self.name}.reference"):
                return self.reference(*arrays, **static)  # pyright: ignore
        return _call(_Bound(self, tuple(static.items())), *_vary_together(arrays))

    def fwd(self, *args: P.args, **kwargs: P.kwargs) -> tuple[Y, Any]:
        """The forward: `(y, res)` with all that `bwd` needs in `res`."""
        arrays, static = self._bind(args, kwargs)
        return self._forward(arrays, static)

    def bwd(self, res: Any, dy: Y) -> tuple:
        """The backward: one cotangent per array argument, in order, of its shape and dtype."""
        return self._backward(res, dy, getattr(res, "_signature", None))

    def replace(self, **changes: Any) -> "Rule[P, Y]":
        """The same rule with another `fwd`, `bwd`, `reference`, `check` or `name`."""
        if unknown := changes.keys() - self._parts.keys():
            expected = ", ".join(self._parts)
            raise TypeError(f"jcnn.{self.name}.replace: got {sorted(unknown)}, expected {expected}")
        return Rule(**{**self._parts, **changes})

    def _bind(self, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        try:
            bound = self.__signature__.bind(*args, **kwargs)
        except TypeError as e:
            raise TypeError(f"jcnn.{self.name}: {e}; expected {self._call_form()}") from None
        bound.apply_defaults()
        arrays = tuple(_as_array(self.name, n, bound.arguments[n]) for n in self.array_names)
        static = {
            n: _as_static(self.name, n, v) for n, v in bound.arguments.items() if n not in self.array_names
        }
        if self._parts["check"] is not None:
            self._parts["check"](*arrays, **static)
        return arrays, static

    def _forward(self, arrays: tuple, static: dict) -> tuple[Y, Any]:
        arrays = tuple(
            None if a is None else jnp.asarray(a) for a in arrays
        )  # jax.grad unwraps Python numbers
        with jax.named_scope(f"jcnn.{self.name}"):
            y, res = self._parts["fwd"](*arrays, **static)
        if hasattr(type(res), "__dataclass_fields__"):
            object.__setattr__(res, "_signature", Signature(_shapes(arrays), _shapes(y)))
        return y, res

    def _backward(self, res: Any, dy: Y, signature: Signature | None) -> tuple:
        if signature is not None:
            dy = self._fit_cotangent(dy, signature.outputs)
        with jax.named_scope(f"jcnn.{self.name}.bwd"):
            cts = self._parts["bwd"](res, dy)
        if not isinstance(cts, tuple | list) or len(cts) != len(self.array_names):
            got = f"{len(cts)} values" if isinstance(cts, tuple | list) else type(cts).__name__
            raise TypeError(
                f"jcnn.{self.name}.bwd: got {got}, expected a tuple with one cotangent "
                f"for each of {', '.join(self.array_names)}"
            )
        if signature is None:
            return tuple(cts)
        return tuple(map(functools.partial(_fit, self.name), self.array_names, cts, signature.arrays))

    def _fit_cotangent(self, dy: Y, outputs: Any) -> Y:
        got, expected = jax.tree.structure(dy), jax.tree.structure(outputs)
        if got != expected:
            raise TypeError(f"jcnn.{self.name}.bwd: dy: got {got}, expected {expected} like the output")
        for ct, y in zip(jax.tree.leaves(dy), jax.tree.leaves(outputs), strict=True):
            if jnp.shape(ct) != y.shape:
                check.fail(f"{self.name}.bwd", "dy", f"shape {jnp.shape(ct)}", f"{y.shape} like the output")
        return jax.tree.map(lambda ct, y: ct if ct.dtype == float0 else jnp.asarray(ct, y.dtype), dy, outputs)


class _Bound(NamedTuple):
    """A rule with its static configuration: the hashable first argument of the one custom_vjp."""

    rule: Rule
    static: tuple[tuple[str, Any], ...]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _call(bound: _Bound, *arrays):
    return bound.rule._forward(arrays, dict(bound.static))[0]


def _call_fwd(bound: _Bound, *arrays):
    y, res = bound.rule._forward(arrays, dict(bound.static))
    return y, (res, _Static(Signature(_shapes(arrays), _shapes(y))))


def _call_bwd(bound: _Bound, saved, dy):
    res, signature = saved
    return bound.rule._backward(res, dy, signature.value)


_call.defvjp(_call_fwd, _call_bwd)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Static:
    value: Any


def _shapes(tree: Any) -> Any:
    avals = jax.tree.map(jax.typeof, tree)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), avals)


def _as_array(rule: str, name: str, value: Any) -> jax.Array | None:
    if value is None or isinstance(value, jax.Array):
        return value
    if isinstance(value, np.ndarray | np.generic | numbers.Number):
        return jnp.asarray(value)
    return check.fail(rule, name, type(value).__name__, "an array", TypeError)


def _as_static(rule: str, name: str, value: Any) -> Any:
    """Lists become tuples and NumPy scalars Python numbers, so that configuration can be hashed."""
    if isinstance(value, list | tuple):
        return tuple(_as_static(rule, name, v) for v in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, jax.Array | np.ndarray):
        check.fail(rule, name, "an array", "a Python value: it is static configuration", TypeError)
    try:
        hash(value)
    except TypeError:
        check.fail(rule, name, repr(value), "a hashable value", TypeError)
    return value


def _fit(rule: str, name: str, ct: Any, like: Any) -> Any:
    """Holds one cotangent to the contract; a wider dtype (an f32 accumulator) is rounded to the primal's."""
    if like is None or not jnp.issubdtype(like.dtype, jnp.inexact):
        return None
    op, argument = f"{rule}.bwd", f"cotangent of {name!r}"
    if ct is None:
        check.fail(op, argument, None, f"{like.dtype} of shape {like.shape}", TypeError)
    if jnp.shape(ct) != like.shape:
        check.fail(op, argument, f"shape {jnp.shape(ct)}", f"{like.shape}")
    return lax.convert_element_type(ct, like.dtype)


def varying_axes(x: jax.Array) -> frozenset:
    """The mesh axes over which `x` differs between devices, inside `shard_map(check_vma=True)`."""
    return frozenset(jax.typeof(x).manual_axis_type.varying)


def _vary_together(arrays: tuple) -> tuple:
    axes = frozenset().union(*(varying_axes(a) for a in arrays if a is not None))

    def vary(a):
        missing = () if a is None else tuple(axes - varying_axes(a))
        return lax.pcast(a, missing, to="varying") if missing else a

    return tuple(map(vary, arrays)) if axes else arrays
