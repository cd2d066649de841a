"""`verify_vjp` on rules that are right, wrong, vacuous or ill-behaved; `test_classics` has more errors."""

import json
import os
import re
import subprocess
import sys
from collections import namedtuple
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax, random
from jax.custom_batching import custom_vmap

import jcnn
from jcnn.rule import varying_axes
from jcnn.verify import Expect, assert_vjp, verify_vjp
from jcnn.verify.examples import normal

X, W, B, OTHER, KEY = normal(0, 3, 4), normal(1, 4, 2), normal(2, 2), normal(3, 4, 2), random.key(0)
X32, X16, PARAMS = X.astype(jnp.float32), X.astype(jnp.bfloat16), {"b": B, "out": {"w": W}}
TIED = jnp.array([[0.0, 2, 0, 0], [-3, -3, 5, 0]])
SHAPE, BOOLS = (jax.ShapeDtypeStruct((3, 4), dtype) for dtype in (jnp.float32, bool))
Pair = namedtuple("Pair", "a b")
quick = partial(verify_vjp, level="quick")


def keeping(f, bwd):
    """A rule whose residuals are its arguments."""
    return f, lambda *args, **static: (f(*args, **static), args), bwd


def slope(f, df):
    return keeping(f, lambda res, dy: (df(res[0]) * dy,))


def square(bwd):
    return keeping(lambda x: x * x, lambda res, dy: bwd(res[0], dy))


def broken(rule, factor=1.5):
    f, fwd, bwd = rule
    return f, fwd, lambda *args: jax.tree.map(lambda ct: factor * ct, bwd(*args))


def custom(rule, nondiff_argnums=(), **options):
    op = jax.custom_vjp(rule[0], nondiff_argnums=nondiff_argnums)
    op.defvjp(*rule[1:], **options)
    return op


def as_rule(rule):
    f, fwd, bwd = rule
    return jcnn.Rule(lambda x, w: fwd(x, w), bwd, lambda x, w: f(x, w), name="dense")


def failing(report):
    return {f.property for f in report.failures}


def run(code, **environment):
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__)), **environment}
    return subprocess.check_output([sys.executable, "-c", code], text=True, env=environment)


def told_apart(rule, *args, form=tuple, **static):
    report, other = (quick(form(r), *args, **static) for r in (rule, broken(rule)))
    assert (report.verdict, report.ok, report.causes, report.script) == ("CORRECT", True, [], ""), str(report)
    assert (other.verdict, other.ok) == ("WRONG", False)
    assert "1.5" in " ".join(other.causes)


SQUARE, LOG = square(lambda x, dy: (2 * x * dy,)), slope(jnp.log, lambda x: 1 / x)
DENSE = keeping(lambda x, w: x @ w, lambda r, dy: (dy @ r[1].T, r[0].T @ dy))
LAYER = keeping(lambda x, p: x @ p["out"]["w"] + p["b"], lambda r, dy:
                (dy @ r[1]["out"]["w"].T, {"b": dy.sum(0), "out": {"w": r[0].T @ dy}}))  # fmt: skip
TAKE = keeping(lambda x, i: x[i], lambda r, dy: (jnp.zeros_like(r[0]).at[r[1]].add(dy), None))
WHERE = keeping(lambda x, m: jnp.where(m, x, 0), lambda r, dy: (jnp.where(r[1], dy, 0), None))
DROPOUT = keeping(lambda x, key: x * random.bernoulli(key, 0.5, x.shape),
                  lambda r, dy: (dy * random.bernoulli(r[1], 0.5, dy.shape), None))  # fmt: skip
SCALE = keeping(lambda x, c: c * x, lambda r, dy: (r[1] * dy, jnp.sum(r[0] * dy)))
MODE = keeping(lambda x, mode: 2 * x if mode in (None, "on") else x, lambda r, dy: (2 * dy, None))
KEYWORD = keeping(lambda x, *, n, mode: x**n if mode == "on" else x, lambda r, dy: (3 * r[0] ** 2 * dy,))
POWER = keeping(lambda x, c=2.0, n=3: c * x**n, lambda r, dy:
                (r[1] * r[2] * r[0] ** (r[2] - 1) * dy, jnp.sum(r[0] ** r[2] * dy), None))  # fmt: skip
APPLY = lambda f, x, n: n * f(x), lambda f, x, n: (n * f(x), x), lambda f, n, x, dy: (n * jnp.cos(x) * dy,)
SYMBOLIC = (lambda x, w: x * x * w, lambda x, w: (x.value**2 * w.value, (x.value, w.value)),
            lambda r, dy: (2 * r[0] * r[1] * dy, r[0] ** 2 * dy))  # fmt: skip
ARGUMENTS = {
    "triple": (DENSE, X, W), "NumPy": (SQUARE, np.asarray(X)), "dict": (LAYER, X, PARAMS),
    "integers": (TAKE, X, jnp.array([0, 2, 2])), "a Python int": (TAKE, X, 1), "bools": (WHERE, X, X > 0.3),
    "a key": (DROPOUT, X, KEY), "a uint32 key": (DROPOUT, X, random.PRNGKey(0)), "a float": (SCALE, X, 0.7),
    "None": (MODE, X, None), "a string": (MODE, X, "on"), "list": (square(lambda x, dy: [2 * x * dy]), X),
    "a scalar": (SQUARE, 1.3), "bfloat16": (SQUARE, X16), "shapes": (WHERE, SHAPE, BOOLS),
    "a sampler": (TAKE, SHAPE, lambda rng: rng.integers(0, 3, 5)),
    "one sampler": (DENSE, lambda rng: (rng.standard_normal((3, 4)), rng.standard_normal((4, 2)))),
    "scalar output": (keeping(lambda x: jnp.sum(x * x), SQUARE[2]), X),
    "tuple of outputs": (keeping(lambda x: (x, x.sum()), lambda r, dy: (dy[0] + dy[1],)), X),
    "dict of outputs": (keeping(lambda x: {"a": x, "b": x}, lambda r, dy: (dy["a"] + dy["b"],)), X),
    "NamedTuple": (keeping(lambda x: Pair(2 * x, x), lambda r, dy: (2 * dy.a + dy.b,)), X),
    "integer output": (keeping(lambda x: (x, x.argmax()), lambda r, dy: (dy[0],)), X),
    "Python if": (slope(lambda x: x * x if x.sum() > -99 else x, lambda x: 2 * x), X),
    "that prints": (square(lambda x, dy: (print("bwd") or 2 * x * dy,)), X),
    "None for a step": (keeping(lambda x, y: x + jnp.sign(y), lambda r, dy: (dy, None)), X, X),
}  # fmt: skip
RIGHT = {name: partial(told_apart, *case) for name, case in ARGUMENTS.items()} | {
    "custom_vjp": partial(told_apart, DENSE, X, W, form=custom),
    "Rule": partial(told_apart, DENSE, X, W, form=as_rule),
    "nondiff": partial(told_apart, APPLY, jnp.sin, X, 3, form=partial(custom, nondiff_argnums=(0, 2))),
    "symbolic_zeros": partial(told_apart, SYMBOLIC, X, X + 1, form=partial(custom, symbolic_zeros=True)),
    "defaults": partial(told_apart, POWER, X, form=custom),
    "keyword for an argument": partial(told_apart, POWER, X, n=2, c=0.5, form=custom),
    "static keywords": partial(told_apart, KEYWORD, X, n=3, mode="on"),
}


@pytest.mark.parametrize("check", RIGHT.values(), ids=RIGHT)
def test_right_rule_is_told_from_a_broken_one(check):
    check()


def test_successor_of_custom_vjp():
    code = """if True:
        import jax, jax.numpy as jnp, jcnn.verify
        for factor in (2, 3):
            op = jax.custom_vjp(lambda n, x: x**n, nondiff_argnums=(0,))
            op.defvjp(lambda n, x: (x**n, x), lambda n, x, dy: (factor * x * dy,))
            print(type(op).__name__, jcnn.verify.verify_vjp(op, 2, jnp.ones(3), level="quick").verdict)"""
    assert run(code, JAX_CUSTOM_VJP3="1").split()[1::2] == ["CORRECT", "WRONG"]


NO_RULES = None, 3, "rule", jnp.sin, (1, 2, 3), SQUARE[:2], {}
REFUSED = {f"rule {i}": partial(quick, rule, X) for i, rule in enumerate(NO_RULES)}
for form, rule in {"triple": DENSE, "custom_vjp": custom(DENSE), "Rule": as_rule(DENSE)}.items():
    REFUSED[f"{form}, too few"] = partial(quick, rule, X)
    REFUSED[f"{form}, too many"] = partial(quick, rule, X, W, W)
    REFUSED[f"{form}, keyword"] = partial(quick, rule, X, W, stride=2)
REFUSED |= {
    "level": partial(verify_vjp, SQUARE, X, level="slow"),
    "dtypes": partial(verify_vjp, SQUARE, X, dtypes=("int32",)),
    "argument": partial(quick, SQUARE, X, expect=Expect(stop_gradient=("z",))),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_call_that_makes_no_sense_is_refused(call):
    with pytest.raises((TypeError, ValueError), match=r"(verify_vjp|Expect): .*(expected|argument)"):
        call()


def max_rule(at_zero, f=lambda x: jnp.maximum(x, 0)):
    return slope(f, lambda x: jnp.where(x == 0, at_zero, (x > 0) * 1.0))


def window_rule(weights):
    def bwd(res, dy):
        x = res[0].reshape(-1, 2)
        return ((weights((x == x.max(1, keepdims=True)) * 1.0) * dy[:, None]).reshape(res[0].shape),)

    return keeping(lambda x: x.reshape(-1, 2).max(1), bwd)


KINKS = {
    "max, slope 0": (max_rule(0.0), "CORRECT"), "max, slope 1/2": (max_rule(0.5), "CORRECT"),
    "max, slope 1": (max_rule(1.0), "WRONG"), "max, slope nan": (max_rule(jnp.nan), "WRONG"),
    "relu, 0": (max_rule(0.0, jax.nn.relu), "CORRECT"), "relu, 1/2": (max_rule(0.5, jax.nn.relu), "WRONG"),
    "relu, 1": (max_rule(1.0, jax.nn.relu), "WRONG"),
    "windows, the first": (window_rule(lambda hit: hit * (jnp.cumsum(hit, 1) == 1)), "CORRECT"),
    "windows, an even split": (window_rule(lambda hit: hit / hit.sum(1, keepdims=True)), "CORRECT"),
    "windows, all to both": (window_rule(lambda hit: hit), "WRONG"),
}  # fmt: skip


@pytest.mark.parametrize("x", [X, TIED], ids=["generic", "tied"])
@pytest.mark.parametrize(("rule", "verdict"), KINKS.values(), ids=KINKS)
def test_conventions_at_kinks(rule, verdict, x):
    assert quick(rule, x).verdict == verdict


def fail(error, *args):
    raise error


ERROR, EXIT, NO_FLOATS = KeyError("gamma"), SystemExit(3), keeping(lambda n: n + 1, lambda r, dy: (None,))
VACUOUS = {
    "softmax sums to one": (slope(lambda x: jax.nn.softmax(x).sum(), jnp.zeros_like), X),
    "times zero": (slope(lambda x: 0.0 * x, jnp.zeros_like), X),
    "no entries": (SQUARE, jnp.zeros((0, 3))), "no rows": (DENSE, jnp.zeros((0, 4)), W),
    "no floats": (NO_FLOATS, jnp.arange(3)), "no arrays": (NO_FLOATS, 3), "nan": (SQUARE, X * jnp.nan),
    "no outputs": (keeping(lambda x: None, lambda r, dy: (jnp.zeros_like(r[0]),)), X),
    "raising": (keeping(partial(fail, ERROR), fail), X), "exit": (keeping(partial(fail, EXIT), fail), X),
}  # fmt: skip


@pytest.mark.parametrize("case", VACUOUS.values(), ids=VACUOUS)
def test_check_that_could_not_have_failed_is_inconclusive(case):
    report = quick(*case)
    assert (report.verdict, report.ok) == ("INCONCLUSIVE", False), str(report)


LIES = {"stop_gradient": lambda x: x * lax.stop_gradient(x), "rule": custom(square(lambda x, dy: (x * dy,)))}
SCALES = jnp.array([1e3, 1, 1e-3, 1])
WRONG = {
    "ignored dy": (square(lambda x, dy: (2 * x,)), "the cotangent is ignored"),
    "relu(dy)": (square(lambda x, dy: (2 * x * jnp.maximum(dy, 0),)), r"not linear .* relu\(dy\)"),
    "ignored output": (keeping(lambda x: (2 * x, x * x), lambda r, dy: (2 * dy[0],)), "output 1 is ignored"),
    "zero for tiny": (slope(lambda x: 1e-6 * jnp.sum(x * x), jnp.zeros_like), "zero"),
    "factor of tiny": (slope(lambda x: 1e-6 * jnp.sum(x * x), lambda x: 2.0001e-6 * x), "1.00005"),
    "small channel": (slope(lambda x: SCALES * x, lambda x: SCALES.at[2].set(1.0001e-3)), "axis 1"),
    "right at 0 and 1 only": (slope(lambda x: x * x, lambda x: 2 * x**3), "cotangent", jnp.eye(3)),
    "overflow": (slope(jax.nn.softplus, lambda x: jnp.exp(x) / (1 + jnp.exp(x))), "overflow"),
    "lie by stop_gradient": (slope(LIES["stop_gradient"], lambda x: x), "differences"),
    "lie by a rule": (slope(LIES["rule"], lambda x: x), "differences"),
    "float32": (square(lambda x, dy: ((2 * x * dy).astype(jnp.float32),)), "dtype float32, expected float64"),
    "bare array": (square(lambda x, dy: 2 * x * dy), "expected a tuple"),
    "too few": (square(lambda x, dy: ()), "0 cotangents, expected 1"),
    "too many": (square(lambda x, dy: (2 * x * dy, None)), "2 cotangents, expected 1"),
    "None": (square(lambda x, dy: (None,)), "None where there is a gradient"),
    "None for all": (square(lambda x, dy: None), "NoneType, expected a tuple"),
    "shape": (square(lambda x, dy: ((2 * x * dy)[None],)), r"shape \(1, 3, 4\), expected \(3, 4\)"),
    "dict for array": (square(lambda x, dy: ({"x": 2 * x * dy},)), "cotangent of 'x'"),
    "list for array": (square(lambda x, dy: (list(2 * x * dy),)), "cotangent of 'x'"),
    "string for array": (square(lambda x, dy: ("dx",)), "cotangent of 'x'"),
    "missing key": (keeping(LAYER[0], lambda r, dy: (dy @ W.T, {"b": B})), "of 'p' is", X, PARAMS),
    "no residuals": ((SQUARE[0], SQUARE[0], SQUARE[2]), "expected a pair"),
    "outputs of fwd": ((SQUARE[0], lambda x: ((x, x), x), lambda r, dy: (dy[0],)), "primal|output"),
    "raising fwd": ((SQUARE[0], partial(fail, ERROR), SQUARE[2]), "KeyError: 'gamma'"),
    "raising bwd": (square(partial(fail, ERROR)), "KeyError: 'gamma'"),
    "exit in bwd": (square(partial(fail, EXIT)), "SystemExit"),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_error_is_found_and_named(case):
    rule, cause, *args = case
    report = quick(rule, *(args or [X]))
    assert report.verdict == "WRONG"
    assert re.search(cause, " ".join(report.causes)), " ".join(report.causes)


def test_reference_is_what_the_rule_is_held_to():
    assert quick(SQUARE, X, reference=lambda x: x**2).ok
    assert "primal" in failing(quick(SQUARE, X, reference=lambda x: x**3))


MISFITS = [*LIES.values(), jnp.sum, lambda x: (x, x), partial(fail, ERROR), partial(fail, EXIT)]
MISFITS = [{"reference": f} for f in MISFITS] + [{"expect": Expect(surrogate=f)} for f in MISFITS[2:]]


@pytest.mark.parametrize("options", MISFITS)
def test_reference_or_declaration_that_does_not_fit(options):
    assert not quick(SQUARE, X, **options).ok


def summed(ct):
    """Over the devices, although jcnn.Rule does it."""
    axes = tuple(varying_axes(ct))
    return lax.pcast(lax.psum(ct, axes), axes, to="varying") if axes else ct


doubled = custom_vmap(lambda x: 2 * x)
doubled.def_vmap(lambda axis_size, in_batched, x: (x, in_batched[0]))
COARSE = square(lambda x, dy: (2 * x * (1 + 1e5 * jnp.finfo(x.dtype).eps) * dy,))
BEYOND = {
    "second order": (square(lambda x, dy: (2 * lax.stop_gradient(x) * dy,)), "second_order"),
    "vmap": (keeping(lambda x: 2 * x, lambda r, dy: (doubled(dy),)), "vmap"),
    "Python if": (square(lambda x, dy: ((2 if (dy == dy).all() else 1) * x * dy,)), "jit"),
    "psum": (as_rule((*DENSE[:2], lambda r, dy: (dy @ r[1].T, summed(r[0].T @ dy)))), "shard_map", X, W),
    "float32": (COARSE, "precision", X32),
    "hidden nan": ((SQUARE[0], lambda x: (jnp.nan_to_num(x * x), (x,)), SQUARE[2]), "non_finite"),
}


@pytest.mark.parametrize("case", BEYOND.values(), ids=BEYOND)
def test_error_that_does_not_show_in_gradients_in_float64(case):
    rule, name, *args = case
    report = verify_vjp(rule, *(args or [X]))
    assert (report.verdict, name in failing(report), bool(report.causes)) == ("WRONG", True, True)
    assert not failing(report) & {"autodiff", "differences", "primal", "contract", "linearity"}


def test_low_precision_counts_where_it_is_used_or_asked_for():
    report = verify_vjp(COARSE, X)
    assert report.ok
    assert any("float32" in note for note in report.notes)
    assert not verify_vjp(COARSE, X, dtypes=("float32",)).ok


DEVIATIONS = {  # the forward, what is declared, a backward that keeps to it, and one that does not
    "straight_through": (lambda x: jnp.round(x), ("x",), lambda r, dy: (dy,), lambda r, dy: (0 * dy,)),
    "cotangent": (jax.nn.relu, jax.nn.relu, lambda r, dy: ((r[0] > 0) * jax.nn.relu(dy),), max_rule(0.0)[2]),
    "replace": (DENSE[0], {"x": {"w": OTHER}}, lambda r, dy: (dy @ OTHER.T, r[0].T @ dy), DENSE[2], W),
    "stop_gradient": (DENSE[0], ("w",), lambda r, dy: (dy @ r[1].T, None), DENSE[2], W),
    "kinks": (jax.nn.relu, {0.0: 1.0}, max_rule(1.0)[2], max_rule(0.0)[2]),
    "surrogate": (lambda x: (x > 0) * 1.0, jnp.tanh, lambda r, dy: (dy / jnp.cosh(r[0]) ** 2,), SQUARE[2]),
}


@pytest.mark.parametrize("kind", DEVIATIONS)
def test_declared_deviation_is_held_to(kind):
    f, declared, deviating, other, *args = DEVIATIONS[kind]
    expect = Expect(**{kind: declared})
    report = verify_vjp(keeping(f, deviating), X, *args, expect=expect)
    assert (report.verdict, report.ok, report.causes) == ("EXPECTED_DEVIATION", True, []), str(report)
    assert quick(keeping(f, deviating), X, *args).verdict == "WRONG"
    for wrong in (keeping(f, other), broken(keeping(f, deviating))):
        assert quick(wrong, X, *args, expect=expect).verdict == "WRONG"


def standardized(x):
    return (x - x.mean(0)) / x.std(0)


def terms(factors, res, dy):
    y, std = standardized(res[0]), res[0].std(0)
    found = {"direct": dy, "mean": -dy.mean(0) + 0 * dy, "variance": -y * (dy * y).mean(0)}
    return ({name: factor * found[name] / std for name, factor in factors.items()},)


TERMS = {
    "right": ({"direct": 1, "mean": 1, "variance": 1}, "^$"),
    "doubled": ({"direct": 1, "mean": 1, "variance": 2}, r"\[variance\] has to be multiplied by 0.5;"),
    "sign": ({"direct": 1, "mean": -1, "variance": 1}, r"\[mean\] has to be multiplied by -1;"),
    "sum for mean": ({"direct": 1, "mean": 3, "variance": 1}, r"\[mean\] has to be multiplied by 0.333333;"),
    "missing": ({"direct": 1, "variance": 1}, r"terms of 'x': .* missing"),
}


@pytest.mark.parametrize(("factors", "line"), TERMS.values(), ids=TERMS)
def test_coefficients_of_terms(factors, line):
    of_bwd = partial(terms, factors)
    whole = keeping(standardized, lambda res, dy: (sum(of_bwd(res, dy)[0].values()),))
    for report in (quick(whole, X, terms=of_bwd), quick(keeping(standardized, of_bwd), X, terms=True)):
        assert re.search(line, " ".join(report.causes)), " ".join(report.causes)


def cubed_bwd(res, dy):
    return (3 * res[0] ** 2 * dy,)


def test_script_shows_the_failure_without_jcnn():
    rules = [(keeping(standardized, cubed_bwd), X), (max_rule(1.0), X), (WRONG["small channel"][0], X)]
    rules += [(broken(LAYER), X, PARAMS), (broken(DROPOUT), X, KEY), (broken(TAKE), X, jnp.array([0, 2]))]
    scripts = [quick(*case).script for case in rules] + [quick(KEYWORD, X, n=2, mode="on").script]
    out = run(f"import sys\nsys.modules['jcnn'] = None\nfor s in {scripts!r}: exec(s, {{}}), print('next')")
    for part in out.split("next\n")[: len(scripts)]:
        assert max(map(float, re.findall(r"off by (\S+),", part))) > 1e-9, part


def test_scripts_of_other_forms():
    scripts = [quick(form(broken(DENSE)), X, W).script for form in (custom, as_rule)]
    out = run(f"for s in {scripts!r}: exec(s, {{}})")
    assert out.count("WRONG  ") == 1
    assert out.count("off by") == 2


def test_same_seed_gives_the_same_report():
    reports = [quick(broken(DENSE), X, W, seed=seed).to_dict() for seed in (1, 1, 2)]
    assert all(report.pop("seconds") for report in reports)
    assert reports[0] == reports[1] != reports[2]


def test_report_as_json(tmp_path):
    report = quick(max_rule(jnp.nan), X)
    assert json.loads(report.to_json(tmp_path / "report.json")) == report.to_dict()
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "WRONG"


def test_progress_names_what_is_looked_at():
    seen = []
    verify_vjp(SQUARE, X, progress=seen.append)
    assert {"autodiff", "linearity", "jit", "precision"} <= set(seen)


@pytest.mark.parametrize("case", [(broken(SQUARE), X), VACUOUS["times zero"]])
def test_assert_vjp(case):
    assert_vjp(SQUARE, X, level="quick")
    with pytest.raises(AssertionError, match=r"\n(WRONG|INCONCLUSIVE)"):
        assert_vjp(*case, level="quick")


SETTINGS = {
    "x64 off": partial(jax.enable_x64, False), "strict": partial(jax.numpy_dtype_promotion, "strict"),
    "jit": jax.disable_jit, "nans": partial(jax.debug_nans, True), "NumPy": partial(np.errstate, all="raise"),
}  # fmt: skip


@pytest.mark.parametrize("context", SETTINGS.values(), ids=SETTINGS)
def test_settings_do_not_matter_and_are_left_alone(context):
    def settings():
        return {name: getattr(jax.config, name, None) for name in jax.config.values}, np.geterr()

    with context():
        before = settings()
        assert quick(LOG, X32).verdict == "CORRECT"
        assert quick(broken(LOG, 1 + 1e-6), X32).verdict == "WRONG"
        with pytest.raises(KeyboardInterrupt):
            quick(square(partial(fail, KeyboardInterrupt())), X)
        assert settings() == before
