"""What a check found: findings, the verdict they add up to, and the causes."""

import dataclasses
import enum
import json
import math
import os
from typing import Any

import numpy as np

PROPERTIES = {
    "primal": "fwd's output equals the forward's",
    "contract": "one cotangent per argument, of its tree, shape and dtype; None only without a gradient",
    "autodiff": "float64 cotangents equal autodiff of the reference, entry by entry",
    "differences": "cotangents equal Richardson's extrapolated differences of the forward, along directions",
    "adjoint": "<dy, J v> = <J^T dy, v> with J v from forward-mode autodiff",
    "kinks": "the cotangents at zeros, ties and integers are those of the reference",
    "edges": "constant, tiny and huge arguments give the cotangents of the reference",
    "linearity": "bwd(a u + b v) = a bwd(u) + b bwd(v), and bwd(0) = 0",
    "outputs": "each output's cotangent alone gives the cotangents of the reference",
    "determinism": "the same call gives the same bits, also after another forward",
    "second_order": "reverse over reverse agrees with the reference, in the arguments and in dy",
    "jit": "jitted, together and fwd apart from bwd, equals eager",
    "vmap": "vmap over every subset of the arguments equals a loop",
    "scan": "the gradient is the same inside scan",
    "checkpoint": "the gradient is the same under jax.checkpoint",
    "cond": "the gradient is the same inside cond",
    "shard_map": "the gradient is the same on two devices, grad inside and outside, check_vma both ways",
    "precision": "float32, bfloat16 and float16 errors against float64 at the rounded arguments",
    "non_finite": "NaN in an argument reaches the output and the cotangents as in the reference",
    "residuals": "the residuals take no more memory than those of autodiff",
    "switch": "jcnn.autodiff makes forward mode work",
    "promotion": "works under strict dtype promotion",
}


class Status(enum.StrEnum):
    """How one property came out."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"  # a check that could not have failed
    SKIPPED = "skipped"  # does not apply, or could not be run: detail says why
    EXPECTED = "expected"  # deviates from the gradient exactly as `Expect` declares


@dataclasses.dataclass(frozen=True)
class Worst:
    """The entry of a cotangent that is furthest off."""

    index: tuple[int, ...]
    hand: float
    reference: float
    differing: int  # entries beyond the tolerance
    size: int

    @property
    def ratio(self) -> float:
        return self.hand / self.reference if self.reference else math.nan


@dataclasses.dataclass(frozen=True)
class Finding:
    """One property, for one argument (or the rule as a whole: "") in one dtype.

    `error` and `tolerance` are relative to the scale of the argument's cotangent; `resolution` is the
    smallest relative error that this finding could have shown.  None where nothing is measured.
    """

    property: str
    status: Status
    detail: str = ""
    argument: str = ""
    dtype: str = "float64"
    error: float | None = None
    tolerance: float | None = None
    resolution: float | None = None
    worst: Worst | None = None


@dataclasses.dataclass(frozen=True)
class ErrorMap:
    """Cotangents of one argument where the backward is wrong, for pictures."""

    hand: np.ndarray
    reference: np.ndarray


@dataclasses.dataclass
class Report:
    """What `verify_vjp` found; `str(report)` is the whole of it as plain text.

    Attributes:
        rule: the rule's name.
        arguments: one line for each argument leaf, such as "x float64[2, 5, 6, 4]".
        findings: every property that was looked at.
        causes: one-line diagnoses, most specific first; empty when the rule is correct.
        notes: limits of the rule or of this run that are no failures.
        script: a self-contained Python script that reproduces the failure; "" when there is none.
        maps: for each argument with a wrong cotangent, hand and reference at the worst point.
    """

    rule: str
    arguments: list[str]
    level: str
    seed: int
    findings: list[Finding] = dataclasses.field(default_factory=list)
    causes: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    script: str = ""
    maps: dict[str, ErrorMap] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """ "CORRECT", "WRONG", "INCONCLUSIVE" or "EXPECTED_DEVIATION"."""
        seen = {f.status for f in self.findings}
        if Status.FAIL in seen:
            return "WRONG"
        if Status.INCONCLUSIVE in seen or not {Status.PASS, Status.EXPECTED} & seen:
            return "INCONCLUSIVE"
        return "EXPECTED_DEVIATION" if Status.EXPECTED in seen else "CORRECT"

    @property
    def ok(self) -> bool:
        """Whether the rule does what it says: correct, or deviating exactly as declared."""
        return self.verdict in ("CORRECT", "EXPECTED_DEVIATION")

    @property
    def failures(self) -> list[Finding]:
        return [f for f in self.findings if f.status == Status.FAIL]

    def of(self, name: str) -> list[Finding]:
        """The findings of one property."""
        return [f for f in self.findings if f.property == name]

    def raise_if_failed(self) -> None:
        """Raises AssertionError with the report unless `ok`."""
        if not self.ok:
            raise AssertionError(f"\n{self}")

    def __str__(self) -> str:
        from jcnn.verify.render import as_text

        return as_text(self)

    def __rich__(self) -> Any:
        from jcnn.verify.render import as_rich

        return as_rich(self)

    def to_dict(self) -> dict:
        """All but the error maps, in JSON's types; numbers that are not finite become strings."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "maps"}
        fields["findings"] = [dataclasses.asdict(f) for f in self.findings]
        return _plain({"verdict": self.verdict, "ok": self.ok, **fields})

    def to_json(self, path: str | os.PathLike | None = None) -> str:
        """The report as JSON text, also written to `path` if one is given."""
        text = json.dumps(self.to_dict(), indent=1)
        if path is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return text

    def to_html(self, path: str | os.PathLike | None = None) -> str:
        """A self-contained page with a heat map of the error for each wrong argument."""
        from jcnn.verify.render import as_html

        text = as_html(self)
        if path is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        return text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
