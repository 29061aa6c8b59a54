"""Arguments of embeddings: rows of a table, some of them several times."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import SURROGATES, of

Arguments = tuple[Any, ...]


@of(f.Embedding)
def _embedding(s: Source) -> Arguments:
    rows = s.size()
    padding = s.maybe(lambda: s.integer(0, rows - 1))
    return s.classes(rows, *s.shape()), s.tensor(rows, s.size()), rows, padding, s.boolean()


@of(f.EmbeddingBag)
def _embedding_bag(s: Source) -> Arguments:
    rows, count = s.size(), s.size(1, 6)
    mode = s.integer(0, 2)
    weighted = mode == 0 and s.boolean()
    # A weighted bag, and one of maxima, does not count how often a row is taken.
    by_frequency = not weighted and mode < 2 and s.boolean()
    starts = sorted(s.integer(0, count) for _ in range(s.size(1, 4) - 1))
    return (
        s.classes(rows, count),
        s.tensor(rows, s.size()),
        s.tensor(count) if weighted else None,
        torch.tensor([0, *starts]),
        rows,
        mode,
        s.maybe(lambda: s.integer(0, rows - 1)),
        by_frequency,
    )


def _shares(input: Tensor, weight: Tensor, by_frequency: bool) -> Tensor:
    """The table, each row divided by how often it is taken, if its gradient is to be."""
    times = torch.bincount(input.flatten(), minlength=len(weight)).clamp(min=1)
    return weight / times[:, None] if by_frequency else weight


def _embedding_as_learnt(
    input: Tensor, weight: Tensor, rows: int, padding_idx: int | None, by_frequency: bool
) -> Tensor:
    """With the row of the padding a constant."""
    if padding_idx is not None:
        weight = weight * (torch.arange(rows) != padding_idx)[:, None]
    return f.Embedding.forward(input, _shares(input, weight, by_frequency), rows, None, False)


def _embedding_bag_as_learnt(input: Tensor, weight: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    forward: Any = f.EmbeddingBag.forward
    return forward(input, _shares(input, weight, others[-1]), *others)


SURROGATES[f.Embedding] = _embedding_as_learnt
SURROGATES[f.EmbeddingBag] = _embedding_bag_as_learnt
