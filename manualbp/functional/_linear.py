"""Weighted sums."""

from __future__ import annotations

from torch import Tensor

from manualbp import formulas

__all__ = ["linear"]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """z = a Wᵀ + b: input (\\*, in), weight (out, in), bias (out) → (\\*, out).

    A weight (in,) is one row, and its axis of outputs is left out of the result.
    """
    if weight.dim() == 1:
        row = linear(input, weight.unsqueeze(0), None if bias is None else bias.reshape(1))
        return row.squeeze(-1)
    return formulas.Linear.apply(input, weight, bias)
