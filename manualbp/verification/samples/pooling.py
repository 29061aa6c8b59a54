"""Arguments of pooling, in one, two and three axes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from manualbp import formulas as f
from manualbp.formulas.pooling import Each, each_axis
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]


class _Windows(NamedTuple):
    kernel: Each
    stride: Each | None
    padding: Each
    dilation: Each
    #: of the image, so that there is at least one window
    shape: tuple[int, ...]


def _windows(
    s: Source, *, padded: bool = True, dilated: bool = False, whole: bool = False
) -> _Windows:
    """Windows of one size along all axes, said by one number, or of any, said by one for each.

    ``whole``: a window fits into the image without its padding.
    """
    axes = s.integer(1, 3)
    alike = s.boolean()

    def each(low: int, high: int) -> tuple[int, ...]:
        if alike:
            return (s.integer(low, high),) * axes
        return tuple(s.integer(low, high) for _ in range(axes))

    def said(values: tuple[int, ...]) -> Each:
        return values[0] if alike else values

    kernel = each(1, 3 if axes < 3 else 2)
    stride = s.maybe(lambda: each(1, 3))
    widest = min(kernel) // 2 if padded else 0
    padding = each(0, widest)
    dilation = each(1, 2 if dilated else 1)
    shape = tuple(
        # No window passes over the image with a gap as wide: torch has no maximum of none.
        max(d * (k - 1) + 1 - 2 * p * (not whole), d) + s.integer(0, 3)
        for k, p, d in zip(kernel, padding, dilation, strict=True)
    )
    step = None if stride is None else said(stride)
    return _Windows(said(kernel), step, said(padding), said(dilation), shape)


def _planes(s: Source) -> tuple[int, ...]:
    """(n, C) or (C,)."""
    return (*(() if s.boolean() else (s.batch(),)), s.size(1, 2))


@of(f.MaxPool)
def _max_pool(s: Source) -> Arguments:
    w = _windows(s, dilated=True)
    options = (w.kernel, w.stride, w.padding, w.dilation, s.boolean())
    planes = _planes(s)
    # torch refuses the strides of channels last of a single example with three axes.
    strided = len(planes) > 1 or len(w.shape) < 3
    return s.tensor(*planes, *w.shape, strided=strided), *options, w.shape


@of(f.AvgPool)
def _avg_pool(s: Source) -> Arguments:
    w = _windows(s, whole=True)  # which torch asks for in three axes
    divisor = s.integer(1, 5) if len(w.shape) > 1 and s.boolean() else None
    options = (w.kernel, w.stride, w.padding, s.boolean(), s.boolean(), divisor)
    return s.tensor(*_planes(s), *w.shape), *options, w.shape


@of(f.LPPool)
def _lp_pool(s: Source) -> Arguments:
    w = _windows(s, padded=False)
    if len(w.shape) == 1:  # torch takes one number there
        stride = None if w.stride is None else each_axis(w.stride, 1)[0]
        w = w._replace(kernel=each_axis(w.kernel, 1)[0], stride=stride)
    p = s.choice(2.0, 1.0, 3.0, 1.5, 4)
    low = -2.0 if p in (2.0, 4) else 0.2  # a power of negative numbers may be negative, or none
    image = s.tensor(*_planes(s), *w.shape, low=low)
    return image, p, w.kernel, w.stride, s.boolean(), w.shape


@of(f.AdaptiveMaxPool, f.AdaptiveAvgPool)
def _adaptive_pool(s: Source) -> Arguments:
    shape = tuple(s.size(1, 5) for _ in range(s.integer(1, 3)))
    asked: Any = s.size() if s.boolean() else tuple(s.size() for _ in shape)
    if len(shape) > 1 and s.boolean():  # None leaves an axis as it is
        asked = tuple(s.choice(None, s.size()) for _ in shape)
    return s.tensor(*_planes(s), *shape), asked, shape


@of(f.FractionalMaxPool)
def _fractional_max_pool(s: Source) -> Arguments:
    axes = s.integer(2, 3)
    kernel = tuple(s.integer(1, 2) for _ in range(axes))
    output = tuple(s.integer(1, 3) for _ in range(axes))
    shape = tuple(k + n - 1 + s.integer(1, 2) for k, n in zip(kernel, output, strict=True))
    planes = _planes(s)
    drawn = (1, *planes)[-2:]
    samples = s.tensor(*drawn, axes, low=0.0, high=1.0, strided=False)
    return s.tensor(*planes, *shape), kernel, output, samples, shape


@of(f.MaxUnpool)
def _max_unpool(s: Source) -> Arguments:
    shape = tuple(s.size() for _ in range(s.integer(1, 3)))
    planes, within = _planes(s), tuple(s.integer(1, n) for n in shape)
    count = math.prod(planes)
    # Each place once: two numbers at one of them would be one number less.
    rows = [s.permutation(math.prod(shape))[: math.prod(within)] for _ in range(count)]
    places = torch.stack(rows) if rows else torch.zeros(0, dtype=torch.long)
    return s.tensor(*planes, *within), places.reshape(*planes, *within), shape
