"""Costs."""

import torch
from torch import Tensor

from cases.table import *
from manualbp import formulas


def squared_error(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The document's cost in torch's terms: Σⱼ (aⱼ − yⱼ)², averaged over the examples."""
    if not target.is_floating_point():
        classes = torch.arange(input.shape[-1], device=input.device)
        target = (classes == target[..., None]).to(input.dtype)
    squares = torch.nn.functional.mse_loss(input, target, reduction="none")
    each = squares.flatten(1).sum(1) if input.ndim > 1 else squares.sum()
    return {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction](each)


def weighted_mse(input: Tensor, target: Tensor, weight: Tensor, reduction: str) -> Tensor:
    """torch's, in operations that have a second derivative with respect to the weight too."""
    squares = weight * (input - target).square()
    mean = squares.sum() / weight.sum()
    return {"mean": mean, "sum": squares.sum(), "none": squares}[reduction]


SQUARED = [
    *(row("squared_error", real(4, 3), real(4, 3), twin=squared_error, reduction=r)
      for r in ("mean", "sum", "none")),
    *(row("squared_error", real(4, 3), classes(3, 4), twin=squared_error, reduction=r)
      for r in ("mean", "sum", "none")),
    row("squared_error", real(4, 3), constant(real(4, 3)), twin=squared_error, note="data"),
    row("squared_error", real(4, 3, 2), real(4, 3, 2), twin=squared_error),
    row("squared_error", real(3), real(3), twin=squared_error),
    row("squared_error", real(3), classes(3), twin=squared_error),
    row("squared_error", transposed(real(4, 3)), real(4, 3), twin=squared_error, note="transposed"),
    row("squared_error", real(0, 3), real(0, 3), twin=squared_error, without=EMPTY_MEAN),
    *(row("mse_loss", real(4, 3), real(4, 3), reduction=r) for r in ("mean", "sum", "none")),
    row("mse_loss", real(4, 3), constant(real(4, 3)), note="data"),
    row("mse_loss", real(2, 4, 3), real(2, 4, 3)),
    row("mse_loss", transposed(real(4, 3)), real(4, 3), note="transposed"),
    row("mse_loss", real(), real()),
    Case(
        "mse-4x3,3-broadcast",  # the function warns, as torch's does; the formula does not
        ours=lambda input, target: formulas.MSE.apply(input, target, None, "mean"),
        theirs=lambda *both: torch.nn.functional.mse_loss(*torch.broadcast_tensors(*both)),
        arguments=(real(4, 3), real(3)),
    ),
    *(row("mse_loss", real(4, 3), real(4, 3), twin=weighted_mse, weight=uniform(0.5, 1.5, 4, 3),
          reduction=r, without={"thrifty": "the twin keeps its intermediates instead"})
      for r in ("mean", "sum", "none")),
    row("mse_loss", real(0, 3), real(0, 3), without=EMPTY_MEAN),
    row("mse_loss", real(0, 3), real(0, 3), reduction="sum", without=EMPTY),
    row("mse_loss", real(4, 3), real(4, 3), reduction="none", note="special",
        special=[(fixed([1000.0, INF, NAN, INF]), fixed([-1000.0, 0.0, 0.0, INF]))]),
]  # fmt: skip


def class_cost(function: str) -> list[Case]:
    """A cost with class indices: `nll_loss` and `cross_entropy` alike."""
    weight = constant(fixed([0.5, 1.5, 2.0]))
    ignored = fixed([0, -100, 2, -100, 1], torch.long)
    nobody = fixed([-100] * 5, torch.long)
    hard = [
        [1000.0, -1000.0, 0.0],
        [-1000.0, 1000.0, 0.0],
        [-INF, 0.0, 1.0],
        [0.0, -INF, 1.0],
        [NAN, 0.0, 1.0],
    ]
    reductions = ("mean", "sum", "none")
    return [
        *(row(function, real(5, 3), classes(3, 5), reduction=r) for r in reductions),
        *(row(function, real(5, 3), classes(3, 5), weight=weight, reduction=r) for r in reductions),
        *(row(function, real(5, 3), ignored, reduction=r, note="ignored") for r in reductions),
        row(function, real(5, 3), ignored, weight=weight, note="ignored"),
        row(function, real(5, 3), fixed([0, 1, 2, 1, 1], torch.long), ignore_index=1),
        row(function, real(5, 3), nobody, note="all ignored",
            without=dict.fromkeys(("gradient", "second_order", "forward_mode"), "a mean of nan")),
        row(function, real(5, 3), nobody, reduction="sum", note="all ignored"),
        row(function, real(5, 3), nobody, reduction="none", note="all ignored"),
        row(function, real(3), classes(3)),
        row(function, real(2, 3, 4), classes(3, 2, 4)),
        row(function, real(2, 3, 4, 2), classes(3, 2, 4, 2), weight=weight, reduction="none"),
        row(function, transposed(real(5, 3)), classes(3, 5), note="transposed"),
        row(function, real(0, 3), classes(3, 0), without=EMPTY_MEAN),
        row(function, real(0, 3), classes(3, 0), reduction="sum", without=EMPTY),
        *(row(function, real(5, 3), classes(3, 5), reduction=r, note="special",
              special=[(fixed(hard), classes(3, 5))]) for r in reductions),
    ]  # fmt: skip


def soft_cost() -> list[Case]:
    """`cross_entropy` with label smoothing, and with a distribution as its target."""
    weight = constant(fixed([0.5, 1.5, 2.0]))
    ignored = fixed([0, -100, 2, -100, 1], torch.long)
    hard, soft, name = classes(3, 5), probabilities(5, 3), "cross_entropy"
    both = {"thrifty": "torch keeps log p alone for a target's gradient; we both inputs, no copy"}
    reductions = ("mean", "sum", "none")
    return [
        *(row(name, real(5, 3), hard, label_smoothing=0.1, reduction=r) for r in reductions),
        row(name, real(5, 3), hard, label_smoothing=0.1, weight=weight),
        row(name, real(5, 3), ignored, label_smoothing=0.1, weight=weight, note="ignored"),
        row(name, real(5, 3), ignored, label_smoothing=0.1, reduction="none", note="ignored"),
        row(name, real(5, 3), hard, label_smoothing=1.0),
        row(name, real(2, 3, 4), classes(3, 2, 4), label_smoothing=0.1, weight=weight),
        *(row(name, real(5, 3), soft, reduction=r, without=both) for r in reductions),
        row(name, real(5, 3), constant(soft), note="data"),
        row(name, real(5, 3), soft, weight=weight, without=both),
        row(
            name,
            real(5, 3),
            soft,
            label_smoothing=0.1,
            weight=weight,
            reduction="sum",
            without=both,
        ),
        row(name, real(3), probabilities(3), without=both),
        row(name, real(2, 3, 4), probabilities(2, 3, 4), without=both),
        row(
            name,
            real(2, 3, 4),
            probabilities(2, 3, 4),
            weight=weight,
            reduction="none",
            without=both,
        ),
        row(name, real(0, 3), probabilities(0, 3), without=EMPTY_MEAN),
    ]


def bce_cost() -> list[Case]:
    name = "binary_cross_entropy_with_logits"
    x, y = real(4, 3), uniform(0, 1, 4, 3)
    weight, positive = constant(uniform(0.5, 1.5, 4, 3)), constant(fixed([0.5, 1.5, 2.0]))
    points = [1000.0, -1000.0, 1000.0, -1000.0, 30.0, 0.0, INF, -INF, NAN]
    truth = [1.0, 1.0, 0.0, 0.0, 0.5, 0.5, 1.0, 0.0, 1.0]
    return [
        *(row(name, x, y, reduction=r) for r in ("mean", "sum", "none")),
        row(name, x, constant(y), note="data"),
        row(name, x, y, weight=weight),
        row(name, x, y, weight=positive, reduction="none", note="row of weights"),
        row(name, x, y, pos_weight=positive),
        row(name, x, y, weight=weight, pos_weight=positive, reduction="sum"),
        row(name, transposed(x), y, note="transposed"),
        row(name, real(), uniform(0, 1)),
        row(name, real(0, 3), uniform(0, 1, 0, 3), without=EMPTY_MEAN),
        row(name, real(9), uniform(0, 1, 9), reduction="none", note="special",
            special=[(fixed(points), fixed(truth))]),
    ]  # fmt: skip


CASES = [*SQUARED, *class_cost("nll_loss"), *class_cost("cross_entropy"), *soft_cost(), *bce_cost()]


MODULES = [
    module("MSELoss", inputs=(real(4, 3), real(4, 3))),
    module("MSELoss", inputs=(real(4, 3), real(4, 3)), reduction="sum"),
    module("CrossEntropyLoss", inputs=(real(4, 3), classes(3, 4))),
    module("CrossEntropyLoss", inputs=(real(4, 3), classes(3, 4)), label_smoothing=0.1),
    module(
        "CrossEntropyLoss",
        inputs=(real(4, 3), probabilities(4, 3)),
        weight=torch.tensor([0.5, 1.5, 2.0], dtype=torch.double),
    ),
    module(
        "CrossEntropyLoss", inputs=(real(4, 3), classes(3, 4)), ignore_index=1, reduction="none"
    ),
    module("NLLLoss", inputs=(real(4, 3), classes(3, 4))),
    module(
        "NLLLoss",
        torch.tensor([0.5, 1.5, 2.0], dtype=torch.double),
        inputs=(real(4, 3), classes(3, 4)),
        ignore_index=1,
    ),
    module("BCEWithLogitsLoss", inputs=(real(4, 3), uniform(0, 1, 4, 3))),
    module(
        "BCEWithLogitsLoss",
        inputs=(real(4, 3), uniform(0, 1, 4, 3)),
        pos_weight=torch.tensor([0.5, 1.5, 2.0], dtype=torch.double),
    ),
]
