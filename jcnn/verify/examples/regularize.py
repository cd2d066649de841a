"""Examples of dropout."""

import jax

from jcnn.verify.examples.arrays import EQUAL, X2

KEY = jax.random.key(7)

EXAMPLES: dict[str, dict] = {
    "dropout": {
        "different": ((X2, KEY), {"rate": 0.3}),
        "none": ((EQUAL, KEY), {"rate": 0.0}),
        "channels": ((X2, KEY), {"rate": 0.3, "per_channel": True}),
    },
    "drop_path": {
        "different": ((X2, KEY), {"rate": 0.4}),
        "equal": ((EQUAL, KEY), {"rate": 0.6}),
    },
}
