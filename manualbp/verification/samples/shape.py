"""Arguments of what moves numbers: axes, places, indices."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]


@of(f.Cat)
def _cat(s: Source) -> Arguments:
    shape = list(s.shape(1))
    dim = s.axis(len(shape))
    sizes = tuple(s.size() for _ in range(s.integer(1, 3)))
    shapes = []
    for n in sizes:
        shape[dim] = n
        shapes.append(tuple(shape))
    return dim, sizes, *(s.tensor(*each) for each in shapes)


@of(f.Stack)
def _stack(s: Source) -> Arguments:
    shape = s.shape()
    return s.axis(len(shape) + 1), *(s.tensor(*shape) for _ in range(s.integer(1, 3)))


@of(f.Flip)
def _flip(s: Source) -> Arguments:
    shape = s.shape()
    return s.tensor(*shape), s.axes(len(shape))


@of(f.Roll)
def _roll(s: Source) -> Arguments:
    shape = s.shape()
    dims = s.axes(len(shape))
    # Without axes it is rolled as if it had one.
    return s.tensor(*shape), tuple(s.integer(-3, 5) for _ in dims or (0,)), dims


@of(f.Tile)
def _tile(s: Source) -> Arguments:
    shape = s.shape()
    repeats = tuple(s.size(1, 3) for _ in range(len(shape) + s.integer(0, 1)))
    x = s.tensor(*shape)
    return x, repeats, x.shape


@of(f.Tril, f.Triu)
def _triangle(s: Source) -> Arguments:
    return s.tensor(*s.shape(2, 4)), s.integer(-3, 3)


@of(f.DiagEmbed)
def _diag_embed(s: Source) -> Arguments:
    shape = s.shape(1)
    dims = s.choice((-2, -1), (0, 1), (-1, -2), (0, -1))
    return s.tensor(*shape), s.integer(-2, 2), *dims


# --------------------------------------------------------------------------- chosen by an index


def _places(s: Source, size: int, *shape: int, once: bool = False) -> Tensor:
    """Indices into an axis: from the front, ``once`` without one that repeats."""
    return s.permutation(size)[: shape[0]] if once else s.classes(size, *shape)


@of(f.Index)
def _index(s: Source) -> Arguments:
    shape = s.shape(1, 4)
    x = s.tensor(*(max(n, 1) for n in shape))
    slots: list[Tensor | None] = [None] * 4
    kind = s.choice("all axes", "some axes", "mask")
    if kind == "mask":  # of the first axes
        slots[0] = s.mask(*x.shape[: s.integer(1, x.dim())])
        return x, x.shape, (0,), *slots
    some = s.axes(x.dim(), 1) if kind == "some axes" else range(x.dim())
    places = tuple(sorted(a % x.dim() for a in some))
    for slot, (place, each) in enumerate(zip(places, s.broadcastable(len(places), 2), strict=True)):
        index = s.classes(x.shape[place], *(max(n, 1) for n in each))
        slots[slot] = index - x.shape[place] if s.boolean() else index  # from the back
    return x, x.shape, places, *slots


@of(f.IndexSelect)
def _index_select(s: Source) -> Arguments:
    x = s.tensor(*s.shape(1))
    dim = s.axis(x.dim())
    return x, dim, _places(s, x.shape[dim], s.size() if x.shape[dim] else 0), x.shape


@of(f.Gather)
def _gather(s: Source) -> Arguments:
    x, dim, shape = _entries(s)
    return x, dim, _places(s, x.shape[dim], *shape), x.shape


@of(f.MaskedSelect)
def _masked_select(s: Source) -> Arguments:
    first, mask = s.broadcastable(2)
    x = s.tensor(*first)
    return x, s.mask(*mask), x.shape


# ------------------------------------------------------------------------------ put at an index


def _entries(s: Source) -> tuple[Tensor, int, tuple[int, ...]]:
    """A tensor, one of its axes, and a shape that is no longer along any of the others."""
    x = s.tensor(*s.shape(1))
    dim = s.axis(x.dim())
    shape = [n if n < 2 else s.integer(1, n) for n in x.shape]
    shape[dim] = s.size() if x.shape[dim] else 0
    return x, dim, tuple(shape)


@of(f.Scatter)
def _scatter(s: Source) -> Arguments:
    x, dim, shape = _entries(s)
    if s.boolean():
        return x, dim, _places(s, x.shape[dim], *shape), s.number(-2, 2)
    # Each place once: of two that are put there, torch does not say which remains.
    n = x.shape[dim]
    moved = [*shape[: dim % x.dim()], *shape[dim % x.dim() + 1 :]]
    rows = [s.permutation(n)[: min(shape[dim], n)] for _ in range(math.prod(moved))]
    index = torch.stack(rows) if rows else torch.zeros(0, min(shape[dim], n), dtype=torch.long)
    index = index.reshape(*moved, index.shape[-1]).movedim(-1, dim)
    return x, dim, index, s.tensor(*index.shape)


@of(f.ScatterAdd)
def _scatter_add(s: Source) -> Arguments:
    x, dim, shape = _entries(s)
    return x, dim, _places(s, x.shape[dim], *shape), s.tensor(*shape)


def _slices(s: Source, once: bool) -> tuple[Tensor, int, Tensor, tuple[int, ...]]:
    """A tensor, an axis, indices into it, and the shape of what lies there."""
    x = s.tensor(*s.shape(1))
    dim = s.axis(x.dim())
    n = x.shape[dim]
    count = s.integer(1, n if once else 4) if n else 0
    shape = list(x.shape)
    shape[dim] = count
    return x, dim, _places(s, n, count, once=once), tuple(shape)


@of(f.IndexAdd)
def _index_add(s: Source) -> Arguments:
    x, dim, index, shape = _slices(s, once=False)
    return x, dim, index, s.tensor(*shape), s.choice(1, 0.5, -2)


@of(f.IndexCopy)
def _index_copy(s: Source) -> Arguments:
    x, dim, index, shape = _slices(s, once=True)
    return x, dim, index, s.tensor(*shape)


@of(f.IndexFill)
def _index_fill(s: Source) -> Arguments:
    x, dim, index, _ = _slices(s, once=False)
    return x, dim, index, s.number(-2, 2) if s.boolean() else s.tensor()
