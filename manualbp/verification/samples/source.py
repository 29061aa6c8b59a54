"""Where the arguments of a call come from: whole numbers, and all that can be made of them."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

_Value = TypeVar("_Value")


class Source(ABC):
    """Draws what a call is made of. A subclass says how a whole number is drawn, and no more.

    Whatever is drawn is simplest where all of the whole numbers are nearest to 0: the least sizes,
    the first of the options, contiguous tensors. So what can shrink numbers can shrink a call.

    Args:
        dtype: of the tensors of real numbers.
        empty: whether an axis of examples may have no entries.
    """

    #: what an axis holds at most, unless a formula asks for more: a call is to be cheap
    LARGEST = 4

    def __init__(self, dtype: torch.dtype = torch.float64, *, empty: bool = False) -> None:
        self.dtype = dtype
        self.empty = empty
        self._tensors = 0

    @abstractmethod
    def integer(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both of which it may be."""

    # ----------------------------------------------------------------------------- options

    def choice(self, *options: _Value) -> _Value:
        """One of them; the first is the simplest."""
        return options[self.integer(0, len(options) - 1)]

    def boolean(self) -> bool:
        return self.choice(False, True)

    def maybe(self, make: Callable[[], _Value]) -> _Value | None:
        """What ``make`` makes, or None."""
        return make() if self.boolean() else None

    def number(self, low: float, high: float) -> float:
        """A real number, with two decimals."""
        return round(low + (high - low) * self.integer(0, 100) / 100, 2)

    # ------------------------------------------------------------------------------ shapes

    def size(self, low: int = 1, high: int = LARGEST) -> int:
        """The length of an axis."""
        return self.integer(low, high)

    def batch(self) -> int:
        """The length of an axis of examples: 1 to 4, and 0 where the source was made ``empty``."""
        return self.integer(0 if self.empty else 1, self.LARGEST)

    def sizes(self, low: int, high: int) -> tuple[int, ...]:
        """The lengths of so many axes, none of them empty."""
        axes = max(self.integer(low, high), self.integer(low, high))  # rather many than few
        return tuple(self.size() for _ in range(axes))

    def shape(self, low: int = 0, high: int = 3) -> tuple[int, ...]:
        """A shape of so many axes, of which the first is one of examples."""
        sizes = self.sizes(low, high)
        return (self.batch(), *sizes[1:]) if sizes else ()

    def axis(self, axes: int) -> int:
        """One of so many axes, counted from the front or from the back."""
        return self.integer(-axes, axes - 1) if axes else self.integer(-1, 0)

    def axes(self, axes: int, low: int = 0) -> tuple[int, ...]:
        """Some of so many axes, each once."""
        picked = [a for a in range(axes) if self.boolean()]
        while len(picked) < low:
            picked.append(next(a for a in range(axes) if a not in picked))
        return tuple(self.choice(a, a - axes) for a in picked)

    def broadcastable(self, count: int, high: int = 3) -> list[tuple[int, ...]]:
        """Shapes that broadcast against one another: axes of length 1, and fewer of them."""
        whole, shapes = self.shape(0, high), []
        for _ in range(count):
            kept = whole[self.choice(0, 0, self.integer(0, len(whole))) :]
            shapes.append(tuple(self.choice(n, n, 1) for n in kept))
        return shapes

    # ----------------------------------------------------------------------------- tensors

    def tensor(
        self, *shape: int, low: float = -2.0, high: float = 2.0, strided: bool = True
    ) -> Tensor:
        """Real numbers from ``low`` to ``high``, no two of them equal, with any strides."""
        self._tensors += 1
        found = _spread(self.integer(0, _SEEDS), shape, low, high, self._tensors).to(self.dtype)
        return self.laid_out(found) if strided else found

    def nonzero(
        self, *shape: int, low: float = 0.3, high: float = 2.0, strided: bool = True
    ) -> Tensor:
        """Real numbers of either sign, of which none is nearer to 0 than ``low``."""
        found = self.tensor(*shape, low=low - high, high=high - low, strided=False)
        away = (found + torch.where(found < 0, -low, low)).round(decimals=6)
        return self.laid_out(away) if strided else away

    def classes(self, count: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to ``count`` − 1."""
        seed = self.integer(0, _SEEDS)
        if seed == 0:
            return torch.arange(math.prod(shape)).reshape(shape) % max(count, 1)
        return torch.randint(max(count, 1), shape, generator=_generator(seed))

    def mask(self, *shape: int) -> Tensor:
        """True and False."""
        return self.classes(2, *shape).bool()

    def permutation(self, count: int) -> Tensor:
        """The whole numbers from 0 to ``count`` − 1, each once, in any order."""
        seed = self.integer(0, _SEEDS)
        return torch.randperm(count, generator=_generator(seed)) if seed else torch.arange(count)

    def laid_out(self, tensor: Tensor) -> Tensor:
        """The same numbers, contiguous or with other strides."""
        return self.choice(*[_contiguous] * len(_LAYOUTS), *_LAYOUTS)(tensor)

    def upstream(self, output: Tensor) -> Tensor:
        """A gradient that may arrive for ``output``: its shape and dtype, and any strides.

        As it comes from a sum over everything or over an axis, it is one number, or numbers along
        the other axes, expanded.
        """
        shape = list(output.shape)
        expanded = self.choice("", "", "everywhere", "along an axis")
        if expanded == "everywhere":
            shape = [1] * len(shape)
        elif expanded and shape:
            shape[self.integer(0, len(shape) - 1)] = 1
        numbers = self.nonzero(*shape, low=0.1, strided=False).to(output.dtype)
        return numbers.expand(output.shape) if expanded else self.laid_out(numbers)


class Seeded(Source):
    """Draws by a seed: the same call for the same seed."""

    def __init__(
        self, seed: int = 0, dtype: torch.dtype = torch.float64, *, empty: bool = False
    ) -> None:
        super().__init__(dtype, empty=empty)
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        return self._random.randint(low, high)


# ------------------------------------------------------------------------------------ numbers

_SEEDS = (1 << 16) - 1


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _spread(seed: int, shape: Sequence[int], low: float, high: float, which: int) -> Tensor:
    """Numbers from ``low`` to ``high``, each in a part of its own; by seed 0, in their order.

    Parts of equal length, but at any place within: differences of numbers are not equal either.
    """
    count = math.prod(shape)
    parts = 1 << max(6 if seed else 1, count.bit_length())
    generator = _generator(seed + which * (_SEEDS + 1))
    first = (parts - count) // 2
    part = torch.randperm(parts, generator=generator)[:count] if seed else torch.arange(count)
    within = 0.25 + torch.rand(count, generator=generator, dtype=torch.double) / 2
    width = (high - low) / parts
    found = low + width * (part + (0 if seed else first) + within)
    # Decimals, which a program can be written with: few in the simplest tensor. The last is not 0,
    # so that no threshold or margin, a number with fewer of them, is met exactly.
    decimals = max(5 if seed else 1, math.ceil(-math.log10(width)))
    last = torch.randint(1, 10, (count,), generator=generator)
    found = ((found * 10**decimals).round() * 10 + last) / 10 ** (decimals + 1)
    return found.reshape(tuple(shape))


# ------------------------------------------------------------------------------------ strides


def _contiguous(t: Tensor) -> Tensor:
    return t


def _transposed(t: Tensor) -> Tensor:
    """The first axis is the last in memory."""
    axes = list(reversed(range(t.dim())))
    return t.permute(axes).contiguous().permute(axes)


def _channels_last(t: Tensor) -> Tensor:
    return t.movedim(1, -1).contiguous().movedim(-1, 1) if t.dim() > 2 else _transposed(t)


def _gapped(t: Tensor) -> Tensor:
    """With nan between one number and the next."""
    apart = t.new_full((*t.shape, 2), math.nan)
    apart[..., 0] = t
    return apart[..., 0]


def _narrowed(t: Tensor) -> Tensor:
    """The end of a longer tensor."""
    return torch.cat([t, t], -1).narrow(-1, t.shape[-1], t.shape[-1]) if t.dim() else _gapped(t)


_LAYOUTS: tuple[Callable[[Tensor], Tensor], ...] = (
    _transposed,
    _channels_last,
    _gapped,
    _narrowed,
)
