"""Derivatives by central differences, each with an estimate of its own error.

Central differences of shrinking steps, extrapolated (Richardson): of neighbouring steps h and h/4,
(16 D(h/4) − D(h)) / 15 has an error of order h⁴. The step whose neighbours agree best is taken for
each entry, and how far they disagree is the estimate of the error. Where the two one-sided slopes
differ however small the step, there is a kink.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: the steps, by the size of what is moved: exact powers of two, so that x + h − x is h
STEPS = tuple(2.0**-k for k in (9, 11, 13, 15, 17, 19, 21, 23))
#: the first so many steps are taken at once, more only where these do not agree
AT_ONCE = 3


@dataclass
class Slope:
    """d f(x + t v)/dt at t = 0, of each output: the estimate, and that of its error.

    Attributes:
        kink: whether the slopes of the two sides differ.
        finite: whether f was finite at all points.
    """

    value: Tensor
    error: Tensor
    kink: bool
    finite: bool


def slope(
    f: Callable[[float], Tensor],
    middle: Tensor,
    eps: float,
    noise: float | Tensor = 0.0,
    reach: float = 1.0,
) -> Slope:
    """The derivative of f(t) at t = 0, where ``f`` gives a vector of float64.

    Args:
        f: the function, whose t is measured in the size of what is moved.
        middle: f(0).
        eps: the precision in which ``f`` computes.
        noise: what two equal calls differ by.
        reach: how much of the usual step is the first one.
    """
    size = middle.abs()
    best, error = torch.zeros_like(middle), torch.full_like(middle, torch.inf)
    grain = torch.zeros_like(middle)  # the part of the error that is rounding
    rounding = torch.zeros_like(middle)
    before: Tensor | None = None  # D(h)
    extrapolated: Tensor | None = None
    sides: list[Tensor] = []
    # In less than double precision a small step drowns in the rounding of f.
    steps = [h * reach for h in STEPS] if eps < 1e-12 else [h * reach * 64 for h in STEPS[:4]]
    for k, h in enumerate(steps):
        above, below = f(h), f(-h)
        if not bool((above.isfinite() & below.isfinite()).all()):
            if k + 1 < len(steps):
                continue  # a smaller step may stay where the function has a value
            return Slope(best, error, False, False)
        size = torch.maximum(size, torch.maximum(above.abs(), below.abs()))
        rounding = (eps * size + noise) / h
        central = (above - below) / (2 * h)
        sides.append((above - 2 * middle + below).abs() / h - 4 * rounding)
        if before is not None:
            now = (16 * central - before) / 15
            off = (now - (before if extrapolated is None else extrapolated)).abs()
            off = off + 2 * rounding
            better = off < error
            best, error = torch.where(better, now, best), torch.where(better, off, error)
            grain = torch.where(better, 4 * rounding, grain)
            extrapolated = now
        before = central
        if k + 1 >= AT_ONCE and extrapolated is not None:
            scale = best.abs().max() if best.numel() else 0.0
            settled = error <= 1e-9 * scale + 1e-9 * best.abs() + 2 * rounding
            if bool((settled & _agree(best, extrapolated, error, rounding)).all()):
                break
    finite = len(sides) > 1
    if not finite or extrapolated is None:
        return Slope(best, error, False, False)
    # Two steps of a function that jumps may agree by chance; the last one then does not.
    chance = not bool(_agree(best, extrapolated, error, rounding).all())
    return Slope(best, error, chance or _kinked(sides, best, error, grain), finite)


def _agree(best: Tensor, last: Tensor, error: Tensor, rounding: Tensor) -> Tensor:
    scale = best.abs().max() if best.numel() else 0.0
    return (best - last).abs() <= 20 * (error + 4 * rounding) + 1e-3 * scale


def _kinked(sides: list[Tensor], best: Tensor, error: Tensor, grain: Tensor) -> bool:
    """Whether the second difference by h stays as h shrinks: it does at a kink alone.

    Of a smooth function it shrinks as h does: a factor of 4 each step.
    """
    if len(sides) < 2:
        return False
    first, last = sides[0].clamp(min=0), sides[-1].clamp(min=0)
    scale = best.abs().max().clamp(min=1e-30) if best.numel() else 0.0
    shrinks = 0.3 if len(sides) < 4 else 0.1
    jump = (last > shrinks * first) & (last > 1e-6 * scale) & (last > 10 * error.nan_to_num(0.0))
    # A jump of the function itself: the quotient grows as the step shrinks.
    jump |= (last > 2 * first) & (last > 1e-3 * scale) & (last > 0)
    # Where no two steps agree, there are no differences to speak of.
    unsettled = error - grain > 0.05 * best.abs() + 1e-3 * scale
    return bool((jump | unsettled).any())


def sizes_of(x: Tensor) -> Tensor:
    """By how much each entry of ``x`` may be moved: its own size, a little of the others'."""
    size = x.detach().double().abs()
    if not x.numel():
        return size
    typical = float(size[size > 0].median()) if bool((size > 0).any()) else 1.0
    return size + 0.05 * min(max(typical, 1e-6), 1e6)
