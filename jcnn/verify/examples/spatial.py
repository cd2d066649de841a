"""Examples of what moves pixels: upsampling, pixel shuffle, patches; and of `scale_channels`."""

from jcnn.verify.examples.arrays import EQUAL, X2, normal

GEOMETRY = {"window": (3, 2), "stride": (2, 1), "padding": ((1, 0), (0, 2)), "dilation": (1, 2)}

EXAMPLES: dict[str, dict] = {
    "patches": {
        "different": ((normal(101, 2, 5, 4, 3),), GEOMETRY),
        "equal": ((EQUAL,), {"window": 3, "padding": "SAME"}),
        "1-D": ((normal(102, 2, 7, 3),), {"window": 3, "stride": 4}),
        "3-D": ((normal(103, 1, 2, 3, 4, 2),), {"window": (2, 1, 3), "stride": 2, "padding": 1}),
    },
    "fold": {
        "different": ((normal(104, 2, 2, 4, 18),), {"output_size": (5, 4), **GEOMETRY}),
        "equal": ((normal(105, 3, 3, 3, 27),), {"output_size": 3, "window": 3, "padding": "SAME"}),
        "1-D": ((normal(106, 2, 2, 9),), {"output_size": 7, "window": 3, "stride": 4}),
        "3-D": (
            (normal(107, 1, 2, 3, 2, 12),),
            {"output_size": (2, 3, 4), "window": (2, 1, 3), "stride": 2, "padding": 1},
        ),
    },
    "upsample": {
        "different": ((normal(108, 2, 3, 4, 5),), {"factor": (3, 2)}),
        "equal": ((EQUAL,), {"factor": 3, "method": "linear"}),
        "align corners": (
            (normal(109, 2, 4, 3, 5),),
            {"factor": (2, 3), "method": "linear", "align_corners": True},
        ),
        "one pixel": ((normal(110, 2, 1, 3, 2),), {"factor": 2, "method": "linear", "align_corners": True}),
        "1-D": ((normal(111, 2, 5, 3),), {"factor": 4, "method": "linear"}),
        "3-D": ((normal(112, 1, 2, 3, 2, 2),), {"factor": (2, 1, 3), "method": "linear"}),
    },
    "pixel_shuffle": {
        "different": ((normal(113, 2, 3, 4, 12),), {"factor": (3, 2)}),
        "equal": ((normal(114, 4, 4, 4, 4),), {"factor": 2}),
        "3-D": ((normal(115, 1, 2, 1, 3, 12),), {"factor": (1, 3, 2)}),
    },
    "pixel_unshuffle": {
        "different": ((normal(116, 2, 6, 4, 3),), {"factor": (3, 2)}),
        "equal": ((normal(117, 4, 4, 4, 4),), {"factor": 2}),
        "3-D": ((normal(118, 1, 2, 3, 2, 2),), {"factor": (1, 3, 2)}),
    },
    "scale_channels": {
        "different": ((X2, normal(119, 2, 4)), {}),
        "equal": ((EQUAL, normal(120, 3, 3)), {}),
        "1-D": ((normal(121, 2, 5, 3), normal(122, 2, 3)), {}),
    },
}
