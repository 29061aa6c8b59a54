"""Activations."""

import torch

from cases.table import *


def activation(function: str, kink: float | None = None, **options: Any) -> list[Case]:
    """An entrywise function: the shapes, layouts and points that each must meet."""
    x = real if kink is None else lambda *shape: away_from(kink, *shape)
    return [
        row(function, x(4, 3), special=[(fixed(POINTS),)], **options),
        row(function, x(), **options),
        row(function, transposed(x(2, 4, 3)), note="transposed", **options),
        row(function, x(0, 3), without=EMPTY, **options),
    ]


def axiswise(function: str) -> list[Case]:
    """A function of whole rows."""
    rows = [
        [0.0, 0.0, 0.0],
        [1000.0, -1000.0, 0.0],
        [-1000.0, -1000.0, -1000.0],
        [-INF, 0.0, 1.0],
        [INF, 0.0, 1.0],
        [-INF, -INF, -INF],
        [NAN, 0.0, 1.0],
    ]
    return [
        row(function, real(4, 3), dim=-1, special=[(fixed(rows),)]),
        row(function, real(4, 3), dim=0),
        row(function, real(5), dim=0),
        row(function, real(), dim=0),
        row(function, transposed(real(2, 4, 3)), dim=1, note="transposed"),
        row(function, real(2, 3, 2, 2), dim=-2),
        row(function, real(0, 3), dim=1, without=EMPTY),
        row(function, real(4, 3), dim=1, dtype=torch.double),
    ]


CASES = [
    *activation("sigmoid"),
    *activation("tanh"),
    *activation("relu", kink=0),
    *activation("leaky_relu", kink=0),
    *activation("leaky_relu", kink=0, negative_slope=0.3)[:1],
    *activation("leaky_relu", kink=0, negative_slope=0.0)[:1],
    *activation("leaky_relu", kink=0, negative_slope=-0.3)[:1],
    *activation("elu", kink=0),
    *activation("elu", kink=0, alpha=0.3)[:1],
    *activation("gelu"),
    *activation("gelu", approximate="tanh"),
    *activation("silu"),
    *activation("softplus"),
    *activation("softplus", beta=2.5)[:1],
    *activation("softplus", kink=1.0, threshold=1.0)[:1],
    *axiswise("softmax"),
    *axiswise("log_softmax"),
]


MODULES = [
    module("Sigmoid", inputs=(real(4, 3),)),
    module("Tanh", inputs=(real(4, 3),)),
    module("ReLU", inputs=(real(4, 3),)),
    module("LeakyReLU", inputs=(real(4, 3),)),
    module("LeakyReLU", 0.3, inputs=(real(4, 3),)),
    module("ELU", inputs=(real(4, 3),), alpha=0.5),
    module("GELU", inputs=(real(4, 3),)),
    module("GELU", "tanh", inputs=(real(4, 3),)),
    module("SiLU", inputs=(real(4, 3),)),
    module("Softplus", inputs=(real(4, 3),), beta=2, threshold=1.0),
    module("Softmax", 1, inputs=(real(4, 3),)),
    module("LogSoftmax", inputs=(real(4, 3),), dim=0),
]
