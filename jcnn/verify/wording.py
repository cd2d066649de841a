"""What a report says, in the pieces that plain text, terminal and page put together."""

import math
from collections.abc import Iterable

from jcnn.verify.report import PROPERTIES, Finding, Report, Status, Worst

MEANINGS = {
    "CORRECT": "every check that applies passed",
    "WRONG": "the backward is not the derivative of the forward, or breaks its contract",
    "INCONCLUSIVE": "no check failed, but some could not have failed",
    "EXPECTED_DEVIATION": "deviates from the derivative exactly as declared",
}
ORACLES = ("autodiff", "differences", "adjoint", "linearity", "primal")
WORDS = {
    Status.PASS: "ok",
    Status.FAIL: "WRONG",
    Status.INCONCLUSIVE: "inconclusive",
    Status.SKIPPED: "skipped",
    Status.EXPECTED: "as declared",
}
SEVERITY = (Status.SKIPPED, Status.PASS, Status.EXPECTED, Status.INCONCLUSIVE, Status.FAIL)
BRIEF = 12  # findings told in a line each before the rest is only counted


def number(x: float | None) -> str:
    """`x` in two significant digits: "3.1e-16", "0.25", ""."""
    if x is None:
        return ""
    if x == 0 or not math.isfinite(x) or 1e-3 <= abs(x) < 1e4:
        return f"{x:.2g}" if abs(x) < 10 else f"{x:.0f}"
    mantissa, exponent = f"{x:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def values(worst: Worst) -> tuple[str, str]:
    """Both values in as many digits as it takes to see that they differ."""
    written = [(f"{worst.hand:.{digits}g}", f"{worst.reference:.{digits}g}") for digits in range(6, 18)]
    return next((pair for pair in written if pair[0] != pair[1]), written[-1])


def ratio(worst: Worst) -> str:
    """hand / reference, or "" where that says nothing."""
    return f"{worst.ratio:.6g}" if math.isfinite(worst.ratio) else ""


def title(finding: Finding) -> str:
    """What fails for what: "x: autodiff, float64 cotangents equal ..."."""
    about = label(finding) or "the rule"
    return f"{about}: {finding.property}, {PROPERTIES.get(finding.property, '')}".removesuffix(", ")


def label(finding: Finding) -> str:
    """What a finding is about: "x float32", "x", "float16" or ""."""
    dtype = "" if finding.dtype == "float64" else finding.dtype
    return " ".join(filter(None, (finding.argument, dtype)))


def size_of_error(finding: Finding) -> str:
    """Such as "error 0.16 = 1.6e8 x the tolerance of 1e-9"."""
    if finding.error is None:
        return ""
    if not finding.tolerance:
        return f"error {number(finding.error)}"
    times, tolerance = number(finding.error / finding.tolerance), number(finding.tolerance)
    return f"error {number(finding.error)} = {times} x the tolerance of {tolerance}"


def evidence(finding: Finding) -> list[str]:
    """The numbers behind a finding, a line each."""
    lines = []
    if worst := finding.worst:
        hand, reference = values(worst)
        told = {"hand": hand, "reference": reference, "ratio": ratio(worst), "at": str(worst.index or "")}
        lines.append("   ".join(f"{name} {value}" for name, value in told.items() if value))
    counts = f"worst of {worst.size}; {worst.differing} differ" if worst else ""
    lines.append(", ".join(filter(None, (size_of_error(finding), counts))))
    lines.append(finding.detail)
    return list(filter(None, lines))


def split_failures(report: Report) -> tuple[list[Finding], list[Finding]]:
    """The failures to be told in full, the first one with a worst entry for each argument, and the others."""
    full: dict[str, Finding] = {}
    for finding in ordered(report.failures):
        if finding.worst:
            full.setdefault(finding.argument, finding)
    if not full and report.failures:
        first = ordered(report.failures)[0]
        full[first.argument] = first
    chosen = list(full.values())
    return chosen, [f for f in ordered(report.failures) if f not in chosen]


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """In the order of `PROPERTIES`."""
    order = list(PROPERTIES)
    return sorted(findings, key=lambda f: order.index(f.property) if f.property in order else len(order))


def brief(finding: Finding) -> str:
    """A finding in a line."""
    about = f" of {label(finding)}" if label(finding) else ""
    told = "; ".join(filter(None, (size_of_error(finding), finding.detail)))
    return f"{finding.property}{about}: {told}" if told else f"{finding.property}{about}"


def briefly(findings: list[Finding]) -> list[str]:
    """A line for each finding, and one for those that are too many."""
    lines = [brief(f) for f in findings[:BRIEF]]
    return lines + [f"and {len(findings) - BRIEF} more"] * (len(findings) > BRIEF)


def with_status(report: Report, status: Status) -> list[Finding]:
    return ordered(f for f in report.findings if f.status == status)


def oracles(report: Report) -> str:
    """What each of the independent judges says: "autodiff WRONG · linearity ok"."""
    return " · ".join(_says(report, name) for name in ORACLES if report.of(name))


def _says(report: Report, name: str) -> str:
    """Differences that contradict the backward say whom they agree with."""
    gravest = max(report.of(name), key=lambda f: SEVERITY.index(f.status))
    if name == "differences" and gravest.status == Status.FAIL and gravest.detail:
        return gravest.detail.partition(",")[0]
    return f"{name} {WORDS[gravest.status]}"


def status_of(report: Report, name: str) -> Status:
    """The gravest status among the findings of a property."""
    return max((f.status for f in report.of(name)), key=SEVERITY.index)


def correct_arguments(report: Report) -> list[str]:
    """The arguments that are right where others are wrong, each with its largest error."""
    wrong = {f.argument for f in report.failures}
    errors: dict[str, float] = {}
    for finding in report.of("autodiff"):
        if finding.argument not in wrong and finding.status == Status.PASS:
            errors[finding.argument] = max(errors.get(finding.argument, 0.0), finding.error or 0.0)
    told = {name: f"to {number(error)}" if error else "exactly" for name, error in errors.items() if name}
    return [f"{name} {how}" for name, how in told.items()]


def context(report: Report) -> list[str]:
    """What the oracles say of a rule that is wrong, and which of its arguments are right."""
    right = correct_arguments(report)
    return list(filter(None, [oracles(report), f"correct: {', '.join(right)}" if right else ""]))


def notes(report: Report) -> list[str]:
    """The report's notes, and how small an error would have been seen."""
    seen = [f.resolution for f in report.of("autodiff") if f.status == Status.PASS and f.resolution]
    detectable = [f"detectable in this run: relative errors above {number(max(seen))}"] if seen else []
    return [*report.notes, *detectable]


def passed(report: Report) -> list[Finding]:
    """For each property that holds, the finding that came closest to its tolerance."""
    names = dict.fromkeys(f.property for f in ordered(report.findings))
    good = [name for name in names if status_of(report, name) == Status.PASS]
    return [min(report.of(name), key=lambda f: math.inf if f.error is None else margin(f)) for name in good]


def margin(finding: Finding) -> float:
    """How many times larger the error might have been; infinite where there is none."""
    return (finding.tolerance or 0) / finding.error if finding.error else math.inf


def skipped(report: Report) -> list[str]:
    """Each reason for which something was skipped, after all that it kept from being checked."""
    reasons: dict[str, list[str]] = {}
    for finding in with_status(report, Status.SKIPPED):
        about = label(finding)
        reasons.setdefault(finding.detail, []).append(f"{finding.property}{about and f' ({about})'}")
    return [f"{', '.join(dict.fromkeys(names))}{why and ': ' + why}" for why, names in reasons.items()]


def heading(report: Report) -> str:
    """How the report came about."""
    return f"seed {report.seed} · {report.level} · {number(report.seconds)} s"
