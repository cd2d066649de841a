"""Deliberate deviations from the gradient, declared so that they can be verified to be exactly that."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jcnn.verify.oracles import floats, merged
from jcnn.verify.trial import Arrays, Trial


@dataclasses.dataclass(frozen=True)
class Expect:
    """What a backward gives instead of the gradient; several declarations apply from top to bottom.

    Attributes:
        surrogate: the gradient is that of `surrogate(*args)`, a function with the same outputs' shapes.
        cotangent: the gradient is taken with `cotangent(dy)` for each dy; guided backpropagation through a
            relu (Springenberg et al. 2015) is `Expect(cotangent=lambda dy: jnp.maximum(dy, 0))`.
        replace: `{"x": {"w": B}}`: the cotangent of x is taken with the array B in place of w, as in
            feedback alignment (Lillicrap et al. 2016).
        straight_through: arguments whose cotangent is dy itself (Bengio et al. 2013).
        stop_gradient: arguments whose cotangent is zero or None.
        kinks: `{0.0: 1.0}`: where an argument of an elementwise rule equals 0.0, the slope is 1.0.
    """

    surrogate: Callable | None = None
    cotangent: Callable | None = None
    replace: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    straight_through: tuple[str, ...] = ()
    stop_gradient: tuple[str, ...] = ()
    kinks: Mapping[float, float] = dataclasses.field(default_factory=dict)

    def check_names(self, names: tuple[str, ...]) -> None:
        """Raises ValueError for an argument that the rule does not have."""
        replaced = [n for inner in self.replace.values() for n in inner]
        for name in (*self.replace, *replaced, *self.straight_through, *self.stop_gradient):
            if name not in names:
                raise ValueError(f"Expect: got argument {name!r}, expected one of {', '.join(names)}")

    def cotangents(self, trial: Trial, arrays: tuple, dys: Arrays, true: Arrays) -> Arrays:
        """What the backward has to return, where `true` are the gradients."""
        subject = trial.subject
        if self.surrogate is not None:
            subject = dataclasses.replace(subject, override=self.surrogate)
        if self.cotangent is not None:
            dys = tuple(np.asarray(self.cotangent(jnp.asarray(dy)), np.float64) for dy in dys)
        if self.surrogate is not None or self.cotangent is not None:
            true = trial.true(arrays, dys, subject)[1]
        wanted, values = dict(zip(trial.names, true, strict=True)), floats(arrays)
        for name, others in self.replace.items():
            pairs = zip(trial.names, values, strict=True)
            changed = tuple(np.asarray(others[n], np.float64) if n in others else v for n, v in pairs)
            moved = trial.true(merged(arrays, changed), dys, subject)[1]
            wanted[name] = moved[trial.names.index(name)]
        for name in self.straight_through:
            wanted[name] = dys[0]
        for name in self.stop_gradient:
            wanted[name] = np.zeros_like(wanted[name])
        for at, slope in self.kinks.items():
            for name, v in zip(trial.names, values, strict=True):
                if v.shape == dys[0].shape:
                    wanted[name] = np.where(v == at, slope * dys[0], wanted[name])
        return tuple(wanted.values())
