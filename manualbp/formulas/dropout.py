"""Noise that switches units off while a network trains."""

from __future__ import annotations

import torch
from torch import Tensor

from manualbp.formula import Formula

__all__ = ["Dropout"]


class Dropout(Formula):
    """a = z ⊙ m / (1 − p),  m = 0 with probability p, else 1

    ∂C/∂z = g ⊙ m / (1 − p)
    """

    outputs = ("output", "mask")

    @staticmethod
    def forward(input: Tensor, p: float) -> tuple[Tensor, Tensor]:
        # torch's own draw, so that a seed gives the mask that it gives there; one byte an entry.
        return torch.native_dropout(input, p, True)

    @staticmethod
    def grad_input(g_output: Tensor, mask: Tensor, p: float) -> Tensor:
        return g_output * mask * (0.0 if p == 1 else 1 / (1 - p))
