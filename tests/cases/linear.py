"""The weighted sum."""

import torch

from cases.table import *

ROW = dict.fromkeys(("explicit", "own_shapes"), "an axis is added before, and dropped after")

FOLDED = dict.fromkeys(
    ("forward_mode", "per_example", "jacobians"), "there torch folds the examples, not the bias"
)
ADDED = {"thrifty": "torch's adds in place"}
TRILINEAR = {"jacobians": "torch's own kernel has no batching rule"}


def bilinear(a, b, weight, bias):
    return torch.einsum("...i,oij,...j->...o", a, weight, b) + bias


CASES = [
    row("linear", real(4, 3), real(5, 3), real(5)),
    row("linear", real(4, 3), real(5, 3), None),
    row("linear", real(4, 3), real(5, 3)),
    row("linear", real(3), real(5, 3), real(5)),
    row("linear", real(3), real(5, 3)),
    row("linear", real(2, 4, 3), real(5, 3), real(5)),
    row("linear", real(2, 2, 4, 3), real(5, 3), real(5)),
    row("linear", real(1, 3), real(1, 3), real(1)),
    row("linear", real(3), real(3), note="1-D weight", without=ROW),
    row("linear", real(4, 3), real(3), note="1-D weight", without=ROW),
    row("linear", real(4, 3), real(5, 3), real(4, 5), note="by example", without=ADDED),
    row("linear", real(2, 4, 3), real(5, 3), real(4, 5), without=ADDED | FOLDED),
    row("linear", real(4, 3), real(5, 3), real(), without=ADDED),
    row("linear", real(4, 3), real(5, 3), real(1), without=ADDED),
    row("linear", transposed(real(4, 3)), transposed(real(5, 3)), real(5), note="transposed"),
    row("linear", real(0, 3), real(5, 3), real(5)),
    row("linear", real(2, 0, 3), real(5, 3), real(5)),
    row("linear", real(4, 0), real(5, 0), real(5)),
    row("linear", real(4, 3), real(0, 3), real(0), without=EMPTY),
    row("linear", real(4, 3), constant(real(5, 3)), real(5), note="frozen weight"),
    row("linear", constant(real(4, 3)), real(5, 3), real(5), note="data"),
    row("bilinear", real(4, 2), real(4, 3), real(5, 2, 3), real(5), without=TRILINEAR),
    row("bilinear", real(2, 3, 2), real(2, 3, 3), real(4, 2, 3), without=TRILINEAR),
    row(
        "bilinear",
        real(2),
        real(3),
        real(4, 2, 3),
        real(4),
        twin=bilinear,
        note="written out",
        without={"thrifty": "what the twin keeps depends on the order in which einsum goes"},
    ),
    row("bilinear", real(0, 2), real(0, 3), real(4, 2, 3), real(4), without=TRILINEAR),
]


MODULES = [
    module("Linear", 3, 5, inputs=(real(4, 3),)),
    module("Linear", 3, 5, inputs=(real(4, 3),), bias=False),
    module("Linear", inputs=(real(4, 3),), in_features=3, out_features=5, dtype=torch.double),
    module("Bilinear", 2, 3, 4, inputs=(real(5, 2), real(5, 3))),
    module("Bilinear", 2, 3, 4, inputs=(real(5, 2), real(5, 3)), bias=False),
    module("Identity", inputs=(real(4, 3),)),
    module("Identity", 54, inputs=(real(4, 3),), unused=0.1),
]
