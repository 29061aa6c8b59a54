"""The rules of products by division, where no number is 0 or so small that digits are lost."""

from __future__ import annotations

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.kernels import of

# The rules multiply all other numbers. That is the whole product divided by one number, unless the
# number is 0, or the product overflows or underflows.


@of(formulas.Prod.grad_input, profitable=lambda input: input.numel() >= 1 << 12)
def prod(g: Tensor, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    whole = input.prod() if dim is None else input.prod(dim, True)
    least, most = whole.abs().aminmax() if whole.numel() else (whole, whole)
    limits = torch.finfo(whole.dtype)
    if not (whole.numel() and limits.tiny <= least and most <= limits.max):
        return formulas.Prod.grad_input(g, input, dim, keepdim)
    if dim is not None and not keepdim and input.dim():
        g = g.unsqueeze(dim)
    return (g * whole) / input


@of(formulas.Cumprod.grad_input)
def cumprod(g: Tensor, input: Tensor, dim: int) -> Tensor:
    output = input.cumprod(dim) if input.numel() and input.dim() else None
    if output is None or not (_SMALL <= input.abs().min() and output.sum().isfinite()):
        return formulas.Cumprod.grad_input(g, input, dim)
    return output.mul_(g).flip(dim).cumsum(dim).flip(dim).div_(input)


#: smallest number for which a product that underflows to 0 would not change the sum
_SMALL = 1e-12
