"""Embeddings."""

from __future__ import annotations

from torch import Tensor, nn

from manualbp import functional as F

__all__ = ["Embedding", "EmbeddingBag"]


class Embedding(nn.Embedding):
    """torch.nn.Embedding by formula: a = W_i, i the indices (formulas.Embedding)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(
            input,
            self.weight,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.sparse,
        )


class EmbeddingBag(nn.EmbeddingBag):
    """torch.nn.EmbeddingBag by formula: a_b = Σ_{n ∈ b} sₙ W_iₙ, or the mean, or the maximum, over
    the bag b of indices i (formulas.EmbeddingBag)."""

    def forward(
        self,
        input: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        return F.embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )
