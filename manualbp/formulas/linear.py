"""Linear and bilinear functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from manualbp.core.formula import Formula
from manualbp.core.modes import fused

__all__ = ["Bilinear", "Linear"]


class Linear(Formula):
    """z = a Wᵀ + b

    ∂C/∂a = δ W
    ∂C/∂W = δᵀ a
    ∂C/∂b = Σₙ δₙ
    """

    holomorphic = True
    opmath = False

    @staticmethod
    def forward(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(input, weight, bias)

    @staticmethod
    def grad_input(delta: Tensor, weight: Tensor) -> Tensor:
        return delta @ weight

    @staticmethod
    def grad_weight(delta: Tensor, input: Tensor) -> Tensor:
        return _rows(delta).mT @ _rows(input)

    @staticmethod
    def grad_bias(delta: Tensor) -> Tensor:
        return _rows(delta).sum(0)


class Bilinear(Formula):
    """zₙₒ = aₙᵀ Wₒ a′ₙ + bₒ

    ∂C/∂aₙ = (Σₒ δₙₒ Wₒ) a′ₙ
    ∂C/∂a′ₙ = (Σₒ δₙₒ Wₒ)ᵀ aₙ
    ∂C/∂Wₒ = Σₙ δₙₒ aₙ a′ₙᵀ
    ∂C/∂b = Σₙ δₙ
    """

    holomorphic = True

    @staticmethod
    def forward(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return fused(torch.bilinear, _bilinear)(input1, input2, weight, bias)

    @staticmethod
    def mixed(delta: Tensor, weight: Tensor) -> Tensor:
        """Σₒ δₒ Wₒ, one matrix an example."""
        product = _rows(delta) @ weight.flatten(1)
        return product.reshape(*delta.shape[:-1], *weight.shape[1:])

    @staticmethod
    def grad_input1(delta: Tensor, mixed: Tensor, input2: Tensor) -> Tensor:
        return (mixed @ input2.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def grad_input2(delta: Tensor, mixed: Tensor, input1: Tensor) -> Tensor:
        return (mixed.mT @ input1.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def grad_weight(delta: Tensor, input1: Tensor, input2: Tensor) -> Tensor:
        product = _rows(delta).mT @ _pairs(input1, input2)
        return product.reshape(delta.shape[-1], input1.shape[-1], input2.shape[-1])

    @staticmethod
    def grad_bias(delta: Tensor) -> Tensor:
        return _rows(delta).sum(0)


def _rows(t: Tensor) -> Tensor:
    """Every batch axis collapsed into one: (*, features) → (N, features)."""
    # Not reshape(-1, …), which raises if there are no features.
    return t if t.dim() == 2 else t.reshape(math.prod(t.shape[:-1]), t.shape[-1])


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    z = _pairs(input1, input2) @ weight.flatten(1).mT
    z = z.reshape(*input1.shape[:-1], weight.shape[0])
    return z if bias is None else z + bias


def _pairs(input1: Tensor, input2: Tensor) -> Tensor:
    """a a′ᵀ of every example, as one row."""
    return (_rows(input1).unsqueeze(-1) * _rows(input2).unsqueeze(-2)).flatten(1)
