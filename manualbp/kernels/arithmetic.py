"""Gradients let through or not: their bits times 0 or 1, as integers.

``masked_fill`` branches at each number; ∞ and nan times 0 are 0 here as they are there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.kernels import of

#: integers of as many bytes as the numbers
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}

#: numbers below which two operations more take longer than the branches
MANY = 1 << 13


def _zeroed(g: Tensor, where: Tensor) -> Tensor:
    return (g.view(_INTEGERS[g.element_size()]) * ~where).view(g.dtype)


def _of_many(g: Tensor) -> bool:
    return g.numel() >= MANY


def _of_bits(g: Tensor) -> bool:
    return g.element_size() in _INTEGERS


@of(formulas.Where.grad_input, supported=_of_bits, profitable=_of_many)
def where_true(g: Tensor, condition: Tensor) -> Tensor:
    return _zeroed(g, ~condition.bool())


@of(formulas.Where.grad_other, supported=_of_bits, profitable=_of_many)
def where_false(g: Tensor, condition: Tensor) -> Tensor:
    return _zeroed(g, condition.bool())


@of(formulas.MaskedFill.grad_input, supported=_of_bits, profitable=_of_many)
def masked_fill(g: Tensor, mask: Tensor) -> Tensor:
    return _zeroed(g, mask)


@of(formulas.Clamp.grad_input, supported=_of_bits, profitable=_of_many)
def clamp(g: Tensor, input: Tensor, min: float | None, max: float | None) -> Tensor:
    inside = input < max if min is None else input > min  # type: ignore[operator]
    if min is not None and max is not None:
        inside = inside & (input < max)
    return _zeroed(g, ~inside)
