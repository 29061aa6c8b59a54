"""Distances and similarities of vectors."""

from torch import Tensor, nn

from manualbp import functional as F

__all__ = ["CosineSimilarity", "PairwiseDistance"]


class CosineSimilarity(nn.CosineSimilarity):
    """torch.nn.CosineSimilarity by formula: c = Σⱼ uⱼ vⱼ, u = x₁ / ‖x₁‖, v = x₂ / ‖x₂‖, no length
    below ε (formulas.CosineSimilarity)."""

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(nn.PairwiseDistance):
    """torch.nn.PairwiseDistance by formula: r = ‖d + ε‖, d = x₁ − x₂
    (formulas.PairwiseDistance)."""

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
