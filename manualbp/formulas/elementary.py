"""Functions of one number: each entry of the output depends on the same entry of the input."""

from __future__ import annotations

import math
import types
from collections.abc import Callable

import torch
from torch import Tensor

from manualbp.core.formula import Formula

__all__ = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Ceil",
    "Cos",
    "Cosh",
    "Erf",
    "Erfc",
    "Erfinv",
    "Exp",
    "Exp2",
    "Expm1",
    "Floor",
    "Frac",
    "Log",
    "Log1p",
    "Log2",
    "Log10",
    "NanToNum",
    "Neg",
    "Reciprocal",
    "Round",
    "Rsqrt",
    "Sign",
    "Sin",
    "Sinh",
    "Sqrt",
    "Square",
    "Tan",
    "Trunc",
]


def _pointwise(
    value: Callable[[Tensor], Tensor], *, holomorphic: bool = False
) -> Callable[[Callable[..., Tensor]], type[Formula]]:
    """A formula of one argument: its value, and below the decorator its rule."""

    def forward(input: Tensor) -> Tensor:
        return value(input)

    def formula(rule: Callable[..., Tensor]) -> type[Formula]:
        namespace = {
            "__doc__": rule.__doc__,
            "__module__": rule.__module__,
            "holomorphic": holomorphic,
            "forward": staticmethod(forward),
            "grad_input": staticmethod(rule),
        }
        return types.new_class(rule.__name__, (Formula,), exec_body=lambda b: b.update(namespace))

    return formula


@_pointwise(torch.neg, holomorphic=True)
def Neg(g: Tensor) -> Tensor:
    """a = −x

    ∂C/∂x = −g
    """
    return -g


@_pointwise(torch.abs)
def Abs(g: Tensor, input: Tensor) -> Tensor:
    """a = |x|

    ∂C/∂x = g ⊙ sign x
    """
    return g * input.sign()


@_pointwise(torch.square, holomorphic=True)
def Square(g: Tensor, input: Tensor) -> Tensor:
    """a = x²

    ∂C/∂x = 2 g ⊙ x
    """
    return g * (2 * input)


@_pointwise(torch.sqrt, holomorphic=True)
def Sqrt(g: Tensor, output: Tensor) -> Tensor:
    """a = √x

    ∂C/∂x = g / 2a
    """
    return g / (2 * output)


@_pointwise(torch.rsqrt, holomorphic=True)
def Rsqrt(g: Tensor, output: Tensor) -> Tensor:
    """a = 1/√x

    ∂C/∂x = −g ⊙ a³ / 2
    """
    return -0.5 * g * output**3


@_pointwise(torch.reciprocal, holomorphic=True)
def Reciprocal(g: Tensor, output: Tensor) -> Tensor:
    """a = 1/x

    ∂C/∂x = −g ⊙ a²
    """
    return -g * (output * output)


@_pointwise(torch.exp, holomorphic=True)
def Exp(g: Tensor, output: Tensor) -> Tensor:
    """a = eˣ

    ∂C/∂x = g ⊙ a
    """
    return g * output


@_pointwise(torch.exp2, holomorphic=True)
def Exp2(g: Tensor, output: Tensor) -> Tensor:
    """a = 2ˣ

    ∂C/∂x = g ⊙ a log 2
    """
    return g * output * math.log(2)


@_pointwise(torch.expm1, holomorphic=True)
def Expm1(g: Tensor, output: Tensor) -> Tensor:
    """a = eˣ − 1

    ∂C/∂x = g ⊙ (a + 1)
    """
    return g * (output + 1)


@_pointwise(torch.log, holomorphic=True)
def Log(g: Tensor, input: Tensor) -> Tensor:
    """a = log x

    ∂C/∂x = g / x
    """
    return g / input


@_pointwise(torch.log2, holomorphic=True)
def Log2(g: Tensor, input: Tensor) -> Tensor:
    """a = log₂ x

    ∂C/∂x = g / (x log 2)
    """
    return g / (input * math.log(2))


@_pointwise(torch.log10, holomorphic=True)
def Log10(g: Tensor, input: Tensor) -> Tensor:
    """a = log₁₀ x

    ∂C/∂x = g / (x log 10)
    """
    return g / (input * math.log(10))


@_pointwise(torch.log1p, holomorphic=True)
def Log1p(g: Tensor, input: Tensor) -> Tensor:
    """a = log(1 + x)

    ∂C/∂x = g / (1 + x)
    """
    return g / (1 + input)


@_pointwise(torch.sin, holomorphic=True)
def Sin(g: Tensor, input: Tensor) -> Tensor:
    """a = sin x

    ∂C/∂x = g ⊙ cos x
    """
    return g * input.cos()


@_pointwise(torch.cos, holomorphic=True)
def Cos(g: Tensor, input: Tensor) -> Tensor:
    """a = cos x

    ∂C/∂x = −g ⊙ sin x
    """
    return -g * input.sin()


@_pointwise(torch.tan, holomorphic=True)
def Tan(g: Tensor, output: Tensor) -> Tensor:
    """a = tan x

    ∂C/∂x = g ⊙ (1 + a²)
    """
    return g * (1 + output * output)


@_pointwise(torch.asin, holomorphic=True)
def Asin(g: Tensor, input: Tensor) -> Tensor:
    """a = arcsin x

    ∂C/∂x = g / √(1 − x²)
    """
    return g * (1 - input * input).rsqrt()


@_pointwise(torch.acos, holomorphic=True)
def Acos(g: Tensor, input: Tensor) -> Tensor:
    """a = arccos x

    ∂C/∂x = −g / √(1 − x²)
    """
    return -g * (1 - input * input).rsqrt()


@_pointwise(torch.atan, holomorphic=True)
def Atan(g: Tensor, input: Tensor) -> Tensor:
    """a = arctan x

    ∂C/∂x = g / (1 + x²)
    """
    return g / (1 + input * input)


@_pointwise(torch.sinh, holomorphic=True)
def Sinh(g: Tensor, input: Tensor) -> Tensor:
    """a = sinh x

    ∂C/∂x = g ⊙ cosh x
    """
    return g * input.cosh()


@_pointwise(torch.cosh, holomorphic=True)
def Cosh(g: Tensor, input: Tensor) -> Tensor:
    """a = cosh x

    ∂C/∂x = g ⊙ sinh x
    """
    return g * input.sinh()


@_pointwise(torch.asinh, holomorphic=True)
def Asinh(g: Tensor, input: Tensor) -> Tensor:
    """a = arsinh x

    ∂C/∂x = g / √(x² + 1)
    """
    return g * (input * input + 1).rsqrt()


@_pointwise(torch.acosh, holomorphic=True)
def Acosh(g: Tensor, input: Tensor) -> Tensor:
    """a = arcosh x

    ∂C/∂x = g / √(x² − 1),  for complex x g / (√(x − 1) √(x + 1))
    """
    if input.is_complex():  # √(x² − 1) has the wrong sign where the real part is negative
        return g * ((input - 1).rsqrt() * (input + 1).rsqrt())
    return g * (input * input - 1).rsqrt()


@_pointwise(torch.atanh, holomorphic=True)
def Atanh(g: Tensor, input: Tensor) -> Tensor:
    """a = artanh x

    ∂C/∂x = g / (1 − x²)
    """
    return g / (1 - input * input)


@_pointwise(torch.erf)
def Erf(g: Tensor, input: Tensor) -> Tensor:
    """a = erf x

    ∂C/∂x = (2/√π) g ⊙ e^(−x²)
    """
    return g * (-input * input).exp() * (2 / math.sqrt(math.pi))


@_pointwise(torch.erfc)
def Erfc(g: Tensor, input: Tensor) -> Tensor:
    """a = 1 − erf x

    ∂C/∂x = −(2/√π) g ⊙ e^(−x²)
    """
    return g * (-input * input).exp() * (-2 / math.sqrt(math.pi))


@_pointwise(torch.erfinv)
def Erfinv(g: Tensor, input: Tensor) -> Tensor:
    """a = erf⁻¹ x

    ∂C/∂x = (√π/2) g ⊙ e^(a²)
    """
    # Not the output, because the caller may write into it, as into torch's.
    return g * torch.erfinv(input).square().exp() * (math.sqrt(math.pi) / 2)


@_pointwise(torch.frac)
def Frac(g: Tensor) -> Tensor:
    """a = x − trunc x

    ∂C/∂x = g
    """
    return g


@_pointwise(torch.sgn)
def Sign(g: Tensor) -> Tensor:
    """a = sign x

    ∂C/∂x = 0
    """
    return torch.zeros_like(g)


@_pointwise(torch.floor)
def Floor(g: Tensor) -> Tensor:
    """a = ⌊x⌋

    ∂C/∂x = 0
    """
    return torch.zeros_like(g)


@_pointwise(torch.ceil)
def Ceil(g: Tensor) -> Tensor:
    """a = ⌈x⌉

    ∂C/∂x = 0
    """
    return torch.zeros_like(g)


@_pointwise(torch.trunc)
def Trunc(g: Tensor) -> Tensor:
    """a = trunc x

    ∂C/∂x = 0
    """
    return torch.zeros_like(g)


class Round(Formula):
    """a = x to so many decimals

    ∂C/∂x = 0
    """

    @staticmethod
    def forward(input: Tensor, decimals: int) -> Tensor:
        return torch.round(input, decimals=decimals) if decimals else torch.round(input)

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return torch.zeros_like(g)


class NanToNum(Formula):
    """a = x where it is finite, else a number that stands for it

    ∂C/∂x = g [x is finite]
    """

    @staticmethod
    def forward(
        input: Tensor, nan: float | None, posinf: float | None, neginf: float | None
    ) -> Tensor:
        return torch.nan_to_num(input, nan, posinf, neginf)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        return g * input.isfinite()
