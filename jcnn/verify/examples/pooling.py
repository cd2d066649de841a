"""Examples of pools."""

from jcnn.verify.examples.arrays import X2, distinct, normal


def _pool_cases(**more) -> dict:
    x = distinct(31, 2, 7, 6, 3)
    return {
        "plain": ((x,), {"window": 2}),
        "overlap": ((x,), {"window": (3, 2), "stride": (2, 1)}),
        "padded": ((x,), {"window": 3, "stride": 2, "padding": ((1, 0), (0, 2))}),
        "same": ((x,), {"window": 3, "stride": 1, "padding": "SAME"}),
        "equal": ((distinct(32, 3, 3, 3, 3),), {"window": 2, "stride": 1}),
        "1-D": ((distinct(33, 2, 9, 4),), {"window": 3, "stride": 4}),
        "3-D": ((distinct(34, 1, 4, 3, 5, 2),), {"window": (2, 1, 3)}),
        "large": (
            (distinct(35, 1, 19, 5, 2),),
            {"window": (18, 4), "stride": 1, "padding": ((2, 1), (1, 1))},
        ),
        **more,
    }


EXAMPLES: dict[str, dict] = {
    "max_pool": _pool_cases(
        dilated=((distinct(36, 2, 7, 6, 3),), {"window": 2, "dilation": (3, 2), "stride": 1, "padding": 1}),
        split=((distinct(37, 2, 7, 6, 3),), {"window": 3, "stride": 2, "padding": 1, "ties": "split"}),
    ),
    "avg_pool": _pool_cases(
        counted=(
            (normal(38, 2, 7, 6, 3),),
            {"window": 3, "stride": 2, "padding": ((1, 0), (0, 2)), "count_include_pad": True},
        )
    ),
    "global_max_pool": {
        "different": ((distinct(39, 2, 5, 6, 4),), {}),
        "1-D": ((distinct(64, 3, 3, 3),), {}),
    },
    "global_avg_pool": {"different": ((X2,), {}), "1-D": ((normal(65, 3, 3, 3),), {})},
}
