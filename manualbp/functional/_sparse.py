"""Embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from manualbp import formulas

__all__ = ["embedding", "embedding_bag"]


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """aₙ = W_iₙ: indices (\\*) into the rows of a weight (V, D) → (\\*, D).

    Raises:
        ValueError: ``sparse`` is asked for.
    """
    _check_dense(sparse)
    if weight.dim() != 2:
        raise RuntimeError(f"weight: expected (V, D); got {tuple(weight.shape)}")
    padding_idx = _padding_row(padding_idx, weight)
    if max_norm is not None:
        input = input.contiguous()
        _renormalize(weight, input, max_norm, norm_type)
    return formulas.Embedding.apply(input, weight, weight.shape[0], padding_idx, scale_grad_by_freq)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """a_b = Σ_{n ∈ b} sₙ W_iₙ, or the mean, or the maximum: indices in bags → (bags, D).

    A bag is a row of ``input`` (bags, n), or begins at one of the ``offsets`` into ``input`` (N).

    Raises:
        ValueError: the shapes do not fit together, or ``sparse`` is asked for.
        NotImplementedError: ``per_sample_weights`` of a mean or a maximum.
    """
    _check_dense(sparse)
    if weight.dim() != 2:
        raise ValueError(
            f"weight has to be a 2D Tensor, but got Tensor of dimension {weight.dim()}"
        )
    if per_sample_weights is not None and input.shape != per_sample_weights.shape:
        raise ValueError(
            f"embedding_bag: If per_sample_weights ({per_sample_weights.shape}) is not None, "
            f"then it must have the same shape as the input ({input.shape})"
        )
    if mode not in _MODES:
        raise ValueError("mode has to be one of sum, mean or max")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if mode != "sum" and per_sample_weights is not None:
        raise NotImplementedError(
            "embedding_bag: per_sample_weights is only supported for mode='sum' "
            f"(got mode={mode!r})"
        )
    input, offsets, per_sample_weights = _bags(
        input, offsets, per_sample_weights, include_last_offset
    )
    padding_idx = _padding_row(padding_idx, weight)
    if max_norm is not None:
        _renormalize(weight, input, max_norm, norm_type)
    output: Tensor = formulas.EmbeddingBag.apply(
        input,
        weight,
        per_sample_weights,
        offsets,
        weight.shape[0],
        _MODES.index(mode),
        padding_idx,
        scale_grad_by_freq,
    )[0]
    return output


#: in the order of torch's own numbers for them
_MODES = ("sum", "mean", "max")


def _bags(
    input: Tensor,
    offsets: Tensor | None,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All indices in one row, the offset of each bag, and the weights in one row."""
    if input.dim() == 2:
        if offsets is not None:
            raise ValueError(
                "if input is 2D, then offsets has to be None, as input is treated is a mini-batch "
                f"of fixed length sequences. However, found offsets of type {type(offsets)}"
            )
        count, length = input.shape
        offsets = torch.arange(count, dtype=input.dtype, device=input.device) * length
        if per_sample_weights is not None:
            per_sample_weights = per_sample_weights.reshape(-1)
        return input.reshape(-1), offsets, per_sample_weights
    if input.dim() != 1:
        raise ValueError(
            f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.dim()}"
        )
    if offsets is None or offsets.dim() != 1:
        raise ValueError("offsets has to be a 1D Tensor")
    return input, offsets[:-1] if include_last_offset else offsets, per_sample_weights


def _check_dense(sparse: bool) -> None:
    if sparse:
        raise ValueError(
            "sparse=True asks for a sparse gradient, and the formulas state dense ones: pass "
            "sparse=False, with which every optimizer works"
        )


def _padding_row(padding_idx: int | None, weight: Tensor) -> int | None:
    """The row of ``padding_idx``, which counts from the end if negative."""
    if padding_idx is None:
        return None
    if not -weight.shape[0] <= padding_idx < weight.shape[0]:
        raise AssertionError("Padding_idx must be within num_embeddings")
    return padding_idx % weight.shape[0]


def _renormalize(weight: Tensor, input: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows in use down to ``max_norm``, in place, as torch does."""
    with torch.no_grad():
        torch.embedding_renorm_(weight, input, max_norm, norm_type)
