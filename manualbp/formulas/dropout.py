"""Noise that switches units off while a network trains.

A mask m is 0 with probability p, else 1; it is drawn as torch draws it, so that a seed gives the
numbers that it gives there, and kept as bytes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manualbp.core.formula import Formula

__all__ = ["AlphaDropout", "Dropout", "FeatureDropout"]

#: λα of the SELU: minus its limit for z → −∞
SATURATION = 1.7580993408473766


class Dropout(Formula):
    """a = z ⊙ m / (1 − p),  m for each entry

    ∂C/∂z = g ⊙ m / (1 − p)
    """

    holomorphic = True
    outputs = ("output", "mask")
    opmath = False

    @staticmethod
    def forward(input: Tensor, p: float) -> tuple[Tensor, Tensor]:
        if p == 1:  # torch draws nothing here, which leaves the generator as it is
            return input * 0, torch.zeros_like(input, dtype=torch.bool)
        return torch.native_dropout(input, p, True)

    @staticmethod
    def grad_input(g_output: Tensor, mask: Tensor, p: float) -> Tensor:
        return g_output * mask * share_kept(p)


class FeatureDropout(Formula):
    """a = z ⊙ m / (1 − p),  m for each index of the first axes: for each channel

    ∂C/∂z = g ⊙ m / (1 − p)
    """

    holomorphic = True
    outputs = ("output", "mask")

    @staticmethod
    def forward(input: Tensor, p: float, axes: int) -> tuple[Tensor, Tensor]:
        mask = _draw_mask(input, p, axes)
        return input * (mask.to(input.dtype) / (1 - p)), mask

    @staticmethod
    def grad_input(g_output: Tensor, mask: Tensor, p: float) -> Tensor:
        return g_output * (mask.to(g_output.dtype) / (1 - p))


class AlphaDropout(Formula):
    """a = s (z ⊙ m − α (1 − m) + α p),  s = 1 / √((1 − p) (1 + α² p)),  α ≈ 1.7580993

    ∂C/∂z = s g ⊙ m
    """

    holomorphic = True

    # −α is the limit of the SELU. With s and α p a mean of 0 and a variance of 1 stay as they are.

    outputs = ("output", "mask")

    @staticmethod
    def forward(input: Tensor, p: float, axes: int | None) -> tuple[Tensor, Tensor]:
        mask = _draw_mask(input, p, axes)
        return ((input + SATURATION) * mask - SATURATION * (1 - p)) * _scale(p), mask

    @staticmethod
    def grad_input(g_output: Tensor, mask: Tensor, p: float) -> Tensor:
        return g_output * (mask.to(g_output.dtype) * _scale(p))


def share_kept(p: float) -> float:
    """What an entry that is not left out counts for: 1 / (1 − p)."""
    return 0.0 if p == 1 else 1 / (1 - p)


def _draw_mask(input: Tensor, p: float, axes: int | None) -> Tensor:
    """m, for each index of the first ``axes`` axes or for each entry."""
    like = input.real if input.is_complex() else input
    if axes is None:
        noise = torch.empty_like(like)
    else:
        noise = like.new_empty((*input.shape[:axes], *[1] * (input.dim() - axes)))
    return noise.bernoulli_(1 - p).bool()


def _scale(p: float) -> float:
    return 1 / math.sqrt((1 - p) * (1 + SATURATION**2 * p))
