"""Every rule that jcnn exports, held to the law."""

import sys

import pytest

import jcnn
from tests import checks
from tests.cases import CASES

RULES = {name: value for name, value in vars(jcnn).items() if isinstance(value, jcnn.Rule)}


def parts(index: int, count: int) -> tuple:
    """All of the law for every other case and the last; the rest is not taken through all transformations."""
    return checks.VALUES + (checks.TRANSFORMS if index % 2 == 0 or index == count - 1 else ())


POINTS = [
    pytest.param(rule, case, part, id=f"{rule}-{case}-{part.__name__}")
    for rule, cases in CASES.items()
    for i, case in enumerate(cases)
    for part in parts(i, len(cases))
]


def test_every_rule_has_cases():
    assert set(RULES) == set(CASES)
    assert all(len(cases) >= 2 for cases in CASES.values())


@pytest.mark.parametrize(("rule", "case", "part"), POINTS)
def test_law(rule, case, part):
    args, static = CASES[rule][case]
    part(RULES[rule], args, static)


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
    import inspect

    for p in inspect.signature(RULES[name]).parameters.values():
        assert p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        assert (p.name in RULES[name].array_names) == (p.kind == p.POSITIONAL_OR_KEYWORD)
