"""Examples of pools."""

import jax.numpy as jnp

from jcnn.verify.examples.arrays import X2, distinct, normal


def _pool_cases(**more) -> dict:
    def case(seed, *shape, **config):
        return (distinct(seed, *shape),), config

    return {
        "plain": case(31, 2, 7, 6, 3, window=2),
        "equal": case(32, 3, 3, 3, 3, window=2, stride=1),
        "overlap": case(31, 2, 7, 6, 3, window=(3, 2), stride=(2, 1)),
        "ceil": case(31, 2, 7, 6, 3, window=3, stride=2, padding=((1, 0), (0, 0)), ceil_mode=True),
        "1-D": case(33, 2, 9, 4, window=3, stride=4),
        "padded": case(31, 2, 7, 6, 3, window=3, stride=2, padding=((1, 0), (0, 2))),
        "3-D": case(34, 1, 4, 3, 5, 2, window=(2, 1, 3)),
        "large": case(35, 1, 19, 5, 2, window=(18, 4), stride=1, padding=((2, 1), (1, 1))),
        "axes": case(31, 2, 7, 6, 3, window=(3, 2), stride=(2, 1), padding=1, algorithm="axes"),
        **more,
    }


# Of a pool of 2x2 windows; the second with indices that meet, and one outside of the image.
PLACES = jnp.asarray([[[0, 9, 2], [5, 3, 10]], [[12, 13, 6], [15, 14, 7]]], jnp.int32).reshape(1, 2, 2, 3)
MEETING = jnp.asarray([[4, 1], [4, 0], [-1, 1], [2, 7]], jnp.int32).reshape(1, 4, 2)

EXAMPLES: dict[str, dict] = {
    "max_pool": _pool_cases(
        dilated=((distinct(36, 2, 7, 6, 3),), {"window": 2, "dilation": (3, 2), "stride": 1, "padding": 1}),
        indices=((distinct(66, 2, 4, 5, 3),), {"window": (2, 3), "stride": 2, "return_indices": True}),
        split=((distinct(37, 2, 7, 6, 3),), {"window": 3, "stride": 2, "padding": 1, "ties": "split"}),
    ),
    "avg_pool": _pool_cases(
        counted=(
            (normal(38, 2, 7, 6, 3),),
            {
                "window": 3,
                "stride": 2,
                "padding": ((1, 0), (0, 1)),
                "ceil_mode": True,
                "count_include_pad": True,
            },
        )
    ),
    "lp_pool": {
        "plain": ((distinct(67, 2, 5, 6, 3),), {"window": 2, "p": 2}),
        "equal": ((distinct(68, 3, 3, 3, 3),), {"window": 2, "stride": 1, "padding": 1, "p": 1}),
        "large": ((distinct(70, 1, 13, 7, 2),), {"window": (12, 4), "stride": (1, 2), "p": 3}),
        "axes": ((distinct(70, 1, 4, 5, 2),), {"window": (2, 3), "p": 2, "algorithm": "axes"}),
        "fraction": (
            (distinct(71, 2, 4, 5, 3),),
            {"window": (3, 2), "stride": 2, "padding": (1, 0), "ceil_mode": True, "p": 2.5},
        ),
    },
    "global_max_pool": {
        "different": ((distinct(39, 2, 5, 6, 4),), {}),
        "1-D": ((distinct(64, 3, 3, 3),), {}),
    },
    "global_avg_pool": {"different": ((X2,), {}), "1-D": ((normal(65, 3, 3, 3),), {})},
    "adaptive_max_pool": {
        "different": ((distinct(72, 2, 5, 7, 4),), {"output_size": (3, 2)}),
        "equal": ((distinct(73, 3, 3, 3, 3),), {"output_size": 2}),
        "3-D": ((distinct(74, 2, 2, 3, 4, 2),), {"output_size": (3, 2, 1)}),
    },
    "adaptive_avg_pool": {
        "different": ((distinct(75, 2, 5, 7, 4),), {"output_size": (3, 2)}),
        "equal": ((distinct(76, 3, 3, 3, 3),), {"output_size": 2}),
        "3-D": ((distinct(77, 2, 2, 3, 4, 2),), {"output_size": (3, None, 1)}),
    },
    "max_unpool": {
        "different": ((normal(78, 1, 2, 2, 3), PLACES), {"window": 2}),
        "equal": (
            (normal(79, 3, 3, 3, 3), jnp.arange(81, dtype=jnp.int32).reshape(3, 3, 3, 3) % 9),
            {"window": 1},
        ),
        "meeting": ((normal(80, 1, 4, 2), MEETING), {"window": 3, "stride": 2, "output_size": 9}),
    },
}
