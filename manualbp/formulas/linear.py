"""The weighted sum."""

from __future__ import annotations

import math

from torch import Tensor

from manualbp import products
from manualbp.formula import Formula

__all__ = ["Linear"]


class Linear(Formula):
    """z = a Wᵀ + b

    ∂C/∂a = δ W
    ∂C/∂W = δᵀ a
    ∂C/∂b = Σₙ δₙ
    """

    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return products.linear(input, weight, bias)

    @staticmethod
    def grad_input(delta: Tensor, weight: Tensor) -> Tensor:
        return products.matmul(delta, weight)

    @staticmethod
    def grad_weight(delta: Tensor, input: Tensor) -> Tensor:
        return products.matmul(_rows(delta).mT, _rows(input))

    @staticmethod
    def grad_bias(delta: Tensor) -> Tensor:
        return _rows(delta).sum(0)


def _rows(t: Tensor) -> Tensor:
    """Every batch axis collapsed into one: (*, features) → (N, features)."""
    # Not reshape(-1, …), which cannot tell N when there are no features.
    return t if t.dim() == 2 else t.reshape(math.prod(t.shape[:-1]), t.shape[-1])
