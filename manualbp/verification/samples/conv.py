"""Arguments of convolutions and of what they are made of, in one, two and three axes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]
Each = tuple[int, ...]


class _Windows(NamedTuple):
    """Numbers for each axis: there are ``windows`` in an image of ``size``."""

    kernel: Each
    stride: Each
    padding: Each
    dilation: Each
    size: Each
    windows: Each


def _windows(s: Source, axes: int) -> _Windows:
    def each(low: int, high: int) -> Each:
        return tuple(s.integer(low, high) for _ in range(axes))

    kernel, stride = each(1, 3 if axes < 3 else 2), each(1, 3)
    padding, dilation = each(0, 2 if axes < 3 else 1), each(1, 2)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    # At least one window, and now and then pixels that no window reaches.
    size = tuple(max(r - 2 * p, 1) + s.integer(0, 3) for r, p in zip(reach, padding, strict=True))
    windows = tuple(
        (n + 2 * p - r) // t + 1 for n, p, r, t in zip(size, padding, reach, stride, strict=True)
    )
    return _Windows(kernel, stride, padding, dilation, size, windows)


def _channels(s: Source) -> tuple[int, int, int]:
    """Groups, and the channels of one of them, before and after."""
    return s.choice(1, 1, 2, 3), s.size(1, 2), s.size(1, 2)


@of(f.Conv)
def _conv(s: Source) -> Arguments:
    w = _windows(s, s.integer(1, 3))
    groups, inputs, outputs = _channels(s)
    image = s.tensor(s.batch(), groups * inputs, *w.size)
    weight = s.tensor(groups * outputs, inputs, *w.kernel)
    bias = s.maybe(lambda: s.tensor(groups * outputs))
    return image, weight, bias, w.stride, w.padding, w.dilation, groups, image.shape[2:]


@of(f.ConvTranspose)
def _conv_transpose(s: Source) -> Arguments:
    w = _windows(s, s.integer(1, 3))
    groups, inputs, outputs = _channels(s)
    # The pixels that no window reaches are the output's padding, which is less than a stride.
    rest = tuple(
        (n + 2 * p - d * (k - 1) - 1) % t
        for n, p, d, k, t in zip(w.size, w.padding, w.dilation, w.kernel, w.stride, strict=True)
    )
    image = s.tensor(s.batch(), groups * inputs, *w.windows)
    weight = s.tensor(groups * inputs, outputs, *w.kernel)
    bias = s.maybe(lambda: s.tensor(groups * outputs))
    window = (w.stride, w.padding, rest, groups, w.dilation)
    return image, weight, bias, *window, image.shape[2:]


@of(f.Unfold)
def _unfold(s: Source) -> Arguments:
    w = _windows(s, 2)
    image = s.tensor(*(() if s.boolean() else (s.batch(),)), s.size(1, 3), *w.size)
    return image, w.kernel, w.dilation, w.padding, w.stride, image.shape[-2:]


@of(f.Fold)
def _fold(s: Source) -> Arguments:
    w = _windows(s, 2)
    rows = s.size(1, 2) * math.prod(w.kernel)
    columns = s.tensor(*(() if s.boolean() else (s.batch(),)), rows, math.prod(w.windows))
    return columns, w.size, w.kernel, w.dilation, w.padding, w.stride
