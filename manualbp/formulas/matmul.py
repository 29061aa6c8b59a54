"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from manualbp.core.formula import Formula
from manualbp.formulas.linear import squares_of_products

__all__ = ["AddMatMul", "MatMul", "MatVec"]


class MatMul(Formula):
    """z = A B

    ∂C/∂A = δ Bᵀ
    ∂C/∂B = Aᵀ δ
    """

    holomorphic = True
    broadcasts = True
    opmath = False

    @staticmethod
    def forward(input: Tensor, other: Tensor) -> Tensor:
        return input @ other

    @staticmethod
    def grad_input(delta: Tensor, other: Tensor) -> Tensor:
        return _grad_left(delta, other)

    @staticmethod
    def grad_other(delta: Tensor, input: Tensor) -> Tensor:
        return _grad_right(delta, input)

    @staticmethod
    def example_other(delta: Tensor, input: Tensor) -> Tensor:
        return _each_right(delta, input)

    @staticmethod
    def square_other(delta: Tensor, input: Tensor) -> Tensor:
        return _squares_right(delta, input)


class MatVec(Formula):
    """z = A b,  A a matrix or one row

    ∂C/∂A = δ bᵀ
    ∂C/∂b = Aᵀ δ
    """

    holomorphic = True
    opmath = False

    # Autocast does not cast for torch.mv and torch.dot, unlike the products of matrices.

    @staticmethod
    def forward(input: Tensor, vec: Tensor) -> Tensor:
        return input.mv(vec) if input.dim() == 2 else input.dot(vec)

    @staticmethod
    def grad_input(delta: Tensor, vec: Tensor) -> Tensor:
        return _grad_left(delta, vec)

    @staticmethod
    def grad_vec(delta: Tensor, input: Tensor) -> Tensor:
        return _grad_right(delta, input)

    @staticmethod
    def example_vec(delta: Tensor, input: Tensor) -> Tensor:
        return _each_right(delta, input)


class AddMatMul(Formula):
    """z = β c + α A B,  summed over the batch if so asked

    ∂C/∂c = β δ
    ∂C/∂A = α δ Bᵀ
    ∂C/∂B = α Aᵀ δ
    """

    holomorphic = True
    broadcasts = True
    opmath = False

    @staticmethod
    def forward(
        input: Tensor, left: Tensor, right: Tensor, beta: float, alpha: float, summed: bool
    ) -> Tensor:
        if summed:
            return torch.addbmm(input, left, right, beta=beta, alpha=alpha)
        if right.dim() == 1:
            return torch.addmv(input, left, right, beta=beta, alpha=alpha)
        add = torch.addmm if right.dim() == 2 else torch.baddbmm
        return add(input, left, right, beta=beta, alpha=alpha)

    @staticmethod
    def share(delta: Tensor, alpha: float, summed: bool) -> Tensor:
        """The gradient of every product: α δ."""
        share = delta if alpha == 1 else delta * alpha
        return share.unsqueeze(0) if summed else share

    @staticmethod
    def grad_input(delta: Tensor, beta: float) -> Tensor:
        return delta if beta == 1 else delta * beta

    @staticmethod
    def grad_left(delta: Tensor, share: Tensor, right: Tensor) -> Tensor:
        return _grad_left(share, right)

    @staticmethod
    def grad_right(delta: Tensor, share: Tensor, left: Tensor) -> Tensor:
        return _grad_right(share, left)

    @staticmethod
    def example_right(share: Tensor, left: Tensor) -> Tensor:
        return _each_right(share, left)

    @staticmethod
    def square_right(share: Tensor, left: Tensor) -> Tensor:
        return _squares_right(share, left)


def _grad_left(delta: Tensor, right: Tensor) -> Tensor:
    """δ Bᵀ, where a vector is a row on the left of a product, and a column on the right."""
    if right.dim() == 1:
        return delta.unsqueeze(-1) * right
    if delta.dim() < right.dim():
        return (right @ delta.unsqueeze(-1)).squeeze(-1)
    return delta @ right.mT


def _each_right(delta: Tensor, left: Tensor) -> Tensor:
    """Aᵀ δ of each example."""
    if left.dim() == 2:  # of each, one row
        return (
            left.unsqueeze(-1) * delta.unsqueeze(-2) if delta.dim() == 2 else left * delta[:, None]
        )
    if delta.dim() < left.dim():
        return (left.mT @ delta.unsqueeze(-1)).squeeze(-1)
    return left.mT @ delta


def _squares_right(delta: Tensor, left: Tensor) -> Tensor:
    if delta.dim() == left.dim() == 3:
        return squares_of_products(delta, left)
    each = _each_right(delta, left)
    if delta.dim() == left.dim() > 3:  # a batch of products that share B
        each = each.flatten(1, -3).sum(1)
    return each.flatten(1).square().sum(1)


def _grad_right(delta: Tensor, left: Tensor) -> Tensor:
    """Aᵀ δ."""
    if left.dim() == 1:
        return left.unsqueeze(-1) * delta.unsqueeze(-2) if delta.dim() else left * delta
    if delta.dim() < left.dim():
        if left.dim() == 2 and left.dtype == delta.dtype:  # as MatVec, in its precision
            return left.mT.mv(delta)
        return (left.mT @ delta.unsqueeze(-1)).squeeze(-1)
    return left.mT @ delta
