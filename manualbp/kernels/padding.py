"""The rule of padding: each margin is added in place to the entries that it copied."""

from __future__ import annotations

from torch import Tensor

from manualbp import formulas
from manualbp.kernels import of


@of(formulas.PadFromWithin.grad_input)
def pad_from_within(g: Tensor, pad: tuple[int, ...], mode: str) -> Tensor:
    found = g
    for i, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        if before or after:
            found = _folded_back(found, g.dim() - i, before, after, mode)
    return g.clone() if found is g else found


def _folded_back(g: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    n = g.shape[axis] - before - after
    left, right = g.narrow(axis, 0, before), g.narrow(axis, before + n, after)
    gradient = g.narrow(axis, before, n).clone()
    if mode == "reflect":
        places = (1, n - 1 - after)
        left, right = left.flip(axis), right.flip(axis)
    elif mode == "replicate":
        places = (0, n - 1)
        left, right = left.sum(axis, keepdim=True), right.sum(axis, keepdim=True)
    else:
        places = (n - before, 0)
    for margin, place in zip((left, right), places, strict=True):
        gradient.narrow(axis, place, margin.shape[axis]).add_(margin)
    return gradient
