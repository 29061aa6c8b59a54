"""One entry of a parameter by its name and its index; what is near to a name that is none."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import index as as_int
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """An entry of a parameter.

    Attributes:
        name: of the parameter, the first that it has in the model.
        parameter: the whole tensor.
        index: of the entry along each axis, from 0.
        flat: the index of the entry in ``parameter.flatten()``.
    """

    name: str
    parameter: Tensor
    index: tuple[int, ...]
    flat: int

    def __str__(self) -> str:
        return f"{self.name}[{', '.join(map(str, self.index))}]"

    def of(self, like: Tensor) -> Tensor:
        """The entry there of a tensor in the parameter's shape, such as its gradient."""
        return like[self.index]


def parameter_at(
    parameters: Mapping[str, Tensor],
    name: str,
    index: Sequence[int],
    model: nn.Module | None = None,
) -> Place:
    """The entry of a parameter that a name and an index lead to.

    Args:
        parameters: by their names, such as ``trace.parameters``.
        name: as in ``"0.weight"``.
        index: a whole number for each axis; from the end where it is negative.
        model: whose parameter may have further names, or want no gradient.

    Raises:
        KeyError: no parameter is called so; names those near to it.
        ValueError: it is a parameter of the model, and not of these.
        TypeError: an index is no whole number.
        IndexError: an index is out of range, or there are too many or too few; gives the shape.
    """
    name = parameter_named(parameters, name, model)
    shape = tuple(parameters[name].shape)
    found = tuple(_whole(i, name, index) for i in index)
    listed = ", ".join(map(str, found))
    if len(found) != len(shape):
        raise IndexError(
            f"{name} is of shape {shape}: expected {_count(len(shape))}, got {len(found)}"
            f"{f' ({listed})' if found else ''}"
        )
    for axis, (i, size) in enumerate(zip(found, shape, strict=True)):
        if not -size <= i < size:
            raise IndexError(
                f"{name} is of shape {shape}: index {i} is out of range of axis {axis}, which "
                f"{'has no entry' if not size else f'goes from 0 to {size - 1}'}"
            )
    found = tuple(i % size for i, size in zip(found, shape, strict=True))
    flat = 0
    for i, size in zip(found, shape, strict=True):
        flat = flat * size + i
    return Place(name, parameters[name], found, flat)


def parameter_named(
    parameters: Mapping[str, Tensor], name: str, model: nn.Module | None = None
) -> str:
    """The name by which these parameters have the one called ``name``; errors as above."""
    if name in parameters:
        return name
    every = dict(model.named_parameters(remove_duplicate=False)) if model is not None else {}
    if name in every:
        for first, parameter in parameters.items():
            if parameter is every[name]:
                return first
        reason = (
            "requires no gradient" if not every[name].requires_grad else "has no effect on the cost"
        )
        raise ValueError(f"{name} {reason}, so there is nothing to say of it")
    raise KeyError(f"{name!r} is no parameter; {nearest(name, {*parameters, *every})}")


def nearest(name: str, known: Collection[str]) -> str:
    """Those of ``known`` that are spelled like ``name``, or else some of them, in words."""
    if near := difflib.get_close_matches(name, known, n=3, cutoff=0.4):
        return f"near to it: {', '.join(near)}"
    return f"there are {', '.join(sorted(set(known) - {''})[:8])}"


def _whole(i: Any, name: str, index: Sequence[Any]) -> int:
    try:
        if not isinstance(i, bool):
            return as_int(i)
    except TypeError:
        pass
    raise TypeError(
        f"index of {name}: expected whole numbers, as in 3, 407, got {', '.join(map(repr, index))}"
    )


def _count(axes: int) -> str:
    return "no index" if not axes else "an index" if axes == 1 else f"{axes} indices"
