"""Costs: how far the network's outputs are from what they should be.

Classes lie along axis 1, or axis 0 of a single example; ``reduction`` is torch's.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn._reduction import get_enum

from manualbp.formula import Formula

__all__ = ["MSE", "NLL", "BCEWithLogits", "CrossEntropy", "SquaredError"]


class SquaredError(Formula):
    """C = (1/n) Σₙ Σⱼ (aₙⱼ − yₙⱼ)²

    ∂C/∂a = 2 (a − y) g / n
    ∂C/∂y = −∂C/∂a
    """

    @staticmethod
    def forward(input: Tensor, target: Tensor, reduction: str) -> Tensor:
        y = _real(target, input)
        if reduction == "none" and input.dim() > 1:
            return _mse(input, y, "none").flatten(1).sum(1)
        total = _mse(input, y, "sum")
        return total / input.shape[0] if reduction == "mean" and input.dim() > 1 else total

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, target: Tensor, reduction: str) -> Tensor:
        mean = reduction == "mean" and input.dim() > 1
        share = g * (2 / max(input.shape[0], 1)) if mean else 2 * g
        if share.dim():
            share = share.reshape(-1, *[1] * (input.dim() - 1))
        return (input - _real(target, input)) * share

    @staticmethod
    def grad_target(g: Tensor, grad_input: Tensor) -> Tensor:
        return -grad_input


class MSE(Formula):
    """C = Σ w (a − y)² / Σ w,  over all outputs of all examples

    ∂C/∂a = 2 w (a − y) g / Σ w
    ∂C/∂y = −∂C/∂a
    ∂C/∂w = ((a − y)² − C) g / Σ w
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        if weight is None:
            return _mse(input, target, reduction)
        squares = weight * (input - target).square()
        if reduction == "none":
            return squares
        return squares.sum() / (weight.sum() if reduction == "mean" else 1)

    @staticmethod
    def error(input: Tensor, target: Tensor) -> Tensor:
        return input - target

    @staticmethod
    def share(g: Tensor, error: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        """What an error counts for: 2 g / Σ w."""
        if reduction != "mean":
            return 2 * g
        return 2 * g / weight.sum() if weight is not None else g * (2 / max(error.numel(), 1))

    @staticmethod
    def grad_input(g: Tensor, share: Tensor, error: Tensor, weight: Tensor | None) -> Tensor:
        return error * share if weight is None else error * share * weight

    @staticmethod
    def grad_target(g: Tensor, grad_input: Tensor) -> Tensor:
        return -grad_input

    @staticmethod
    def grad_weight(
        g: Tensor, share: Tensor, error: Tensor, reduction: str, output: Tensor
    ) -> Tensor:
        return (error.square() - (output if reduction == "mean" else 0)) * share / 2


class CrossEntropy(Formula):
    """C = −Σₖ qₖ log pₖ,  p = softmax(z),  q = w ⊙ ((1 − ε) y + ε/K)

    ∂C/∂z = g (p Σₖ qₖ − q) / n
    ∂C/∂y = −g (1 − ε) w ⊙ log p / n
    """

    # With neither weights nor smoothing q is y and sums to one, and ∂C/∂z = p − y: where a
    # squared error has the factor σ′, the slope of the softmax has cancelled.

    @staticmethod
    def forward(
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        ignore_index: int,
        reduction: str,
        label_smoothing: float,
    ) -> Tensor:
        return torch.nn.functional.cross_entropy(
            input,
            target,
            weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )

    @staticmethod
    def share(
        g: Tensor,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        ignore_index: int,
        reduction: str,
    ) -> Tensor:
        return _share(g, input, target, weight, ignore_index, reduction)

    @staticmethod
    def grad_input(
        g: Tensor,
        share: Tensor,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        label_smoothing: float,
    ) -> Tensor:
        axis = _axis(input)
        p = input.softmax(axis, dtype=g.dtype)
        hard = not target.is_floating_point()
        if hard and weight is None and not label_smoothing:
            # p − e_y without e_y in numbers, which a bool can stand for in a sum.
            return torch.add(p, _is_class(target, input), alpha=-1) * share
        q = _is_class(target, input).to(p.dtype) if hard else target
        if label_smoothing:
            q = (1 - label_smoothing) * q + label_smoothing / p.shape[axis]
        if weight is not None:
            q = q * _along(weight, p)
        return (p * q.sum(axis, keepdim=True) - q) * share

    @staticmethod
    def grad_target(
        g: Tensor, share: Tensor, input: Tensor, weight: Tensor | None, label_smoothing: float
    ) -> Tensor:
        log_p = input.log_softmax(_axis(input), dtype=g.dtype)
        gradient = (label_smoothing - 1) * share * log_p
        return gradient if weight is None else gradient * _along(weight, log_p)


class NLL(Formula):
    """C = −w_y a_y,  a the logarithms of probabilities, y a class

    ∂C/∂a = −g w ⊙ e_y / n
    """

    @staticmethod
    def forward(
        input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
    ) -> Tensor:
        return torch.nn.functional.nll_loss(
            input, target, weight, ignore_index=ignore_index, reduction=reduction
        )

    @staticmethod
    def grad_input(
        g: Tensor,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        ignore_index: int,
        reduction: str,
    ) -> Tensor:
        share = _share(g, input, target, weight, ignore_index, reduction)
        gradient = -share * _is_class(target, input)
        return gradient if weight is None else gradient * _along(weight, input)


class BCEWithLogits(Formula):
    """C = w ((1 − y) z + l log(1 + e⁻ᶻ)),  l = 1 + (ρ − 1) y

    ∂C/∂z = g w ((1 − y) − l (1 − σ(z))) / n
    ∂C/∂y = g w ((ρ − 1) log(1 + e⁻ᶻ) − z) / n
    """

    @staticmethod
    def forward(
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        reduction: str,
        pos_weight: Tensor | None,
    ) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(
            input, target, weight, reduction=reduction, pos_weight=pos_weight
        )

    @staticmethod
    def share(g: Tensor, input: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        each = g / input.numel() if reduction == "mean" else g
        return each if weight is None else each * weight

    @staticmethod
    def grad_input(
        g: Tensor, share: Tensor, input: Tensor, target: Tensor, pos_weight: Tensor | None
    ) -> Tensor:
        if pos_weight is None:  # the same with ρ = 1
            return (torch.sigmoid(input) - target) * share
        positive = 1 + (pos_weight - 1) * target
        return (1 - target - positive * torch.sigmoid(-input)) * share

    @staticmethod
    def grad_target(g: Tensor, share: Tensor, input: Tensor, pos_weight: Tensor | None) -> Tensor:
        if pos_weight is None:
            return -input * share
        return ((pos_weight - 1) * torch.nn.functional.softplus(-input) - input) * share


def _axis(input: Tensor) -> int:
    """The axis along which the classes lie."""
    return 1 if input.dim() > 1 else 0


def _mse(input: Tensor, target: Tensor, reduction: str) -> Tensor:
    """torch's kernel, which autocast knows, without the checks of its Python function."""
    if input.shape != target.shape:
        input, target = torch.broadcast_tensors(input, target)  # type: ignore[no-untyped-call]
    return torch._C._nn.mse_loss(input, target, get_enum(reduction))  # type: ignore[arg-type]


def _real(target: Tensor, input: Tensor) -> Tensor:
    """A target as outputs: a class y becomes e_y, and one that does not exist an error."""
    if target.is_floating_point():
        return target
    axis = _axis(input)
    return torch.zeros_like(input).scatter(axis, target.unsqueeze(axis), 1.0)


def _is_class(target: Tensor, input: Tensor) -> Tensor:
    """Where e_y is 1, for each class y; nowhere for one that is ignored, and may be no class."""
    axis = _axis(input)
    classes = torch.arange(input.shape[axis], device=input.device)
    return _along(classes, input) == target.unsqueeze(axis)


def _along(weight: Tensor, input: Tensor) -> Tensor:
    """One number a class, in a shape that broadcasts against ``input``."""
    after = input.dim() - 1 - _axis(input)
    return weight.reshape(-1, *[1] * after) if after else weight


def _share(
    g: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
) -> Tensor:
    """What each example counts for: g / Σ w_y for a mean, 0 where it is ignored."""
    axis = _axis(input)
    if target.is_floating_point():
        each = g / (input.numel() // max(input.shape[axis], 1)) if reduction == "mean" else g
        return each.unsqueeze(axis) if each.dim() else each
    counted = target != ignore_index
    if reduction == "mean":
        if weight is None:
            g = g / counted.sum()
        else:
            g = g / (weight[target.where(counted, 0)] * counted).sum()
    # Chosen, not multiplied: with every example ignored the mean is 0/0, and nothing is to blame.
    return torch.where(counted, g, 0).unsqueeze(axis)
