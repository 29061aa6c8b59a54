"""Costs."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.functional._common import check_reduction, legacy_reduction

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "mse_loss",
    "nll_loss",
    "squared_error",
]


def squared_error(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The document's cost: C = (1/n) Σₙ Σⱼ (aₙⱼ − yₙⱼ)², a sum over outputs, a mean over examples.

    Nielsen's quadratic cost is half of it, ``mse_loss`` is it divided by the number of outputs:
    a learning rate belongs to one of the three.

    Args:
        input: activations a, (n, outputs, \\*), or (outputs,) for a single example.
        target: desired outputs y in the shape of ``input``, or classes as integers: (n, \\*), or ()
            for a single example.
        reduction: ``"mean"`` over examples, ``"sum"``, or ``"none"`` for the cost C₀ of each.

    Raises:
        ValueError: ``target`` has another shape, or ``reduction`` is none of the three.
    """
    check_reduction(reduction)
    classes = not target.is_floating_point()
    expected = (*input.shape[:1], *input.shape[2:]) if input.dim() > 1 else ()
    if target.shape != (expected if classes else input.shape):
        raise ValueError(
            f"target: expected {tuple(input.shape)} for real values or {expected} for classes "
            f"(integers), to go with an input of {tuple(input.shape)}; got {tuple(target.shape)} "
            f"of {target.dtype}"
        )
    return formulas.SquaredError.apply(input, target, reduction)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """C = mean of w (a − y)² over all entries: torch's, whose mean is over outputs too."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    if target.shape != input.shape and not torch.compiler.is_compiling():
        warnings.warn(
            f"Using a target size ({target.size()}) that is different to the input size "
            f"({input.size()}). This will likely lead to incorrect results due to broadcasting. "
            f"Please ensure they have the same size.",
            stacklevel=2,
        )
    if weight is not None and weight.shape != input.shape:
        raise ValueError(
            f"weight: expected the input's shape {tuple(input.shape)}; got {tuple(weight.shape)}"
        )
    return formulas.MSE.apply(input, target, weight, reduction)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """C = −log p_y, p = softmax(z): input (n, K, \\*) or (K,), target classes or probabilities."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    return formulas.CrossEntropy.apply(
        input, target, weight, ignore_index, reduction, label_smoothing
    )


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = −a_y: input log-probabilities (n, K, \\*) or (K,), target classes."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    return formulas.NLL.apply(input, target, weight, ignore_index, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """C = −y log σ(z) − (1 − y) log(1 − σ(z)), in a form that does not overflow."""
    reduction = legacy_reduction(size_average, reduce, reduction)
    return formulas.BCEWithLogits.apply(input, target, weight, reduction, pos_weight)
