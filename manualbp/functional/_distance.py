"""Distances and similarities of vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.functional._arithmetic import sub

__all__ = ["cdist", "cosine_similarity", "pairwise_distance", "pdist"]


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """c = Σⱼ x₁ⱼ x₂ⱼ / ‖x₁‖ ‖x₂‖ along ``dim``, no length below ``eps``."""
    if x1.shape != x2.shape:
        x1, x2 = torch.broadcast_tensors(x1, x2)  # type: ignore[no-untyped-call]
    if x1.dtype is not x2.dtype:
        dtype = torch.promote_types(x1.dtype, x2.dtype)
        x1, x2 = x1.to(dtype), x2.to(dtype)
    return formulas.CosineSimilarity.apply(x1, x2, dim, eps)


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """r = ‖x₁ − x₂ + ε‖, the p-norm along the last axis."""
    return formulas.PairwiseDistance.apply(sub(x1, x2), p, eps, keepdim)


def pdist(input: Tensor, p: float = 2) -> Tensor:
    """r = ‖xᵢ − xⱼ‖, the p-norm, for each pair i < j of the n rows: (n (n − 1) / 2,)."""
    return formulas.PDist.apply(input, p)


def cdist(
    x1: Tensor,
    x2: Tensor,
    p: float = 2.0,
    compute_mode: str = "use_mm_for_euclid_dist_if_necessary",
) -> Tensor:
    """rᵢⱼ = ‖xᵢ − yⱼ‖, the p-norm: (\\*, m, d) and (\\*, n, d) to (\\*, m, n)."""
    return formulas.CDist.apply(x1, x2, p, compute_mode)
