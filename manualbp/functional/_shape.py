"""Functions that join, move and index."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as index_of
from typing import Any

import torch
from torch import Tensor

from manualbp import formulas

__all__ = [
    "cat",
    "concat",
    "diag",
    "diag_embed",
    "flip",
    "gather",
    "hstack",
    "index",
    "index_add",
    "index_copy",
    "index_fill",
    "index_select",
    "masked_select",
    "repeat",
    "repeat_interleave",
    "roll",
    "rot90",
    "scatter",
    "scatter_add",
    "stack",
    "take_along_dim",
    "tile",
    "tril",
    "triu",
    "vstack",
]


# ------------------------------------------------------------------------------------- joining


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after the other along ``dim``; their other sizes are the same."""
    try:
        # torch accepts a tensor of shape (0,) among tensors of any shape.
        some = [t for t in tensors if t.shape != (0,)]
        if 0 < len(some) < len(tensors):
            none = list(some[0].shape)
            none[dim] = 0
            tensors = [t.reshape(none) if t.shape == (0,) else t for t in tensors]
        sizes = tuple([t.shape[dim] for t in tensors])
    except (AttributeError, IndexError):
        _check_joinable(tensors)
        raise
    return formulas.Cat.apply(dim, sizes, *tensors)


def _check_joinable(tensors: Sequence[Any]) -> None:
    for place, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise TypeError(f"expected Tensor as element {place} in argument 0, but got {kind}")
        if not tensor.dim():
            raise RuntimeError(f"zero-dimensional tensor (at position {place}) cannot be joined")


def concat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The same as :func:`cat`."""
    return cat(tensors, dim)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors, all of one shape, side by side along a new axis ``dim``."""
    return formulas.Stack.apply(dim, *tensors)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors one after the other along axis 1, or along the only one that they have."""
    _check_not_empty("hstack", tensors)
    rows = [torch.atleast_1d(t) for t in tensors]  # type: ignore[no-untyped-call]
    return cat(rows, 0 if rows[0].dim() == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors one above the other; what has one axis is a row."""
    _check_not_empty("vstack", tensors)
    return cat([torch.atleast_2d(t) for t in tensors])  # type: ignore[no-untyped-call]


def _check_not_empty(name: str, tensors: Sequence[Tensor]) -> None:
    if not len(tensors):
        raise RuntimeError(f"{name}: expected at least one tensor; got none")


# --------------------------------------------------------------------------- moving and copying


def flip(input: Tensor, dims: int | Sequence[int], *more: int) -> Tensor:
    """``input``, back to front along ``dims``, in a sequence or one by one."""
    return formulas.Flip.apply(input, _tuple(dims, more))


def roll(
    input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None
) -> Tensor:
    """Moved by ``shifts`` places along ``dims``, the last to the front; by default flattened."""
    return formulas.Roll.apply(input, _tuple(shifts), () if dims is None else _tuple(dims))


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Rotated ``k`` times by 90°, from the first of ``dims`` towards the second."""
    if len(dims) != 2:
        raise RuntimeError(f"rot90: dims has to name two axes, got {tuple(dims)}")
    first, second = dims
    if (first - second) % max(input.dim(), 1) == 0:
        raise RuntimeError(f"rot90: dims has to name two axes, got {first} and {second}")
    if k % 4 == 0:
        return flip(input.contiguous(), ())  # torch's is contiguous, whatever its input is
    if k % 2 == 0:
        return flip(input, (first, second))
    return flip(input, (second if k % 4 == 1 else first,)).transpose(first, second)


def tile(input: Tensor, dims: int | Sequence[int], *more: int) -> Tensor:
    """``input`` repeated ``dims`` times along the axes, the last ones by default."""
    times = _tuple(dims, more)
    return repeat(input, (*[1] * (input.dim() - len(times)), *times))


def repeat(input: Tensor, repeats: int | Sequence[int], *more: int) -> Tensor:
    """``input.repeat``: repeated along each axis, new axes first."""
    return formulas.Tile.apply(input, _tuple(repeats, more), input.shape)


def repeat_interleave(
    input: Tensor,
    repeats: Tensor | int,
    dim: int | None = None,
    *,
    output_size: int | None = None,
) -> Tensor:
    """Each entry along ``dim`` repeated in a row; by default of the flattened input."""
    if dim is None:
        input, dim = input.flatten(), 0
    dim %= input.dim()
    if isinstance(repeats, int):
        if repeats < 0:
            raise RuntimeError(f"repeat_interleave: expected repeats of 0 and more, got {repeats}")
        copies = [-1] * (dim + 1) + [repeats] + [-1] * (input.dim() - dim - 1)
        # Copied, because over an axis of length 1 flatten would return a view of ``input``.
        stretched = input.unsqueeze(dim + 1).expand(copies)
        return stretched.clone(memory_format=torch.contiguous_format).flatten(dim, dim + 1)
    times = repeats.expand(input.shape[dim])
    index = torch.repeat_interleave(times, output_size=output_size)
    return formulas.IndexSelect.apply(input, dim, index, input.shape)


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """Matrices: what is on a diagonal and below, else 0."""
    return formulas.Tril.apply(input, diagonal)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """Matrices: what is on a diagonal and above, else 0."""
    return formulas.Triu.apply(input, diagonal)


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The matrix with ``input`` on a diagonal, or the diagonal of a matrix."""
    if input.dim() == 1:
        return formulas.DiagEmbed.apply(input, diagonal, 0, 1)
    if input.dim() != 2:
        raise RuntimeError(f"diag: expected 1 or 2 axes, got {input.dim()}")
    return input.diagonal(diagonal).clone()


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last axis of ``input`` on a diagonal, else 0."""
    return formulas.DiagEmbed.apply(input, offset, dim1, dim2)


# ------------------------------------------------------------------------------------- indexing


def index(input: Tensor, indices: Any) -> Tensor:
    """``input[indices]`` where there are tensors, lists or bools among ``indices``.

    Raises:
        NotImplementedError: more than four of them, or a list that does not hold numbers.
    """
    if isinstance(indices, Tensor) and indices.dim():
        if indices.dtype is torch.bool and indices.shape == input.shape:
            return formulas.MaskedSelect.apply(input, indices, input.shape)
        return formulas.Index.apply(input, input.shape, (0,), indices, None, None, None)
    if isinstance(indices, list) and not all(isinstance(part, int) for part in indices):
        raise NotImplementedError(
            "index: of a list of sequences, tensors or slices torch's releases make different "
            "things; write a tuple of indices, or one tensor"
        )
    view, places, chosen = _split_index(
        input, indices if isinstance(indices, tuple) else (indices,)
    )
    if not chosen:
        return input[view]
    if len(chosen) > 4:
        raise NotImplementedError(f"index: at most 4 indices can be tensors, got {len(chosen)}")
    if not all(isinstance(part, slice) and part == slice(None) for part in view):
        input = input[view]
    slots = (*chosen, *[None] * (4 - len(chosen)))
    return formulas.Index.apply(input, input.shape, tuple(places), *slots)


def _split_index(
    input: Tensor, indices: tuple[Any, ...]
) -> tuple[tuple[Any, ...], list[int], list[Tensor]]:
    """The parts of an index that give a view; the axes of the view with a tensor; the tensors."""
    parts = [_as_tensor(part, input) for part in indices]
    if any(part is Ellipsis for part in parts):
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        said = [*parts[:at], *parts[at + 1 :]]
        used = [p.dim() if _is_mask(p) else not (p is None or isinstance(p, bool)) for p in said]
        parts[at : at + 1] = [slice(None)] * (input.dim() - sum(used))
    view: list[Any] = []
    places: list[int] = []
    chosen: list[Tensor] = []
    place = 0
    for part in parts:
        if isinstance(part, bool):  # a new axis, of length 1 for True and 0 for False
            view.append(None)
            places.append(place)
            chosen.append(torch.arange(int(part), device=input.device))
        elif isinstance(part, Tensor) and part.dim():
            view += [slice(None)] * (part.dim() if _is_mask(part) else 1)
            places.append(place)
            chosen.append(part)
        else:
            view.append(part)
        place += not (isinstance(part, Tensor) and not part.dim()) and (
            isinstance(part, bool) or not isinstance(part, int)
        )
    return tuple(view), places, chosen


def _as_tensor(part: Any, input: Tensor) -> Any:
    """A part of an index: a sequence as a tensor, and a mask without axes as a bool."""
    if isinstance(part, Tensor):
        return bool(part) if _is_mask(part) and not part.dim() else part
    if part is None or part is Ellipsis or isinstance(part, (int, slice)):
        return part
    if hasattr(part, "__index__") and not hasattr(part, "__len__"):
        return index_of(part)
    return torch.tensor(part, device=input.device, dtype=None if len(part) else torch.long)


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries ``index`` along ``dim``."""
    return formulas.IndexSelect.apply(input, dim, _with_axis(index), input.shape)


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """a[…, j, …] = z[…, i[…, j, …], …], an index for each entry; the gradient is dense."""
    return formulas.Gather.apply(input, dim, index, input.shape)


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """:func:`gather` with shapes that broadcast; by default of the flattened input."""
    if dim is None:
        return gather(input.flatten(), 0, indices.flatten())
    if indices.dtype is not torch.int64:
        raise RuntimeError(f"indices: expected torch.int64; got {indices.dtype}")
    along = dim % input.dim()
    shape = torch.broadcast_shapes(  # type: ignore[no-untyped-call]
        *((*t.shape[:along], 1, *t.shape[along + 1 :]) for t in (input, indices))
    )
    input, indices = (
        t.expand((*shape[:along], t.shape[along], *shape[along + 1 :])) for t in (input, indices)
    )
    size = input.shape[along]
    return gather(input, along, torch.where(indices < 0, indices + size, indices))


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The entries where the mask is True, in one row; the shapes broadcast."""
    return formulas.MaskedSelect.apply(input, mask, input.shape)


# -------------------------------------------------------------------------- writing at an index


def scatter(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor | float | None = None,
    *,
    value: float | None = None,
) -> Tensor:
    """``input`` with entries of ``src``, or one number, put where :func:`gather` would look."""
    return formulas.Scatter.apply(input, dim, index, value if src is None else src)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """``input`` with entries of ``src`` added where :func:`gather` would look."""
    return formulas.ScatterAdd.apply(input, dim, index, src)


def index_add(
    input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1
) -> Tensor:
    """``input`` with ``alpha`` times ``source`` added at ``index`` along ``dim``."""
    return formulas.IndexAdd.apply(input, dim, _with_axis(index), _as_number(source, input), alpha)


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """``input`` with ``source`` at ``index`` along ``dim``."""
    return formulas.IndexCopy.apply(input, dim, _with_axis(index), _as_number(source, input))


def index_fill(input: Tensor, dim: int, index: Tensor, value: Tensor | float) -> Tensor:
    """``input`` with one number at ``index`` along ``dim``."""
    return formulas.IndexFill.apply(input, dim, _with_axis(index), value)


def _as_number(source: Tensor, input: Tensor) -> Tensor:
    """``source`` without an axis, where ``input`` has none and torch takes a source of one."""
    return source.reshape(()) if source.shape == (1,) and not input.dim() else source


def _with_axis(index: Tensor) -> Tensor:
    """``index`` with an axis. Without one, torch's vmap would repeat it along the axis."""
    return index if index.dim() else index.reshape(1)


def _tuple(first: int | Sequence[int], more: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Numbers passed as one sequence or as several arguments, as a tensor's methods accept."""
    return (first, *more) if isinstance(first, int) else tuple(first)
