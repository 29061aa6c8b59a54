"""A margin around the last axes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from manualbp.core.formula import Formula

__all__ = ["Pad", "PadFromWithin"]


class Pad(Formula):
    """z = a with a margin of one value; with a margin below zero, a without its border

    ∂C/∂a ≙ g without the margin
    """

    holomorphic = True
    opmath = False

    @staticmethod
    def forward(input: Tensor, pad: tuple[int, ...], value: float) -> Tensor:
        return F.pad(input, pad, "constant", value)

    @staticmethod
    def grad_input(g: Tensor, pad: tuple[int, ...]) -> Tensor:
        return F.pad(g, [-p for p in pad])


class PadFromWithin(Formula):
    """z = a_m,  m the place that ``mode`` takes for one outside of a

    ∂C/∂aᵢ = Σₚ gₚ [mₚ = i]
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, pad: tuple[int, ...], mode: str) -> Tensor:
        return F.pad(input, pad, mode)

    @staticmethod
    def grad_input(g: Tensor, pad: tuple[int, ...], mode: str) -> Tensor:
        if not any(pad):
            return g.clone()
        for i, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
            if before or after:
                g = _folded_back(g, g.dim() - i, before, after, mode)
        return g


def _folded_back(g: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Each entry of the margins of an axis, added to the entry that it copied."""
    n = g.shape[axis] - before - after
    left, right = g.narrow(axis, 0, before), g.narrow(axis, before + n, after)
    if mode == "reflect":  # the edge itself is not repeated
        places = (1, n - 1 - after)
        left, right = left.flip(axis), right.flip(axis)
    elif mode == "replicate":
        places = (0, n - 1)
        left, right = left.sum(axis, keepdim=True), right.sum(axis, keepdim=True)
    else:
        places = (n - before, 0)
    left, right = (_placed(t, axis, p, n) for t, p in zip((left, right), places, strict=True))
    return g.narrow(axis, before, n) + left + right


def _placed(margin: Tensor, axis: int, place: int, n: int) -> Tensor:
    """``margin`` at index ``place`` of an axis of n entries, and 0 elsewhere."""
    behind = n - place - margin.shape[axis]
    return F.pad(margin, [0, 0] * (margin.dim() - 1 - axis) + [place, behind])
