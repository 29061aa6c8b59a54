"""Which formula uses which value, and how much of a nudge arrives there."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manualbp.core.graph import Structural
from manualbp.see.slopes import slope
from manualbp.tape import Entry
from manualbp.tape.backward import MAX_OUTPUTS

#: up to which float32 holds every whole number
EXACT = 2**24


class Use(NamedTuple):
    """An entry of the tape that takes a value or leaf, as its argument number ``position``."""

    entry: int
    position: int


class Activated(NamedTuple):
    """What follows a weighted sum: the slope σ′(z), and ∂C/∂a; 1 and ∂C/∂z without activation."""

    slope: Tensor
    grad: Tensor
    #: by which the tape knows a, or z where no activation follows
    number: int


class Flow:
    """The entries of a tape by what they take."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self._uses: dict[int, list[Use]] = defaultdict(list)
        for index, entry in enumerate(entries):
            for position, source in enumerate(entry.sources):
                if source is not None:
                    self._uses[source].append(Use(index, position))

    def uses(self, number: int) -> list[Use]:
        """Every use of a value or leaf that a gradient comes back from."""
        return [use for use in self._uses[number] if self._passes_back(use)]

    def _passes_back(self, use: Use) -> bool:
        given = self.entries[use.entry].grad_inputs
        return bool(given) and given[use.position] is not None

    def gradient(self, number: int) -> Tensor | None:
        """∂C/∂ the value of that number."""
        index, slot = divmod(number, MAX_OUTPUTS)
        arrived = self.entries[index].grad_outputs
        return arrived[slot] if arrived else None

    def activated(self, number: int) -> Activated | None:
        """The activation that follows a value, if it is the only one that uses it.

        None where C does not depend on the value.
        """
        grad = self.gradient(number)
        if grad is None:
            return None
        uses = self.uses(number)
        if len(uses) == 1 and uses[0].position == 0:
            after = uses[0].entry
            found = slope(self.entries[after])
            above = self.gradient(after * MAX_OUTPUTS)
            if found is not None and above is not None:
                return Activated(found, above, after * MAX_OUTPUTS)
        return Activated(torch.ones_like(grad), grad, number)


def of_each(unit: Sequence[int]) -> Any:
    """The index of one unit of each example."""
    return (slice(None), *unit)


def tangent(entry: Entry, position: int, direction: Tensor) -> Tensor:
    """How the first value of a formula moves where one of its arguments moves along a direction."""
    arguments: list[Any] = [
        v.detach() if isinstance(v, Tensor) else v for v in entry.inputs.values()
    ]

    def value(moved: Tensor) -> Tensor:
        found = entry.formula.apply(*arguments[:position], moved, *arguments[position + 1 :])
        return found[0] if isinstance(found, tuple) else found

    with torch.enable_grad(), warnings.catch_warnings():
        # torch writes its own tables of tangents with TorchScript, of which it warns.
        warnings.simplefilter("ignore", FutureWarning)
        return torch.func.jvp(value, (arguments[position],), (direction,))[1].detach()


def moved_to(entry: Entry, position: int, unit: tuple[int, ...]) -> tuple[int, ...] | None:
    """Where one of torch's operations that only rearrange puts one unit of its input.

    A unit is an index behind the axis of the examples. None where it has no one place.
    """
    shape = entry.shapes[0]
    if not isinstance(entry.formula, Structural) or not shape or shape.numel() > EXACT:
        return None
    like = next(g for g in entry.grad_outputs if g is not None)
    numbers = torch.arange(shape.numel(), dtype=like.dtype, device=like.device).reshape(shape)
    pulled = entry.pull_back(numbers)[position]
    ones = entry.pull_back(torch.ones_like(numbers))[position]
    if pulled is None or ones is None or not bool((ones == 1).all()) or shape[0] != len(pulled):
        return None
    first = (0, *unit)
    place = int(pulled[first])
    found = []
    for size in reversed(shape):
        place, at = divmod(place, size)
        found.append(at)
    example, *rest = reversed(found)
    return tuple(rest) if example == 0 else None
