"""Attention."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from cases.table import *
from manualbp import functional

NAME = "scaled_dot_product_attention"


def written_out(*arguments, **options):
    """torch's, in operations that have a second derivative."""
    with sdpa_kernel(SDPBackend.MATH):
        return torch.nn.functional.scaled_dot_product_attention(*arguments, **options)


#: of torch's own kernel for the CPU
FUSED = dict.fromkeys(
    ("second_order", "forward_mode", "jacobians", "per_example"),
    "torch's kernel has no second derivative, no tangents and no vmap",
)
ALONE = {"thrifty": "for the values or the mask alone torch keeps P, we what it is computed from"}


def attention(*arguments, note: str = "", **options) -> Case:
    without = ALONE | options.pop("without", {})
    return row(NAME, *arguments, twin=written_out, note=note, without=without, **options)


q, k, v = real(1, 2, 4, 2), real(1, 2, 5, 2), real(1, 2, 5, 2)
square = (real(1, 2, 4, 2),) * 3
allowed = fixed([[[[True, False, True, False]] * 3 + [[False] * 4]]], torch.bool)

CASES = [
    row(NAME, q, k, v, note="fused", without=FUSED),
    row(NAME, *square, is_causal=True, note="fused", without=FUSED),
    row(NAME, *square, constant(real(4, 4)), note="fused", without=FUSED),
    row(NAME, *square, allowed, note="fused, a row without keys", without=FUSED),
    attention(q, k, v),
    attention(real(4, 2), real(5, 2), real(5, 3)),
    attention(real(2, 4, 2), real(2, 5, 2), real(2, 5, 3), scale=-0.3),
    attention(real(2, 1, 3, 2), real(3, 4, 2), real(3, 4, 1), note="broadcast"),
    attention(*square, is_causal=True),
    attention(real(1, 4, 2), real(1, 3, 2), real(1, 3, 2), is_causal=True, note="longer"),
    attention(q, k, v, real(4, 5), note="mask"),
    attention(q, k, v, real(2, 1, 1), note="mask broadcast"),
    attention(*square, allowed, note="a row without keys"),
    attention(real(1, 4, 3, 2), real(1, 2, 5, 2), real(1, 2, 5, 2), enable_gqa=True),
    attention(real(1, 4, 3, 2), real(1, 2, 3, 2), real(1, 2, 3, 2), real(3, 3), dropout_p=0.4,
              enable_gqa=True, random=True),
    attention(real(1, 4, 3, 2), real(3, 2, 3, 2), real(3, 2, 3, 2), dropout_p=0.4, enable_gqa=True,
              random=True, note="a mask for each example"),
    attention(q, k, v, dropout_p=0.4, random=True),
    attention(q, k, v, dropout_p=1.0, random=True),
    attention(*square, dropout_p=0.3, is_causal=True, random=True),
    attention(*map(transposed, (q, k, v)), note="transposed"),
    row(NAME, real(0, 2, 4, 2), real(0, 2, 5, 2), real(0, 2, 5, 2), without=EMPTY | FUSED),
]  # fmt: skip


def small(*shape: int) -> Make:
    """So that in bfloat16 the probabilities are still what they are."""
    return uniform(-0.7, 0.7, *shape)


#: what every call of `multi_head_attention_forward` states: width 4, two heads
STATED = dict.fromkeys(("in_proj_weight", "in_proj_bias", "bias_k", "bias_v", "out_proj_bias"))
STATED |= {"embed_dim_to_check": 4, "num_heads": 2, "add_zero_attn": False, "dropout_p": 0.0}
PACKED = {"in_proj_weight": small(12, 4), "in_proj_bias": small(12)}
SEPARATE = {
    "q_proj_weight": small(4, 4),
    "k_proj_weight": small(4, 3),
    "v_proj_weight": small(4, 2),
}


def heads(
    note: str, *inputs: Make, pick: int = 0, without: dict[str, str] | None = None, **stated
) -> Case:
    """One input is query, key and value; two are the query and what it looks at."""
    made = {name: value for name, value in stated.items() if callable(value)}
    options = STATED | {name: value for name, value in stated.items() if name not in made}

    def of(function):
        def multi_head_attention_forward(*values):
            attended, weights = values[: len(inputs)], values[len(inputs) :]
            attended = (*attended, *[attended[-1]] * (3 - len(attended)))
            given = options | dict(zip(made, weights, strict=True))
            return function(*attended, **given)[pick]

        return multi_head_attention_forward

    def theirs(*arguments, **options):
        with sdpa_kernel(SDPBackend.MATH):
            return torch.nn.functional.multi_head_attention_forward(*arguments, **options)

    return Case(
        f"multi_head_attention_forward-{note}",
        ours=of(functional.multi_head_attention_forward),
        theirs=of(theirs),
        arguments=(*inputs, *made.values()),
        random="dropout_p" in stated,
        without=without or {},
    )


x, memory, out = small(3, 2, 4), small(5, 2, 4), {"out_proj_weight": small(4, 4)}
unused = {"out_proj_weight": constant(small(4, 4))}
padded = constant(fixed([[0.0, 0, -INF], [0.0, 0, 0]]))
causal = constant(fixed([[0.0, -INF, -INF], [0.0, 0.0, -INF], [0.0, 0.0, 0.0]]))
hidden = fixed([[False, False, True], [False, False, False]], torch.bool)

CASES += [
    heads("self", x, **PACKED, **out, out_proj_bias=small(4)),
    heads("self, weights", x, **PACKED, **unused, pick=1),
    heads(
        "self, masked, each head",
        x,
        **PACKED,
        **unused,
        pick=1,
        average_attn_weights=False,
        attn_mask=causal,
        key_padding_mask=padded,
    ),
    heads("self, dropout", x, **PACKED, **out, dropout_p=0.4),
    heads("self, fast", x, **PACKED, **out, need_weights=False, key_padding_mask=hidden),
    heads("self, causal", x, **PACKED, **out, need_weights=False, attn_mask=causal, is_causal=True),
    heads("memory", x, memory, in_proj_weight=small(12, 4), **out, need_weights=False),
    heads(
        "separate",
        x,
        small(5, 2, 3),
        small(5, 2, 2),
        use_separate_proj_weight=True,
        **SEPARATE,
        **out,
    ),
    heads(
        "biases and zero",
        x,
        memory,
        memory,
        **PACKED,
        **out,
        bias_k=small(1, 1, 4),
        bias_v=small(1, 1, 4),
        add_zero_attn=True,
        attn_mask=small(3, 5),
        need_weights=False,
        without=ALONE,
    ),
    heads(
        "static",
        x,
        constant(memory),
        constant(memory),
        **PACKED,
        **out,
        static_k=small(4, 6, 2),
        static_v=small(4, 6, 2),
    ),
    heads("unbatched", small(3, 4), small(5, 4), **PACKED, **out, attn_mask=small(2, 3, 5)),
]

layer, decoder = (
    kind(4, 2, 6, 0.0, batch_first=True)
    for kind in (torch.nn.TransformerEncoderLayer, torch.nn.TransformerDecoderLayer)
)
MODULES = [
    module("MultiheadAttention", 4, 2, inputs=(real(3, 2, 4),) * 3),
    module("MultiheadAttention", 4, 2, inputs=(real(2, 3, 4),) * 3, batch_first=True),
    module("MultiheadAttention", 4, 2, inputs=(real(3, 4), real(5, 3), real(5, 2)), kdim=3, vdim=2,
           bias=False),
    module("MultiheadAttention", 4, 2, inputs=(real(3, 2, 4),) * 3, add_bias_kv=True,
           add_zero_attn=True, dropout=0.3),
    module("TransformerEncoderLayer", 4, 2, 6, inputs=(real(3, 2, 4),)),
    module("TransformerEncoderLayer", 4, 2, 6, 0.0, "gelu", inputs=(real(2, 3, 4),),
           batch_first=True, norm_first=True),
    module("TransformerEncoder", layer, 2, inputs=(real(2, 3, 4), causal, padded),
           enable_nested_tensor=False),
    module("TransformerDecoderLayer", 4, 2, 6, inputs=(real(3, 2, 4), real(5, 2, 4))),
    module("TransformerDecoder", decoder, 2, inputs=(real(2, 3, 4), real(2, 5, 4), causal)),
    module("Transformer", 4, 2, 1, 1, 6, inputs=(real(2, 3, 4), real(2, 5, 4)), batch_first=True),
]  # fmt: skip
