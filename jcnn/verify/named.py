"""Backwards made of named terms: what each should be multiplied by.

    reference = c_1 [term 1] + c_2 [term 2] + ... + unexplained

by least squares over several points and cotangents.  c = 1 throughout for a correct derivation; 0.5 for a
term that is twice too large, -1 for a wrong sign, 1/n for a sum where a mean belongs.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jcnn.rule import Rule
from jcnn.verify import oracles
from jcnn.verify.forms import CustomVJP
from jcnn.verify.subject import is_float
from jcnn.verify.trial import Trial

EXACT = 1e-6  # relative; a coefficient this close to 1 is right, a remainder this small is rounding


def separated(rule: Any, terms: Callable | bool | None) -> tuple[Any, Callable | None]:
    """A rule whose bwd returns sums, and the function that returns their terms."""
    if terms is not True:
        return rule, terms or None
    if isinstance(rule, Rule):
        bwd = rule._parts["bwd"]
        return rule.replace(bwd=_summing(bwd)), bwd
    if isinstance(rule, CustomVJP):
        rule = (getattr(rule, "fun", None) or rule.f, rule.fwd, rule.bwd)
    f, fwd, bwd = rule
    return (f, fwd, _summing(bwd)), bwd


def _summing(bwd: Callable) -> Callable:
    def summed(res, dy):
        return tuple(sum(ct.values()) if isinstance(ct, dict) else ct for ct in bwd(res, dy))

    return summed


def coefficients(trial: Trial, terms: Callable) -> list[str]:
    """One line for each term whose coefficient is not 1, and for what no combination of terms explains."""
    rows: dict[str, list] = {}
    for point in trial.generic:
        for number in range(2):
            dys = trial.dys(40 + number)
            arrays = jax.tree.map(jax.numpy.asarray, point.arrays)
            y, res = trial.subject.fwd(arrays)
            cts = terms(res, oracles.cotangent(y, tuple(map(jax.numpy.asarray, dys))))
            cts = trial.subject.per_leaf(cts)
            found = [ct for ct, a in zip(cts, arrays, strict=True) if is_float(a)]
            for name, ct, wanted in zip(trial.names, found, trial.wanted(point.arrays, dys), strict=True):
                if isinstance(ct, dict):
                    columns = [
                        np.broadcast_to(np.asarray(t, np.float64), wanted.shape).ravel() for t in ct.values()
                    ]
                    rows.setdefault(name, []).append((tuple(ct), np.stack(columns, 1), wanted.ravel()))
    return [line for name, found in rows.items() for line in _fitted(name, found)]


def _fitted(name: str, found: list) -> list[str]:
    labels = found[0][0]
    matrix, wanted = np.concatenate([f[1] for f in found]), np.concatenate([f[2] for f in found])
    fit = np.linalg.lstsq(matrix, wanted, rcond=None)[0]
    left = np.linalg.norm(wanted - matrix @ fit) / max(np.linalg.norm(wanted), 1e-300)
    formula = " + ".join(f"{c:.6g} [{label}]" for c, label in zip(fit, labels, strict=True))
    if left > EXACT:
        return [
            f"terms of {name!r}: no combination is the gradient ({left:.0%} unexplained): a term is missing"
        ]
    wrong = [(c, label) for c, label in zip(fit, labels, strict=True) if abs(c - 1) > EXACT]
    return [
        f"terms of {name!r}: [{label}] has to be multiplied by {c:.6g}; gradient = {formula}"
        for c, label in wrong
    ]
