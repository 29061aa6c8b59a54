"""Distances and similarities of vectors.

A distance is a norm of a difference, ‖d‖ = (Σᵢ |dᵢ|ᵖ)^(1/p): the number of entries that differ for
p = 0, the largest difference for p = ∞. All of them share one derivative, ∂‖d‖/∂d.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manualbp.core.formula import Formula

__all__ = ["CDist", "CosineSimilarity", "PDist", "PairwiseDistance"]


class PairwiseDistance(Formula):
    """r = ‖d + ε‖,  d = x₁ − x₂

    ∂C/∂d = g ∂‖d + ε‖/∂d
    """

    @staticmethod
    def forward(difference: Tensor, p: float, eps: float, keepdim: bool) -> Tensor:
        return torch.norm(difference + eps, p, -1, keepdim)

    @staticmethod
    def grad_difference(
        g: Tensor, difference: Tensor, output: Tensor, p: float, eps: float, keepdim: bool
    ) -> Tensor:
        if not keepdim:
            g, output = g.unsqueeze(-1), output.unsqueeze(-1)
        return _times_slope(g, difference + eps, output, p)


class CDist(Formula):
    """rᵢⱼ = ‖xᵢ − yⱼ‖

    ∂C/∂xᵢ = Σⱼ gᵢⱼ ∂‖d‖/∂d,  d = xᵢ − yⱼ
    ∂C/∂yⱼ = −Σᵢ gᵢⱼ ∂‖d‖/∂d
    """

    broadcasts = True

    @staticmethod
    def forward(x1: Tensor, x2: Tensor, p: float, compute_mode: str) -> Tensor:
        return torch.cdist(x1, x2, p, compute_mode)

    @staticmethod
    def slopes(
        g: Tensor, x1: Tensor, x2: Tensor, output: Tensor, p: float, compute_mode: str
    ) -> Tensor:
        """The gradient of each pair: gᵢⱼ ∂‖d‖/∂d, or gᵢⱼ / ‖d‖ if distances are by products."""
        if _by_products(x1, x2, p, compute_mode):
            return g / output.masked_fill(output == 0, math.inf)
        d = x1.unsqueeze(-2) - x2.unsqueeze(-3)
        return _times_slope(g.unsqueeze(-1), d, output.unsqueeze(-1), p)

    @staticmethod
    def grad_x1(
        g: Tensor, slopes: Tensor, x1: Tensor, x2: Tensor, p: float, compute_mode: str
    ) -> Tensor:
        if _by_products(x1, x2, p, compute_mode):
            return slopes.sum(-1, keepdim=True) * x1 - slopes @ x2
        return slopes.sum(-2)

    @staticmethod
    def grad_x2(
        g: Tensor, slopes: Tensor, x1: Tensor, x2: Tensor, p: float, compute_mode: str
    ) -> Tensor:
        if _by_products(x1, x2, p, compute_mode):
            return slopes.sum(-2).unsqueeze(-1) * x2 - slopes.mT @ x1
        return -slopes.sum(-3)


class PDist(Formula):
    """r = ‖xᵢ − xⱼ‖ for each pair i < j

    ∂C/∂xᵢ ≙ Σⱼ gᵢⱼ ∂‖d‖/∂d,  d = xᵢ − xⱼ
    """

    @staticmethod
    def forward(input: Tensor, p: float) -> Tensor:
        return torch.pdist(input, p)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, output: Tensor, p: float) -> Tensor:
        i, j = torch.triu_indices(len(input), len(input), 1, device=input.device).unbind()
        d = input[i] - input[j]
        slope = _times_slope(g.unsqueeze(-1), d, output.unsqueeze(-1), p)
        return torch.zeros_like(input).index_add(0, i, slope).index_add(0, j, slope, alpha=-1)


class CosineSimilarity(Formula):
    """c = Σⱼ uⱼ vⱼ,  u = x₁ / ‖x₁‖,  v = x₂ / ‖x₂‖,  no length below ε

    ∂C/∂x₁ = g (v − c u) / ‖x₁‖
    ∂C/∂x₂ = g (u − c v) / ‖x₂‖
    """

    @staticmethod
    def forward(x1: Tensor, x2: Tensor, dim: int, eps: float) -> Tensor:
        return torch.cosine_similarity(x1, x2, dim, eps)

    #: c, computed again, because the caller may have written into the output
    cosine = forward

    @staticmethod
    def length1(x1: Tensor, dim: int) -> Tensor:
        return _length(x1, dim)

    @staticmethod
    def length2(x2: Tensor, dim: int) -> Tensor:
        return _length(x2, dim)

    @staticmethod
    def grad_x1(
        g: Tensor,
        x1: Tensor,
        x2: Tensor,
        length1: Tensor,
        length2: Tensor,
        cosine: Tensor,
        dim: int,
        eps: float,
    ) -> Tensor:
        return _grad_of_cosine(g, x1, x2, length1, length2, cosine, dim, eps)

    @staticmethod
    def grad_x2(
        g: Tensor,
        x1: Tensor,
        x2: Tensor,
        length1: Tensor,
        length2: Tensor,
        cosine: Tensor,
        dim: int,
        eps: float,
    ) -> Tensor:
        return _grad_of_cosine(g, x2, x1, length2, length1, cosine, dim, eps)


def _times_slope(g: Tensor, d: Tensor, norm: Tensor, p: float) -> Tensor:
    """g ∂‖d‖/∂d along the last axis; 0 where d is 0, as in torch."""
    if p == 0:
        return torch.zeros_like(d)
    if p == 1:
        return g * d.sign()
    if p == math.inf:  # shared by the largest
        largest = d.abs() == d.abs().amax(-1, keepdim=True)
        return g * d.sign() * (largest / largest.sum(-1, keepdim=True))
    nowhere, norm = norm == 0, norm.masked_fill(norm == 0, 1)
    if p == 2:
        return (g * (d / norm)).masked_fill(nowhere, 0)
    # For p < 2 a power of 0 is ∞, and times sign d = 0 it would be nan.
    slope = d.sign() * (d.abs().masked_fill(d == 0, 1) / norm) ** (p - 1)
    return (g * slope).masked_fill(nowhere, 0)


def _by_products(x1: Tensor, x2: Tensor, p: float, compute_mode: str) -> bool:
    """Whether torch computes ‖x − y‖² = ‖x‖² − 2 x·y + ‖y‖², which needs no tensor of x − y."""
    many = x1.shape[-2] > 25 or x2.shape[-2] > 25
    mode = compute_mode.removesuffix("_if_necessary")
    return p == 2 and mode == "use_mm_for_euclid_dist" and (many or mode == compute_mode)


def _length(x: Tensor, dim: int) -> Tensor:
    return torch.linalg.vector_norm(x, 2, dim, keepdim=True)


def _grad_of_cosine(
    g: Tensor, x: Tensor, y: Tensor, lx: Tensor, ly: Tensor, cosine: Tensor, dim: int, eps: float
) -> Tensor:
    """∂C/∂x: g times the part of y / ‖y‖ that is orthogonal to x, over ‖x‖."""
    nx, ny = lx.clamp(min=eps), ly.clamp(min=eps)
    # The derivative of a length below ε is not 0, as in torch.
    direction = x / lx.masked_fill(lx == 0, 1)
    return g.unsqueeze(dim) / nx * (y / ny - cosine.unsqueeze(dim) * direction)
