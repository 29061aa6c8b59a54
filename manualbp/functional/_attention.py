"""Attention."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from manualbp import formulas
from manualbp.functional._activation import softmax
from manualbp.functional._arithmetic import add, mul
from manualbp.functional._dropout import dropout
from manualbp.functional._linear import linear
from manualbp.functional._matmul import baddbmm, matmul
from manualbp.functional._padding import pad
from manualbp.functional._reduction import mean
from manualbp.functional._shape import cat

__all__ = ["multi_head_attention_forward", "scaled_dot_product_attention"]


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """z = softmax(c Q Kᵀ + M) V: (\\*, l, e), (\\*, s, e), (\\*, s, v) → (\\*, l, v), c = 1/√e.

    M is ``attn_mask``: numbers to add, or True where a query may attend. With ``is_causal`` it
    attends to keys that are not later. Each probability becomes 0 with probability ``dropout_p``,
    as torch draws it. With ``enable_gqa`` several heads of queries share one of keys and values.
    """
    if min(query.dim(), key.dim(), value.dim()) < 2:
        raise ValueError(
            f"scaled_dot_product_attention: expected query, key and value to be at least 2-D, but "
            f"they are {query.dim()}-D, {key.dim()}-D and {value.dim()}-D"
        )
    if is_causal and attn_mask is not None:
        raise RuntimeError(
            "scaled_dot_product_attention: attn_mask must be None where is_causal is True"
        )
    kept = None
    if dropout_p > 0:
        # With enable_gqa each head of keys is repeated for the heads of queries that share it.
        of_keys = (*key.shape[:-3], 1) if enable_gqa else key.shape[:-2]
        batch = torch.broadcast_shapes(query.shape[:-2], of_keys)  # type: ignore[no-untyped-call]
        like = torch.ones(*batch, query.shape[-2], key.shape[-2], device=query.device)
        kept = torch.native_dropout(like, dropout_p, True)[1]
    c = 1 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale
    return formulas.Attention.apply(
        query, key, value, attn_mask, kept, dropout_p, is_causal, c, enable_gqa
    )


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Project the inputs, attend in each head, and project the heads.

    query (l, n, e), key and value (s, n, e') → (l, n, e); a single example has no axis n. Also
    the probabilities: (n, l, s), averaged over the heads, or (n, heads, l, s). For the other
    arguments see ``torch.nn.MultiheadAttention``.
    """
    batched = torch_functional._mha_shape_check(  # type: ignore[attr-defined]
        query, key, value, key_padding_mask, attn_mask, num_heads
    )
    if not batched:
        # Tensors that are the same stay the same, so that one product projects all of them.
        alike = query is key, key is value
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
        key = query if alike[0] else key
        value = key if alike[1] else value
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    length, batch, width = query.shape
    size = width // num_heads
    if width != embed_dim_to_check or size * num_heads != width:
        raise ValueError(
            f"multi_head_attention_forward: expected queries with {embed_dim_to_check} features, a "
            f"multiple of {num_heads} heads, but they have {width}"
        )
    if (bias_k is None) != (bias_v is None):
        raise ValueError("multi_head_attention_forward: bias_k and bias_v go together")
    if bias_k is not None and (static_k is not None or static_v is not None):
        raise ValueError("multi_head_attention_forward: a bias cannot be added to a static key")
    if is_causal and attn_mask is None:
        raise RuntimeError(
            "multi_head_attention_forward: is_causal says of an attn_mask that it is causal, but "
            "attn_mask is None"
        )

    hint = is_causal and key_padding_mask is None and not need_weights
    padding = _additive_mask(key_padding_mask, "key_padding_mask", attn_mask, query)
    mask = None if hint else _additive_mask(attn_mask, "attn_mask", None, query)
    if mask is not None:
        keys = key.shape[0]
        if mask.shape not in ((length, keys), (batch * num_heads, length, keys)):
            raise RuntimeError(
                f"multi_head_attention_forward: attn_mask should have the shape {(length, keys)} "
                f"or {(batch * num_heads, length, keys)}, but it has {tuple(mask.shape)}"
            )
        mask = mask if mask.dim() == 2 else torch.unflatten(mask, 0, (batch, num_heads))
    padding = None if padding is None else padding[:, None, None, :]

    if use_separate_proj_weight:
        weights = q_proj_weight, k_proj_weight, v_proj_weight
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        q, k, v = map(linear, (query, key, value), weights, biases)  # type: ignore[arg-type]
    else:
        assert in_proj_weight is not None
        q, k, v = _projected(query, key, value, in_proj_weight, in_proj_bias)
    more = 0
    if bias_k is not None and bias_v is not None:
        k = cat([k, bias_k.expand(1, batch, -1)])
        v = cat([v, bias_v.expand(1, batch, -1)])
        more += 1
    # (l, n, e) → (n, heads, l, e / heads)
    q, k, v = (
        torch.unflatten(static, 0, (batch, num_heads))
        if static is not None
        else torch.unflatten(t, -1, (num_heads, size)).permute(1, 2, 0, 3)
        for t, static in ((q, None), (k, static_k), (v, static_v))
    )
    if add_zero_attn:
        k = cat([k, k.new_zeros(*k.shape[:2], 1, size)], dim=2)
        v = cat([v, v.new_zeros(*v.shape[:2], 1, size)], dim=2)
        more += 1
    if more:
        mask, padding = (None if m is None else pad(m, (0, more)) for m in (mask, padding))
    if padding is not None:
        mask = padding if mask is None else add(mask, padding)

    p = dropout_p if training else 0.0
    probabilities = None
    if need_weights:
        scaled = mul(q, math.sqrt(1 / size))
        if mask is None:
            scores = matmul(scaled, k.mT)
        else:  # one sum, so that a score that overflows half precision is masked too
            mask = mask.to(q.dtype)
            if mask.dim() == 4:
                mask = mask.expand(batch, num_heads, *mask.shape[2:]).flatten(0, 1)
            scores = baddbmm(mask, scaled.flatten(0, 1), k.flatten(0, 1).mT)
            scores = torch.unflatten(scores, 0, (batch, num_heads))
        probabilities = softmax(scores, -1)
        probabilities = dropout(probabilities, p)
        mixed = matmul(probabilities, v)
        if average_attn_weights:
            probabilities = mean(probabilities, 1)
        else:  # a view, as torch's: what a hook on it returns does not reach the output's gradient
            probabilities = probabilities.view_as(probabilities)
    else:
        if mask is not None:
            mask = mask.expand(*[1] * (4 - mask.dim()), *mask.shape)
        mixed = scaled_dot_product_attention(q, k, v, mask, p, hint)
    output = linear(mixed.permute(2, 0, 1, 3).flatten(2), out_proj_weight, out_proj_bias)
    if batched:
        return output, probabilities
    return output.squeeze(1), None if probabilities is None else probabilities.squeeze(0)


def _projected(
    query: Tensor, key: Tensor, value: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, ...]:
    """Queries, keys and values; one product for those projected from the same tensor."""
    if query is key and key is value:
        return torch.unflatten(linear(query, weight, bias), -1, (3, -1)).unbind(-2)
    width = query.shape[-1]
    parts = [width, 2 * width] if key is value else [width] * 3
    weights = torch.split_with_sizes(weight, parts)
    biases = [None] * len(parts) if bias is None else torch.split_with_sizes(bias, parts)
    if key is not value:
        return tuple(map(linear, (query, key, value), weights, biases))
    both = torch.unflatten(linear(key, weights[1], biases[1]), -1, (2, -1))
    return linear(query, weights[0], biases[0]), *both.unbind(-2)


def _additive_mask(
    mask: Tensor | None, name: str, other: Tensor | None, query: Tensor
) -> Tensor | None:
    """A mask as numbers to add to the scores: −∞ where it is True."""
    return torch_functional._canonical_mask(
        mask=mask,
        mask_name=name,
        other_type=None if other is None else other.dtype,
        other_name="attn_mask",
        target_type=query.dtype,
        check_other=other is not None,
    )
