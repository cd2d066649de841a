"""Examples of losses."""

import jax
import jax.numpy as jnp

from jcnn.verify.examples.arrays import normal

LABELS = jnp.array([3, 0, 4, 1])
LOGITS = normal(2, 4, 5)
TARGETS = jax.nn.softmax(normal(3, 4, 5))

EXAMPLES: dict[str, dict] = {
    "softmax_cross_entropy": {
        "ints": ((LOGITS, LABELS), {}),
        "equal": ((normal(69, 3, 3), jnp.array([2, 0, 1])), {}),
        "weights": ((LOGITS, LABELS, normal(70, 5) ** 2), {}),
        "everything": (
            (LOGITS, LABELS, normal(71, 5) ** 2),
            {"label_smoothing": 0.2, "ignore_index": 4, "z_loss": 0.1},
        ),
        "distributions": ((LOGITS, TARGETS), {}),
        "distributions, everything": (
            (LOGITS, TARGETS, normal(72, 5) ** 2),
            {"label_smoothing": 0.1, "z_loss": 0.1},
        ),
        "per pixel": ((normal(73, 2, 3, 4), jnp.array([[0, 3, 1], [2, 2, 0]])), {"ignore_index": -100}),
    },
}
