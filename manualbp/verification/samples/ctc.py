"""Arguments of connectionist temporal classification."""

from __future__ import annotations

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


def _of_normalized(log_probs: Tensor, *others: Any) -> Tensor:
    """Its derivative is what the rule gives where the probabilities of a time sum to 1."""
    return f.CTC.forward(log_probs.log_softmax(-1), *others)


SURROGATES[f.CTC] = _of_normalized
