"""Costs: how far the network's outputs are from what they should be.

Classes lie along axis 1, or axis 0 of a single example; ``reduction`` is torch's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manualbp.formula import Formula


class SquaredError(Formula):
    """C = (1/n) Σₙ Σⱼ (aₙⱼ − yₙⱼ)²

    ∂C/∂a = 2 (a − y) g / n
    ∂C/∂y = −∂C/∂a
    """

    @staticmethod
    def forward(input: Tensor, target: Tensor, reduction: str) -> Tensor:
        squares = torch.nn.functional.mse_loss(input, _real(target, input), reduction="none")
        each = squares.flatten(1).sum(1) if input.dim() > 1 else squares.sum()
        return each if reduction == "none" else each.sum() / _examples(input, reduction)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, target: Tensor, reduction: str) -> Tensor:
        per_example = (2 / _examples(input, reduction) if input.numel() else 2) * g
        if per_example.dim():
            per_example = per_example.reshape(-1, *[1] * (input.dim() - 1))
        return (input - _real(target, input)) * per_example

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
        input, target = torch.broadcast_tensors(input, target)  # type: ignore[no-untyped-call]
        if weight is None:
            return torch.nn.functional.mse_loss(input, target, reduction=reduction)
        squares = weight * (input - target).square()
        if reduction == "none":
            return squares
        return squares.sum() / (weight.sum() if reduction == "mean" else 1)

    @staticmethod
    def error(input: Tensor, target: Tensor) -> Tensor:
        return input - target

    @staticmethod
    def share(g: Tensor, error: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        """What one squared error counts for: g / Σ w."""
        if reduction != "mean":
            return g
        return g / (error.numel() if weight is None else weight.sum())

    @staticmethod
    def grad_input(g: Tensor, share: Tensor, error: Tensor, weight: Tensor | None) -> Tensor:
        return error * (2 * share) if weight is None else error * (2 * share) * weight

    @staticmethod
    def grad_target(g: Tensor, grad_input: Tensor) -> Tensor:
        return -grad_input

    @staticmethod
    def grad_weight(
        g: Tensor, share: Tensor, error: Tensor, reduction: str, output: Tensor
    ) -> Tensor:
        return (error.square() - (output if reduction == "mean" else 0)) * share


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
    def log_p(g: Tensor, input: Tensor) -> Tensor:
        return input.log_softmax(_axis(input), dtype=g.dtype)

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
        log_p: Tensor,
        target: Tensor,
        weight: Tensor | None,
        label_smoothing: float,
    ) -> Tensor:
        axis = _axis(log_p)
        q = target if target.is_floating_point() else _hot(target, log_p)
        if label_smoothing:
            q = (1 - label_smoothing) * q + label_smoothing / log_p.shape[axis]
        if weight is not None:
            q = q * _along(weight, log_p)
        elif not target.is_floating_point():
            return (log_p.exp() - q) * share
        return (log_p.exp() * q.sum(axis, keepdim=True) - q) * share

    @staticmethod
    def grad_target(
        g: Tensor, share: Tensor, log_p: Tensor, weight: Tensor | None, label_smoothing: float
    ) -> Tensor:
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
        gradient = -share * _hot(target, input)
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


def _examples(input: Tensor, reduction: str) -> int:
    """What the sum over examples is divided by."""
    return input.shape[0] if reduction == "mean" and input.dim() > 1 else 1


def _real(target: Tensor, input: Tensor) -> Tensor:
    """A target as outputs: a class y becomes e_y, and one that does not exist an error."""
    if target.is_floating_point():
        return target
    axis = _axis(input)
    return torch.zeros_like(input).scatter(axis, target.unsqueeze(axis), 1.0)


def _hot(target: Tensor, input: Tensor) -> Tensor:
    """e_y for each class y; all zero for one that is ignored and so need not be a class."""
    axis = _axis(input)
    classes = torch.arange(input.shape[axis], device=input.device)
    return (_along(classes, input) == target.unsqueeze(axis)).to(input.dtype)


def _along(weight: Tensor, input: Tensor) -> Tensor:
    """One number a class, in a shape that broadcasts against ``input``."""
    return weight.reshape(-1, *[1] * (input.dim() - 1 - _axis(input)))


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
