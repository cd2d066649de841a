"""The script at the end of a report: it shows the failure with JAX and NumPy alone."""

import numpy as np

from jcnn.rule import Rule
from jcnn.verify.forms import CustomVJP
from jcnn.verify.report import Finding, Status
from jcnn.verify.sample import Point
from jcnn.verify.source import Code, Source, written
from jcnn.verify.trial import FIRST_DYS, Trial

UNPACK = """
def unpacked(text, dtype, shape):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype).reshape(shape)
""".strip()

COMPARE = """
y, res = {fwd}(*args{static})
dy = jax.tree.unflatten(jax.tree.structure(y), dys)
hand = {bwd}(res, dy)
reference = jax.vjp(lambda *args: {f}(*args{static}), *args)[1](dy)
for name, h, r in zip({names}, hand, reference):
    for h, r in zip(jax.tree.leaves(h, is_leaf=lambda a: a is None), jax.tree.leaves(r)):
        if r.dtype != jax.dtypes.float0:
            h = np.zeros(r.shape) if h is None else np.asarray(h, np.float64)
            print(f"{{name}}: off by {{abs(h - r).max():.3g}}, largest reference {{abs(r).max():.3g}}")
""".strip()

VERIFY = """
from jcnn.verify import verify_vjp

print(verify_vjp({rule}, *args{static}, seed={seed}))
""".strip()

NAMES = ("rule_f", "rule_fwd", "rule_bwd")
NUMBERS = ("autodiff", "kinks", "edges", "linearity", "outputs", "differences", "adjoint")


def reproduction(trial: Trial) -> str:
    """A self-contained script for the first failure; a wrong number is shown without jcnn."""
    failure = next(f for f in trial.findings if f.status == Status.FAIL)
    try:
        return _script(trial, failure)
    except Exception as e:
        return f"# no script could be written: {type(e).__name__}: {e}"


def _script(trial: Trial, failure: Finding) -> str:
    source = Source()
    point = _point(trial, failure)
    static = "".join(f", {name}={written(held.value)}" for name, held in trial.subject.static)
    if failure.property in NUMBERS and not isinstance(trial.subject.rule, CustomVJP):
        f, fwd, bwd = _functions(source, trial.subject.rule)
        names = written(trial.subject.parts.argument_names)
        shapes = ", ".join(f"rng.standard_normal({y.shape})" for y in trial.y)
        body = [f"rng = np.random.default_rng([{trial.seed}, {FIRST_DYS}])\ndys = [{shapes}]"]
        body += [COMPARE.format(f=f, fwd=fwd, bwd=bwd, static=static, names=names)]
    else:
        rule = _rule(source, trial.subject.rule)
        body = [VERIFY.format(rule=rule, static=static, seed=trial.seed)]
    args = _arguments(trial, point)
    if "unpacked(" in args + source.text():
        source.imports += ["import base64", "import zlib"]
        source.definitions.insert(0, UNPACK)
    return "\n\n".join([source.text(), args, *body]) + "\n"


def _arguments(trial: Trial, point: Point) -> str:
    """The arguments at a point: as they were sampled where they were, else as numbers."""
    seed = trial.sampled_with(point)
    if seed is None:
        return f"args = jax.tree.map(jnp.asarray, {written(trial.subject.args(point.arrays))})"
    draws = [
        Code(f"rng.standard_normal({np.shape(a)}).astype(jnp.{dtype}).astype(np.float64)")
        for a, dtype in zip(point.arrays, trial.dtypes, strict=True)
    ]
    args = written(trial.subject.args(tuple(draws)))
    return f"rng = np.random.default_rng({seed})\nargs = jax.tree.map(jnp.asarray, {args})"


def _point(trial: Trial, failure: Finding) -> Point:
    """The first point at which that failure was seen."""
    kinds = (p for p in trial.points if failure.detail.startswith(f"at {p.kind} "))
    return next(kinds, trial.points[1] if failure.property in ("autodiff", "outputs") else trial.points[0])


def _functions(source: Source, rule) -> tuple[str, str, str]:
    """Expressions for f, fwd and bwd."""
    if isinstance(rule, Rule):
        source.definitions.append(f"rule = {_rule(source, rule)}")
        return "rule.reference", "rule.fwd", "rule.bwd"
    f, fwd, bwd = (source.name_of(v, n) for v, n in zip(rule, NAMES, strict=True))
    return f, fwd, bwd


def _rule(source: Source, rule) -> str:
    """An expression for the rule."""
    if isinstance(rule, Rule):
        parts = {n: v for n, v in rule._parts.items() if callable(v)}
        named = ", ".join(f"{n}={source.name_of(v, f'rule_{n}')}" for n, v in parts.items())
        source.imports.insert(0, "import jcnn")
        return f"jcnn.Rule({named}, name={rule.name!r})"
    if isinstance(rule, CustomVJP):
        f = getattr(rule, "fun", None) or rule.f
        nondiff = tuple(getattr(rule, "nondiff_argnums", None) or getattr(rule, "static_argnums", None) or ())
        names = _functions(source, (f, rule.fwd, rule.bwd))
        source.definitions.append(f"rule = jax.custom_vjp({names[0]}, nondiff_argnums={nondiff})")
        source.definitions.append(f"rule.defvjp({names[1]}, {names[2]})")
        return "rule"
    return "(" + ", ".join(_functions(source, rule)) + ")"
