"""What a diagnosis reasons from: one wrong cotangent, seen at several points."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jcnn.verify import oracles
from jcnn.verify.judge import Array, per_channel
from jcnn.verify.oracles import floats, merged
from jcnn.verify.sample import Point
from jcnn.verify.trial import Arrays, Trial

ROUNDING = 1e-13
FIT = 1e-7  # relative; a hypothesis explains a cotangent to this, at every point


def same(a: Array, b: Array) -> bool:
    """Equal to `FIT` of the largest entry of `b` in each channel."""
    if a.shape != b.shape:
        return False
    size = np.abs(b)
    with np.errstate(invalid="ignore"):
        return bool(np.all(np.abs(a - b) <= FIT * per_channel(size) + ROUNDING * size.max(initial=0.0)))


@dataclasses.dataclass(frozen=True)
class Sample:
    """Hand and reference cotangent `h` and `r` of one leaf at one point, and what they may be made of."""

    point: Point
    dys: Arrays
    h: Array
    r: Array
    around: dict[str, Array]  # arguments, outputs, residuals and dy, by what to call them


class Evidence:
    """One leaf whose cotangent is wrong.

    Attributes:
        i, name: number and name of the leaf.
        samples: where it was looked at.
        linear: whether its cotangent is linear in dy.
    """

    def __init__(self, trial: Trial, i: int, linear: bool, points: Sequence[Point]):
        self.trial, self.i, self.name, self.linear = trial, i, trial.names[i], linear
        self.samples = [self._sample(point, trial.dys(number % 2)) for number, point in enumerate(points)]

    def _sample(self, point: Point, dys: Arrays) -> Sample:
        hand, wanted = self.hand(point.arrays, dys), self.wanted(point.arrays, dys)
        values = zip(self.trial.names, floats(point.arrays), strict=True)
        around = dict(values)
        around |= {self._label("y", k): y for k, y in enumerate(self.trial.forward(point.arrays))}
        around |= {self._label("dy", k): dy for k, dy in enumerate(dys)}
        around |= {name: a for name, a in self.residuals(point.arrays).items() if not _known(a, around)}
        return Sample(point, dys, hand, wanted, around)

    def _label(self, name: str, k: int) -> str:
        return f"{name}[{k}]" if len(self.trial.y) > 1 else name

    def hand(self, arrays: tuple, dys: Arrays) -> Array:
        return self.trial.hand(arrays, dys)[1][self.i]

    def wanted(self, arrays: tuple, dys: Arrays) -> Array:
        return self.trial.wanted(arrays, dys)[self.i]

    def residuals(self, arrays: tuple) -> dict[str, Array]:
        """The floating-point leaves of what fwd keeps, by their paths."""
        return {
            f"residual{path}": np.asarray(a, np.float64)
            for path, a in _leaves(self._res(arrays)).items()
            if hasattr(a, "dtype") and jnp.issubdtype(a.dtype, jnp.floating)
        }

    def _res(self, arrays: tuple) -> Any:
        return self.trial.subject.fwd(jax.tree.map(jnp.asarray, arrays))[1]

    def with_residual(self, sample: Sample, path: str, change: Callable) -> Array | None:
        """bwd's cotangent if residual `path` were `change`d; None where that raises."""
        arrays = sample.point.arrays
        res = self._res(arrays)
        flat, treedef = jax.tree_util.tree_flatten_with_path(res)
        leaves = [
            jnp.asarray(change(np.asarray(a, np.float64)))
            if f"residual{jax.tree_util.keystr(p)}" == path
            else a
            for p, a in flat
        ]
        changed = jax.tree.unflatten(treedef, leaves)
        if hasattr(res, "_signature"):
            object.__setattr__(changed, "_signature", res._signature)
        try:
            y = self.trial.subject.f(jax.tree.map(jnp.asarray, arrays))
            cts = self.trial.subject.bwd(changed, oracles.cotangent(y, sample.dys))
            ct = oracles.dense(cts, jax.tree.map(jnp.asarray, arrays))[self.i]
            return np.asarray(ct, np.float64)
        except Exception:
            return None

    def alike(self) -> list[str]:
        """The arrays around that have the shape of the cotangent."""
        s = self.samples[0]
        return [n for n, a in s.around.items() if a.shape == s.r.shape and a.ndim]

    def everywhere(self, fits: Callable[[Sample], bool]) -> bool:
        """Whether a hypothesis fits at every point."""
        with np.errstate(all="ignore"):
            return all(fits(s) for s in self.samples)

    def dys_changed(self, change: Callable) -> bool:
        """Whether the backward gives the gradient for `change(dy)` instead of dy."""
        return self.everywhere(lambda s: same(s.h, self.wanted(s.point.arrays, tuple(map(change, s.dys)))))

    def argument_changed(self, k: int, change: Callable) -> bool:
        """Whether the backward gives the gradient for argument leaf k `change`d."""

        def fits(s: Sample) -> bool:
            values = list(floats(s.point.arrays))
            values[k] = change(values[k], s)
            try:
                wanted = self.wanted(merged(s.point.arrays, tuple(values)), s.dys)
            except Exception:
                return False
            return same(s.h, wanted)

        return self.everywhere(fits)

    @functools.cached_property
    def sizes(self) -> dict[int, str]:
        """Products of axis lengths, and which they are."""
        found: dict[int, str] = {}
        arrays = {"y": self.trial.y[0]} if self.trial.y else {}
        arrays |= dict(zip(self.trial.names, floats(self.trial.points[0].arrays), strict=True))
        for name, a in arrays.items():
            for axes in subsets(a.ndim):
                n = int(np.prod([a.shape[k] for k in axes]))
                if n > 1:
                    found.setdefault(n, f"the size of {name} along {axes_said(axes)}")
        return found


def subsets(ndim: int, least: int = 1) -> Iterator[tuple[int, ...]]:
    """Sets of axes, small ones first."""
    for count in range(least, ndim + 1):
        yield from itertools.combinations(range(ndim), count)


def axes_said(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"


def _leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(p): a for p, a in jax.tree_util.tree_leaves_with_path(tree)}


def _known(a: Array, around: dict[str, Array]) -> bool:
    return any(same(a, b) for b in around.values())
