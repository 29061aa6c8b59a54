"""Which example each number of a gradient belongs to, found out by weighing the examples.

A backward pass is linear. So where the cost of example n is multiplied by 2ᵏ, with a k of its
own, the gradient of its values is multiplied by 2ᵏ, exactly, and no other is. What a number was
multiplied by names its example, wherever a model has moved it: transposed, flattened, sorted. A
number that is multiplied by no power of two is a sum over examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

#: a number that is 0 or not finite, which belongs to nobody; a sum over several examples
NOBODY, SEVERAL = -1, -2


class Scale:
    """The powers of two by which the examples are multiplied, in one backward pass or several.

    Args:
        count: how many examples there are.
        dtype: of the gradients, whose range bounds the powers.
    """

    def __init__(self, count: int, dtype: torch.dtype) -> None:
        self.count = count
        #: powers are −half … half
        self.half = 3 if dtype is torch.float16 else 40
        self.base = 2 * self.half + 1
        self.passes = 0 if count == 1 else max(1, math.ceil(math.log(count, self.base) - 1e-9))

    def weights(self, index: int, like: Tensor) -> Tensor:
        """What the examples are multiplied by in this pass: a power for a digit of their place."""
        place = torch.arange(self.count, device=like.device)
        digit = place.div(self.base**index, rounding_mode="floor") % self.base
        return torch.exp2((digit - self.half).double()).to(like.dtype)

    def labels(self, plain: Tensor, weighed: Sequence[Tensor | None]) -> Tensor:
        """The place of the example that each number of ``plain`` is of, or one of the above."""
        if self.count == 1:
            return torch.zeros(plain.shape, dtype=torch.long, device=plain.device)
        wide = plain.double()
        smallest = torch.finfo(plain.dtype).smallest_normal * 2.0 ** (self.half + 1)
        known = wide.isfinite() & (wide.abs() > smallest)
        label = torch.zeros(plain.shape, dtype=torch.long, device=plain.device)
        alone = known
        for index, other in enumerate(weighed):
            power = wide if other is None else (other.double() / wide).log2()
            nearest = power.round()
            alone = alone & ((power - nearest).abs() < 0.01) & (nearest.abs() <= self.half)
            label = label + torch.where(alone, nearest + self.half, 0).long() * self.base**index
        alone = alone & (label < self.count)
        label = torch.where(alone, label, SEVERAL)
        return torch.where(known, label, NOBODY)


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the examples are in a tensor: along one axis.

    Its length is outer · n · inner, each example in blocks of ``inner``; or ``index`` (n, m)
    lists the places of each, −1 for none.
    """

    axis: int
    length: int
    outer: int
    count: int
    inner: int
    index: Tensor | None = None

    def fits(self, t: Tensor) -> bool:
        """Whether ``t`` has such an axis."""
        return self.axis < 0 or (t.dim() > self.axis and t.shape[self.axis] == self.length)

    def by_example(self, t: Tensor) -> Tensor:
        """``t`` as the passes of each example alone would have it, stacked along a new axis 0."""
        axis = self.axis
        if axis < 0:  # there is one example
            return t.unsqueeze(0)
        if self.index is not None:
            places = self.index.clamp(min=0).reshape(-1)
            t = torch.unflatten(t.index_select(axis, places), axis, self.index.shape).movedim(
                axis, 0
            )
            none = (self.index < 0).reshape(
                self.count, *[1] * axis, -1, *[1] * (t.dim() - axis - 2)
            )
            return t.masked_fill(none, 0)
        if self.outer == self.inner == 1:
            return (t.movedim(axis, 0) if axis else t).unsqueeze(axis + 1)
        blocks = torch.unflatten(t, axis, (self.outer, self.count, self.inner)).movedim(axis + 1, 0)
        return blocks.flatten(axis + 1, axis + 2)

    def labels(self, shape: torch.Size, device: torch.device) -> Tensor:
        """The place of the example of each number, to broadcast against a tensor of ``shape``."""
        if self.axis < 0:
            return torch.zeros((), dtype=torch.long, device=device)
        if self.index is None:
            along = torch.arange(self.length, device=device)
            along = along.div(self.inner, rounding_mode="floor") % self.count
        else:
            along = torch.full((self.length,), NOBODY, device=device)
            each = torch.arange(self.count, device=device)[:, None].expand_as(self.index)
            there = self.index >= 0
            along[self.index[there]] = each[there]
        return along.reshape(-1, *[1] * (len(shape) - 1 - self.axis))


#: those that are equal are one object, so that what is laid out by it is remembered
_regular = lru_cache(maxsize=4096)(Layout)

ALONE = Layout(-1, 1, 1, 1, 1)


def find(labels: Tensor, count: int) -> tuple[Layout | None, bool]:
    """The layout that agrees with the labels, if any does, and whether no other does."""
    if count == 1:
        return ALONE, True
    found: list[Layout] = []
    uneven: Layout | None = None
    for axis, length in enumerate(labels.shape):
        rows = labels.movedim(axis, 0).reshape(length, -1)
        if not rows.numel():
            continue
        last = rows.amax(1)
        first = torch.where(rows == NOBODY, last[:, None], rows).amin(1)
        if not bool((first == last).all()):
            continue
        if length % count == 0:
            for inner in _divisors(length // count):
                layout = _regular(axis, length, length // count // inner, count, inner)
                pattern = layout.labels(labels.shape[: axis + 1], labels.device)
                if bool(((last == NOBODY) | (last == pattern)).all()):
                    found.append(layout)
        if uneven is None:
            uneven = Layout(axis, length, 1, count, 1, _places(last, count))
    if found:
        return found[0], len(found) == 1
    return uneven, False


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _places(labels: Tensor, count: int) -> Tensor:
    """The places of each example along an axis, −1 where one has fewer than another."""
    each = [(labels == n).nonzero().reshape(-1) for n in range(count)]
    return torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=-1)
