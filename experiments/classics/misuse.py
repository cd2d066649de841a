"""Errors of use: what goes wrong in a backward whatever its mathematics, each as a function of the rule.

`i` is the cotangent or the residual that is hit.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.classics import kit
from experiments.classics.kit import Planted, Rule, back, plant, post, pre, saved


def _cast(tree, dtype):
    """Its floating-point leaves in another dtype."""
    return jax.tree.map(lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.inexact) else a, tree)


def absolute(rule: Rule) -> Planted:
    return plant(
        "abs(dy) for dy", rf"\babs\b|absolute value|{kit.NONLINEAR}", pre(rule, jnp.abs), "where dy < 0"
    )


def squared(rule: Rule) -> Planted:
    return plant("dy**2 for dy", rf"squar|quadrat|{kit.NONLINEAR}", pre(rule, lambda dy: dy * dy))


def rectified(rule: Rule) -> Planted:
    wrong = pre(rule, lambda dy: jnp.where(dy > 0, dy, 0))
    return plant("relu(dy) for dy", rf"relu|clip|{kit.NONLINEAR}", wrong, "where dy < 0")


def clipped(rule: Rule) -> Planted:
    wrong = pre(rule, lambda dy: jnp.clip(dy, -8, 8))
    return plant(
        "dy clipped to [-8, 8]", rf"clip|satur|\blarge\b|bounded|{kit.NONLINEAR}", wrong, "where |dy| > 8"
    )


def flushed(rule: Rule) -> Planted:
    wrong = pre(rule, lambda dy: jnp.where(jnp.abs(dy) < 1e-3, 0, dy))
    cause = rf"small|tiny|flush|thresh|zero|underflow|{kit.NONLINEAR}"
    return plant("dy flushed to zero", cause, wrong, "where |dy| < 1e-3")


def normalised(rule: Rule) -> Planted:
    wrong = pre(rule, lambda dy: dy / jnp.sqrt(jnp.sum(dy * dy) + 1e-6))
    return plant("dy divided by its norm", rf"normali[sz]|{kit.NONLINEAR}", wrong)


def ones(rule: Rule) -> Planted:
    cause = rf"ignor|\bones|not used|unused|independent|upstream|constant|{kit.NONLINEAR}"
    return plant("dy ignored, taken as ones", cause, pre(rule, jnp.ones_like))


def offset(rule: Rule, i: int = 0) -> Planted:
    cause = rf"zero|bwd\(0\)|offset|bias|affine|constant|added|{kit.NONLINEAR}"
    return plant(f"1e-3 added to cotangent {i}", cause, post(rule, i, lambda d: d + 1e-3), "also at dy = 0")


def missing(rule: Rule, i: int) -> Planted:
    _, _, bwd = rule
    wrong = back(rule, lambda res, dy: (*(cts := bwd(res, dy))[:i], None, *cts[i + 1 :]))
    return plant(f"None for cotangent {i}", r"None|missing|zero|no gradient|absent|structure", wrong)


def zeros(rule: Rule, i: int) -> Planted:
    cause = rf"zero|missing|vanish|absent|forgot|no gradient|{kit.FACTOR}"
    return plant(f"zeros for cotangent {i}", cause, post(rule, i, jnp.zeros_like))


def frozen(rule: Rule, i: int) -> Planted:
    wrong = saved(rule, i, lax.stop_gradient)
    return plant(f"stop_gradient on residual {i}", kit.SECOND, wrong, "in second order only")


def frozen_dy(rule: Rule) -> Planted:
    wrong = pre(rule, lax.stop_gradient)
    return plant("stop_gradient on dy", kit.SECOND, wrong, "in the derivative by dy only")


def narrowed(rule: Rule, dtype) -> Planted:
    """Computes in `dtype`, returns dy's."""
    f, fwd, bwd = rule

    def wrong(res, dy):
        return _cast(bwd(_cast(res, dtype), _cast(dy, dtype)), jax.tree.leaves(dy)[0].dtype)

    return plant(f"computed in {jnp.dtype(dtype)}", kit.DTYPE, (f, fwd, wrong), "as lost digits in float64")


def mistyped(rule: Rule, dtype, i: int = 0) -> Planted:
    wrong = post(rule, i, lambda d: d.astype(dtype))
    return plant(
        f"cotangent {i} always {jnp.dtype(dtype)}", kit.DTYPE, wrong, "for arguments of another dtype"
    )


def widened(rule: Rule, i: int = 0) -> Planted:
    wrong = post(rule, i, lambda d: d.astype(jnp.promote_types(d.dtype, jnp.float32)))
    return plant(f"cotangent {i} is float32 for bfloat16", kit.DTYPE, wrong, "in bfloat16 only")


def primal_off(rule: Rule) -> Planted:
    f, fwd, bwd = rule
    wrong = f, lambda *args: (fwd(*args)[0] * (1 + 1e-3), fwd(*args)[1]), bwd
    return plant("fwd's primal is 1e-3 off", r"primal|forward|fwd", wrong, "in fwd(*args)[0]")


def noisy(rule: Rule, i: int = 0) -> Planted:
    rng = np.random.default_rng()
    wrong = post(rule, i, lambda d: d + jnp.asarray(1e-4 * rng.standard_normal(d.shape), d.dtype))
    return plant("noise of 1e-4 from NumPy", kit.IMPURE, wrong, "in a second call, and at dy = 0")


def last_call(rule: Rule) -> Planted:
    """Like a layer object that keeps `self.cache`."""
    f, fwd, bwd = rule
    cache = []

    def keep(*args):
        y, cache[:] = fwd(*args)
        return y, ()

    wrong = f, keep, lambda _, dy: bwd(tuple(cache), dy)
    return plant("residuals of the last fwd", rf"residual|last|{kit.IMPURE}", wrong, "after another fwd, jit")


def accumulates(rule: Rule) -> Planted:
    """Like a layer object that does `self.dw += dw`."""
    f, fwd, bwd = rule
    total = []

    def wrong(res, dy):
        total[:] = [jax.tree.map(jnp.add, total[0], bwd(res, dy)) if total else bwd(res, dy)]
        return total[0]

    return plant(
        "cotangents of all calls added", rf"accum|{kit.IMPURE}", (f, fwd, wrong), "in the second call"
    )


def alternates(rule: Rule, i: int = 0) -> Planted:
    calls = []
    wrong = post(rule, i, lambda d: (calls.append(0), d * (1 + len(calls) % 2))[1])
    return plant(
        "every other call doubled", rf"doubl|factor|{kit.IMPURE}", wrong, "in one of two equal calls"
    )


def branches(rule: Rule) -> Planted:
    f, fwd, bwd = rule

    def wrong(res, dy):
        if not all(jnp.isfinite(d).all() for d in jax.tree.leaves(dy)):
            dy = jax.tree.map(jnp.nan_to_num, dy)
        return bwd(res, dy)

    return plant(
        "Python if on a traced value", rf"\bif\b|\bbool|{kit.TRACED}", (f, fwd, wrong), "under jit, vmap"
    )


def traced_only(rule: Rule, i: int = 0) -> Planted:
    wrong = post(rule, i, lambda d: d / 2 if isinstance(d, jax.core.Tracer) else d)
    return plant("halved if traced", rf"{kit.FACTOR}|{kit.TRACED}", wrong, "under jit, vmap, grad of grad")


def numpy_only(rule: Rule) -> Planted:
    _, _, bwd = rule
    wrong = back(rule, lambda res, dy: bwd(*jax.tree.map(np.asarray, (res, dy))))
    return plant(
        "np.asarray of residuals and dy", rf"asarray|{kit.TRACED}", wrong, "under jit, vmap, grad of grad"
    )


def fewer(rule: Rule) -> Planted:
    _, _, bwd = rule
    wrong = back(rule, lambda res, dy: bwd(res, dy)[:-1])
    return plant("the last cotangent is not returned", kit.STRUCTURE, wrong, "in the number of cotangents")


def extra(rule: Rule) -> Planted:
    _, _, bwd = rule
    wrong = back(rule, lambda res, dy: (*bwd(res, dy), None))
    return plant(
        "None for a setting that is closed over", kit.STRUCTURE, wrong, "in the number of cotangents"
    )


def bare(rule: Rule) -> Planted:
    _, _, bwd = rule
    wrong = back(rule, lambda res, dy: bwd(res, dy)[0])
    return plant("an array, not a tuple of one", kit.STRUCTURE, wrong, "in the container of the cotangents")


def transposed(rule: Rule, i: int = 0) -> Planted:
    cause = rf"{kit.SHAPE}|{kit.TRANSPOSED}"
    return plant(f"cotangent {i} transposed", cause, post(rule, i, jnp.matrix_transpose), "in its shape")


def bloated(rule: Rule) -> Planted:
    f, fwd, bwd = rule

    def keep(*args):
        y, res = fwd(*args)
        return y, jax.tree.map(lambda r: jnp.stack([r] * 1000), res)

    wrong = f, keep, lambda res, dy: bwd(jax.tree.map(lambda r: r[0], res), dy)
    return plant("residuals saved 1000 times", r"residual|memor|bytes|bloat", wrong, "in their size only")


def first_example(rule: Rule, i: int = 0) -> Planted:
    wrong = post(rule, i, lambda d: d.at[0].multiply(1.01))
    cause = rf"batch|{kit.PARTIAL}|{kit.FACTOR}"
    return plant(f"cotangent {i} is 1% off in the first example", cause, wrong, "for index 0 of the batch")


def last_channel(rule: Rule, i: int = 0) -> Planted:
    wrong = post(rule, i, lambda d: d.at[..., -1].set(0))
    return plant(
        f"cotangent {i} is 0 in the last channel", rf"last|zero|{kit.PARTIAL}", wrong, "for index -1"
    )


def one_entry(rule: Rule, i: int = 0) -> Planted:
    wrong = post(rule, i, lambda d: d.at[(1,) * d.ndim].multiply(1.05))
    cause = rf"(one|1) (entry|element|place|of)|{kit.PARTIAL}|{kit.FACTOR}"
    return plant(f"one entry of cotangent {i} is 5% off", cause, wrong, "for index 1 in all axes")


def drifted(rule: Rule, i: int = 0) -> Planted:
    wrong = post(rule, i, lambda d: d * (1 + 1e-6))
    cause = rf"1e-0?6|{kit.DTYPE}|{kit.FACTOR}"
    return plant(f"cotangent {i} is 1e-6 too large", cause, wrong, "in float64 only")
