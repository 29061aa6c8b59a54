"""Pointwise: functions of two numbers or three, broadcasting as torch does.

Numbers may stand for tensors. x, y, w are the arguments in their order, a is the value.
"""

from __future__ import annotations

import torch
from torch import Tensor, addcmul

from manualbp.core.formula import Formula

__all__ = [
    "Add",
    "Addcdiv",
    "Addcmul",
    "Atan2",
    "Clamp",
    "ClampBetween",
    "Div",
    "Fmod",
    "Hypot",
    "Lerp",
    "LogAddExp",
    "MaskedFill",
    "Maximum",
    "Minimum",
    "Mul",
    "Pow",
    "Remainder",
    "RoundedDiv",
    "Sub",
    "Where",
    "Xlogy",
]


# ----------------------------------------------------------------------------- functions of two


class Add(Formula):
    """a = x + αy

    ∂C/∂x = g
    ∂C/∂y = αg
    """

    holomorphic = True
    broadcasts = True
    opmath = False

    @staticmethod
    def forward(input: Tensor | float, other: Tensor | float, alpha: float) -> Tensor:
        return torch.add(input, other, alpha=alpha)

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return g

    @staticmethod
    def grad_other(g: Tensor, alpha: float) -> Tensor:
        return g if alpha == 1 else g * alpha


class Sub(Formula):
    """a = x − αy

    ∂C/∂x = g
    ∂C/∂y = −αg
    """

    holomorphic = True
    broadcasts = True
    opmath = False

    @staticmethod
    def forward(input: Tensor | float, other: Tensor | float, alpha: float) -> Tensor:
        return torch.sub(input, other, alpha=alpha)

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return g

    @staticmethod
    def grad_other(g: Tensor, alpha: float) -> Tensor:
        return -g if alpha == 1 else g * -alpha


class Mul(Formula):
    """a = x ⊙ y

    ∂C/∂x = g ⊙ y
    ∂C/∂y = g ⊙ x
    """

    holomorphic = True
    broadcasts = True
    opmath = False

    @staticmethod
    def forward(input: Tensor | float, other: Tensor | float) -> Tensor:
        return torch.mul(input, other)

    @staticmethod
    def grad_input(g: Tensor, other: Tensor | float) -> Tensor:
        return g * other

    @staticmethod
    def grad_other(g: Tensor, input: Tensor | float) -> Tensor:
        return g * input


class Div(Formula):
    """a = x / y

    ∂C/∂x = g / y
    ∂C/∂y = −∂C/∂x ⊙ x / y
    """

    holomorphic = True
    broadcasts = True

    @staticmethod
    def forward(input: Tensor | float, other: Tensor | float) -> Tensor:
        return torch.div(input, other)

    @staticmethod
    def grad_input(g: Tensor, other: Tensor | float) -> Tensor:
        return g / other

    @staticmethod
    def grad_other(g: Tensor, grad_input: Tensor, input: Tensor | float, other: Tensor) -> Tensor:
        # Not by y², which may overflow, nor by the output, because ∂C/∂x then saves y alone.
        return -grad_input * (input / other)


class RoundedDiv(Formula):
    """a = x / y, rounded down or towards zero

    ∂C/∂x = 0
    ∂C/∂y = 0
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor | float, other: Tensor | float, rounding_mode: str | None) -> Tensor:
        return torch.div(input, other, rounding_mode=rounding_mode)

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return torch.zeros_like(g)

    @staticmethod
    def grad_other(g: Tensor) -> Tensor:
        return torch.zeros_like(g)


class Fmod(Formula):
    """a = x − y trunc(x / y)

    ∂C/∂x = g
    ∂C/∂y = −g ⊙ trunc(x / y)
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor, other: Tensor | float) -> Tensor:
        return torch.fmod(input, other)

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return g

    @staticmethod
    def grad_other(g: Tensor, input: Tensor, other: Tensor) -> Tensor:
        return -g * torch.div(input, other, rounding_mode="trunc")


class Remainder(Formula):
    """a = x − y ⌊x / y⌋

    ∂C/∂x = g
    ∂C/∂y = −g ⊙ ⌊x / y⌋
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor | float, other: Tensor | float) -> Tensor:
        return torch.remainder(input, other)  # type: ignore[arg-type]

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return g

    @staticmethod
    def grad_other(g: Tensor, input: Tensor | float, other: Tensor) -> Tensor:
        return -g * torch.div(input, other, rounding_mode="floor")


class Pow(Formula):
    """a = xʸ

    ∂C/∂x = 0 where y = 0, else g ⊙ y xʸ⁻¹
    ∂C/∂y = 0 where x = 0 ≤ y, else g ⊙ a log x
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor | float, exponent: Tensor | float) -> Tensor:
        return torch.pow(input, exponent)  # type: ignore[arg-type]

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, exponent: Tensor | float) -> Tensor:
        if isinstance(exponent, Tensor):
            slope = exponent * input.pow(exponent - 1)
            return torch.where(exponent == 0, 0, g * slope)
        return g * (exponent * input.pow(exponent - 1)) if exponent else torch.zeros_like(g)

    @staticmethod
    def grad_exponent(g: Tensor, input: Tensor | float, exponent: Tensor, output: Tensor) -> Tensor:
        if not isinstance(input, Tensor):
            input = output.new_full((), input)
        # The logarithm of integers would have single precision.
        log = torch.where((input == 0) & (exponent > 1), 1, input).to(output.dtype).log()
        return g * torch.where((input == 0) & (exponent >= 0), 0, output * log)


class Xlogy(Formula):
    """a = 0 where x = 0, else x log y

    ∂C/∂x = 0 where x = 0 ≥ y, else g ⊙ log y
    ∂C/∂y = g ⊙ x / y
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor | float, other: Tensor | float) -> Tensor:
        return torch.xlogy(input, other)  # type: ignore[arg-type]

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, other: Tensor | float) -> Tensor:
        log = torch.xlogy(g, other)
        return torch.where((input == 0) & (other <= 0), 0, log)

    @staticmethod
    def grad_other(g: Tensor, input: Tensor | float, other: Tensor) -> Tensor:
        return g * input / other


class LogAddExp(Formula):
    """a = log(eˣ + eʸ)

    ∂C/∂x = g / (1 + e^(y − x))
    ∂C/∂y = g / (1 + e^(x − y))
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor, other: Tensor) -> Tensor:
        return torch.logaddexp(input, other)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, other: Tensor) -> Tensor:
        return g * torch.sigmoid(input - other)

    @staticmethod
    def grad_other(g: Tensor, input: Tensor, other: Tensor) -> Tensor:
        return g * torch.sigmoid(other - input)


class Hypot(Formula):
    """a = √(x² + y²)

    ∂C/∂x = g ⊙ x / a
    ∂C/∂y = g ⊙ y / a
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor, other: Tensor) -> Tensor:
        return torch.hypot(input, other)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, output: Tensor) -> Tensor:
        return g * (input / output)

    @staticmethod
    def grad_other(g: Tensor, other: Tensor, output: Tensor) -> Tensor:
        return g * (other / output)


class Atan2(Formula):
    """a = the angle of the point (y, x)

    ∂C/∂x = g ⊙ y / (x² + y²)
    ∂C/∂y = −g ⊙ x / (x² + y²)
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor, other: Tensor) -> Tensor:
        return torch.atan2(input, other)

    @staticmethod
    def inverse_square(input: Tensor, other: Tensor) -> Tensor:
        square = input * input + other * other
        # At the origin the angle is not defined; torch's gradient there is 0.
        return square.reciprocal().masked_fill(square == 0, 0)

    @staticmethod
    def grad_input(g: Tensor, other: Tensor, inverse_square: Tensor) -> Tensor:
        return g * other * inverse_square

    @staticmethod
    def grad_other(g: Tensor, input: Tensor, inverse_square: Tensor) -> Tensor:
        return -g * input * inverse_square


class Maximum(Formula):
    """a = max(x, y)

    ∂C/∂x = g where x > y, g/2 where x = y, else 0
    ∂C/∂y = g where y > x, g/2 where x = y, else 0
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor, other: Tensor) -> Tensor:
        return torch.maximum(input, other)

    @staticmethod
    def shared(g: Tensor, input: Tensor, other: Tensor) -> Tensor:
        return torch.where(input == other, g / 2, g)

    @staticmethod
    def grad_input(g: Tensor, shared: Tensor, input: Tensor, other: Tensor) -> Tensor:
        return shared.masked_fill(input < other, 0)

    @staticmethod
    def grad_other(g: Tensor, shared: Tensor, input: Tensor, other: Tensor) -> Tensor:
        return shared.masked_fill(other < input, 0)


class Minimum(Maximum):
    """a = min(x, y)

    ∂C/∂x = g where x < y, g/2 where x = y, else 0
    ∂C/∂y = g where y < x, g/2 where x = y, else 0
    """

    @staticmethod
    def forward(input: Tensor, other: Tensor) -> Tensor:
        return torch.minimum(input, other)

    @staticmethod
    def grad_input(g: Tensor, shared: Tensor, input: Tensor, other: Tensor) -> Tensor:
        return shared.masked_fill(input > other, 0)

    @staticmethod
    def grad_other(g: Tensor, shared: Tensor, input: Tensor, other: Tensor) -> Tensor:
        return shared.masked_fill(other > input, 0)


# ------------------------------------------------------------------------ choices, and three


class Where(Formula):
    """a = x where m, else y,  m the condition

    ∂C/∂x = g where m, else 0
    ∂C/∂y = 0 where m, else g
    """

    holomorphic = True
    broadcasts = True
    opmath = False

    @staticmethod
    def forward(condition: Tensor, input: Tensor | float, other: Tensor | float) -> Tensor:
        return torch.where(condition, input, other)

    @staticmethod
    def grad_input(g: Tensor, condition: Tensor) -> Tensor:
        return g.masked_fill(~condition.bool(), 0)  # torch still accepts uint8 as a condition

    @staticmethod
    def grad_other(g: Tensor, condition: Tensor) -> Tensor:
        return g.masked_fill(condition.bool(), 0)


class MaskedFill(Formula):
    """a = y where m, else x,  m the mask

    ∂C/∂x = 0 where m, else g
    ∂C/∂y = g where m, else 0
    """

    holomorphic = True
    broadcasts = True
    opmath = False

    @staticmethod
    def forward(input: Tensor, mask: Tensor, value: Tensor | float) -> Tensor:
        return torch.masked_fill(input, mask, value)

    @staticmethod
    def grad_input(g: Tensor, mask: Tensor) -> Tensor:
        return g.masked_fill(mask, 0)

    @staticmethod
    def grad_value(g: Tensor, mask: Tensor) -> Tensor:
        return g.masked_fill(~mask, 0)


class Clamp(Formula):
    """a = min(max(x, l), h),  l and h numbers

    ∂C/∂x = g where l < x < h, else 0
    """

    opmath = False

    @staticmethod
    def forward(input: Tensor, min: float | None, max: float | None) -> Tensor:
        return torch.clamp(input, min, max)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, min: float | None, max: float | None) -> Tensor:
        inside = input < max if min is None else input > min  # type: ignore[operator]
        if min is not None and max is not None:
            inside = inside & (input < max)
        return g.masked_fill(~inside, 0)


class ClampBetween(Formula):
    """a = min(max(x, l), h),  l and h tensors

    ∂C/∂x = g/2 where x = l < h or x = h > l, g where l ≤ x ≤ h, else 0
    ∂C/∂l = g where x < l ≤ h, g/2 where x = l < h, else 0
    ∂C/∂h = g where x > h or l > h, g/2 where x = h > l, else 0
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor, min: Tensor, max: Tensor) -> Tensor:
        return torch.clamp(input, min, max)

    @staticmethod
    def shared(g: Tensor, input: Tensor, min: Tensor, max: Tensor) -> Tensor:
        return torch.where((min < max) & ((input == min) | (input == max)), g / 2, g)

    @staticmethod
    def grad_input(g: Tensor, shared: Tensor, input: Tensor, min: Tensor, max: Tensor) -> Tensor:
        return shared.masked_fill((input < min) | (input > max), 0)

    @staticmethod
    def grad_min(g: Tensor, shared: Tensor, input: Tensor, min: Tensor, max: Tensor) -> Tensor:
        tie = (input == min) & (min < max)
        return torch.where((input < min) & (min <= max) | tie, shared, 0)

    @staticmethod
    def grad_max(g: Tensor, shared: Tensor, input: Tensor, min: Tensor, max: Tensor) -> Tensor:
        tie = (input == max) & (min < max)
        return torch.where((input > max) & (min <= max) | (min > max) | tie, shared, 0)


class Lerp(Formula):
    """a = x + w (y − x)

    ∂C/∂x = g ⊙ (1 − w)
    ∂C/∂y = g ⊙ w
    ∂C/∂w = g ⊙ (y − x)
    """

    holomorphic = True
    broadcasts = True

    @staticmethod
    def forward(input: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
        return torch.lerp(input, end, weight)

    @staticmethod
    def grad_input(g: Tensor, weight: Tensor | float) -> Tensor:
        return g * (1 - weight)

    @staticmethod
    def grad_end(g: Tensor, weight: Tensor | float) -> Tensor:
        return g * weight

    @staticmethod
    def grad_weight(g: Tensor, input: Tensor, end: Tensor) -> Tensor:
        return g * (end - input)


class Addcmul(Formula):
    """a = x + v y ⊙ w

    ∂C/∂x = g
    ∂C/∂y = v g ⊙ w
    ∂C/∂w = v g ⊙ y
    """

    holomorphic = True
    broadcasts = True

    @staticmethod
    def forward(input: Tensor, tensor1: Tensor, tensor2: Tensor, value: float) -> Tensor:
        return addcmul(input, tensor1, tensor2, value=value)

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return g

    @staticmethod
    def grad_tensor1(g: Tensor, tensor2: Tensor, value: float) -> Tensor:
        return g * (tensor2 * value)

    @staticmethod
    def grad_tensor2(g: Tensor, tensor1: Tensor, value: float) -> Tensor:
        return g * (tensor1 * value)


class Addcdiv(Formula):
    """a = x + v y / w

    ∂C/∂x = g
    ∂C/∂y = v g / w
    ∂C/∂w = −v g ⊙ y / w²
    """

    holomorphic = True
    broadcasts = True

    @staticmethod
    def forward(input: Tensor, tensor1: Tensor, tensor2: Tensor, value: float) -> Tensor:
        return torch.addcdiv(input, tensor1, tensor2, value=value)

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return g

    @staticmethod
    def grad_tensor1(g: Tensor, tensor2: Tensor, value: float) -> Tensor:
        return g * (value / tensor2)

    @staticmethod
    def grad_tensor2(g: Tensor, tensor1: Tensor, tensor2: Tensor, value: float) -> Tensor:
        return -g * (value * tensor1 / (tensor2 * tensor2))
