"""Examples of norms, of `weight_standardize` and of `layer_scale`."""

import jax.numpy as jnp

from jcnn.verify.examples.arrays import EQUAL, X2, normal


def _norm_x() -> dict:
    return {
        "different": (X2, normal(40, 4), normal(41, 4)),
        "equal": (EQUAL, normal(42, 3), normal(43, 3)),
        "vectors": (normal(44, 6, 4), normal(45, 4), normal(46, 4)),
        "3-D": (normal(47, 2, 2, 3, 2, 4), normal(48, 4), normal(49, 4)),
    }


EXAMPLES: dict[str, dict] = {
    "batch_norm": {name: (args, {}) for name, args in _norm_x().items()}
    | {
        "mask": ((*_norm_x()["different"], normal(66, 2, 5, 6) > 0), {"eps": 1e-3}),
        "examples": ((*_norm_x()["equal"], jnp.array([True, False, True])), {}),
    },
    "batch_norm_inference": {
        name: ((*args, normal(67, args[0].shape[-1]), normal(68, args[0].shape[-1]) ** 2 + 0.1), {})
        for name, args in _norm_x().items()
    },
    "layer_norm": {
        "different": (_norm_x()["different"], {"eps": 1e-3}),
        "equal": (_norm_x()["equal"], {}),
        "one vector": ((normal(84, 5), normal(85, 5), normal(86, 5)), {}),
    },
    "group_norm": {
        "different": (_norm_x()["different"], {"groups": 2, "eps": 1e-3}),
        "equal": (_norm_x()["equal"], {"groups": 1}),
        "3-D": (_norm_x()["3-D"], {"groups": 2}),
    },
    "instance_norm": {
        "different": (_norm_x()["different"], {"eps": 1e-3}),
        "equal": (_norm_x()["equal"], {}),
    },
    "rms_norm": {
        "different": (_norm_x()["different"][:2], {"eps": 1e-3}),
        "equal": (_norm_x()["equal"][:2], {}),
        "one vector": ((normal(87, 5), normal(88, 5)), {}),
    },
    "local_response_norm": {
        "different": ((X2,), {"size": 2, "alpha": 0.7, "k": 0.5}),
        "equal": ((EQUAL,), {"size": 3, "alpha": 2.0, "beta": 1}),
        "wider than the channels": ((normal(89, 2, 3, 5),), {"size": 8, "alpha": 3.0, "beta": 0.4}),
    },
    "weight_standardize": {
        "different": ((normal(90, 2, 3, 4, 5),), {"eps": 1e-3}),
        "equal": ((EQUAL[0],), {}),
        "dense": ((normal(91, 4, 6),), {"eps": 0.1}),
    },
    "layer_scale": {
        "different": (_norm_x()["different"][:2], {}),
        "equal": (_norm_x()["equal"][:2], {}),
    },
}
