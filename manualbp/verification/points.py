"""Points that are derived from others: near them, or of another batch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from manualbp.verification.differences import sizes_of
from manualbp.verification.subject import Point, Subject


def moved(point: Point, number: int, by: float = 0.1) -> Point:
    """A point near another: every value moved by a share of its size."""
    values = []
    for k, value in enumerate(point.values):
        generator = torch.Generator().manual_seed(101 * number + k)
        x = torch.view_as_real(value) if value.is_complex() else value
        noise = torch.randn(x.shape, generator=generator, dtype=torch.double).to(x.device)
        there = x.detach().double() + by * noise * sizes_of(x)
        values.append(torch.view_as_complex(there) if value.is_complex() else there)
    return replace(point, values=values)


def of_batch(
    subject: Subject, base: Point, dtype: torch.dtype | None, size: int | None
) -> Point | None:
    """The point with ``size`` examples; None: with two where it has one.

    Which axis is the batch's is not known: each first axis as long as the first of the value, or
    of the first input, is taken for it; where the function then has a value, it has a derivative.
    """
    inputs = [(slot.index, i) for i, slot in enumerate(subject.slots) if slot.index is not None]
    others = list(base.others)
    for index, i in inputs:
        others[index] = base.values[i]
    outputs = [t for t in subject.value(base, dtype) if t.ndim]
    tensors = [t for t in others if isinstance(t, Tensor) and t.ndim]
    if not tensors:
        return None
    count = outputs[0].shape[0] if outputs else tensors[0].shape[0]
    if not any(t.shape[0] == count for t in tensors) or count == size or count == 0:
        return None
    if any(type(value) is int and value == count for value in others):
        return None  # the size of the batch is an argument too
    whole = all(t.is_floating_point() for t in tensors)
    if size is None and (count != 1 or not whole):
        return None  # two equal indices may mean another thing

    def resized(t: object) -> object:
        if not isinstance(t, Tensor) or not t.ndim or t.shape[0] != count:
            return t
        t = t.detach()
        if size is not None:
            return t[:size]
        return torch.cat([t, 1.1 * t if t.is_floating_point() else t])

    if size == 0 and any(map(_points_elsewhere, others)):
        return None  # torch's embedding_bag crashes where the rows are gone
    changed = [resized(t) for t in others]
    if any(_points_elsewhere(t) and new is t for t, new in zip(others, changed, strict=True)):
        return None  # indices that stay may point to rows that are gone
    values = list(base.values)
    for index, i in inputs:
        values[i] = changed[index]  # type: ignore[call-overload]
    return replace(base, values=values, others=changed)


def _points_elsewhere(t: object) -> bool:
    """Whether it may hold indices."""
    if not isinstance(t, Tensor) or not t.numel() or t.dtype is torch.bool:
        return False
    return not t.is_floating_point() and not t.is_complex()
