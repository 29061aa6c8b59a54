"""Gradients let through or not, where a slope is 1 or 0."""

from __future__ import annotations

import torch
from torch import Tensor

from manualbp.core.modes import on_cpu

#: integers of as many bytes as the numbers
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def zeroed(g: Tensor, where: Tensor) -> Tensor:
    """``g.masked_fill(where, 0)``, which takes ten times as long on a CPU for want of branches.

    The bits of g times 0 or 1, as integers: so that ∞ and nan become 0 too, as they do there.
    """
    if not on_cpu(g, where) or g.element_size() not in _INTEGERS:
        return g.masked_fill(where, 0)
    return (g.view(_INTEGERS[g.element_size()]) * ~where).view(g.dtype)
