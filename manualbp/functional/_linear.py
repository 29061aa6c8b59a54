"""Linear functions."""

from __future__ import annotations

import math

from torch import Tensor

from manualbp import formulas
from manualbp.core.modes import any_autocast
from manualbp.functional._arithmetic import add

__all__ = ["bilinear", "linear"]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """z = a Wᵀ + b: input (\\*, in), weight (out, in), bias (out) → (\\*, out).

    A weight (in,) is one row, and the result then has no axis of outputs. A bias of another shape
    broadcasts against the result.
    """
    if weight.dim() == 1:
        row = linear(input, weight.unsqueeze(0), None if bias is None else bias.reshape(1))
        return row.squeeze(-1)
    if bias is not None and (bias.dim() != 1 or bias.numel() == 1 != weight.shape[0]):
        # A bias for each example, or one for all outputs. Autocast casts for this sum alone.
        z = formulas.Linear.apply(input, weight, None)
        if bias.dtype is not weight.dtype and not any_autocast():
            raise RuntimeError(
                f"bias: expected {weight.dtype}, as the weight is; got {bias.dtype}: convert it "
                f"by bias.to(weight.dtype)"
            )
        # torch flattens the leading axes before it adds a bias of at most one axis.
        one_batch = z.dim() != 2 and bias.squeeze().dim() < 2 and input.is_contiguous()
        rows = z.reshape(math.prod(z.shape[:-1]), z.shape[-1]) if one_batch else z
        return add(rows, bias.to(z.dtype).expand(rows.shape)).reshape(z.shape)
    return formulas.Linear.apply(input, weight, bias)


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """zₙₒ = aₙᵀ Wₒ a′ₙ + bₒ: (\\*, in1), (\\*, in2), weight (out, in1, in2) → (\\*, out)."""
    if input1.shape[:-1] != input2.shape[:-1]:
        raise RuntimeError(
            f"bilinear: the inputs have to agree in all axes but the last, but their shapes are "
            f"{list(input1.shape)} and {list(input2.shape)}"
        )
    return formulas.Bilinear.apply(input1, input2, weight, bias)
