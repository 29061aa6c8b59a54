"""Arguments of margin losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from manualbp import formulas as f
from manualbp.verification.samples.loss import _positive, _reduction
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]


def _signs(s: Source, *shape: int) -> Tensor:
    """1 and −1."""
    return (1 - 2 * s.classes(2, *shape)).to(s.dtype)


def _scores(s: Source) -> tuple[tuple[int, ...], int]:
    """(n,) or (), and K: at least two classes."""
    return (() if s.boolean() else (s.batch(),)), s.size(2)


@of(f.MultiLabelSoftMargin)
def _multi_label_soft_margin(s: Source) -> Arguments:
    shape = s.shape(1, 3)
    target = s.tensor(*shape, low=0.05, high=0.95)
    return s.tensor(*shape), target, s.maybe(lambda: _positive(s, shape[-1])), _reduction(s)


@of(f.SoftMargin)
def _soft_margin(s: Source) -> Arguments:
    shape = s.shape()
    return s.tensor(*shape), _signs(s, *shape), _reduction(s)


@of(f.HingeEmbedding)
def _hinge_embedding(s: Source) -> Arguments:
    shape = s.shape()
    return s.tensor(*shape), _signs(s, *shape), s.choice(1.0, 0.3), _reduction(s)


@of(f.MarginRanking)
def _margin_ranking(s: Source) -> Arguments:
    first, second = s.broadcastable(2)
    return s.tensor(*first), _signs(s, *second), s.choice(0.0, 0.7), _reduction(s)


@of(f.TripletMargin)
def _triplet_margin(s: Source) -> Arguments:
    first, second, third = s.broadcastable(3)
    distances = (s.tensor(*shape, low=0.1, high=3) for shape in (first, second))
    swapped = s.maybe(lambda: s.tensor(*third, low=0.1, high=3))
    return *distances, swapped, s.choice(1.0, 0.3), _reduction(s)


@of(f.CosineEmbedding)
def _cosine_embedding(s: Source) -> Arguments:
    batch, width = _scores(s)
    vectors = (s.nonzero(*batch, width) for _ in range(2))
    return *vectors, _signs(s, *batch), s.choice(0.0, -0.4), _reduction(s)


@of(f.MultiMargin)
def _multi_margin(s: Source) -> Arguments:
    batch, classes = _scores(s)
    return (
        s.tensor(*batch, classes),
        s.classes(classes, *batch),
        s.integer(1, 2),
        s.choice(1.0, 0.3),
        s.maybe(lambda: _positive(s, classes)),
        _reduction(s),
    )


@of(f.MultiLabelMargin)
def _multi_label_margin(s: Source) -> Arguments:
    batch, classes = _scores(s)
    rows = []
    for _ in range(batch[0] if batch else 1):  # labels, and −1 after the last of them
        labels, count = s.permutation(classes), s.integer(0, classes)
        rows.append(labels.where(torch.arange(classes) < count, -1))
    target = torch.stack(rows) if rows else torch.zeros(0, classes, dtype=torch.long)
    return s.tensor(*batch, classes), target.reshape(*batch, classes), _reduction(s)
