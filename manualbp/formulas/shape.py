"""The same numbers in other places: what a rule does is take the gradient back where z was.

Only what torch copies is here; its views (reshape, transpose, expand, split, …) are moves alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Size, Tensor

from manualbp.core.formula import Formula

__all__ = [
    "Cat",
    "DiagEmbed",
    "Flip",
    "Gather",
    "Index",
    "IndexAdd",
    "IndexCopy",
    "IndexFill",
    "IndexSelect",
    "MaskedSelect",
    "Roll",
    "Scatter",
    "ScatterAdd",
    "Stack",
    "Tile",
    "Tril",
    "Triu",
]


class _Move(Formula):
    """A formula that only moves numbers, and so needs no higher precision."""

    opmath = False


# ------------------------------------------------------------------------------------ together


class Cat(_Move):
    """a = z₁, z₂, … one after the other along an axis

    ∂C/∂z ≙ the part of g where z lies
    """

    holomorphic = True

    @staticmethod
    def forward(dim: int, sizes: tuple[int, ...], *tensors: Tensor) -> Tensor:
        return torch.cat(tensors, dim)

    @staticmethod
    def grad_tensors(g: Tensor, dim: int, sizes: tuple[int, ...]) -> Sequence[Tensor]:
        return g.split(sizes, dim)  # type: ignore[no-untyped-call]


class Stack(_Move):
    """a = z₁, z₂, … side by side along a new axis

    ∂C/∂z ≙ the part of g where z lies
    """

    holomorphic = True

    @staticmethod
    def forward(dim: int, *tensors: Tensor) -> Tensor:
        return torch.stack(tensors, dim)

    @staticmethod
    def grad_tensors(g: Tensor, dim: int) -> Sequence[Tensor]:
        return g.unbind(dim)


# ---------------------------------------------------------------------------------- moved about


class Flip(_Move):
    """a = z, back to front along some axes

    ∂C/∂z ≙ g, back to front
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, dims: tuple[int, ...]) -> Tensor:
        return torch.flip(input, dims)

    @staticmethod
    def grad_input(g: Tensor, dims: tuple[int, ...]) -> Tensor:
        return torch.flip(g, dims)


class Roll(_Move):
    """a = z, moved by s places along some axes, the last ones to the front

    ∂C/∂z ≙ g, moved by −s places
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Tensor:
        return _rolled(input, shifts, dims)

    @staticmethod
    def grad_input(g: Tensor, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Tensor:
        return _rolled(g, tuple([-s for s in shifts]), dims)


def _rolled(t: Tensor, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Tensor:
    # torch's vmap of roll moves a tensor without axes along the axis that is mapped.
    return torch.roll(t, shifts, dims) if t.dim() or dims or len(shifts) != 1 else t.clone()


class Tile(_Move):
    """a = z, so many times along each axis

    ∂C/∂z ≙ Σ g over the copies
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, repeats: tuple[int, ...], shape: Size) -> Tensor:
        return input.repeat(repeats)

    @staticmethod
    def grad_input(g: Tensor, repeats: tuple[int, ...], shape: Size) -> Tensor:
        # Each axis of a is split into one of copies, which is summed over, and one of z.
        sizes = (*[1] * (len(repeats) - len(shape)), *shape)
        times = (max(n, 0) for n in repeats)  # torch accepts −1 if the result is empty
        apart = g.reshape([n for pair in zip(times, sizes, strict=True) for n in pair])
        return apart.sum(list(range(0, 2 * len(sizes), 2))).reshape(shape) if sizes else g


class Tril(_Move):
    """aᵢⱼ = zᵢⱼ where j ≤ i + d, else 0,  d the diagonal

    ∂C/∂zᵢⱼ = gᵢⱼ where j ≤ i + d, else 0
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, diagonal: int) -> Tensor:
        return torch.tril(input, diagonal)

    @staticmethod
    def grad_input(g: Tensor, diagonal: int) -> Tensor:
        return torch.tril(g, diagonal)


class Triu(_Move):
    """aᵢⱼ = zᵢⱼ where j ≥ i + d, else 0,  d the diagonal

    ∂C/∂zᵢⱼ = gᵢⱼ where j ≥ i + d, else 0
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, diagonal: int) -> Tensor:
        return torch.triu(input, diagonal)

    @staticmethod
    def grad_input(g: Tensor, diagonal: int) -> Tensor:
        return torch.triu(g, diagonal)


class DiagEmbed(_Move):
    """a = matrices with z on a diagonal, else 0

    ∂C/∂z ≙ g on that diagonal
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
        return torch.diag_embed(input, offset, dim1, dim2)

    @staticmethod
    def grad_input(g: Tensor, offset: int, dim1: int, dim2: int) -> Tensor:
        return g.diagonal(offset, dim1, dim2)


# ---------------------------------------------------------------------------- chosen by an index


class Index(_Move):
    """a = z[i, j, k, l], with indices or masks in some places, and all of the axis in others

    ∂C/∂z ≙ g, added at i, j, k, l to zeros
    """

    holomorphic = True

    @staticmethod
    def forward(
        input: Tensor,
        shape: Size,
        places: tuple[int, ...],
        i: Tensor,
        j: Tensor | None,
        k: Tensor | None,
        l: Tensor | None,  # noqa: E741
    ) -> Tensor:
        return torch.ops.aten.index(input, _index_list(places, i, j, k, l))

    @staticmethod
    def grad_input(
        g: Tensor,
        shape: Size,
        places: tuple[int, ...],
        i: Tensor,
        j: Tensor | None,
        k: Tensor | None,
        l: Tensor | None,  # noqa: E741
    ) -> Tensor:
        at = _index_list(places, i, j, k, l)
        return torch.ops.aten.index_put(_zeros(g, shape), at, g, accumulate=True)


def _zeros(g: Tensor, shape: Size) -> Tensor:
    """Zeros, expanded from one number, because the operations that write into them copy them."""
    return g.new_zeros(()).expand(shape)


def _index_list(places: tuple[int, ...], *indices: Tensor | None) -> list[Tensor | None]:
    """The indices in the order of the axes, None for all of an axis."""
    at: list[Tensor | None] = [None] * (places[-1] + 1)
    for place, index in zip(places, indices):  # noqa: B905 (absent indices come last)
        at[place] = index
    return at


class IndexSelect(_Move):
    """a = z_i,  the z at i along an axis

    ∂C/∂zⱼ = Σ g [i = j]
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, dim: int, index: Tensor, shape: Size) -> Tensor:
        return torch.index_select(input, dim, index)

    @staticmethod
    def grad_input(g: Tensor, dim: int, index: Tensor, shape: Size) -> Tensor:
        return _zeros(g, shape).index_add(dim, index, g)


class Gather(_Move):
    """a = z_i,  the z at i along an axis,  an i for each entry of a

    ∂C/∂zⱼ = Σ g [i = j]
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, dim: int, index: Tensor, shape: Size) -> Tensor:
        return torch.gather(input, dim, index)

    @staticmethod
    def grad_input(g: Tensor, dim: int, index: Tensor, shape: Size) -> Tensor:
        return _zeros(g, shape).scatter_add(dim, index, g)


class MaskedSelect(_Move):
    """a = z where the mask is set, in one row

    ∂C/∂z ≙ g where the mask is set, else 0
    """

    holomorphic = True
    broadcasts = True

    @staticmethod
    def forward(input: Tensor, mask: Tensor, shape: Size) -> Tensor:
        return torch.masked_select(input, mask)

    @staticmethod
    def grad_input(g: Tensor, mask: Tensor, shape: Size) -> Tensor:
        stretched = torch.broadcast_shapes(shape, mask.shape)  # type: ignore[no-untyped-call]
        return _zeros(g, stretched).masked_scatter(mask, g)


# -------------------------------------------------------------------------------- put at an index


class Scatter(_Move):
    """a = x, but y at i, an i for each entry of y, along an axis

    ∂C/∂xⱼ = gⱼ Πₘ [j ≠ iₘ]
    ∂C/∂y = g_i
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, dim: int, index: Tensor, src: Tensor | float) -> Tensor:
        return torch.scatter(input, dim, index, src)

    @staticmethod
    def grad_input(g: Tensor, dim: int, index: Tensor) -> Tensor:
        return g.scatter(dim, index, 0)

    @staticmethod
    def grad_src(g: Tensor, dim: int, index: Tensor) -> Tensor:
        return g.gather(dim, index)


class ScatterAdd(_Move):
    """a = x, and y added at i, an i for each entry of y, along an axis

    ∂C/∂x = g
    ∂C/∂y = g_i
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
        return torch.scatter_add(input, dim, index, src)

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return g

    @staticmethod
    def grad_src(g: Tensor, dim: int, index: Tensor) -> Tensor:
        return g.gather(dim, index)


class IndexAdd(_Move):
    """a = x, and αy added at i, along an axis

    ∂C/∂x = g
    ∂C/∂y = α g_i
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, dim: int, index: Tensor, source: Tensor, alpha: float) -> Tensor:
        return torch.index_add(input, dim, index, source, alpha=alpha)

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return g

    @staticmethod
    def grad_source(g: Tensor, dim: int, index: Tensor, alpha: float) -> Tensor:
        return g.index_select(dim, index) * alpha


class IndexCopy(_Move):
    """a = x, but y at i, along an axis

    ∂C/∂xⱼ = gⱼ Πₘ [j ≠ iₘ]
    ∂C/∂y = g_i
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
        return torch.index_copy(input, dim, index, source)

    @staticmethod
    def grad_input(g: Tensor, dim: int, index: Tensor) -> Tensor:
        return g.index_fill(dim, index, 0)

    @staticmethod
    def grad_source(g: Tensor, dim: int, index: Tensor) -> Tensor:
        return g.index_select(dim, index)


class IndexFill(_Move):
    """a = x, but the number y at i, along an axis

    ∂C/∂xⱼ = gⱼ Πₘ [j ≠ iₘ]
    ∂C/∂y = Σ g (1 − Πₘ [j ≠ iₘ])
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, dim: int, index: Tensor, value: Tensor | float) -> Tensor:
        if not isinstance(value, Tensor) or value.dtype is not input.dtype or value.dim():
            return torch.index_fill(input, dim, index, value)
        # torch's vmap of index_fill takes the first value for all, where x is not mapped.
        at = torch.zeros_like(input, dtype=torch.bool).index_fill(dim, index, True)
        return torch.where(at, value, input)

    @staticmethod
    def grad_input(g: Tensor, dim: int, index: Tensor) -> Tensor:
        return g.index_fill(dim, index, 0)

    @staticmethod
    def grad_value(g: Tensor, dim: int, index: Tensor) -> Tensor:
        # 0 where x is overwritten, also if an index repeats.
        at = torch.zeros_like(g, dtype=torch.bool).index_fill(dim, index, True)
        return torch.where(at, g, 0).sum()
