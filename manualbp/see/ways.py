"""How the gradients of the examples go into a parameter, from one entry of a tape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from manualbp.see.layout import Layout
from manualbp.see.rules import ALL, Values, arguments, sum_to

#: numbers of a tensor that are laid out at once, 8 MB in single precision
PART = 1 << 21

Incoming = list[Tensor | None]


@dataclass(frozen=True)
class Way:
    """How the gradients of the examples go from an entry into one of its arguments.

    "rule", by the formula's rule for examples; "sum", by what the ordinary rule gives before it is
    summed to the shape of a stretched argument; "placed", where each number that the ordinary rule
    gives is of one example; or else "apart", by the ordinary rule for the gradient of each example
    alone, zeros in the places of all others.
    """

    entry: int
    at: int
    argument: str
    #: the leaf, or the value computed from parameters alone, as a tape numbers them
    source: int
    kind: str
    #: of the first tensor that the rule asks for
    layout: Layout | None = None
    #: whose each number of the arriving gradients is, where they are told apart by zeros
    labels: tuple[Tensor | None, ...] = ()
    #: the formula's rules for examples, and for the squares of their norms
    example: Callable[..., Tensor] | None = None
    square: Callable[..., Tensor] | None = None

    def gradients(self, values: Values, shape: torch.Size, count: int, part: slice) -> Tensor:
        """Those of the examples of ``part``: (m, \\*shape)."""
        if self.kind == "rule":
            assert self.layout is not None
            assert self.example is not None
            return self.example(*arguments(self.example, self.argument, values, self.layout, part))
        if self.kind == "sum":
            assert self.layout is not None
            return sum_to(values.by_example(f"grad_{self.argument}", self.layout)[part], shape)
        which = torch.arange(count, device=values.device)[part]
        if self.kind == "placed":
            (label,) = self.labels
            assert label is not None
            return _apart(values(f"grad_{self.argument}"), label, which)
        apart = [
            g if g is None or label is None else _apart(g, label, which)
            for g, label in zip(values.incoming, self.labels, strict=True)
        ]
        needs = tuple(i == self.at for i in range(len(values.formula.derivation.arguments)))
        found = each(values, needs, apart)[self.at]
        if found is not None:
            return sum_to(found, shape)
        like = next(g for g in values.incoming if g is not None)
        return like.new_zeros((len(which), *shape))

    def parts(self, values: Values, count: int, shape: torch.Size | None = None) -> Iterator[slice]:
        """A few examples at a time, where all of them would take much memory.

        ``shape`` is that of the gradients, if all of them together count too.
        """
        if self.kind == "rule":
            assert self.layout is not None
            assert self.example is not None
            given = arguments(self.example, self.argument, values, self.layout, ALL)
            total = max(t.numel() for t in given if isinstance(t, Tensor))
        else:
            each_one = 1 if self.kind == "sum" else count
            total = each_one * sum(g.numel() for g in values.incoming if g is not None)
        size = total // count
        return parts(count, size if shape is None else max(size, shape.numel()))

    def squares(self, values: Values) -> Tensor | None:
        """The squares of their norms, where the formula states a rule for that."""
        if self.square is None or self.layout is None:
            return None
        return self.square(*arguments(self.square, self.argument, values, self.layout, ALL))


def _apart(g: Tensor, labels: Tensor, which: Tensor) -> Tensor:
    """``g`` once for each example, zero where it is another's."""
    mine = labels == which.reshape(-1, *[1] * g.dim())
    return torch.where(mine, g, 0)


def parts(count: int, size: int) -> Iterator[slice]:
    """The examples in parts, each of about PART numbers where one example has ``size``."""
    step = max(1, PART // max(size, 1))
    if step >= count:
        yield ALL
        return
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def each(values: Values, needs: Sequence[bool], gradients: Sequence[Tensor | None]) -> Incoming:
    """What the ordinary rules give for each of several gradients, stacked along axis 0."""
    there = [i for i, g in enumerate(gradients) if g is not None]
    given = [g for g in gradients if g is not None]
    places: list[int] = []

    def one(*arriving: Tensor) -> tuple[Tensor, ...]:
        incoming: Incoming = [None] * len(gradients)
        for i, g in zip(there, arriving, strict=True):
            incoming[i] = g
        found = values.pull(needs, incoming)
        places[:] = [i for i, g in enumerate(found) if g is not None and needs[i]]
        return tuple(found[i] for i in places)

    try:
        stacked = torch.func.vmap(one)(*given)
    except (RuntimeError, ValueError):  # torch has no rule for vmap of some operation
        alone = [one(*arriving) for arriving in zip(*given, strict=True)]
        stacked = tuple(map(torch.stack, zip(*alone, strict=True)))
    result: Incoming = [None] * len(needs)
    for i, g in zip(places, stacked, strict=True):
        result[i] = g
    return result


@dataclass
class Step:
    """What is done at one entry: go on by the ordinary rules, and into parameters by ``ways``."""

    entry: int
    edges: list[tuple[int, int]] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    needs: tuple[bool, ...] = ()


@dataclass
class Plan:
    """The backward pass of one structure."""

    #: of each output of the model, that of the examples
    axes: list[int]
    #: entries through which the examples go side by side, the last one first
    steps: list[Step]
    #: entries that take parameters alone, the last one first
    shared: list[Step]
    #: how many ways lead to each parameter, by its name
    uses: Counter[str]
