"""Residuals: what a forward keeps for its backward, as a small dataclass that is a pytree."""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

C = TypeVar("C", bound=type)


def static() -> Any:
    """Declares a field of a residual class as metadata: hashable, never traced."""
    return dataclasses.field(metadata={"static": True})


@dataclass_transform(frozen_default=True, field_specifiers=(static,))
def residuals(cls: C) -> C:
    """Makes `cls` a frozen dataclass and a pytree: arrays are leaves, `static()` fields metadata.

    `Rule.fwd` notes on the object which shapes and dtypes it was made from, so that `Rule.bwd` can
    refuse a cotangent that does not fit.
    """
    cls = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(cls)
    data = [f.name for f in fields if not f.metadata.get("static")]
    meta = [f.name for f in fields if f.metadata.get("static")]

    def flatten(res):
        aux = (tuple(getattr(res, n) for n in meta), getattr(res, "_signature", None))
        return [(jax.tree_util.GetAttrKey(n), getattr(res, n)) for n in data], aux

    def unflatten(aux, children):
        res = object.__new__(cls)
        values = zip(data + meta, (*children, *aux[0]), strict=True)
        for name, value in (*values, ("_signature", aux[1])):
            object.__setattr__(res, name, value)
        return res

    jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
    return cls
