"""Values and rules of costs by torch's kernels, and those of cross-entropy in fewer passes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn._reduction import get_enum

from manualbp import formulas
from manualbp.kernels import of

aten = torch.ops.aten

# ---------------------------------------------------------------------------- costs of an error

#: numbers from which the rules' passes over memory take longer than torch's one
_LARGE = 1 << 17


@of(
    formulas.SmoothL1.grad_input,
    supported=lambda input, target, beta: beta > 0 and _alike(input, target),
    profitable=lambda input: input.numel() >= _LARGE,
)
def smooth_l1(g: Tensor, input: Tensor, target: Tensor, reduction: str, beta: float) -> Tensor:
    return aten.smooth_l1_loss_backward(g, input, target, get_enum(reduction), beta)


@of(
    formulas.Huber.grad_input,
    supported=lambda input, target, weight: weight is None and _alike(input, target),
    profitable=lambda input: input.numel() >= _LARGE,
)
def huber(
    g: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    threshold: float,
) -> Tensor:
    return aten.huber_loss_backward(g, input, target, get_enum(reduction), threshold)


def _alike(input: Tensor, target: Tensor) -> bool:
    return input.shape == target.shape and input.dtype is target.dtype


# ---------------------------------------------------------------------------- costs of a class

#: numbers below which calls take longer than passes over memory
_SMALL = 1 << 12
_SMALL_OF_FEW = 1 << 9


def _few(input: Tensor) -> bool:
    """Whether a row is shorter than a vector of the processor: of 16 numbers, or 8 doubles."""
    return input.dim() == 2 and input.shape[1] * input.element_size() < 64


def _by_columns(function: Callable[[Tensor, int], Tensor], input: Tensor) -> Tensor:
    """A softmax of each row along columns: 5 times as fast for short rows, as columns vectorize."""
    return function(input.t().contiguous(), 0).t().contiguous()


@of(
    formulas.CrossEntropy.forward,
    profitable=lambda input: _few(input) and input.numel() >= _SMALL_OF_FEW,
    supported=lambda input, target, weight, label_smoothing: (
        not (label_smoothing or target.is_floating_point())
        and input.dim() == 2
        and input.dtype in (torch.float, torch.double)
        and _one_dtype(input, input, weight)
    ),
)
def cross_entropy_cost(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
) -> Tensor:
    log_p = _by_columns(torch.log_softmax, input)
    return F.nll_loss(log_p, target, weight, ignore_index=ignore_index, reduction=reduction)


@of(
    formulas.CrossEntropy.grad_input,
    supported=lambda target, label_smoothing: not (label_smoothing or target.is_floating_point()),
)
def cross_entropy(
    g: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    few = _few(input) and input.dtype is g.dtype
    small = input.numel() < (_SMALL_OF_FEW if few else _SMALL)
    if small and input.dim() == 2 and _one_dtype(g, input, weight):
        log_p = input.log_softmax(1)
        of_log_p = nll(g, log_p, target, weight, ignore_index, reduction)
        return aten._log_softmax_backward_data(of_log_p, log_p, 1, g.dtype)
    axis = 1 if input.dim() > 1 else 0
    p = _by_columns(torch.softmax, input) if few else input.softmax(axis, dtype=g.dtype)
    index = target.unsqueeze(axis)
    if weight is None and reduction != "none" and not (target == ignore_index).any():
        share = g / target.numel() if reduction == "mean" else g
        return p.mul_(share).scatter_add_(axis, index, (-share).expand(index.shape))
    index = index.clamp(0, input.shape[axis] - 1)  # ignore_index may be out of range
    share = formulas.CrossEntropy.share(g, input, target, weight, ignore_index, reduction)
    share = share if weight is None else share * weight[index]
    return p.mul_(share).scatter_add_(axis, index, -share)


@of(
    formulas.NLL.grad_input,
    # torch's kernel for pixels raises for an input that is not contiguous.
    supported=lambda g, input, weight: (
        (input.dim() in (1, 2) or (input.dim() == 4 and input.is_contiguous()))
        and _one_dtype(g, input, weight)
    ),
)
def nll(
    g: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
) -> Tensor:
    pixels = input.dim() == 4
    forward = aten.nll_loss2d_forward if pixels else aten.nll_loss_forward
    backward = aten.nll_loss2d_backward if pixels else aten.nll_loss_backward
    options = (weight, get_enum(reduction), ignore_index)
    total = forward(input, target, *options)[1] if reduction == "mean" else g.new_empty(())
    return backward(g, input, target, *options, total)


def _one_dtype(g: Tensor, input: Tensor, weight: Tensor | None) -> bool:
    return g.dtype is input.dtype and (weight is None or weight.dtype is g.dtype)


# ---------------------------------------------------------------------------- other costs


def _some_numbers(input: Tensor) -> bool:
    # Of no examples torch's kernels return memory that nothing was written into.
    return input.dtype in (torch.float, torch.double) and input.numel() > 0


@of(
    formulas.MultiMargin.forward,
    supported=lambda input, weight: _some_numbers(input) and _one_dtype(input, input, weight),
)
def multi_margin_cost(
    input: Tensor, target: Tensor, p: int, margin: float, weight: Tensor | None, reduction: str
) -> Tensor:
    return aten.multi_margin_loss(input, target, p, margin, weight, get_enum(reduction))


@of(
    formulas.MultiMargin.grad_input,
    supported=lambda g, input, weight: _one_dtype(g, input, weight),
)
def multi_margin(
    g: Tensor,
    input: Tensor,
    target: Tensor,
    p: int,
    margin: float,
    weight: Tensor | None,
    reduction: str,
) -> Tensor:
    options = (p, margin, weight, get_enum(reduction))
    return aten.multi_margin_loss_backward(g, input, target, *options)


@of(
    formulas.MultiLabelMargin.forward,
    supported=_some_numbers,
)
def multilabel_margin_cost(input: Tensor, target: Tensor, reduction: str) -> Tensor:
    return aten.multilabel_margin_loss_forward(input, target, get_enum(reduction))[0]


@of(
    formulas.MultiLabelMargin.grad_input,
    supported=lambda g, input: g.dtype is input.dtype,
)
def multilabel_margin(g: Tensor, input: Tensor, target: Tensor, reduction: str) -> Tensor:
    mean = get_enum(reduction)
    is_target = aten.multilabel_margin_loss_forward(input, target, mean)[1]
    return aten.multilabel_margin_loss_backward(g, input, target, mean, is_target)


def _without_nan(log_probs: Tensor) -> bool:
    # torch's kernel takes maxima, which drop some nan.
    return log_probs.dtype in (torch.float, torch.double) and not log_probs.sum().isnan()


@of(formulas.CTC.forward, supported=_without_nan)
def ctc_cost(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    reduction: str,
    zero_infinity: bool,
) -> Tensor:
    lengths = (input_lengths, target_lengths)
    return aten.ctc_loss.Tensor(
        log_probs, targets, *lengths, blank, get_enum(reduction), zero_infinity
    )


@of(
    formulas.CTC.grad_log_probs,
    supported=lambda log_probs: not log_probs.sum().isnan(),
)
def ctc(
    g: Tensor,
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    reduction: str,
    zero_infinity: bool,
) -> Tensor:
    given = (log_probs, targets, input_lengths, target_lengths)
    cost, log_alpha = aten._ctc_loss.Tensor(*given, blank, zero_infinity)
    if reduction == "mean":
        g = g / (target_lengths.clamp(min=1) * cost.numel())
    g = g.to(cost.dtype).expand(cost.shape)
    return aten._ctc_loss_backward.Tensor(g, *given, cost, log_alpha, blank, zero_infinity)


@of(formulas.MultiLabelSoftMargin.forward, supported=lambda weight: weight is None)
def multilabel_soft_margin_cost(input: Tensor, target: Tensor, reduction: str) -> Tensor:
    cost = F.logsigmoid(input).mul_(target)
    cost.sub_(F.logsigmoid(-input).mul_(target - 1)).neg_()
    if reduction == "mean":
        return cost.mean()
    each = cost.mean(-1)
    return each if reduction == "none" else each.sum()
