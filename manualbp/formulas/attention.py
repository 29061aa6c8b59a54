"""Attention: every query takes the values of the keys that are like it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from manualbp.core.formula import Formula
from manualbp.core.modes import fused
from manualbp.formulas.dropout import share_kept

__all__ = ["Attention"]

#: softmax, but 0 where all is −∞; torch has no public name for it
_safe_softmax = torch.ops.aten._safe_softmax.default


class Attention(Formula):
    """z = (P ⊙ m / (1 − p)) V,  P = softmax S,  S = c Q Kᵀ + M,  m = 0 with probability p, else 1

    ∂C/∂Q = c ∂C/∂S K
    ∂C/∂K = c (∂C/∂S)ᵀ Q
    ∂C/∂V = (P ⊙ m / (1 − p))ᵀ g
    ∂C/∂M = ∂C/∂S = P ⊙ (D − Σ P ⊙ D),  D = g Vᵀ ⊙ m / (1 − p)
    """

    # P, quadratic in the length of the sequence, is not kept but computed again. Where several
    # queries share a key, the heads of a group are rows of one matrix: see _grouped.

    broadcasts = True

    @staticmethod
    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None,
        kept: Tensor | None,
        dropout_p: float,
        is_causal: bool,
        scale: float,
        enable_gqa: bool,
    ) -> Tensor:
        if kept is None:
            way = fused(torch_functional.scaled_dot_product_attention, _attention)
            return way(
                query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        scores = _scores(query, key, attn_mask, is_causal, scale)
        weights = _safe_softmax(scores, -1) * kept
        return _apart(_grouped(weights, value) @ value, weights) * share_kept(dropout_p)

    @staticmethod
    def probabilities(
        query: Tensor, key: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float
    ) -> Tensor:
        """P, of which a row without any key allowed is 0."""
        scores = _scores(query, key, attn_mask, is_causal, scale)
        # Only a mask can leave a query without a key, and only then is the slower one needed.
        return torch.softmax(scores, -1) if attn_mask is None else _safe_softmax(scores, -1)

    @staticmethod
    def share(g: Tensor, dropout_p: float) -> Tensor:
        """What arrives at the probabilities that were kept: g / (1 − p)."""
        return g * share_kept(dropout_p) if dropout_p else g

    @staticmethod
    def slope(
        g: Tensor, share: Tensor, value: Tensor, probabilities: Tensor, kept: Tensor | None
    ) -> Tensor:
        """∂C/∂S."""
        incoming = _apart(_grouped(share, value) @ value.mT, share)
        incoming = incoming if kept is None else incoming * kept
        weighted = incoming * probabilities
        return weighted - probabilities * weighted.sum(-1, keepdim=True)

    @staticmethod
    def grad_query(g: Tensor, slope: Tensor, key: Tensor, scale: float) -> Tensor:
        return _apart(_grouped(slope, key) @ key, slope) * scale

    @staticmethod
    def grad_key(g: Tensor, slope: Tensor, query: Tensor, key: Tensor, scale: float) -> Tensor:
        return _grouped(slope, key).mT @ _grouped(query, key) * scale

    @staticmethod
    def grad_value(
        g: Tensor, share: Tensor, probabilities: Tensor, value: Tensor, kept: Tensor | None
    ) -> Tensor:
        weights = probabilities if kept is None else probabilities * kept
        return _grouped(weights, value).mT @ _grouped(share, value)

    @staticmethod
    def grad_attn_mask(g: Tensor, slope: Tensor) -> Tensor:
        return slope


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float,
    enable_gqa: bool,
) -> Tensor:
    weights = _safe_softmax(_scores(query, key, attn_mask, is_causal, scale), -1)
    return _apart(_grouped(weights, value) @ value, weights)


def _scores(
    query: Tensor, key: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float
) -> Tensor:
    """c Q Kᵀ + M, −∞ where a query may not look."""
    product = _apart(_grouped(query * scale, key) @ key.mT, query)
    if is_causal:
        later = torch.ones(product.shape[-2:], dtype=torch.bool, device=product.device).triu(1)
        return product.masked_fill(later, -torch.inf)
    if attn_mask is None:
        return product
    if attn_mask.dtype == torch.bool:
        return product.masked_fill(~attn_mask, -torch.inf)
    return product + attn_mask


def _grouped(rows: Tensor, key: Tensor) -> Tensor:
    """Rows (…, heads, n, m) of queries as (…, groups, heads/groups · n, m), a group a head of keys.

    Against the keys they are then one product, which sums the gradients of a group by itself.
    """
    if rows.dim() < 3 or key.dim() < 3 or rows.shape[-3] <= key.shape[-3]:
        return rows
    *batch, heads, n, m = rows.shape
    groups = key.shape[-3]
    return rows.reshape(*batch, groups, heads // groups * n, m)


def _apart(grouped: Tensor, rows: Tensor) -> Tensor:
    """Undo :func:`_grouped` of ``rows`` in a product."""
    if rows.dim() < 3 or grouped.dim() < 3 or grouped.shape[-3] >= rows.shape[-3]:
        return grouped
    return grouped.reshape(*grouped.shape[:-3], *rows.shape[-3:-1], grouped.shape[-1])
