"""A rule on trial: its points, its random cotangents, and its functions evaluated to NumPy arrays."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jcnn.verify import oracles, sample
from jcnn.verify.judge import EPS, Array, Comparison, compare
from jcnn.verify.report import Finding, Status
from jcnn.verify.sample import Point
from jcnn.verify.subject import Subject, is_float

Arrays = tuple[Array, ...]
FIRST_DYS = 1000  # the cotangents' random streams start here


class Rejected(Exception):
    """The rule cannot be judged any further: the finding says why."""

    def __init__(self, finding: Finding):
        super().__init__(finding.detail)
        self.finding = finding


def said(error: BaseException, width: int = 160) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:width]}{'...' if len(text) > width else ''}"


class Trial:
    """Everything that the properties look at.

    Attributes:
        subject: the rule, as functions of its array leaves.
        points: where it is looked at; the first is what the caller gave.
        names: of the floating-point leaves, in the order of all cotangents here.
        findings: what came out, in order.
        raw: cotangents that break the contract, by the number of their leaf; zeros stand in for them.
        differentiable: whether JAX can differentiate the reference at all; if not, differences judge alone.
        trusted: whether autodiff of the reference is the derivative of the forward.
        traceable: whether fwd and bwd can be jitted; if not, they run eagerly.
    """

    def __init__(self, subject: Subject, leaves: tuple, seed: int, expect: Any = None):
        self.subject, self.seed, self.expect = subject, seed, expect
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.raw: dict[int, Any] = {}
        self.differentiable = self.trusted = True
        self.traceable = self.forward_traceable = True
        given = sample.filled(leaves, seed)
        self.dtypes = tuple(a.dtype for a in given)
        is_floating = [is_float(a) for a in given]
        if expect is not None:
            expect.check_names(tuple(subject.leaf_names))
        self.names = tuple(n for n, f in zip(subject.leaf_names, is_floating, strict=True) if f)
        first, restrict = self._domain(leaves, given)
        self._drawn = (
            all(isinstance(a, jax.ShapeDtypeStruct) and is_float(a) for a in leaves) and restrict is _as_is
        )
        self.y = self.forward(first)
        specials = oracles.special_values(subject, first)
        self.points = sample.points(leaves, given, seed, specials, restrict)

    def _domain(self, leaves: tuple, given: tuple) -> tuple[tuple, Callable]:
        """Sampled values are normal; where the forward is not finite there, positive, or else in (0, 1)."""
        sampled = [isinstance(a, jax.ShapeDtypeStruct) for a in leaves]
        wide = sample.widened(given)
        for restrict in (_as_is, sample.positive, sample.unit):
            arrays = tuple(
                restrict(a) if s and is_float(a) else a for a, s in zip(wide, sampled, strict=True)
            )
            if not any(sampled) or all(np.isfinite(y).all() for y in self.forward(arrays)):
                return arrays, restrict
        return wide, _as_is

    def forward(self, arrays: tuple) -> Arrays:
        """The raw forward's floating-point outputs."""
        if self.forward_traceable:
            try:
                return _numpy(oracles.forward_program(self.subject, arrays))
            except (Exception, SystemExit):
                self.forward_traceable = False
        try:
            return _numpy(oracles.outputs(self.subject, _jax(arrays)))
        except (Exception, SystemExit) as e:
            raise Rejected(Finding("primal", Status.INCONCLUSIVE, f"the forward raised {said(e)}")) from e

    def first_run(self, arrays: tuple, dys: Arrays) -> tuple[tuple, tuple]:
        """fwd's outputs and bwd's cotangents as they come; finds out whether the two can be jitted.

        Raises:
            Exception: whatever the rule raises eagerly.
        """
        try:
            return oracles.hand_program(self.subject, arrays, dys)
        except (Exception, SystemExit) as e:
            self.traceable = False
            result = oracles.by_hand(self.subject, _jax(arrays), _jax(dys))
            if self.forward_traceable:
                self.add("jit", Status.FAIL, f"fwd and bwd run eagerly, but jitted they raise {said(e)}")
            return result

    def fwd_shapes(self, arrays: tuple) -> list[tuple] | None:
        """Shapes of fwd's floating-point outputs, None where it raises."""
        try:
            return [y.shape for y in oracles.float_leaves(self.subject.fwd(_jax(arrays))[0])]
        except (Exception, SystemExit):
            return None

    def hand(self, arrays: tuple, dys: Arrays) -> tuple[Arrays, Arrays]:
        """fwd's outputs and bwd's cotangents, None as zeros, in float64."""
        if self.traceable:
            y, cts = oracles.hand_program(self.subject, arrays, dys)
        else:
            y, cts = oracles.by_hand(self.subject, _jax(arrays), _jax(dys))
        floats = oracles.floats(arrays)
        return _numpy(y), tuple(
            np.zeros(a.shape) if ct is None or i in self.raw else np.asarray(ct, np.float64)
            for i, (ct, a) in enumerate(zip(cts, floats, strict=True))
        )

    def true(self, arrays: tuple, dys: Arrays, subject: Subject | None = None) -> tuple[Arrays, Arrays]:
        """The reference's outputs and autodiff's cotangents; of another subject if one is given."""
        if self.forward_traceable:
            y, cts = oracles.autodiff_program(subject or self.subject, arrays, dys)
        else:
            y, cts = oracles.by_autodiff(subject or self.subject, _jax(arrays), _jax(dys))
        return _numpy(y), _numpy(cts)

    def reference(self, arrays: tuple) -> Arrays:
        """The reference's floating-point outputs."""
        return self.true(arrays, self.dys(0))[0]

    def along(self, arrays: tuple, v: Arrays) -> Arrays:
        """The forward at points on a line through `arrays`; see `oracles.along`."""
        if self.forward_traceable:
            return _numpy(oracles.line_program(self.subject, arrays, v))
        steps = np.concatenate([oracles.STEPS, -oracles.STEPS])
        moved = [tuple(a + t * d for a, d in zip(oracles.floats(arrays), v, strict=True)) for t in steps]
        values = [self.forward(oracles.merged(arrays, m)) for m in moved]
        return tuple(map(np.stack, zip(*values, strict=True)))

    def tangent(self, arrays: tuple, v: Arrays) -> Arrays:
        """J v of the forward by forward-mode autodiff."""
        if self.forward_traceable:
            return _numpy(oracles.tangent_program(self.subject, arrays, v))
        return _numpy(oracles.by_forward_mode(self.subject, _jax(arrays), _jax(v)))

    def depends_on_cotangent(self) -> list[bool]:
        """For each leaf: whether autodiff's cotangent is more than a structural zero."""
        if not self.forward_traceable:
            return [True] * len(self.names)
        return oracles.depends_on_cotangent(self.subject, self.points[0].arrays, self.dys(0))

    def wanted(self, arrays: tuple, dys: Arrays) -> Arrays:
        """What the cotangents should be: autodiff's, or what an `Expect` declares."""
        cts = self.true(arrays, dys)[1]
        return cts if self.expect is None else self.expect.cotangents(self, arrays, dys, cts)

    def noise(self, point: Point, dys: Arrays, cts: Arrays) -> Arrays:
        """By how much the wanted cotangents move when arguments and dy move by one unit in the last place."""
        if point.kind in sample.KINKS or point.kind == "constant":
            return tuple(np.zeros(ct.shape) for ct in cts)
        rng = np.random.default_rng(self.seed)

        def moved(a):
            return a * (1 + EPS * rng.choice([-1.0, 1.0], np.shape(a))) if is_float(a) else a

        others = [self.wanted(tuple(map(moved, point.arrays)), tuple(map(moved, dys))) for _ in range(2)]
        with np.errstate(invalid="ignore"):
            return tuple(
                np.maximum(np.abs(a - ct), np.abs(b - ct)) for a, b, ct in zip(*others, cts, strict=True)
            )

    def dys(self, number: int) -> Arrays:
        """Random signed cotangents of the floating-point outputs."""
        rng = np.random.default_rng([self.seed, FIRST_DYS + number])
        return tuple(rng.standard_normal(y.shape) for y in self.y)

    def directions(self, point: Point, number: int) -> Arrays:
        """Random directions in the arguments, of each one's scale."""
        rng = np.random.default_rng([self.seed, 2000 + number])
        return tuple(
            rng.standard_normal(a.shape) * (np.abs(a).mean() if a.size and a.any() else 1.0)
            for a in oracles.floats(point.arrays)
        )

    @functools.cached_property
    def length(self) -> int:
        """Terms in the longest sum behind one entry of a cotangent."""
        return max([1, *(a.size for a in (*self.y, *oracles.floats(self.points[0].arrays)))])

    def compare(self, point: Point, dys: Arrays, hand: Arrays, wanted: Arrays) -> list[Comparison]:
        """`hand` against `wanted`, leaf by leaf."""
        noise = self.noise(point, dys, wanted)
        outputs = self.forward(point.arrays)
        largest = max((np.abs(y[np.isfinite(y)]).max(initial=0.0) for y in outputs), default=0.0)
        natural = min(1.0, largest) * max((np.abs(dy).max(initial=0.0) for dy in dys), default=0.0)
        if point.kind in sample.EDGES:  # intermediate results are as large as the arguments
            natural *= max(1.0, *(np.abs(a).max(initial=0.0) for a in oracles.floats(point.arrays)))
        return [compare(h, w, n, self.length, natural) for h, w, n in zip(hand, wanted, noise, strict=True)]

    def described(self) -> list[str]:
        """One line for each array leaf, in the dtype it came in."""
        shapes = (np.shape(a) for a in self.points[0].arrays)
        leaves = zip(self.subject.leaf_names, self.dtypes, shapes, strict=True)
        return [f"{name} {dtype}{list(shape)}" for name, dtype, shape in leaves]

    def sampled_with(self, point: Point) -> int | None:
        """The seed that draws all arguments of a point in order, if that is how they came about."""
        drawn = {"given": 0, "nearby": 1, "nearby again": 2}
        return self.seed + drawn[point.kind] if self._drawn and point.kind in drawn else None

    @property
    def generic(self) -> list[Point]:
        return [p for p in self.points if p.kind in sample.GENERIC]

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def add(
        self, name: str, status: Status, detail: str = "", argument: str = "", dtype: str = "float64"
    ) -> None:
        self.findings.append(Finding(name, status, detail, argument, dtype))

    def record(self, name: str, status: Status, c: Comparison, detail: str = "", argument: str = "") -> None:
        fields = (c.error, c.tolerance, c.resolution, c.worst)
        self.findings.append(Finding(name, status, detail, argument, "float64", *fields))

    def failed(self, name: str) -> bool:
        return any(f.property == name and f.status == Status.FAIL for f in self.findings)


@contextlib.contextmanager
def float64():
    """float64 for everything inside, no complaints about NaN; the caller's settings are back afterwards."""
    quiet = jax.debug_nans(False), jax.debug_infs(False)
    with jax.enable_x64(True), quiet[0], quiet[1], np.errstate(all="ignore"):
        yield


def _as_is(a: Array) -> Array:
    return a


def _jax(arrays: tuple) -> tuple:
    return jax.tree.map(jnp.asarray, arrays)


def _numpy(arrays: Any) -> Arrays:
    return tuple(np.asarray(a, np.float64) for a in arrays)
