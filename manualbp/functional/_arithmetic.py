"""Pointwise functions."""

from __future__ import annotations

from torch import Tensor

from manualbp import formulas
from manualbp.functional._common import dealiased

__all__ = [
    "abs",
    "acos",
    "acosh",
    "add",
    "addcdiv",
    "addcmul",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "ceil",
    "clamp",
    "clamp_max",
    "clamp_min",
    "cos",
    "cosh",
    "div",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "fmod",
    "frac",
    "hypot",
    "lerp",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "masked_fill",
    "maximum",
    "minimum",
    "mul",
    "nan_to_num",
    "neg",
    "pow",
    "reciprocal",
    "remainder",
    "round",
    "rsqrt",
    "rsub",
    "sgn",
    "sign",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "sub",
    "tan",
    "true_divide",
    "trunc",
    "where",
    "xlogy",
]

#: what broadcasts: a tensor, or a number in its place
Number = Tensor | float


def neg(input: Tensor) -> Tensor:
    """a = −x, of any shape."""
    return formulas.Neg.apply(input)


def abs(input: Tensor) -> Tensor:
    """a = |x|, of any shape."""
    return formulas.Abs.apply(input)


def square(input: Tensor) -> Tensor:
    """a = x², of any shape."""
    return formulas.Square.apply(input)


def sqrt(input: Tensor) -> Tensor:
    """a = √x, of any shape."""
    return formulas.Sqrt.apply(input)


def rsqrt(input: Tensor) -> Tensor:
    """a = 1/√x, of any shape."""
    return formulas.Rsqrt.apply(input)


def reciprocal(input: Tensor) -> Tensor:
    """a = 1/x, of any shape."""
    return formulas.Reciprocal.apply(input)


def exp(input: Tensor) -> Tensor:
    """a = eˣ, of any shape."""
    return formulas.Exp.apply(input)


def exp2(input: Tensor) -> Tensor:
    """a = 2ˣ, of any shape."""
    return formulas.Exp2.apply(input)


def expm1(input: Tensor) -> Tensor:
    """a = eˣ − 1, of any shape."""
    return formulas.Expm1.apply(input)


def log(input: Tensor) -> Tensor:
    """a = log x, of any shape."""
    return formulas.Log.apply(input)


def log2(input: Tensor) -> Tensor:
    """a = log₂ x, of any shape."""
    return formulas.Log2.apply(input)


def log10(input: Tensor) -> Tensor:
    """a = log₁₀ x, of any shape."""
    return formulas.Log10.apply(input)


def log1p(input: Tensor) -> Tensor:
    """a = log(1 + x), of any shape."""
    return formulas.Log1p.apply(input)


def sin(input: Tensor) -> Tensor:
    """a = sin x, of any shape."""
    return formulas.Sin.apply(input)


def cos(input: Tensor) -> Tensor:
    """a = cos x, of any shape."""
    return formulas.Cos.apply(input)


def tan(input: Tensor) -> Tensor:
    """a = tan x, of any shape."""
    return formulas.Tan.apply(input)


def asin(input: Tensor) -> Tensor:
    """a = arcsin x, of any shape."""
    return formulas.Asin.apply(input)


def acos(input: Tensor) -> Tensor:
    """a = arccos x, of any shape."""
    return formulas.Acos.apply(input)


def atan(input: Tensor) -> Tensor:
    """a = arctan x, of any shape."""
    return formulas.Atan.apply(input)


def sinh(input: Tensor) -> Tensor:
    """a = sinh x, of any shape."""
    return formulas.Sinh.apply(input)


def cosh(input: Tensor) -> Tensor:
    """a = cosh x, of any shape."""
    return formulas.Cosh.apply(input)


def asinh(input: Tensor) -> Tensor:
    """a = arsinh x, of any shape."""
    return formulas.Asinh.apply(input)


def acosh(input: Tensor) -> Tensor:
    """a = arcosh x, of any shape."""
    return formulas.Acosh.apply(input)


def atanh(input: Tensor) -> Tensor:
    """a = artanh x, of any shape."""
    return formulas.Atanh.apply(input)


def erf(input: Tensor) -> Tensor:
    """a = erf x, of any shape."""
    return formulas.Erf.apply(input)


def erfc(input: Tensor) -> Tensor:
    """a = 1 − erf x, of any shape."""
    return formulas.Erfc.apply(input)


def erfinv(input: Tensor) -> Tensor:
    """a = erf⁻¹ x, of any shape."""
    return formulas.Erfinv.apply(input)


def frac(input: Tensor) -> Tensor:
    """a = x without its whole part, of any shape."""
    return formulas.Frac.apply(input)


def sign(input: Tensor) -> Tensor:
    """a = 1, 0 or −1, as x is, of any shape."""
    return formulas.Sign.apply(input)


def sgn(input: Tensor) -> Tensor:
    """a = 1, 0 or −1, as x is, of any shape."""
    return formulas.Sign.apply(input)


def floor(input: Tensor) -> Tensor:
    """a = ⌊x⌋, of any shape."""
    return formulas.Floor.apply(input)


def ceil(input: Tensor) -> Tensor:
    """a = ⌈x⌉, of any shape."""
    return formulas.Ceil.apply(input)


def trunc(input: Tensor) -> Tensor:
    """a = the whole part of x, of any shape."""
    return formulas.Trunc.apply(input)


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """a = x rounded to ``decimals`` decimal places, of any shape."""
    return formulas.Round.apply(input, decimals)


def nan_to_num(
    input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """a = x, with numbers in place of nan and ±∞: by default 0, and the dtype's max and min."""
    return formulas.NanToNum.apply(input, nan, posinf, neginf)


def add(input: Number, other: Number, *, alpha: float = 1) -> Tensor:
    """a = x + αy; the shapes broadcast, and either may be a number."""
    return formulas.Add.apply(input, dealiased(other, input), alpha)


def sub(input: Number, other: Number, *, alpha: float = 1) -> Tensor:
    """a = x − αy; the shapes broadcast, and either may be a number."""
    return formulas.Sub.apply(input, dealiased(other, input), alpha)


def rsub(input: Tensor, other: Number, *, alpha: float = 1) -> Tensor:
    """a = y − αx; the shapes broadcast, and y may be a number."""
    if not isinstance(input, Tensor):
        raise TypeError(f"rsub(): argument 'input' must be Tensor, not {type(input).__name__}")
    return formulas.Sub.apply(other, dealiased(input, other), alpha)


def mul(input: Number, other: Number) -> Tensor:
    """a = x ⊙ y; the shapes broadcast, and either may be a number."""
    return formulas.Mul.apply(input, dealiased(other, input))


def div(input: Number, other: Number, *, rounding_mode: str | None = None) -> Tensor:
    """a = x / y, as it is, or rounded by ``"floor"`` or ``"trunc"``; the shapes broadcast."""
    if rounding_mode is None:
        return formulas.Div.apply(input, dealiased(other, input))
    return formulas.RoundedDiv.apply(input, other, rounding_mode)


def true_divide(input: Number, other: Number) -> Tensor:
    """a = x / y; the shapes broadcast, and either may be a number."""
    return formulas.Div.apply(input, dealiased(other, input))


def fmod(input: Tensor, other: Number) -> Tensor:
    """The remainder of x / y, with the sign of x; the shapes broadcast."""
    return formulas.Fmod.apply(input, other)


def remainder(input: Number, other: Number) -> Tensor:
    """The remainder of x / y, with the sign of y; the shapes broadcast."""
    return formulas.Remainder.apply(input, other)


def pow(input: Number, exponent: Number) -> Tensor:
    """a = xʸ; the shapes broadcast, and either may be a number."""
    return formulas.Pow.apply(input, exponent)


def xlogy(input: Number, other: Number) -> Tensor:
    """a = x log y, 0 where x = 0; the shapes broadcast, and either may be a number."""
    return formulas.Xlogy.apply(input, other)


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """a = log(eˣ + eʸ); the shapes broadcast."""
    return formulas.LogAddExp.apply(input, other)


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """a = √(x² + y²); the shapes broadcast."""
    return formulas.Hypot.apply(input, other)


def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle of the point (``other``, ``input``); the shapes broadcast."""
    return formulas.Atan2.apply(input, other)


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of x and y; the shapes broadcast."""
    return formulas.Maximum.apply(input, other)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of x and y; the shapes broadcast."""
    return formulas.Minimum.apply(input, other)


def where(condition: Tensor, input: Number, other: Number) -> Tensor:
    """a = x where the condition holds, else y; the shapes broadcast."""
    return formulas.Where.apply(condition, input, other)


def masked_fill(input: Tensor, mask: Tensor, value: Number) -> Tensor:
    """x, with ``value`` where the mask is True; the shapes broadcast."""
    return formulas.MaskedFill.apply(input, mask, value)


def clamp(input: Tensor, min: Number | None = None, max: Number | None = None) -> Tensor:
    """x, but at least ``min`` and at most ``max``; the shapes broadcast."""
    if isinstance(min, Tensor):
        if max is None:
            return formulas.Maximum.apply(input, min)
        return formulas.ClampBetween.apply(input, min, max)
    if isinstance(max, Tensor) and min is None:
        return formulas.Minimum.apply(input, max)
    return formulas.Clamp.apply(input, min, max)


def clamp_min(input: Tensor, min: Number) -> Tensor:
    """x, but at least ``min``; the shapes broadcast."""
    return clamp(input, min)


def clamp_max(input: Tensor, max: Number) -> Tensor:
    """x, but at most ``max``; the shapes broadcast."""
    return clamp(input, None, max)


def lerp(input: Tensor, end: Tensor, weight: Number) -> Tensor:
    """a = x + w (y − x), from x to y on a straight line; the shapes broadcast."""
    return formulas.Lerp.apply(input, end, weight)


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """a = x + v y ⊙ w; the shapes broadcast."""
    return formulas.Addcmul.apply(input, tensor1, tensor2, value)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """a = x + v y / w; the shapes broadcast."""
    return formulas.Addcdiv.apply(input, tensor1, tensor2, value)
