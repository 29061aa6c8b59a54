"""Arguments of the functions of one number, where they have a value."""

from __future__ import annotations

from typing import Any

from manualbp import formulas as f
from manualbp.core.formula import Formula
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import TABLE, Draw, of

Arguments = tuple[Any, ...]


def _between(low: float, high: float) -> Draw:
    return lambda s: (s.tensor(*s.shape(), low=low, high=high),)


#: the interval that the input is drawn from; not up to the ends of where the function is defined,
#: because its derivative is infinite there
_INTERVALS: dict[tuple[float, float], tuple[type[Formula], ...]] = {
    (-2, 2): (f.Neg, f.Abs, f.Square, f.Exp, f.Exp2, f.Expm1, f.Sin, f.Cos, f.Atan, f.Sinh, f.Cosh,
              f.Asinh, f.Erf, f.Erfc, f.Frac, f.Sign, f.Floor, f.Ceil, f.Trunc),
    (0.1, 3): (f.Sqrt, f.Rsqrt, f.Log, f.Log2, f.Log10),
    (-0.9, 2): (f.Log1p,),
    (-0.9, 0.9): (f.Asin, f.Acos, f.Atanh, f.Erfinv),
    (1.1, 3): (f.Acosh,),
    (-1.2, 1.2): (f.Tan,),
}  # fmt: skip

for (_low, _high), _formulas in _INTERVALS.items():
    TABLE.update(dict.fromkeys(_formulas, _between(_low, _high)))


@of(f.Reciprocal)
def _reciprocal(s: Source) -> Arguments:
    return (s.nonzero(*s.shape()),)


@of(f.Round)
def _round(s: Source) -> Arguments:
    return s.tensor(*s.shape()), s.choice(0, 1, -1)


@of(f.NanToNum)
def _nan_to_num(s: Source) -> Arguments:
    numbers = (s.maybe(lambda: s.number(-2, 2)) for _ in range(3))
    return s.tensor(*s.shape()), *numbers
