"""Padding."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from manualbp import formulas

__all__ = ["pad"]


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """z = a with margins: ``pad`` has (before, after) of the last axis, then of the one before, …

    The margins hold ``value``, or entries of a: mirrored (``"reflect"``), the nearest
    (``"replicate"``), or those of its periodic continuation (``"circular"``).
    """
    margins = tuple(pad)
    if mode == "constant":
        return formulas.Pad.apply(input, margins, 0.0 if value is None else value)
    if value is not None:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if min(margins, default=0) >= 0:
        return formulas.PadFromWithin.apply(input, margins, mode)
    outwards, inwards = (tuple(f(p, 0) for p in margins) for f in (max, min))
    # torch crops before it wraps around, but mirrors before it crops.
    if mode == "circular":
        return formulas.PadFromWithin.apply(formulas.Pad.apply(input, inwards, 0.0), outwards, mode)
    return formulas.Pad.apply(formulas.PadFromWithin.apply(input, outwards, mode), inwards, 0.0)
