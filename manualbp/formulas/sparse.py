"""Embeddings: rows of a table, looked up by number, and sums, means and maxima of them."""

from __future__ import annotations

import torch
from torch import Tensor

from manualbp.core.formula import Formula

__all__ = ["Embedding", "EmbeddingBag"]


class Embedding(Formula):
    """a = W_i,  i the indices

    ∂C/∂Wₖ = Σₙ [iₙ = k] gₙ,  over their number where each index is to count once
    """

    opmath = False
    each_row = True

    @staticmethod
    def forward(
        input: Tensor, weight: Tensor, rows: int, padding_idx: int | None, by_frequency: bool
    ) -> Tensor:
        return torch.embedding(weight, input)

    @staticmethod
    def grad_weight(
        g: Tensor, input: Tensor, rows: int, padding_idx: int | None, by_frequency: bool
    ) -> Tensor:
        # The number of rows is an argument, so that the weight is not saved.
        indices = input.reshape(-1)
        if by_frequency:  # its own derivative does not count again, as in torch
            padding = -1 if padding_idx is None else padding_idx
            return torch.ops.aten.embedding_dense_backward(g, input, rows, padding, True)
        return _sum_by_row(g.reshape(indices.shape[0], g.shape[-1]), indices, rows, padding_idx)

    @staticmethod
    def example_weight(
        g: Tensor, input: Tensor, rows: int, padding_idx: int | None, by_frequency: bool
    ) -> Tensor:
        return _sums_by_row(g, input, rows, padding_idx, by_frequency)

    @staticmethod
    def square_weight(
        g: Tensor, input: Tensor, rows: int, padding_idx: int | None, by_frequency: bool
    ) -> Tensor:
        return _squares_by_row(g, input, rows, padding_idx, by_frequency)


class EmbeddingBag(Formula):
    """a_b = Σ_{n ∈ b} sₙ W_iₙ,  or the mean, or the maximum, over the bag b of indices i

    ∂C/∂Wₖ = Σₙ [iₙ = k] sₙ g_b,  b the bag of n
    ∂C/∂s = Σ g_b ⊙ W_i
    """

    outputs = ("output", "largest")

    @staticmethod
    def forward(
        input: Tensor,
        weight: Tensor,
        per_sample_weights: Tensor | None,
        offsets: Tensor,
        rows: int,
        mode: int,
        padding_idx: int | None,
        by_frequency: bool,
    ) -> tuple[Tensor, Tensor]:
        # `largest` are the indices of the maxima, one for each number in the output.
        options = (False, mode, False, per_sample_weights, False, padding_idx)
        output, _, _, largest = torch.embedding_bag(weight, input, offsets, *options)
        return output, largest

    @staticmethod
    def bag(input: Tensor, offsets: Tensor) -> Tensor:
        """The bag of each index: the number of bags after the first that have begun."""
        begun = torch.zeros(input.shape[0] + 1, dtype=torch.long, device=input.device)
        begun = begun.index_add(0, offsets.long(), torch.ones_like(offsets, dtype=torch.long))
        return begun[:-1].cumsum(0) - 1

    @staticmethod
    def each(
        g_output: Tensor,
        input: Tensor,
        per_sample_weights: Tensor | None,
        offsets: Tensor,
        bag: Tensor,
        mode: int,
        padding_idx: int | None,
    ) -> Tensor:
        """What arrives at each index; of maxima, at each number of the output."""
        each = g_output
        if mode != _SUM:
            counted = torch.ones_like(bag) if padding_idx is None else (input != padding_idx).long()
            size = torch.zeros_like(offsets, dtype=torch.long).index_add(0, bag, counted)[:, None]
            if mode == _MAX:
                return g_output * (size > 0)
            each = g_output / size.clamp(min=1)
        each = each[bag]
        return each if per_sample_weights is None else each * per_sample_weights[:, None]

    @staticmethod
    def grad_weight(
        g_output: Tensor,
        each: Tensor,
        input: Tensor,
        largest: Tensor,
        rows: int,
        mode: int,
        padding_idx: int | None,
        by_frequency: bool,
    ) -> Tensor:
        if mode == _MAX:
            total = g_output.new_zeros(()).expand(rows, g_output.shape[1])
            return total.scatter_add(0, largest.long(), each)
        total = _sum_by_row(each, input, rows, padding_idx)
        return total / _counts(input, rows, g_output) if by_frequency else total

    @staticmethod
    def place(g_output: Tensor, input: Tensor, largest: Tensor, mode: int) -> Tensor:
        """The row that it goes to."""
        return largest.long() if mode == _MAX else input

    @staticmethod
    def example_weight(
        each: Tensor, place: Tensor, rows: int, padding_idx: int | None, by_frequency: bool
    ) -> Tensor:
        if place.dim() == each.dim():  # of maxima
            total = each.new_zeros(each.shape[0], rows, each.shape[-1])
            return total.scatter_add(1, place, each)
        return _sums_by_row(each, place, rows, padding_idx, by_frequency)

    @staticmethod
    def grad_per_sample_weights(
        g_output: Tensor, input: Tensor, weight: Tensor, bag: Tensor, padding_idx: int | None
    ) -> Tensor:
        each = (g_output[bag] * weight[input]).sum(1)
        return each if padding_idx is None else each.masked_fill(input == padding_idx, 0)


#: torch's numbers for the modes
_SUM, _MEAN, _MAX = range(3)


def _sum_by_row(g: Tensor, indices: Tensor, rows: int, padding_idx: int | None) -> Tensor:
    """In row k the sum of those gₙ whose index is k; 0 in the row of the padding."""
    if padding_idx is not None:
        g = g.masked_fill((indices == padding_idx).unsqueeze(-1), 0)
    # An expanded zero, because index_add copies it: zeros of full size would be memory twice.
    return g.new_zeros(()).expand(rows, g.shape[1]).index_add(0, indices, g)


def _sums_by_row(
    g: Tensor, indices: Tensor, rows: int, padding_idx: int | None, by_frequency: bool
) -> Tensor:
    """:func:`_sum_by_row` of each example: (n, *, width), (n, *) → (n, rows, width)."""
    count, width = g.shape[0], g.shape[-1]
    first = torch.arange(count, device=g.device).reshape(-1, *[1] * (indices.dim() - 1)) * rows
    apart = (indices + first).reshape(-1)
    if padding_idx is not None:
        g = g.masked_fill((indices == padding_idx).unsqueeze(-1), 0)
    total = g.new_zeros(count * rows, width).index_add(0, apart, g.reshape(-1, width))
    if by_frequency:
        total = total / _counts(apart, count * rows, total)
    return total.reshape(count, rows, width)


def _squares_by_row(
    g: Tensor, indices: Tensor, rows: int, padding_idx: int | None, by_frequency: bool
) -> Tensor:
    """‖·‖² of each of them, with a sum for no more rows than are looked up."""
    count = g.shape[0]
    first = torch.arange(count, device=g.device).reshape(-1, *[1] * (indices.dim() - 1)) * rows
    used, place, times = torch.unique(indices + first, return_inverse=True, return_counts=True)
    if padding_idx is not None:
        g = g.masked_fill((indices == padding_idx).unsqueeze(-1), 0)
    total = g.new_zeros(len(used), g.shape[-1])
    total = total.index_add(0, place.reshape(-1), g.reshape(-1, g.shape[-1]))
    if by_frequency:
        total = total / times[:, None]
    whose = used.div(rows, rounding_mode="floor")
    return g.new_zeros(count).index_add(0, whose, total.square().sum(1))


def _counts(indices: Tensor, rows: int, g: Tensor) -> Tensor:
    """How often each index occurs, as a column, but at least 1."""
    ones = torch.ones_like(indices, dtype=g.dtype)
    return g.new_zeros(rows).index_add(0, indices, ones).clamp(min=1)[:, None]
