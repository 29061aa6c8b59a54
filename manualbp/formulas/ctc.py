"""Connectionist temporal classification: the cost of a sequence of labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manualbp.core.formula import Formula
from manualbp.formulas.loss import _each, _reduced

__all__ = ["CTC"]


class CTC(Formula):
    """C = −log Σ_π Π_t e^aₜ(πₜ),  over the paths π that read as the target

    ∂C/∂a = g (eᵃ − γ),  γₜ(k) the share of the paths that are in class k at time t
    """

    # −γ alone is the derivative in every direction. Logarithms of probabilities move only where
    # Σₖ eᵃ stays 1, and there eᵃ, which torch's gradient has and this one too, makes no difference.

    @staticmethod
    def forward(
        log_probs: Tensor,
        targets: Tensor,
        input_lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
        reduction: str,
        zero_infinity: bool,
    ) -> Tensor:
        cost = -_paths(log_probs, targets, input_lengths, target_lengths, blank)[0]
        if zero_infinity:
            cost = torch.where(cost == math.inf, 0, cost)
        return _reduced(cost / _length(target_lengths, cost, reduction), reduction)

    @staticmethod
    def grad_log_probs(
        g: Tensor,
        log_probs: Tensor,
        targets: Tensor,
        input_lengths: Tensor,
        target_lengths: Tensor,
        blank: int,
        reduction: str,
        zero_infinity: bool,
    ) -> Tensor:
        total, share = _paths(log_probs, targets, input_lengths, target_lengths, blank)
        each = _each(g, total, reduction) / _length(target_lengths, total, reduction)
        impossible = total == -math.inf
        each = torch.where(impossible, 0 if zero_infinity else math.nan, each)
        inside = _upto(log_probs.shape[0], input_lengths).T
        return torch.where(inside, each, 0).unsqueeze(-1) * (log_probs.exp() - share)


def _upto(count: int, lengths: Tensor) -> Tensor:
    """Whether t < length, for each length a row of the times 0 … count − 1."""
    return torch.arange(count, device=lengths.device) < lengths.unsqueeze(-1)


def _length(target_lengths: Tensor, cost: Tensor, reduction: str) -> Tensor | int:
    """What a mean divides the cost of each target by."""
    return target_lengths.clamp(min=1).to(cost.dtype) if reduction == "mean" else 1


#: the logarithm of nothing, finite: of −∞ alone a logsumexp has no gradient
_NEVER = -1e30


def _paths(
    log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int
) -> tuple[Tensor, Tensor]:
    """log Σ_π p(π), and for each time and class the share of the paths that are there.

    A path goes through the states blank, y₁, blank, y₂, …, blank, staying in a state, going to
    the next, or past a blank to a new label. α is the logarithm of what gets to a state, β of
    what gets from there to an end: α of the problem read backwards.
    """
    times, states = log_probs.shape[0], 2 * targets.shape[1] + 1
    labels = torch.where(_upto(targets.shape[1], target_lengths), targets, blank)
    labels = torch.stack([labels, torch.full_like(labels, blank)], 2).flatten(1)
    labels = torch.nn.functional.pad(labels, (1, 0), value=blank)
    last = 2 * target_lengths.unsqueeze(-1)
    exists = torch.arange(states, device=labels.device) <= last
    where = labels.expand(times, *labels.shape)
    emitted = log_probs.gather(2, where).masked_fill(~exists, _NEVER)

    # Time t and T − 1 − t, state s and S − 1 − s change places; what is not there goes round.
    t = torch.arange(times, device=labels.device).unsqueeze(-1)
    turned_time = ((input_lengths - 1 - t) % times).unsqueeze(-1).expand(emitted.shape)
    turned_state = (last - torch.arange(states, device=labels.device)) % states

    def turned(a: Tensor) -> Tensor:
        return a.gather(0, turned_time).gather(2, turned_state.expand(a.shape))

    labels = torch.cat([labels, labels.gather(1, turned_state)])
    arriving, staying = _alpha(torch.cat([emitted, turned(emitted)], 1), labels, blank)
    count = targets.shape[0]
    both = staying[:, :count] + turned(arriving[:, count:])
    total = both[0].clamp(min=_NEVER).logsumexp(-1).masked_fill(input_lengths == 0, 0)
    impossible = torch.where(input_lengths > 0, total < _NEVER / 2, target_lengths > 0)
    total = total.masked_fill(impossible, -math.inf)
    # Neither after the end nor for a target that no path reads as.
    there = ((t < input_lengths) & ~impossible).unsqueeze(-1)
    share = (both - total.unsqueeze(-1)).masked_fill(~there, -math.inf).exp()
    return total, torch.zeros_like(log_probs).scatter_add(2, where, share)


def _alpha(emitted: Tensor, labels: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """What gets to each state before and after what is emitted there, for every time."""
    before = torch.nn.functional.pad
    new = (labels != blank) & (labels != before(labels, (2, 0), value=blank)[:, :-2])
    state = torch.arange(labels.shape[1], device=labels.device)
    arriving = [torch.zeros_like(emitted[0]).masked_fill(state > 1, _NEVER)]
    staying = [arriving[0] + emitted[0]]
    for emission in emitted[1:]:
        a = before(staying[-1].clamp(min=_NEVER), (2, 0), value=_NEVER)
        skipped = a[:, :-2].masked_fill(~new, _NEVER)
        arriving.append(torch.stack([a[:, 2:], a[:, 1:-1], skipped]).logsumexp(0))
        staying.append(arriving[-1] + emission)
    return torch.stack(arriving), torch.stack(staying)
