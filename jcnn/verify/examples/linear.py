"""Examples of dense layers and `flatten`."""

from jcnn.verify.examples.arrays import EQUAL, X2, normal

EXAMPLES: dict[str, dict] = {
    "dense": {
        "different": ((normal(51, 2, 3), normal(52, 3, 5), normal(53, 5)), {}),
        "equal": ((normal(54, 3, 3), normal(55, 3, 3)), {}),
        "leading axes": ((normal(56, 2, 3, 4), normal(57, 4, 5), normal(58, 5)), {}),
        "vector": ((normal(59, 4), normal(57, 4, 5)), {}),
    },
    "flatten": {"different": ((X2,), {}), "equal": ((EQUAL,), {})},
}
