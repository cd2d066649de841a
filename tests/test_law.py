"""Every rule that jcnn exports, held to the law by its own checker."""

import inspect
import sys

import pytest

import jcnn
from jcnn.verify import Status, verify_vjp
from jcnn.verify.examples import EXAMPLES

RULES = {name: value for name, value in vars(jcnn).items() if isinstance(value, jcnn.Rule)}
LOOKED_AT = {
    "quick": {"primal", "contract", "autodiff", "differences", "adjoint", "kinks", "edges", "linearity"}
}
LOOKED_AT["standard"] = LOOKED_AT["quick"] | {
    *("determinism", "jit", "second_order", "vmap", "scan", "checkpoint", "cond", "shard_map"),
    *("switch", "promotion", "precision", "non_finite", "residuals"),
}


POINTS = [  # everything for the first example, the numbers for all; `python -m jcnn.verify` looks at more
    pytest.param(rule, name, "quick" if i else "standard", id=f"{rule}-{name}")
    for rule, examples in EXAMPLES.items()
    for i, name in enumerate(examples)
]


def test_every_rule_has_examples():
    assert set(RULES) == set(EXAMPLES)
    assert all(len(examples) >= 2 for examples in EXAMPLES.values())


@pytest.mark.parametrize(("rule", "example", "level"), POINTS)
def test_law(rule, example, level):
    args, static = EXAMPLES[rule][example]
    report = verify_vjp(RULES[rule], *args, level=level, **static)
    report.raise_if_failed()
    looked_at = {f.property for f in report.findings if f.status == Status.PASS}
    skipped = [f for f in report.findings if f.status == Status.SKIPPED]
    assert looked_at >= LOOKED_AT[level], f"skipped: {skipped}"


@pytest.mark.parametrize("name", RULES)
def test_rule_is_documented(name):
    rule = RULES[name]
    assert rule.__name__ == name
    assert len(rule.__doc__) > 40
    derivation = sys.modules[rule.__module__].__doc__
    for section in ("Shapes.", "Forward", "Backward", "Kinks", "Reference."):
        assert section.lower() in derivation.lower(), f"{rule.__module__} does not say {section}"


@pytest.mark.parametrize("name", RULES)
def test_configuration_is_keyword_only_and_arrays_are_not(name):
    for p in inspect.signature(RULES[name]).parameters.values():
        assert p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        assert (p.name in RULES[name].array_names) == (p.kind == p.POSITIONAL_OR_KEYWORD)
