"""Embeddings."""

import torch
from torch import Tensor

from cases.table import *

ONCE = {
    "second_order": "torch has no second derivative of it",
    "forward_mode": "torch has no forward mode of it",
    "per_example": "torch has no batching rule for its value",
    "jacobians": "torch has no second derivative of it",
}


def bags(input: Tensor, weight: Tensor, **options) -> Tensor:
    """torch's for a two-dimensional input, in operations that can be differentiated twice."""
    rows = weight[input]
    if options.get("per_sample_weights") is not None:
        rows = rows * options["per_sample_weights"][..., None]
    mode = options.get("mode", "mean")
    return rows.amax(1) if mode == "max" else getattr(rows, mode)(1)


IN_PARTS = {
    "thrifty": "the twin keeps its intermediates instead",
    "per_example": "torch has no batching rule for its value",
}

#: of rows whose gradient is by decree not the derivative
DECREED = dict.fromkeys(
    ["gradient", "forward_mode", "jacobians"], "the gradient is not the derivative, by decree"
)
RENORMALIZED = {
    "forward_mode": "torch has no forward mode of the renormalization",
    "jacobians": "torch has no forward mode of the renormalization",
    "per_example": "torch has no batching rule for the renormalization",
    "inputs_unchanged": "the weight is renormalized in place, as torch does",
    "checkpointed": "the weight is renormalized in place, as torch does",
    "mapped": "torch has no forward mode of the renormalization",
}

CASES = [
    row("embedding", classes(5, 4), real(5, 3)),
    row("embedding", classes(5, 2, 4), real(5, 3), padding_idx=1, without=DECREED),
    row("embedding", classes(3, 6), real(3, 2), padding_idx=-1, note="negative",
        without=DECREED),
    row("embedding", classes(3, 6), real(3, 2), scale_grad_by_freq=True,
        without=DECREED | {"second_order": "torch's second derivative forgets the frequency"}),
    row("embedding", classes(5), real(5, 3), note="one"),
    row("embedding", classes(5, 0), real(5, 3), note="none", without=EMPTY),
    row("embedding", fixed([2, 0, 2], torch.int), transposed(real(5, 3)), note="int"),
    row("embedding", classes(5, 4), uniform(-0.1, 0.1, 5, 3), max_norm=10.0, norm_type=1.0,
        without=RENORMALIZED),
    *(row("embedding_bag", classes(5, 3, 4), real(5, 2), mode=m, without=ONCE)
      for m in ("sum", "mean", "max")),
    *(row("embedding_bag", classes(5, 3, 4), real(5, 2), twin=bags, mode=m, note="in parts",
          without=IN_PARTS) for m in ("sum", "mean", "max")),
    row("embedding_bag", classes(5, 3, 4), real(5, 2), twin=bags, mode="sum",
        per_sample_weights=real(3, 4), without=IN_PARTS),
    *(row("embedding_bag", classes(4, 7), real(4, 2), fixed([0, 0, 3, 7], torch.long), mode=m,
          padding_idx=2, note="offsets", without=ONCE) for m in ("sum", "mean", "max")),
    row("embedding_bag", classes(4, 7), real(4, 2), fixed([0, 3, 7], torch.long), mode="sum",
        per_sample_weights=real(7), include_last_offset=True, padding_idx=-1, without=ONCE),
    *(row("embedding_bag", classes(3, 7), real(3, 2), fixed([0, 3], torch.long), mode=m,
          scale_grad_by_freq=True, without=DECREED | ONCE) for m in ("sum", "mean")),
    row("embedding_bag", fixed([2, 0, 2, 1], torch.int), real(5, 3), fixed([0, 2], torch.int),
        note="int", padding_idx=0, without=ONCE),
]  # fmt: skip

MODULES = [
    module("Embedding", 5, 3, inputs=(classes(5, 2, 4),)),
    module("Embedding", 5, 3, inputs=(classes(5, 2, 4),), padding_idx=2, scale_grad_by_freq=True),
    module("Embedding", 5, 3, inputs=(classes(5, 2, 4),), max_norm=1.0),
    module("EmbeddingBag", 5, 3, inputs=(classes(5, 2, 4),)),
    module("EmbeddingBag", 5, 3, inputs=(classes(5, 2, 4),), mode="max", max_norm=1.0),
    module(
        "EmbeddingBag",
        5,
        3,
        inputs=(classes(5, 6), fixed([0, 2, 6], torch.long), real(6)),
        mode="sum",
        include_last_offset=True,
        padding_idx=1,
    ),
]
