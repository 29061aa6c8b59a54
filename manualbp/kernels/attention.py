"""The rules of attention with the largest tensors, quadratic in the sequence, written over."""

from __future__ import annotations

from torch import Tensor

from manualbp import formulas
from manualbp.formulas.attention import heads_apart, heads_grouped
from manualbp.kernels import of

Attention = formulas.Attention


@of(
    Attention.grad_query,
    Attention.grad_key,
    Attention.grad_value,
    Attention.grad_attn_mask,
    supported=lambda query, key: query is not None and key is not None,
)
def attention(
    needs: tuple[bool, bool, bool, bool],
    g: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    kept: Tensor | None,
    dropout_p: float,
    is_causal: bool,
    scale: float,
) -> tuple[Tensor | None, ...]:
    p = Attention.probabilities(query, key, attn_mask, is_causal, scale)
    share = Attention.share(g, dropout_p)
    of_value = Attention.grad_value(g, share, p, value, kept) if needs[2] else None
    if not (needs[0] or needs[1] or needs[3]):
        return None, None, of_value, None
    slope = heads_apart(heads_grouped(share, value) @ value.mT, share)
    if kept is not None:
        slope.mul_(kept)
    slope.mul_(p)
    slope.addcmul_(p, slope.sum(-1, keepdim=True), value=-1)
    return (
        Attention.grad_query(g, slope, key, scale) if needs[0] else None,
        Attention.grad_key(g, slope, query, key, scale) if needs[1] else None,
        of_value,
        slope if needs[3] else None,
    )
