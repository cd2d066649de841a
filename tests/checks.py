"""Comparison of arrays in tests.  Rules are held to the law by `jcnn.verify`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def draw(seed: int, like: Any) -> Any:
    """Standard normal values in the shapes and dtypes of `like`, a pytree."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape), a.dtype), like)


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
