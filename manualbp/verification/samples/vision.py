"""Arguments of what resamples images, with one, two or three axes of pixels."""

from __future__ import annotations

from typing import Any

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]

_MODES = {
    1: ("nearest", "linear", "area", "nearest-exact"),
    2: ("nearest", "bilinear", "bicubic", "area", "nearest-exact"),
    3: ("nearest", "trilinear", "area", "nearest-exact"),
}


@of(f.Interpolate)
def _interpolate(s: Source) -> Arguments:
    axes = s.integer(1, 3)
    shape = tuple(s.size(2, 4) for _ in range(axes))
    mode = s.choice(*_MODES[axes])
    smooth = mode.endswith(("linear", "cubic"))
    alike = s.boolean()
    size: Any = None
    scale: Any = None
    recompute = None
    if s.boolean():
        factors = [s.choice(2.0, 1.5, 0.6, 1.0) for _ in shape]
        factors = factors[:1] * axes if alike else factors
        scale = factors[0] if alike else factors
        recompute = s.choice(None, True, False)
        last = int(shape[-1] * factors[-1])
    else:
        sizes = [s.size(1, 6) for _ in shape]
        sizes = sizes[:1] * axes if alike else sizes
        size = sizes[0] if alike else sizes
        last = sizes[-1]
    corners = s.boolean() if smooth else None
    # Of a last axis of length 1 torch's antialiased value is wrong, though not its gradient.
    antialias = mode in ("bilinear", "bicubic") and s.boolean() and last > 1
    image = s.tensor(s.batch(), s.size(1, 2), *shape)
    return image, size, scale, mode, corners, recompute, antialias, shape


@of(f.PixelShuffle)
def _pixel_shuffle(s: Source) -> Arguments:
    r, (*batch, channels, height, width) = s.size(1, 2), s.sizes(3, 4)
    return s.tensor(*batch, channels * r * r, height, width), r


@of(f.PixelUnshuffle)
def _pixel_unshuffle(s: Source) -> Arguments:
    r, (*batch, channels, height, width) = s.size(1, 2), s.sizes(3, 4)
    return s.tensor(*batch, channels, height * r, width * r), r


@of(f.ChannelShuffle)
def _channel_shuffle(s: Source) -> Arguments:
    groups, (count, channels, *positions) = s.size(1, 3), s.shape(3, 4)
    return s.tensor(count, channels * groups, *positions), groups


@of(f.AffineGrid)
def _affine_grid(s: Source) -> Arguments:
    axes, count = s.integer(2, 3), s.batch()
    size = (count, s.size(), *(s.size(1, 3) for _ in range(axes)))
    return s.tensor(count, axes, axes + 1), size, s.boolean()


@of(f.GridSample)
def _grid_sample(s: Source) -> Arguments:
    axes, count = s.integer(2, 3), s.batch()
    shape = tuple(s.size(1, 4) for _ in range(axes))
    mode = s.choice("bilinear", "nearest", *(["bicubic"] if axes == 2 else []))
    padding = s.choice("zeros", "border", "reflection")
    points = [s.size(1, 3) for _ in range(axes)]
    return (
        s.tensor(count, s.size(1, 2), *shape),
        s.tensor(count, *points, axes, low=-3.6, high=3.6),
        mode,
        padding,
        s.boolean(),
        shape,
    )
