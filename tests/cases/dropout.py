"""Values left out at random."""

from cases.table import *

IN_MEMORY_ORDER = dict.fromkeys(
    ("strides", "forward_mode", "per_example", "jacobians"),
    "the mask is drawn in memory order, as torch's is",
)
POINTS_OF_NOISE = [-INF, INF, NAN, 0.0, -1000.0]


CASES = [
    row("dropout", real(40, 3), random=True, special=[(fixed(POINTS_OF_NOISE),)]),
    row("dropout", real(2, 3, 4), p=0.2, random=True),
    row("dropout", transposed(real(4, 3)), p=0.5, random=True, note="transposed",
        without=IN_MEMORY_ORDER),
    row("dropout", real(4, 3), p=0.0, random=True),
    row("dropout", real(4, 3), p=1.0, random=True,
        without={"thrifty": "torch keeps one zero, we a byte an entry"}),
    row("dropout", real(4, 3), training=False),
    row("dropout", real(0, 3), random=True, without=EMPTY),
    row("dropout1d", real(2, 5, 3), p=0.3, random=True),
    row("dropout1d", real(5, 3), random=True, note="one example"),
    row("dropout1d", transposed(real(2, 5, 3)), random=True, note="transposed"),
    row("dropout1d", real(5, 3), training=False, note="one example"),
    row("feature_alpha_dropout", real(3), training=False),
    row("feature_alpha_dropout", real(3), p=1.0, training=True, random=True,
        without={"thrifty": "torch keeps one zero, we a byte an entry"}),
    row("dropout2d", real(2, 4, 2, 2), random=True,
        special=[(fixed([[[[INF]], [[NAN]], [[0.0]], [[-1000.0]], [[1.0]], [[-INF]]]]),)]),
    row("dropout2d", real(0, 4, 2, 2), random=True, without=EMPTY),
    row("dropout3d", real(2, 4, 1, 2, 2), random=True),
    row("dropout3d", real(4, 2, 1, 2), p=0.2, random=True, note="one example"),
    row("alpha_dropout", real(5, 3), training=True, random=True,
        special=[(fixed(POINTS_OF_NOISE),)]),
    row("alpha_dropout", transposed(real(4, 3)), p=0.2, training=True, random=True,
        note="transposed",
        without=IN_MEMORY_ORDER | {"compiled": "compiled, torch too draws along the axes"}),
    row("alpha_dropout", real(4, 3), p=1.0, training=True, random=True,
        without={"thrifty": "torch keeps one zero, we a byte an entry"}),
    row("alpha_dropout", real(4, 3)),
    row("feature_alpha_dropout", real(2, 4, 3), training=True, random=True),
    row("feature_alpha_dropout", transposed(real(4, 3)), p=0.3, training=True, random=True,
        note="transposed"),
]  # fmt: skip


MODULES = [
    module("Dropout", inputs=(real(4, 3),)),
    module("Dropout", 0.2, inputs=(real(4, 3),)),
    module("Dropout1d", inputs=(real(2, 5, 3),)),
    module("Dropout2d", 0.3, inputs=(real(2, 4, 2, 2),)),
    module("Dropout3d", inputs=(real(2, 4, 1, 2, 2),)),
    module("AlphaDropout", inputs=(real(4, 3),)),
    module("FeatureAlphaDropout", 0.3, inputs=(real(2, 4, 3),)),
]
