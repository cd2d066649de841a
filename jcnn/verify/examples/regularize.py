"""Examples of dropout."""

import jax

from jcnn.verify.examples.arrays import EQUAL, X2

KEY = jax.random.key(7)

EXAMPLES: dict[str, dict] = {
    "dropout": {"different": ((X2, KEY), {"rate": 0.3}), "none": ((EQUAL, KEY), {"rate": 0.0})},
}
