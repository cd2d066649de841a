"""Examples of activations."""

import jax.numpy as jnp

from jcnn.verify.examples.arrays import X2, distinct, normal

ELEMENTWISE = {"different": ((distinct(60, 2, 3, 5) / 4,), {}), "equal": ((distinct(61, 3, 3, 3) / 4,), {})}
BEYOND_3 = {"different": ((distinct(60, 2, 3, 5) * 3,), {}), "equal": ((distinct(61, 3, 3, 3) * 3,), {})}

EXAMPLES: dict[str, dict] = {
    "relu": ELEMENTWISE,
    "relu6": ELEMENTWISE,
    "leaky_relu": ELEMENTWISE | {"slope": ((distinct(62, 4, 3),), {"negative_slope": 0.3})},
    "prelu": {
        "different": ((distinct(60, 2, 3, 5) / 4, normal(64, 5)), {}),
        "equal": ((distinct(61, 3, 3, 3) / 4, normal(65, 3)), {}),
        "one slope": ((distinct(62, 4, 3), jnp.asarray(0.25)), {}),
    },
    "sigmoid": ELEMENTWISE,
    "tanh": ELEMENTWISE,
    "softplus": ELEMENTWISE,
    "elu": ELEMENTWISE | {"alpha": ((distinct(62, 4, 3),), {"alpha": 0.3})},
    "selu": ELEMENTWISE,
    "gelu": ELEMENTWISE | {"tanh": ((distinct(63, 4, 3) / 2,), {"approximate": True})},
    "silu": ELEMENTWISE,
    "mish": ELEMENTWISE,
    "hard_sigmoid": BEYOND_3,
    "hard_swish": BEYOND_3,
    "glu": {
        "different": ((normal(66, 2, 3, 4),), {}),
        "equal": ((normal(67, 4, 4, 4),), {}),
        "axis": ((normal(68, 2, 6, 3),), {"axis": 1}),
    },
    "softmax": ELEMENTWISE | {"axes": ((X2,), {"axis": (1, 2)})},
    "log_softmax": ELEMENTWISE | {"axes": ((X2,), {"axis": (1, 2)})},
}
