"""Values left out at random."""

from cases.table import *

CASES = [
    row("dropout", real(40, 3), random=True, special=[(fixed([-INF, INF, NAN, 0.0, -1000.0]),)]),
    row("dropout", real(2, 3, 4), p=0.2, random=True),
    row("dropout", transposed(real(4, 3)), p=0.5, random=True, note="transposed",
        without=dict.fromkeys(("strides", "forward_mode", "per_example", "jacobians"),
                              "the mask is drawn in memory order, as torch's is")),
    row("dropout", real(4, 3), p=0.0, random=True),
    row("dropout", real(4, 3), p=1.0, random=True,
        without={"thrifty": "torch keeps one zero, we a byte an entry"}),
    row("dropout", real(4, 3), training=False),
    row("dropout", real(0, 3), random=True, without=EMPTY),
]  # fmt: skip


MODULES = [
    module("Dropout", inputs=(real(4, 3),)),
    module("Dropout", 0.2, inputs=(real(4, 3),)),
]
