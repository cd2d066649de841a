"""The one gradient checker of the test suite: each function holds a rule to one part of the law.

All work on `(rule, args, static)`, raise AssertionError with the argument and the worst index, and judge
errors relative to the largest entry of the array they are in.  Cotangents are random and signed.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

F64 = 1e-9  # relative; what every rule must agree with autodiff of its reference to
LOW_PRECISION = (jnp.float32, jnp.bfloat16, jnp.float16)


def is_float(a: Any) -> bool:
    return a is not None and jnp.issubdtype(a.dtype, jnp.floating)


def draw(seed: int, like: Any) -> Any:
    """Standard normal values in the shapes and dtypes of `like`, a pytree."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape), a.dtype), like)


def of_floats(f: Callable, args: tuple, static: dict) -> tuple[Callable, tuple]:
    """`f` as a function of its floating-point arguments, and those."""
    index = [i for i, a in enumerate(args) if is_float(a)]

    def g(*floats):
        full = list(args)
        for i, a in zip(index, floats, strict=True):
            full[i] = a
        return f(*full, **static)

    return g, tuple(args[i] for i in index)


def assert_close(got: Any, expected: Any, tol: float, what: str) -> None:
    """Equal to `tol` relative to the largest finite expected entry, leaf by leaf; NaN and inf in place."""
    got_leaves, expected_leaves = jax.tree.leaves(got), jax.tree.leaves(expected)
    assert len(got_leaves) == len(expected_leaves), (
        f"{what}: {len(got_leaves)} arrays, not {len(expected_leaves)}"
    )
    for i, (a, b) in enumerate(zip(got_leaves, expected_leaves, strict=True)):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape, f"{what} [{i}]: shape {a.shape}, expected {b.shape}"
        finite = np.isfinite(b)
        assert np.array_equal(np.isfinite(a), finite), (
            f"{what} [{i}]: not finite in other places than expected"
        )
        same = np.array_equal(np.where(finite, 0, a), np.where(finite, 0, b), equal_nan=True)
        assert same, f"{what} [{i}]: other non-finite values than expected"
        error = np.where(finite, np.abs(np.where(finite, a, 0) - np.where(finite, b, 0)), 0)
        scale = max(np.abs(b[finite]).max(initial=0), np.finfo(np.float64).tiny)
        if error.max(initial=0) > tol * scale:
            at = tuple(map(int, np.unravel_index(error.argmax(), error.shape)))
            relative = f"error {error[at] / scale:.1e} of scale {scale:.3g}"
            raise AssertionError(f"{what} [{i}]: {a[at]} but expected {b[at]} at {at}: {relative}")


def primal(rule, args, static) -> None:
    """Called, by `fwd`, jitted and by the reference, the op gives the same value."""
    y = rule(*args, **static)
    assert_close(rule.fwd(*args, **static)[0], y, 0, "fwd")
    assert_close(jax.jit(lambda *a: rule(*a, **static))(*args), y, 1e-12, "jit")
    assert_close(y, rule.reference(*args, **static), F64, "reference")


def first_order(rule, args, static) -> None:
    """`bwd` and `jax.grad` give the cotangents of autodiff of the reference, in its shapes and dtypes."""
    y, res = rule.fwd(*args, **static)
    dy = draw(1, y)
    cts = rule.bwd(res, dy)
    assert len(cts) == len(args) or len(args) < len(cts) == len(rule.array_names)
    padded = (*args, *(None,) * (len(cts) - len(args)))
    for name, a, ct in zip(rule.array_names, padded, cts, strict=True):
        if is_float(a):
            assert (ct.shape, ct.dtype) == (a.shape, a.dtype), f"{name}: {ct.dtype}{ct.shape}"
        else:
            assert ct is None, f"{name}: {ct}"
    hand = [ct for ct in cts if ct is not None]
    f, floats = of_floats(rule, args, static)
    reference, _ = of_floats(rule.reference, args, static)
    auto = jax.jit(lambda dy, *a: jax.vjp(reference, *a)[1](dy))(dy, *floats)
    assert_close(hand, auto, F64, "bwd against autodiff")
    assert_close(jax.vjp(f, *floats)[1](dy), hand, 0, "jax.vjp against bwd")
    jitted = jax.jit(lambda dy, *a: jax.vjp(f, *a)[1](dy))(dy, *floats)
    assert_close(jitted, auto, F64, "jitted vjp against autodiff")


def differences(rule, args, static, step: float = 1e-2) -> None:
    """Adjoint identity <dy, J v> = <J^T dy, v>, J v by Richardson's extrapolation of central differences."""
    f, floats = of_floats(lambda *a, **s: rule.fwd(*a, **s)[0], args, static)
    f = jax.jit(f)
    v = draw(2, floats)

    def central(h):
        ahead = f(*(a + h * t for a, t in zip(floats, v, strict=True)))
        back = f(*(a - h * t for a, t in zip(floats, v, strict=True)))
        return jax.tree.map(lambda p, q: (p - q) / (2 * h), ahead, back)

    table = [central(step / 2**i) for i in range(6)]
    for order in range(1, len(table)):
        k = 4**order
        table = [
            jax.tree.map(lambda a, b, k=k: (k * b - a) / (k - 1), coarse, fine)
            for coarse, fine in itertools.pairwise(table)
        ]
    jv = table[0]
    y, res = rule.fwd(*args, **static)
    dy = draw(3, y)
    cts = [ct for ct in rule.bwd(res, dy) if ct is not None]

    def inner(p, q):
        return sum(float(jnp.vdot(a, b)) for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(q), strict=True))

    def norm(p):
        return np.sqrt(inner(p, p))

    scale = norm(dy) * norm(jv) + norm(cts) * norm(v)
    error = abs(inner(dy, jv) - inner(cts, v))
    assert error <= 1e-8 * max(scale, 1e-300), f"adjoint identity: off by {error / scale:.1e}"


def linear_in_cotangent(rule, args, static) -> None:
    """bwd(res, a u + b v) = a bwd(res, u) + b bwd(res, v), and bwd(res, 0) = 0."""
    y, res = rule.fwd(*args, **static)
    u, v = draw(4, y), draw(5, y)
    mixed = rule.bwd(res, jax.tree.map(lambda a, b: 2.5 * a - 0.75 * b, u, v))
    apart = jax.tree.map(lambda a, b: 2.5 * a - 0.75 * b, rule.bwd(res, u), rule.bwd(res, v))
    assert_close(mixed, apart, 1e-11, "linearity")
    zeros = rule.bwd(res, jax.tree.map(jnp.zeros_like, y))
    assert_close(zeros, jax.tree.map(jnp.zeros_like, zeros), 0, "zero cotangent")


def second_order(rule, args, static) -> None:
    """Reverse over reverse, in the arguments and in the cotangent, agrees with autodiff of the reference."""
    f, floats = of_floats(rule, args, static)
    reference, _ = of_floats(rule.reference, args, static)
    dy = draw(6, jax.eval_shape(f, *floats))
    weights = draw(7, floats)

    def through(f):
        def inner(floats, dy):
            cts = jax.vjp(f, *floats)[1](dy)
            return sum(jnp.vdot(w, ct) for w, ct in zip(weights, cts, strict=True))

        return jax.jit(jax.grad(inner, argnums=(0, 1)))(floats, dy)

    assert_close(through(f), through(reference), F64, "second order")


def apart(rule, args, static) -> None:
    """`fwd` and `bwd` can be jitted on their own, residuals passing between them."""
    y, res = rule.fwd(*args, **static)
    dy = draw(8, y)
    _, jitted_res = jax.jit(lambda *a: rule.fwd(*a, **static))(*args)
    assert_close(jax.jit(rule.bwd)(jitted_res, dy), rule.bwd(res, dy), 1e-11, "jitted apart")


def vmapped(rule, args, static) -> None:
    """vmap over any subset of the arguments equals a loop over examples, forward and backward.

    Of more than three arguments, those are mapped one at a time and all together.
    """
    f, floats = of_floats(rule, args, static)
    count = 3
    dy = draw(9, jax.eval_shape(f, *floats))

    def value_and_vjp(*a):
        y, vjp = jax.vjp(f, *a)
        return y, vjp(dy)

    for mapped in itertools.product([True, False], repeat=len(floats)):
        if not any(mapped) or (len(floats) > 3 and sum(mapped) not in (1, len(floats))):
            continue
        axes = tuple(0 if m else None for m in mapped)
        factors = 1 + 0.25 * np.arange(count)
        batch = tuple(
            a * factors.reshape(-1, *[1] * a.ndim) if m else a for a, m in zip(floats, mapped, strict=True)
        )

        def loop(f, *batch, mapped=mapped):
            def example(i):
                return f(*(a[i] if m else a for a, m in zip(batch, mapped, strict=True)))

            return jax.lax.map(example, jnp.arange(count))

        @jax.jit
        def both(*batch, axes=axes, loop=loop):
            of_each = jax.vmap(value_and_vjp, in_axes=axes)(*batch), loop(value_and_vjp, *batch)
            of_all = [
                jax.grad(lambda b, g=g: _weighted(g(*b), 10))(batch)
                for g in (jax.vmap(f, in_axes=axes), functools.partial(loop, f))
            ]
            return of_each, of_all

        of_each, of_all = both(*batch)
        assert_close(*of_each, 1e-11, f"vmap of {mapped}")
        assert_close(*of_all, 1e-11, f"grad of vmap of {mapped}")


def _weighted(y: Any, seed: int) -> jax.Array:
    """A scalar whose cotangent for y is random: differentiating it tests J^T at a generic dy."""
    return sum(
        jnp.vdot(w, a) for w, a in zip(jax.tree.leaves(draw(seed, y)), jax.tree.leaves(y), strict=True)
    )


def under_control_flow(rule, args, static) -> None:
    """The gradient is the same inside `scan`, `checkpoint` and `cond`."""
    f, floats = of_floats(rule, args, static)

    def plain(a):
        return _weighted(f(*a), 11)

    def scanned(a):
        return jax.lax.scan(lambda total, _: (total + plain(a), None), 0.0, length=2)[0] / 2

    def switched(a):
        return jax.lax.cond(a[0].sum() < jnp.inf, plain, lambda a: 0.0, a)

    functions = [plain, scanned, jax.checkpoint(plain), switched]
    gradients = jax.jit(lambda a: [jax.grad(g)(a) for g in functions])(floats)
    for name, gradient in zip(("scan", "checkpoint", "cond"), gradients[1:], strict=True):
        assert_close(gradient, gradients[0], 1e-11, name)


def autodiff_switch(rule, args, static) -> None:
    """`jcnn.autodiff` makes forward mode work, also through a function that was jitted and traced before."""
    import jcnn

    f, floats = of_floats(rule, args, static)
    reference, _ = of_floats(rule.reference, args, static)
    f = jax.jit(f)
    f(*floats)
    v = draw(12, floats)
    got = jax.jvp(jcnn.autodiff(f), floats, v)
    assert_close(got, jax.jvp(reference, floats, v), 1e-12, "jvp of autodiff(f)")


def low_precision(rule, args, static) -> None:
    """In f32, bf16 and f16 the error against f64 at the rounded inputs is at most twice autodiff's own.

    Below two units of rounding, which of the two is closer is luck.
    """
    for dtype in LOW_PRECISION:
        low = tuple(a.astype(dtype) if is_float(a) else a for a in args)
        wide = tuple(a.astype(jnp.float64) if is_float(a) else a for a in low)
        dy = draw(13, jax.eval_shape(lambda: rule(*low, **static)))  # noqa: B023
        hand = _value_and_vjp(rule, low, static, dy)
        auto = _value_and_vjp(rule.reference, low, static, dy)
        true = _value_and_vjp(rule.reference, wide, static, dy)
        for ct, a in zip(hand[1], of_floats(rule, low, static)[1], strict=True):
            assert ct.dtype == a.dtype, f"cotangent {ct.dtype} for {a.dtype}"
        eps = float(jnp.finfo(dtype).eps)
        for i, (h, a, t) in enumerate(zip(*map(jax.tree.leaves, (hand, auto, true)), strict=True)):
            h, a, t = (np.asarray(v, np.float64) for v in (h, a, t))
            if not np.isfinite(t).all() or t.size == 0:
                continue
            scale = max(np.abs(t).max(), np.finfo(np.float64).tiny)
            own, theirs = np.abs(h - t).max() / scale, np.abs(a - t).max() / scale
            assert own <= 2 * max(theirs, 2 * eps), (
                f"{dtype.__name__} [{i}]: error {own:.1e}, autodiff's {theirs:.1e}"
            )


def _value_and_vjp(f: Callable, args: tuple, static: dict, dy: Any) -> tuple:
    """(y, cotangents of the floating-point arguments), jitted; dy is cast to what `f` returns."""
    g, floats = of_floats(f, args, static)
    dy = jax.tree.map(lambda d, y: d.astype(y.dtype), dy, jax.eval_shape(g, *floats))

    @jax.jit
    def run(dy, *floats):
        y, vjp = jax.vjp(g, *floats)
        return y, vjp(dy)

    return run(dy, *floats)


def residual_bytes(rule, args, static) -> None:
    """The residuals take no more memory than those that autodiff keeps for the reference, in f32."""
    low = tuple(a.astype(jnp.float32) if is_float(a) else a for a in args)
    _, res = rule.fwd(*low, **static)
    reference, floats = of_floats(rule.reference, low, static)
    own = sum(a.nbytes for a in jax.tree.leaves(res))
    theirs = sum(a.nbytes for a in jax.tree.leaves(jax.vjp(reference, *floats)[1]))
    assert own <= theirs + 64, f"keeps {own} bytes, autodiff {theirs}"


def strict_promotion(rule, args, static) -> None:
    """Forward and backward work where JAX promotes no dtypes implicitly; shapes only, nothing is computed."""
    for dtype in (jnp.float64, *LOW_PRECISION):
        low = tuple(a.astype(dtype) if is_float(a) else a for a in args)
        f, floats = of_floats(rule, low, static)

        def value_and_vjp(*floats, f=f):
            y, vjp = jax.vjp(f, *floats)
            return vjp(y)

        with jax.numpy_dtype_promotion("strict"):
            jax.eval_shape(value_and_vjp, *floats)


TRANSFORMS = (apart, vmapped, under_control_flow, autodiff_switch)
VALUES = (
    primal,
    first_order,
    differences,
    linear_in_cotangent,
    second_order,
    low_precision,
    residual_bytes,
    strict_promotion,
)
