"""Arguments of connectionist temporal classification."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import SURROGATES, of

Arguments = tuple[Any, ...]


@of(f.CTC)
def _ctc(s: Source) -> Arguments:
    # torch has none of an empty batch.
    count, longest, classes = s.size(), s.size(1, 3), s.size(2, 4)
    forgiving = s.boolean()
    times = 2 * longest + s.size(0, 2)
    blank = s.integer(0, classes - 1)
    # Labels are the other classes.
    labels = s.classes(classes - 1, count, longest)
    labels = labels + (labels >= blank)
    targets = [s.integer(0, longest) for _ in range(count)]
    # A target that no path reads as costs ∞, which has no derivative, unless that is forgiven.
    inputs = [s.integer(1 if forgiving else max(2 * n, 1), times) for n in targets]
    log_probs = s.tensor(times, count, classes).log_softmax(-1)
    lengths = (torch.tensor(n, dtype=torch.long) for n in (inputs, targets))
    reduction = s.choice("mean", "sum", "none")
    return s.laid_out(log_probs), labels, *lengths, blank, reduction, forgiving


def _with_masses(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    blank: int,
    reduction: str,
    zero_infinity: bool,
) -> Tensor:
    """The cost and Σ eᵃ: the rule has the slope of both, because torch's gradient has it."""
    given = (log_probs, targets, input_lengths, target_lengths, blank)
    cost = f.CTC.forward(*given, "none", False)
    inside = torch.arange(log_probs.shape[0])[:, None] < input_lengths
    cost = cost + (log_probs.exp().sum(-1) * inside).sum(0)
    if zero_infinity:
        cost = cost.masked_fill(cost == math.inf, 0)
    if reduction == "mean":
        return (cost / target_lengths.clamp(min=1)).mean()
    return cost if reduction == "none" else cost.sum()


SURROGATES[f.CTC] = _with_masses
