"""Attention: every query gets a mean of values, weighted by its similarity to their keys."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from manualbp.core.formula import Formula
from manualbp.core.modes import fused
from manualbp.formulas.dropout import share_kept

__all__ = ["Attention"]

#: softmax, but 0 for a row of −∞; torch has no public name for it
_safe_softmax = torch.ops.aten._safe_softmax.default


class Attention(Formula):
    """z = (P ⊙ m / (1 − p)) V,  P = softmax S,  S = c Q Kᵀ + M,  m = 0 with probability p, else 1

    ∂C/∂Q = c ∂C/∂S K
    ∂C/∂K = c (∂C/∂S)ᵀ Q
    ∂C/∂V = (P ⊙ m / (1 − p))ᵀ g
    ∂C/∂M = ∂C/∂S,  ∂C/∂S = P ⊙ (D − Σₖ Pₖ ⊙ Dₖ),  D = g Vᵀ ⊙ m / (1 − p)
    """

    # P is computed again, not saved, because it is quadratic in the length of the sequence.
    # Heads that share a key are rows of one matrix: see _group_heads.

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
        return _ungroup_heads(_group_heads(weights, value) @ value, weights) * share_kept(dropout_p)

    @staticmethod
    def probabilities(
        query: Tensor, key: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float
    ) -> Tensor:
        """P; a row is 0 if the mask allows no key."""
        scores = _scores(query, key, attn_mask, is_causal, scale)
        # Only a mask can leave a query without a key. Otherwise the faster softmax is enough.
        return torch.softmax(scores, -1) if attn_mask is None else _safe_softmax(scores, -1)

    @staticmethod
    def share(g: Tensor, dropout_p: float) -> Tensor:
        """The gradient of P ⊙ m: g / (1 − p)."""
        return g * share_kept(dropout_p) if dropout_p else g

    @staticmethod
    def slope(
        g: Tensor, share: Tensor, value: Tensor, probabilities: Tensor, kept: Tensor | None
    ) -> Tensor:
        """∂C/∂S."""
        incoming = _ungroup_heads(_group_heads(share, value) @ value.mT, share)
        incoming = incoming if kept is None else incoming * kept
        weighted = incoming * probabilities
        return weighted - probabilities * weighted.sum(-1, keepdim=True)

    @staticmethod
    def grad_query(g: Tensor, slope: Tensor, key: Tensor, scale: float) -> Tensor:
        return _ungroup_heads(_group_heads(slope, key) @ key, slope) * scale

    @staticmethod
    def grad_key(g: Tensor, slope: Tensor, query: Tensor, key: Tensor, scale: float) -> Tensor:
        return _group_heads(slope, key).mT @ _group_heads(query, key) * scale

    @staticmethod
    def grad_value(
        g: Tensor, share: Tensor, probabilities: Tensor, value: Tensor, kept: Tensor | None
    ) -> Tensor:
        weights = probabilities if kept is None else probabilities * kept
        return _group_heads(weights, value).mT @ _group_heads(share, value)

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
    return _ungroup_heads(_group_heads(weights, value) @ value, weights)


def _scores(
    query: Tensor, key: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float
) -> Tensor:
    """c Q Kᵀ + M, −∞ where a query may not attend."""
    product = _ungroup_heads(_group_heads(query * scale, key) @ key.mT, query)
    if is_causal:
        later = torch.ones(product.shape[-2:], dtype=torch.bool, device=product.device).triu(1)
        return product.masked_fill(later, -torch.inf)
    if attn_mask is None:
        return product
    if attn_mask.dtype == torch.bool:
        return product.masked_fill(~attn_mask, -torch.inf)
    return product + attn_mask


def _group_heads(rows: Tensor, key: Tensor) -> Tensor:
    """Rows (…, heads, n, m) as (…, groups, heads/groups · n, m), with one group a head of keys.

    Then one product with the keys does for a group, and sums its gradients.
    """
    if rows.dim() < 3 or key.dim() < 3 or rows.shape[-3] <= key.shape[-3]:
        return rows
    *batch, heads, n, m = rows.shape
    groups = key.shape[-3]
    return rows.reshape(*batch, groups, heads // groups * n, m)


def _ungroup_heads(grouped: Tensor, rows: Tensor) -> Tensor:
    """Undo :func:`_group_heads` of ``rows`` in a product."""
    if rows.dim() < 3 or grouped.dim() < 3 or grouped.shape[-3] >= rows.shape[-3]:
        return grouped
    return grouped.reshape(*grouped.shape[:-3], *rows.shape[-3:-1], grouped.shape[-1])
