"""Connectionist temporal classification: the cost of a sequence of labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manualbp.core.formula import Formula
from manualbp.formulas.loss import _per_entry, _reduce

__all__ = ["CTC"]


class CTC(Formula):
    """C = −log Σ_π Π_t e^aₜ(πₜ),  over the paths π that read as the target

    ∂C/∂a ≙ g (eᵃ − γ),  γₜ(k) the share of the paths that are in class k at time t
    """

    # −γ alone is the derivative. torch's gradient, and this one, also has the term eᵃ. It makes no
    # difference where a are normalised, because then Σₖ eᵃ stays 1.

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
        return _reduce(cost / _divisor(target_lengths, cost, reduction), reduction)

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
        each = _per_entry(g, total, reduction) / _divisor(target_lengths, total, reduction)
        impossible = total == -math.inf
        each = torch.where(impossible, 0 if zero_infinity else math.nan, each)
        inside = _length_mask(log_probs.shape[0], input_lengths).T
        return torch.where(inside, each, 0).unsqueeze(-1) * (log_probs.exp() - share)


def _length_mask(count: int, lengths: Tensor) -> Tensor:
    """Whether t < length, a row of t = 0 … count − 1 for each length."""
    return torch.arange(count, device=lengths.device) < lengths.unsqueeze(-1)


def _divisor(target_lengths: Tensor, cost: Tensor, reduction: str) -> Tensor | int:
    """The number by which a mean divides the cost of each target."""
    return target_lengths.clamp(min=1).to(cost.dtype) if reduction == "mean" else 1


#: log 0, but finite, because the gradient of logsumexp is nan if all are −∞
_NEVER = -1e30


def _paths(
    log_probs: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor, blank: int
) -> tuple[Tensor, Tensor]:
    """log Σ_π p(π), and for each time and class the share of the paths that emit it.

    A path goes through the states blank, y₁, blank, y₂, …, blank. It stays in a state, goes to the
    next, or past a blank to another label. α is the log probability of the paths to a state, β of
    those from it to an end. β is α of the reversed problem.
    """
    times, states = log_probs.shape[0], 2 * targets.shape[1] + 1
    labels = torch.where(_length_mask(targets.shape[1], target_lengths), targets, blank)
    labels = torch.stack([labels, torch.full_like(labels, blank)], 2).flatten(1)
    labels = torch.nn.functional.pad(labels, (1, 0), value=blank)
    last = 2 * target_lengths.unsqueeze(-1)
    exists = torch.arange(states, device=labels.device) <= last
    where = labels.expand(times, *labels.shape)
    emitted = log_probs.gather(2, where).masked_fill(~exists, _NEVER)

    # Reversed: t becomes T − 1 − t and s becomes S − 1 − s; entries beyond an end wrap around.
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
    # No share after the end of the input, nor for a target that no path reads as.
    there = ((t < input_lengths) & ~impossible).unsqueeze(-1)
    share = (both - total.unsqueeze(-1)).masked_fill(~there, -math.inf).exp()
    return total, torch.zeros_like(log_probs).scatter_add(2, where, share)


def _alpha(emitted: Tensor, labels: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """α of each state and time, without and with the emission there."""
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
