"""Arguments of the functions of two numbers and of three: shapes that broadcast, and numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import Draw, of

Arguments = tuple[Any, ...]


def _operands(
    s: Source,
    numbers: str = "both",
    *,
    make: Callable[..., Tensor] | None = None,
    low: float = -2,
    high: float = 2,
) -> tuple[Tensor | float, Tensor | float]:
    """Two tensors that broadcast, or one and a number, where ``numbers`` says that it may stand.

    Args:
        numbers: "both", if either may be a number; "other", if the second may.
        make: makes the second tensor; otherwise both hold numbers from ``low`` to ``high``.
    """
    first, second = s.broadcastable(2)
    kinds = ["tensors", "tensors", "number last"] + ["number first"] * (numbers == "both")
    kind = s.choice(*kinds)

    def number(make: Callable[..., Tensor]) -> float:
        return round(make().item(), 2)

    def real(*shape: int) -> Tensor:
        return s.tensor(*shape, low=low, high=high)

    other = make or real
    if kind == "number first":
        return number(real), other(*second)
    return real(*first), number(other) if kind == "number last" else other(*second)


def _two_tensors(low: float = -2, high: float = 2) -> Draw:
    return lambda s: tuple(s.tensor(*shape, low=low, high=high) for shape in s.broadcastable(2))


of(f.LogAddExp, f.Hypot, f.Maximum, f.Minimum)(_two_tensors())


@of(f.Add, f.Sub)
def _add(s: Source) -> Arguments:
    return *_operands(s), s.choice(1, 2, -0.5)


@of(f.Mul)
def _mul(s: Source) -> Arguments:
    return _operands(s)


@of(f.Div)
def _div(s: Source) -> Arguments:
    return _operands(s, make=s.nonzero)


@of(f.RoundedDiv)
def _rounded_div(s: Source) -> Arguments:
    return *_operands(s, make=s.nonzero), s.choice("floor", "trunc")


@of(f.Fmod)
def _fmod(s: Source) -> Arguments:
    return _operands(s, "other", make=s.nonzero, low=-4, high=4)


@of(f.Remainder)
def _remainder(s: Source) -> Arguments:
    return _operands(s, make=s.nonzero, low=-4, high=4)


@of(f.Pow)
def _pow(s: Source) -> Arguments:
    if s.boolean():  # of any sign, to a whole power
        return s.nonzero(*s.shape()), s.choice(2, 3, 1, 0, -1, 2.0)
    return _operands(s, make=s.tensor, low=0.2, high=2)


@of(f.Xlogy)
def _xlogy(s: Source) -> Arguments:
    return _operands(s, make=lambda *shape: s.tensor(*shape, low=0.1, high=3))


@of(f.Atan2)
def _atan2(s: Source) -> Arguments:
    first, second = s.broadcastable(2)
    return s.tensor(*first), s.nonzero(*second)


@of(f.Where)
def _where(s: Source) -> Arguments:
    mask, first, second = s.broadcastable(3)
    kind = s.choice("tensors", "tensors", "number first", "number last")
    return (
        s.laid_out(s.mask(*mask)),
        s.number(-2, 2) if kind == "number first" else s.tensor(*first),
        s.number(-2, 2) if kind == "number last" else s.tensor(*second),
    )


@of(f.MaskedFill)
def _masked_fill(s: Source) -> Arguments:
    first, mask = s.broadcastable(2)
    return s.tensor(*first), s.mask(*mask), s.number(-2, 2) if s.boolean() else s.tensor()


@of(f.Clamp)
def _clamp(s: Source) -> Arguments:
    low, high = s.choice((-1.0, 0.8), (-1.0, None), (None, 0.8), (0.8, -1.0))
    return s.tensor(*s.shape()), low, high


@of(f.ClampBetween)
def _clamp_between(s: Source) -> Arguments:
    return tuple(s.tensor(*shape) for shape in s.broadcastable(3))


@of(f.Lerp)
def _lerp(s: Source) -> Arguments:
    first, second, third = s.broadcastable(3)
    weight = s.number(-0.5, 1.5) if s.boolean() else s.tensor(*third)
    return s.tensor(*first), s.tensor(*second), weight


@of(f.Addcmul)
def _addcmul(s: Source) -> Arguments:
    return *(s.tensor(*shape) for shape in s.broadcastable(3)), s.choice(1, 0.5, -2)


@of(f.Addcdiv)
def _addcdiv(s: Source) -> Arguments:
    first, second, third = s.broadcastable(3)
    return s.tensor(*first), s.tensor(*second), s.nonzero(*third), s.choice(1, 0.5, -2)
