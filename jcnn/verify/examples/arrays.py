"""Arguments for examples: random, without ties where there are kinks, all axes different or all equal."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def distinct(seed: int, *shape: int) -> jax.Array:
    """No two values closer than 0.1, none near 0: no ties and no kinks for finite differences to cross."""
    size = math.prod(shape)
    ranks = np.random.default_rng(seed).permutation(size).reshape(shape)
    return jnp.asarray((ranks - size / 2 + 0.3) * 0.11)


X2 = normal(0, 2, 5, 6, 4)
EQUAL = normal(1, 3, 3, 3, 3)
