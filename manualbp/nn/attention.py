"""Attention and Transformers."""

from __future__ import annotations

from torch import Tensor, nn

from manualbp import functional as F
from manualbp.core.modes import is_compiling
from manualbp.functional._override import in_python

__all__ = [
    "MultiheadAttention",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]


class MultiheadAttention(nn.MultiheadAttention):
    """torch.nn.MultiheadAttention by formula: projections (formulas.Linear) before and after P V, P
    = softmax(QKᵀ/√d) (formulas.Softmax, or without P formulas.Attention)."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        swap = self.batch_first and query.dim() == 3
        if swap:  # tensors that are the same stay the same: one product projects all of them
            alike = query is key, key is value
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
            key = query if alike[0] else key
            value = key if alike[1] else value
        output, weights = F.multi_head_attention_forward(
            query,
            key,
            value,
            self.embed_dim,
            self.num_heads,
            self.in_proj_weight,
            self.in_proj_bias,
            self.bias_k,
            self.bias_v,
            self.add_zero_attn,
            self.dropout,
            self.out_proj.weight,
            self.out_proj.bias,
            training=self.training,
            key_padding_mask=key_padding_mask,
            need_weights=need_weights,
            attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim,
            q_proj_weight=self.q_proj_weight,
            k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight,
            average_attn_weights=average_attn_weights,
            is_causal=is_causal,
        )
        return output.transpose(0, 1) if swap else output, weights


class TransformerEncoderLayer(nn.TransformerEncoderLayer):
    """torch.nn.TransformerEncoderLayer: torch's own Python, whose layers and functions run by
    formula (formulas.Attention, formulas.LayerNorm)."""

    forward = in_python(nn.TransformerEncoderLayer.forward)


class TransformerEncoder(nn.TransformerEncoder):
    """torch.nn.TransformerEncoder: torch's own Python, whose layers and functions run by formula
    (formulas.Attention, formulas.LayerNorm)."""

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        return _encoder(self, src, mask, src_key_padding_mask, _hint(is_causal))


class TransformerDecoderLayer(nn.TransformerDecoderLayer):
    """torch.nn.TransformerDecoderLayer: torch's own Python, whose layers and functions run by
    formula (formulas.Attention, formulas.LayerNorm)."""

    forward = in_python(nn.TransformerDecoderLayer.forward)


class TransformerDecoder(nn.TransformerDecoder):
    """torch.nn.TransformerDecoder: torch's own Python, whose layers and functions run by formula
    (formulas.Attention, formulas.LayerNorm)."""

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        return _decoder(
            self,
            tgt,
            memory,
            tgt_mask,
            memory_mask,
            tgt_key_padding_mask,
            memory_key_padding_mask,
            _hint(tgt_is_causal),
            memory_is_causal,
        )


class Transformer(nn.Transformer):
    """torch.nn.Transformer: torch's own Python, whose layers and functions run by formula
    (formulas.Attention, formulas.LayerNorm)."""

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        return _transformer(
            self,
            src,
            tgt,
            src_mask,
            tgt_mask,
            memory_mask,
            src_key_padding_mask,
            tgt_key_padding_mask,
            memory_key_padding_mask,
            _hint(src_is_causal),
            _hint(tgt_is_causal),
            memory_is_causal,
        )


_encoder = in_python(nn.TransformerEncoder.forward)
_decoder = in_python(nn.TransformerDecoder.forward)
_transformer = in_python(nn.Transformer.forward)


def _hint(is_causal: bool | None) -> bool | None:
    """``is_causal``; where torch would detect it, False while a compiler traces.

    Detection looks at the mask's values, at which the compiler would break the graph. A causal
    mask gives the same value without the hint.
    """
    return False if is_causal is None and is_compiling() else is_causal
