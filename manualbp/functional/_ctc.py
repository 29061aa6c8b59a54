"""Connectionist temporal classification."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.functional._common import check_reduction

__all__ = ["ctc_loss"]


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """C = −log of the probability that a path reads as the target.

    A path is read by dropping repeated labels, then blanks. ``"mean"`` divides each cost by the
    length of its target, and averages over the examples. The gradient is torch's, which assumes
    that ``log_probs`` are normalised, as ``log_softmax`` returns them.

    Args:
        log_probs: (T, n, K), or (T, K) for a single example.
        targets: (n, S), padded, (S,) for a single example, or all of them one after another,
            (Σ ``target_lengths``,).
        input_lengths: (n,) or (): how many of the T time steps each example has.
        target_lengths: (n,) or (): how many of the S labels each example has.
        blank: the class that is no label.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        zero_infinity: cost and gradient of a target too long for its input are 0, not ∞ and nan.
    """
    check_reduction(reduction)
    single = log_probs.dim() == 2
    if single:
        log_probs = log_probs.unsqueeze(1)
    device = log_probs.device
    inputs = torch.as_tensor(input_lengths, dtype=torch.long, device=device).reshape(-1)
    lengths = torch.as_tensor(target_lengths, dtype=torch.long, device=device).reshape(-1)
    targets = targets.to(device, torch.long)
    if not inputs.shape == lengths.shape == log_probs.shape[1:2]:
        raise RuntimeError(
            f"input_lengths, target_lengths: expected one each for the {log_probs.shape[1]} "
            f"examples of log_probs; got {tuple(inputs.shape)} and {tuple(lengths.shape)}"
        )
    if targets.dim() == 1:
        targets = targets.unsqueeze(0) if single else _padded(targets, lengths, target_lengths)
    options = (blank, reduction, zero_infinity)
    cost = formulas.CTC.apply(log_probs, targets, inputs, lengths, *options)
    return cost.squeeze(0) if single and reduction == "none" else cost


def _padded(targets: Tensor, lengths: Tensor, lengths_given: Tensor | Sequence[int]) -> Tensor:
    """Concatenated targets, as rows."""
    longest = int(max(lengths_given)) if len(lengths_given) else 0
    start = (lengths.cumsum(0) - lengths).unsqueeze(-1)
    place = start + torch.arange(longest, device=targets.device)
    if not targets.numel():
        return targets.new_zeros(place.shape)
    return targets[place.clamp(max=targets.shape[0] - 1)]
