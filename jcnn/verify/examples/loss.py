"""Examples of losses."""

import jax
import jax.numpy as jnp

from jcnn.verify.examples.arrays import normal

LABELS = jnp.array([3, 0, 4, 1])
LOGITS = normal(2, 4, 5)
TARGETS = jax.nn.softmax(normal(3, 4, 5))
ELEMENTS = normal(74, 2, 3, 4)
HARD = normal(75, 2, 3, 4) > 0
SOFT = jax.nn.sigmoid(normal(76, 2, 3, 4))
EQUAL = normal(77, 3, 3)

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
    "binary_cross_entropy": {
        "soft labels": ((ELEMENTS, SOFT, normal(78, 4) ** 2), {}),
        "equal": ((EQUAL, jax.nn.sigmoid(normal(79, 3, 3))), {}),
        "bools": ((ELEMENTS, HARD), {}),
        "ints": ((ELEMENTS, HARD.astype(int)), {"label_smoothing": 0.2}),
        "ints, one weight": ((ELEMENTS, HARD.astype(int), jnp.array(3.0)), {}),
        "everything": ((ELEMENTS, SOFT, jnp.array(0.3)), {"label_smoothing": 0.1}),
    },
    "focal_loss": {
        "soft labels": ((ELEMENTS, SOFT), {}),
        "equal": ((EQUAL, jax.nn.sigmoid(normal(79, 3, 3))), {"gamma": 1, "alpha": None}),
        "zeros and ones": ((ELEMENTS, HARD.astype(float)), {"gamma": 0.5, "alpha": 0.75}),
        "ints": ((ELEMENTS, HARD.astype(int)), {"gamma": 0.5}),
    },
    "kl_divergence": {
        "probabilities": ((jax.nn.log_softmax(LOGITS), TARGETS), {}),
        "equal": ((jax.nn.log_softmax(EQUAL), jax.nn.softmax(normal(80, 3, 3))), {}),
        "zeros": ((jax.nn.log_softmax(LOGITS), jax.nn.one_hot(LABELS, 5)), {}),
        "logarithms": ((jax.nn.log_softmax(ELEMENTS), jnp.log(SOFT)), {"log_targets": True}),
    },
    "mse": {
        "distinct": ((ELEMENTS, normal(81, 2, 3, 4)), {}),
        "equal": ((EQUAL, normal(82, 3, 3)), {}),
    },
    "huber": {
        "distinct": ((ELEMENTS, normal(81, 2, 3, 4)), {}),
        "equal": ((EQUAL, normal(82, 3, 3)), {"delta": 10}),
        "delta": ((ELEMENTS, normal(81, 2, 3, 4)), {"delta": 0.3}),
    },
}
