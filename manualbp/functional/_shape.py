"""The same numbers in other places."""

from __future__ import annotations

from torch import Tensor

from manualbp import formulas

__all__ = ["flatten"]


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes ``start_dim`` … ``end_dim`` as one."""
    return formulas.Flatten.apply(input, start_dim, end_dim, input.shape)
