"""The rules of distances and similarities: factors of one number a vector are multiplied first."""

from __future__ import annotations

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.kernels import of


@of(formulas.PairwiseDistance.grad_difference, supported=lambda p: p == 2)
def pairwise_distance(
    g: Tensor, difference: Tensor, output: Tensor, eps: float, keepdim: bool
) -> Tensor:
    share = (g / output).masked_fill_(output == 0, 0)
    return (difference + eps).mul_(share if keepdim else share.unsqueeze(-1))


@of(
    formulas.CosineSimilarity.grad_x1,
    formulas.CosineSimilarity.grad_x2,
    profitable=lambda x1: x1.numel() >= 1 << 12,
)
def cosine_similarity(
    needs: tuple[bool, bool], g: Tensor, x1: Tensor, x2: Tensor, dim: int, eps: float
) -> tuple[Tensor | None, Tensor | None]:
    l1, l2 = (torch.linalg.vector_norm(x, 2, dim, keepdim=True) for x in (x1, x2))
    n1, n2 = l1.clamp(min=eps), l2.clamp(min=eps)
    u, v, g = x1 / n1, x2 / n2, g.unsqueeze(dim)
    c = (u * v).sum(dim, keepdim=True)
    to_x1 = torch.addcmul(v, u, _grown(c, l1, eps)).mul_(g / n1) if needs[0] else None
    to_x2 = torch.addcmul(u, v, _grown(c, l2, eps)).mul_(g / n2) if needs[1] else None
    return to_x1, to_x2


def _grown(c: Tensor, length: Tensor, eps: float) -> Tensor:
    """−c, times ε / length where the length is below ε."""
    return (eps / length.masked_fill(length == 0, 1)).clamp_(min=1).mul_(c).neg_()
