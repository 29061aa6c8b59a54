"""The same numbers in another shape."""

from __future__ import annotations

import torch
from torch import Size, Tensor

from manualbp.formula import Formula

__all__ = ["Flatten"]


class Flatten(Formula):
    """a = z, its axes start … end as one

    ∂C/∂z = g, in the shape of z
    """

    @staticmethod
    def forward(input: Tensor, start_dim: int, end_dim: int, shape: Size) -> Tensor:
        a = input.flatten(start_dim, end_dim)
        # Autograd lets nobody write into a view that a Function returned, as relu_ may want to.
        if torch.compiler.is_compiling() or not (input.requires_grad and a._is_view()):
            return a
        return a.clone()

    @staticmethod
    def grad_input(g: Tensor, shape: Size) -> Tensor:
        # The shape is an argument of its own so that the values need not be kept.
        return g.reshape(shape)
