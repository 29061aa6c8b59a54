"""Values left out at random."""

from __future__ import annotations

from torch import Tensor

from manualbp import formulas
from manualbp.functional._common import inplace_

__all__ = ["dropout"]


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """a = z ⊙ m / (1 − p), m = 0 with probability ``p``; drawn as torch draws it.

    Raises:
        ValueError: ``p`` is no probability.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0 or input.numel() == 0:
        return input
    if inplace:
        return inplace_(formulas.Dropout, input, p)
    return formulas.Dropout.apply(input, p)[0]
