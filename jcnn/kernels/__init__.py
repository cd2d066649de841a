"""How the heavy ops are computed: several formulations of each, and the choice between them.

Op files hold the mathematics and call these functions; nothing here knows of cotangents or rules.
Every function is plain differentiable JAX, returns the accumulation dtype (at least float32), and
takes its geometry as a `jcnn.geometry.Window`.
"""

import jax
import jax.numpy as jnp


def accumulator(dtype) -> jnp.dtype:
    """The dtype in which sums over `dtype` are accumulated: itself, or float32 if it is narrower."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def widen(a: jax.Array) -> jax.Array:
    """`a` in the accumulation dtype."""
    return a.astype(accumulator(a.dtype))


def on_cpu() -> bool:
    """Whether XLA compiles for a CPU, where it lacks good kernels for some convolutions and pools."""
    return jax.default_backend() == "cpu"
