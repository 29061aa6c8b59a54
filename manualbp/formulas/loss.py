"""Costs: how far the network's outputs are from what they should be.

Classes lie along axis 1, or axis 0 of a single example; ``reduction`` is torch's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn._reduction import get_enum

from manualbp.core.formula import Formula
from manualbp.core.source import HALF, in_single

__all__ = [
    "BCE",
    "L1",
    "MSE",
    "NLL",
    "BCEWithLogits",
    "CrossEntropy",
    "GaussianNLL",
    "Huber",
    "KLDiv",
    "LogKLDiv",
    "PoissonNLL",
    "PoissonNLLFull",
    "SmoothL1",
    "SquaredError",
]


class SquaredError(Formula):
    """C = (1/n) Σₙ Σⱼ (aₙⱼ − yₙⱼ)²

    ∂C/∂a = 2 (a − y) g / n
    ∂C/∂y = −∂C/∂a
    """

    @staticmethod
    def forward(input: Tensor, target: Tensor, reduction: str) -> Tensor:
        if input.dtype in HALF:  # the sum may overflow where the mean does not
            wide, y = in_single(input, target)
            return SquaredError.forward(wide, y, reduction).to(input.dtype)
        y = _one_hot(target, input)
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
        return (input - _one_hot(target, input)) * share

    @staticmethod
    def grad_target(g: Tensor, grad_input: Tensor) -> Tensor:
        return -grad_input


class _OfError(Formula):
    """A cost of the error a − y of every entry."""

    broadcasts = True

    @staticmethod
    def error(input: Tensor, target: Tensor) -> Tensor:
        return input - target


class MSE(_OfError):
    """C = Σ w (a − y)² / n,  n = Σ w,  over all outputs of all examples

    ∂C/∂a = 2 w (a − y) g / n
    ∂C/∂y = −∂C/∂a
    ∂C/∂w = ((a − y)² − C) g / n
    """

    @staticmethod
    def forward(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        if weight is None:
            return _mse(input, target, reduction)
        return _weighted_mean((input - target).square(), weight, reduction)

    @staticmethod
    def share(g: Tensor, error: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        """The factor of each error: 2 g / Σ w."""
        if reduction != "mean":
            return 2 * g
        return 2 * g / weight.sum() if weight is not None else g * (2 / max(error.numel(), 1))

    @staticmethod
    def grad_input(g: Tensor, share: Tensor, error: Tensor, weight: Tensor | None) -> Tensor:
        return _weighted(error * share, weight)

    @staticmethod
    def grad_target(g: Tensor, grad_input: Tensor) -> Tensor:
        return -grad_input

    @staticmethod
    def grad_weight(
        g: Tensor, share: Tensor, error: Tensor, weight: Tensor, reduction: str
    ) -> Tensor:
        squares = error.square()
        cost = (squares * weight).sum() / weight.sum() if reduction == "mean" else 0
        return (squares - cost) * share / 2


class L1(Formula):
    """C = Σ w |e| / n,  n = Σ w,  e = a − y,  over all outputs of all examples

    ∂C/∂e = w sign(e) g / n
    ∂C/∂w = (|e| − C) g / n
    """

    @staticmethod
    def forward(error: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        return _weighted_mean(error.abs(), weight, reduction)

    @staticmethod
    def share(g: Tensor, error: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        if weight is None or reduction != "mean":
            return _per_entry(g, error, reduction)
        return g / weight.sum()

    @staticmethod
    def grad_error(g: Tensor, share: Tensor, error: Tensor, weight: Tensor | None) -> Tensor:
        return _weighted(error.sign() * share, weight)

    @staticmethod
    def grad_weight(
        g: Tensor, share: Tensor, error: Tensor, weight: Tensor, reduction: str
    ) -> Tensor:
        size = error.abs()
        cost = (size * weight).sum() / weight.sum() if reduction == "mean" else 0
        return (size - cost) * share


class SmoothL1(_OfError):
    """C = (a − y)² / 2β where |a − y| < β, else |a − y| − β/2

    ∂C/∂a = min(max((a − y) / β, −1), 1) g / n
    ∂C/∂y = −∂C/∂a
    """

    @staticmethod
    def forward(input: Tensor, target: Tensor, reduction: str, beta: float) -> Tensor:
        input, target = _broadcast(input, target)
        return torch._C._nn.smooth_l1_loss(input, target, get_enum(reduction), beta)  # type: ignore[arg-type]

    @staticmethod
    def grad_input(g: Tensor, error: Tensor, reduction: str, beta: float) -> Tensor:
        return error.clamp(-beta, beta) * (_per_entry(g, error, reduction) / beta)

    @staticmethod
    def grad_target(g: Tensor, grad_input: Tensor) -> Tensor:
        return -grad_input


class Huber(_OfError):
    """C = w c,  c = (a − y)² / 2 where |a − y| < threshold, else threshold (|a − y| − threshold/2)

    ∂C/∂a = w min(max(a − y, −threshold), threshold) g / n
    ∂C/∂y = −∂C/∂a
    ∂C/∂w = c g / n
    """

    @staticmethod
    def forward(
        input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, threshold: float
    ) -> Tensor:
        input, target = _broadcast(input, target)
        if weight is None:
            return torch._C._nn.huber_loss(input, target, get_enum(reduction), threshold)  # type: ignore[arg-type]
        return _reduce(torch._C._nn.huber_loss(input, target, 0, threshold) * weight, reduction)  # type: ignore[arg-type]

    @staticmethod
    def grad_input(
        g: Tensor, error: Tensor, weight: Tensor | None, reduction: str, threshold: float
    ) -> Tensor:
        slope = error.clamp(-threshold, threshold)
        return _weighted(slope * _per_entry(g, error, reduction), weight)

    @staticmethod
    def grad_target(g: Tensor, grad_input: Tensor) -> Tensor:
        return -grad_input

    @staticmethod
    def grad_weight(g: Tensor, error: Tensor, reduction: str, threshold: float) -> Tensor:
        slope = error.clamp(-threshold, threshold)
        return slope * (error - slope / 2) * _per_entry(g, error, reduction)


class GaussianNLL(Formula):
    """C = ½ (log v + e² / v),  e = a − y,  v no less than ε

    ∂C/∂e = (e / v) g / n
    ∂C/∂v = ½ (1 − e² / v) g / v n
    """

    broadcasts = True

    @staticmethod
    def forward(error: Tensor, var: Tensor, full: bool, eps: float, reduction: str) -> Tensor:
        v = var.clamp(min=eps)
        cost = 0.5 * (v.log() + error.square() / v)
        return _reduce(cost + 0.5 * math.log(2 * math.pi) if full else cost, reduction)

    @staticmethod
    def ratio(error: Tensor, var: Tensor, eps: float) -> Tensor:
        """e / v"""
        return error / var.clamp(min=eps)

    @staticmethod
    def grad_error(g: Tensor, ratio: Tensor, reduction: str) -> Tensor:
        return ratio * _per_entry(g, ratio, reduction)

    @staticmethod
    def grad_var(
        g: Tensor, ratio: Tensor, error: Tensor, var: Tensor, eps: float, reduction: str
    ) -> Tensor:
        # As in torch, a variance below ε has a gradient too.
        return 0.5 * (1 - error * ratio) / var.clamp(min=eps) * _per_entry(g, ratio, reduction)


class PoissonNLL(Formula):
    """C = λ − y l,  λ = eᵃ where log_input, else a,  l = a where log_input, else log(a + ε)

    ∂C/∂a = (eᵃ − y where log_input, else 1 − y / (a + ε)) g / n
    ∂C/∂y = −l g / n
    """

    @staticmethod
    def forward(
        input: Tensor, target: Tensor, log_input: bool, eps: float, reduction: str
    ) -> Tensor:
        return torch.poisson_nll_loss(input, target, log_input, False, eps, get_enum(reduction))

    @staticmethod
    def grad_input(
        g: Tensor, input: Tensor, target: Tensor, log_input: bool, eps: float, reduction: str
    ) -> Tensor:
        slope = input.exp() - target if log_input else 1 - target / (input + eps)
        return slope * _per_entry(g, input, reduction)

    @staticmethod
    def grad_target(
        g: Tensor, input: Tensor, log_input: bool, eps: float, reduction: str
    ) -> Tensor:
        return -(input if log_input else (input + eps).log()) * _per_entry(g, input, reduction)


class PoissonNLLFull(PoissonNLL):
    """C = λ − y l + (y log y − y + ½ log(2πy) where y > 1, else 0),  nearly −log p

    ∂C/∂y = ((log y + 1 / 2y where y > 1, else 0) − l) g / n
    """

    @staticmethod
    def forward(
        input: Tensor, target: Tensor, log_input: bool, eps: float, reduction: str
    ) -> Tensor:
        return torch.poisson_nll_loss(input, target, log_input, True, eps, get_enum(reduction))

    @staticmethod
    def grad_target(  # type: ignore[override]
        g: Tensor, input: Tensor, target: Tensor, log_input: bool, eps: float, reduction: str
    ) -> Tensor:
        stirling = torch.where(target > 1, target.log() + 0.5 / target, 0)
        rate = input if log_input else (input + eps).log()
        return (stirling - rate) * _per_entry(g, input, reduction)


class KLDiv(Formula):
    """C = y (log y − a),  a the logarithms of probabilities

    ∂C/∂a = −y g / n
    ∂C/∂y = (log y + 1 − a) g / n
    """

    @staticmethod
    def forward(input: Tensor, target: Tensor, reduction: str) -> Tensor:
        return _reduce(torch.xlogy(target, target) - target * input, reduction)

    @staticmethod
    def grad_input(g: Tensor, target: Tensor, reduction: str) -> Tensor:
        return -target * _per_entry(g, target, reduction)

    @staticmethod
    def grad_target(g: Tensor, input: Tensor, target: Tensor, reduction: str) -> Tensor:
        return (target.log() + 1 - input) * _per_entry(g, target, reduction)


class LogKLDiv(Formula):
    """C = eʸ (y − a),  a and y the logarithms of probabilities

    ∂C/∂a = −eʸ g / n
    ∂C/∂y = eʸ (y − a + 1) g / n
    """

    @staticmethod
    def forward(input: Tensor, target: Tensor, reduction: str) -> Tensor:
        return _reduce(target.exp() * (target - input), reduction)

    @staticmethod
    def grad_input(g: Tensor, target: Tensor, reduction: str) -> Tensor:
        return -target.exp() * _per_entry(g, target, reduction)

    @staticmethod
    def grad_target(g: Tensor, input: Tensor, target: Tensor, reduction: str) -> Tensor:
        return target.exp() * (target - input + 1) * _per_entry(g, target, reduction)


class CrossEntropy(Formula):
    """C = −Σₖ qₖ log pₖ,  p = softmax(z),  q = w ⊙ ((1 − ε) y + ε/K)

    ∂C/∂z = g (p Σₖ qₖ − q) / n
    ∂C/∂y = −(1 − ε) g (w ⊙ log p) / n
    """

    # Without weights and smoothing q = y sums to 1, and ∂C/∂z = p − y. The squared error has a
    # factor σ′ there; here the slope of the softmax cancels.

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
        return _per_example(g, input, target, weight, ignore_index, reduction)

    @staticmethod
    def grad_input(
        g: Tensor,
        share: Tensor,
        input: Tensor,
        target: Tensor,
        weight: Tensor | None,
        label_smoothing: float,
    ) -> Tensor:
        axis = _class_axis(input)
        p = input.softmax(axis, dtype=g.dtype)
        hard = not target.is_floating_point()
        q = _is_class(target, input).to(p.dtype) if hard else target
        if label_smoothing:
            q = (1 - label_smoothing) * q + label_smoothing / p.shape[axis]
        if weight is not None:
            q = q * _per_class(weight, p)
        return (p * q.sum(axis, keepdim=True) - q) * share

    @staticmethod
    def grad_target(
        g: Tensor, share: Tensor, input: Tensor, weight: Tensor | None, label_smoothing: float
    ) -> Tensor:
        log_p = input.log_softmax(_class_axis(input), dtype=g.dtype)
        gradient = (label_smoothing - 1) * share * log_p
        return gradient if weight is None else gradient * _per_class(weight, log_p)


class NLL(Formula):
    """C = −w_y a_y,  a the logarithms of probabilities, y a class

    ∂C/∂a = −g (w ⊙ e_y) / n
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
        share = _per_example(g, input, target, weight, ignore_index, reduction)
        index = _class_index(target, input)
        each = -share if weight is None else -share * weight[index]
        return torch.zeros_like(input, dtype=each.dtype).scatter(_class_axis(input), index, each)


class BCE(Formula):
    """C = −w (y log a + (1 − y) log(1 − a)),  no logarithm below −100

    ∂C/∂a = w (a − y) g / a (1 − a) n
    ∂C/∂y = w (log(1 − a) − log a) g / n
    """

    @staticmethod
    def forward(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        return torch._C._nn.binary_cross_entropy(input, target, weight, get_enum(reduction))  # type: ignore[arg-type]

    @staticmethod
    def share(g: Tensor, input: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
        return _weighted(_per_entry(g, input, reduction), weight)

    @staticmethod
    def grad_input(g: Tensor, share: Tensor, input: Tensor, target: Tensor) -> Tensor:
        # torch bounds the denominator away from 0 in the same way.
        return (input - target) / (input * (1 - input)).clamp(min=1e-12) * share

    @staticmethod
    def grad_target(g: Tensor, share: Tensor, input: Tensor) -> Tensor:
        return ((-input).log1p() - input.log()) * share


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
        return _weighted(_per_entry(g, input, reduction), weight)

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


def _class_axis(input: Tensor) -> int:
    """The axis along which the classes lie."""
    return 1 if input.dim() > 1 else 0


def _per_entry(g: Tensor, entries: Tensor, reduction: str) -> Tensor:
    """The gradient of each entry's cost: g / n for a mean of n."""
    if reduction == "mean":
        return g / entries.numel()
    return g / entries.shape[0] if reduction == "batchmean" and entries.dim() else g


def _reduce(cost: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return cost.mean()
    if reduction == "batchmean" and cost.dim():
        return cost.sum() / cost.shape[0]
    return cost if reduction == "none" else cost.sum()


def _weighted(gradient: Tensor, weight: Tensor | None) -> Tensor:
    return gradient if weight is None else gradient * weight


def _weighted_mean(cost: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    if weight is None:
        return _reduce(cost, reduction)
    cost = cost * weight
    return cost.sum() / weight.sum() if reduction == "mean" else _reduce(cost, reduction)


def _mse(input: Tensor, target: Tensor, reduction: str) -> Tensor:
    """torch's kernel, for which autocast casts, without the checks of torch's Python function."""
    input, target = _broadcast(input, target)
    return torch._C._nn.mse_loss(input, target, get_enum(reduction))  # type: ignore[arg-type]


def _broadcast(input: Tensor, target: Tensor) -> Sequence[Tensor]:
    """Both in their common shape, as torch's kernels require."""
    if input.shape == target.shape:
        return input, target
    return torch.broadcast_tensors(input, target)  # type: ignore[no-untyped-call]


def _one_hot(target: Tensor, input: Tensor) -> Tensor:
    """A target as outputs: a class y becomes e_y. A class out of range is an error."""
    if target.is_floating_point():
        return target
    axis = _class_axis(input)
    return torch.zeros_like(input).scatter(axis, target.unsqueeze(axis), 1.0)


def _class_index(target: Tensor, input: Tensor) -> Tensor:
    """Each class as an index along the class axis; an ignored class is clamped into range."""
    axis = _class_axis(input)
    return target.unsqueeze(axis).clamp(0, input.shape[axis] - 1)


def _is_class(target: Tensor, input: Tensor) -> Tensor:
    """Whether e_y is 1, for each class y; False for an ignored class that is out of range."""
    axis = _class_axis(input)
    classes = torch.arange(input.shape[axis], device=input.device)
    return _per_class(classes, input) == target.unsqueeze(axis)


def _per_class(weight: Tensor, input: Tensor) -> Tensor:
    """One number a class, in a shape that broadcasts against ``input``."""
    after = input.dim() - 1 - _class_axis(input)
    return weight.reshape(-1, *[1] * after) if after else weight


def _per_example(
    g: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
) -> Tensor:
    """The gradient of each example's cost: g / Σ w_y for a mean, 0 where it is ignored."""
    axis = _class_axis(input)
    if target.is_floating_point():
        each = g / (input.numel() // max(input.shape[axis], 1)) if reduction == "mean" else g
        return each.unsqueeze(axis) if each.dim() else each
    counted = target != ignore_index
    if reduction == "mean":
        if weight is None:
            g = g / counted.sum()
        else:
            g = g / (weight[target.where(counted, 0)] * counted).sum()
    # where, not a product, because g is nan if all examples are ignored: their mean is 0/0.
    return torch.where(counted, g, 0).unsqueeze(axis)
