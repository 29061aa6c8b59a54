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
    each_row = True

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

    @staticmethod
    def example_weight(delta: Tensor, input: Tensor) -> Tensor:
        return products(rows_of_examples(delta), rows_of_examples(input))

    @staticmethod
    def square_weight(delta: Tensor, input: Tensor) -> Tensor:
        return squares_of_products(rows_of_examples(delta), rows_of_examples(input))

    @staticmethod
    def example_bias(delta: Tensor) -> Tensor:
        return rows_of_examples(delta).sum(1)

    @staticmethod
    def square_bias(delta: Tensor) -> Tensor:
        delta = rows_of_examples(delta)
        return _square(delta if delta.shape[1] == 1 else delta.sum(1))


class Bilinear(Formula):
    """zₙₒ = aₙᵀ Wₒ a′ₙ + bₒ

    ∂C/∂aₙ = (Σₒ δₙₒ Wₒ) a′ₙ
    ∂C/∂a′ₙ = (Σₒ δₙₒ Wₒ)ᵀ aₙ
    ∂C/∂Wₒ = Σₙ δₙₒ aₙ a′ₙᵀ
    ∂C/∂b = Σₙ δₙ
    """

    holomorphic = True
    each_row = True

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

    @staticmethod
    def example_weight(delta: Tensor, input1: Tensor, input2: Tensor) -> Tensor:
        a, b = rows_of_examples(input1), rows_of_examples(input2)
        return torch.einsum("nto,nti,ntj->noij", rows_of_examples(delta), a, b)

    @staticmethod
    def square_weight(delta: Tensor, input1: Tensor, input2: Tensor) -> Tensor:
        pairs = rows_of_examples(input1).unsqueeze(-1) * rows_of_examples(input2).unsqueeze(-2)
        return squares_of_products(rows_of_examples(delta), pairs.flatten(2))

    @staticmethod
    def example_bias(delta: Tensor) -> Tensor:
        return rows_of_examples(delta).sum(1)


def _rows(t: Tensor) -> Tensor:
    """Every batch axis collapsed into one: (*, features) → (N, features)."""
    # Not reshape(-1, …), which raises if there are no features.
    return t if t.dim() == 2 else t.reshape(math.prod(t.shape[:-1]), t.shape[-1])


def rows_of_examples(t: Tensor) -> Tensor:
    """The batch axes of each example collapsed into one: (n, *, features) → (n, rows, features)."""
    return t if t.dim() == 3 else t.reshape(t.shape[0], math.prod(t.shape[1:-1]), t.shape[-1])


def products(delta: Tensor, a: Tensor) -> Tensor:
    """Σₜ δₜ aₜᵀ of each example: (n, rows, i), (n, rows, j) → (n, i, j)."""
    return delta.mT * a if delta.shape[1] == 1 else delta.mT @ a


def squares_of_products(delta: Tensor, a: Tensor) -> Tensor:
    """‖Σₜ δₜ aₜᵀ‖² of each example, by Σₛₜ (δₛ · δₜ) (aₛ · aₜ) where these numbers are fewer."""
    rows, i, j = delta.shape[1], delta.shape[2], a.shape[2]
    if rows == 1:
        return _square(delta) * _square(a)
    if rows * (i + j) <= i * j:
        return ((delta @ delta.mT) * (a @ a.mT)).sum((1, 2))
    return (delta.mT @ a).square().sum((1, 2))


def _square(t: Tensor) -> Tensor:
    """‖·‖² of each example."""
    return torch.linalg.vector_norm(t.flatten(1), dim=1).square()


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    z = _pairs(input1, input2) @ weight.flatten(1).mT
    z = z.reshape(*input1.shape[:-1], weight.shape[0])
    return z if bias is None else z + bias


def _pairs(input1: Tensor, input2: Tensor) -> Tensor:
    """a a′ᵀ of every example, as one row."""
    return (_rows(input1).unsqueeze(-1) * _rows(input2).unsqueeze(-2)).flatten(1)
