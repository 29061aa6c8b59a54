"""Activations."""

from dataclasses import replace

import torch
from torch import Tensor

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


A_SIXTH = dict.fromkeys(
    ("same_gradient", "second_order", "forward_mode", "per_example", "jacobians"),
    "torch's gradient has 1/6 in single precision",
)


def leaky_as_rrelu(input: Tensor, lower: float, upper: float) -> Tensor:
    """What `rrelu` is in evaluation, with all the derivatives that torch's has not."""
    return torch.nn.functional.leaky_relu(input, (lower + upper) / 2)


def glu(input: Tensor, dim: int) -> Tensor:
    """Likewise."""
    u, v = input.chunk(2, dim)
    return u * torch.sigmoid(v)


def in_place(function: str, x: Make, *arguments: Any, **options: Any) -> Case:
    """A function that overwrites its input: here a copy, for a leaf may not be overwritten."""

    def of_a_copy(change: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def changed(input: Tensor, *rest: Any, **named: Any) -> Tensor:
            return change(input.clone(), *rest, **named)

        changed.__name__ = change.__name__
        return changed

    made = row(function, x, *arguments, **options)
    return replace(made, ours=of_a_copy(made.ours), theirs=of_a_copy(made.theirs))


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
    *activation("gelu", approximate="tanh")[1:],
    row("gelu", real(4, 3), approximate="tanh", special=[(fixed(POINTS),)],
        without={"precise": "far below zero torch's 1 + tanh is 0 in double precision, ours not"}),
    *activation("silu"),
    *activation("softplus"),
    *activation("softplus", beta=2.5)[:1],
    *activation("softplus", kink=1.0, threshold=1.0)[:1],
    # Powers of two: of others torch's gradient has the inverse in single precision.
    *activation("celu", kink=0, alpha=0.5)[:2],
    row("celu", away_from(0, 4, 3), alpha=-2.0),
    *activation("selu", kink=0)[:2],
    *activation("relu6", kink=0)[:1],
    row("relu6", away_from(6, 4, 3), note="above"),
    *activation("hardtanh", kink=1)[:2],
    *activation("hardtanh", kink=0, min_val=-3.0, max_val=0.0)[:1],
    *activation("hardshrink", kink=0.5)[:2],
    *activation("hardshrink", kink=0.0, lambd=0.0)[:1],
    *activation("softshrink", kink=0.5)[:2],
    *activation("softshrink", kink=0.0, lambd=0.0)[:1],
    *activation("tanhshrink")[:2],
    *activation("threshold", kink=0.1, threshold=0.1, value=20.0)[:2],
    row("hardsigmoid", real(4, 3), special=[(fixed(POINTS),)], without=A_SIXTH),
    row("hardsigmoid", away_from(3, 4, 3), note="above", without=A_SIXTH),
    *activation("hardswish")[:2],
    row("hardswish", away_from(-3, 4, 3), note="below"),
    row("mish", real(4, 3), special=[(fixed(FINITE),)]),  # at ∞ torch has nan, not 1
    row("mish", transposed(real(2, 4, 3)), note="transposed"),
    row("softsign", away_from(0, 4, 3), special=[(fixed(FINITE),)]),
    row("softsign", transposed(away_from(0, 2, 3, 4)), note="transposed"),
    *activation("logsigmoid")[:2],
    row("prelu", away_from(0, 4, 3), uniform(0.1, 0.5, 1),
        special=[(fixed([POINTS]), fixed([0.3]))]),
    row("prelu", away_from(0, 4, 3), real(3)),
    row("prelu", away_from(0, 2, 3, 2, 2), real(3)),
    row("prelu", transposed(away_from(0, 2, 3, 2)), real(3), note="transposed"),
    row("prelu", away_from(0), real(1)),
    row("prelu", away_from(0, 3), real()),
    row("prelu", away_from(0, 0, 3), real(3), without=EMPTY),
    row("rrelu", away_from(0, 4, 3), training=True, random=True, special=[(fixed(POINTS),)],
        without=dict.fromkeys(("per_example", "jacobians"), "torch has no vmap of its draw")),
    row("rrelu", away_from(0, 4, 3), lower=0.2, upper=0.6, twin=leaky_as_rrelu),
    row("glu", real(4, 6), special=[(fixed([[*POINTS, *POINTS[::-1]]]),)],
        without={"jacobians": "torch has no vmap of its tangent"}),
    row("glu", transposed(real(2, 4, 3)), dim=1, twin=glu, note="transposed"),
    row("gumbel_softmax", real(4, 3), random=True),
    row("gumbel_softmax", transposed(real(3, 4)), tau=0.5, dim=0, random=True, note="transposed"),
    row("gumbel_softmax", real(4, 3), hard=True, tau=2, random=True, without=dict.fromkeys(
        ("gradient", "second_order"), "by intention not the derivative of the value")),
    *axiswise("softmax"),
    *axiswise("log_softmax"),
    *axiswise("softmin")[:2],
    in_place("relu_", away_from(0, 4, 3)),
    in_place("leaky_relu_", away_from(0, 4, 3)),
    in_place("elu_", away_from(0, 4, 3)),
    in_place("celu_", away_from(0, 4, 3)),
    in_place("selu_", away_from(0, 4, 3)),
    in_place("hardtanh_", away_from(1, 4, 3)),
    in_place("threshold_", away_from(0, 4, 3), 0.0, 1.0),
    in_place("rrelu_", away_from(0, 4, 3), lower=0.2, upper=0.6, twin=leaky_as_rrelu),
]  # fmt: skip


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
    module("CELU", 0.5, inputs=(real(4, 3),)),
    module("SELU", inputs=(real(4, 3),)),
    module("ReLU6", inputs=(real(4, 3),)),
    module("Hardtanh", -0.5, 0.7, inputs=(real(4, 3),)),
    module("Hardshrink", inputs=(real(4, 3),)),
    module("Softshrink", 0.3, inputs=(real(4, 3),)),
    module("Tanhshrink", inputs=(real(4, 3),)),
    module("Threshold", 0.1, 20.0, inputs=(real(4, 3),)),
    module("Hardsigmoid", inputs=(real(4, 3),), without=A_SIXTH),
    module("Hardswish", inputs=(real(4, 3),)),
    module("Mish", inputs=(real(4, 3),)),
    module("Softsign", inputs=(real(4, 3),)),
    module("LogSigmoid", inputs=(real(4, 3),)),
    module("PReLU", inputs=(real(4, 3),)),
    module("PReLU", 3, init=0.1, inputs=(real(4, 3),)),
    module("RReLU", inputs=(real(4, 3),)),
    module("GLU", inputs=(real(4, 6),)),
    module("Softmin", 1, inputs=(real(4, 3),)),
    module("Softmax2d", inputs=(real(2, 3, 2, 2),)),
]
