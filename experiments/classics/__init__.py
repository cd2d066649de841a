"""Rules as strangers write them, and what strangers get wrong: a blind test set for a gradient checker.

`experiments.mutation_study` measures a checker by it: how many of the planted errors it finds, whether it
says what is wrong, and whether it leaves the correct rules alone. Nothing here knows jcnn.

A rule is the triple of `jax.custom_vjp`: `f(*args)` is y, `fwd(*args)` is `(y, res)` and `bwd(res, dy)` is a
tuple of cotangents, one per argument, None for labels and masks. The correct ones hold in float64, float32
and bfloat16, under jit, vmap and scan, and in second order; at kinks they say what JAX says of f. A planted
error is never just another way of writing: `Planted.what` ends with where it is seen.
"""

from experiments.classics import activation, conv, gate, linear, loss, norm, pool, softmax, unrolled
from experiments.classics.kit import Classic, Planted

__all__ = ["CLASSICS", "Classic", "Planted"]

MODULES = linear, conv, unrolled, norm, softmax, loss, pool, activation, gate
CLASSICS: dict[str, Classic] = {classic.name: classic for module in MODULES for classic in module.RULES}
