"""Resampling of images: (N, C, …) with one, two or three axes of pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from manualbp.core.formula import Formula
from manualbp.formulas.pooling import BLOCK, Shape, along_every_axis, as_one_axis, owned

__all__ = [
    "AffineGrid",
    "ChannelShuffle",
    "GridSample",
    "Interpolate",
    "PixelShuffle",
    "PixelUnshuffle",
]


class Interpolate(Formula):
    """a = W₁ z W₂ᵀ,  row j of Wₐ = the weights of the pixels that make pixel j along axis a

    ∂C/∂z = W₁ᵀ g W₂
    """

    @staticmethod
    def forward(
        input: Tensor,
        size: int | Sequence[int] | None,
        scale_factor: float | Sequence[float] | None,
        mode: str,
        align_corners: bool | None,
        recompute_scale_factor: bool | None,
        antialias: bool,
        shape: Shape,
    ) -> Tensor:
        options = (mode, align_corners, recompute_scale_factor, antialias)
        return F.interpolate(input, size, scale_factor, *options)

    @staticmethod
    def grad_input(
        g: Tensor,
        scale_factor: float | Sequence[float] | None,
        mode: str,
        align_corners: bool | None,
        recompute_scale_factor: bool | None,
        antialias: bool,
        shape: Shape,
    ) -> Tensor:
        axes = len(shape)
        sizes = g.shape[-axes:]
        if scale_factor is None:
            given = [out / size for out, size in zip(sizes, shape, strict=True)]
        elif isinstance(scale_factor, Sequence):
            given = list(scale_factor)
        else:
            given = [scale_factor] * axes
        if mode in ("nearest", "nearest-exact") and all(scale in (1, 2, 4, 8) for scale in given):
            # Each pixel becomes a block. Powers of 2 only, because torch's rounding is exact there.
            pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]
            return pool(g, [int(scale) for scale in given]) * math.prod(given)

        # A bound, in pixels of the input, of the distance at which a pixel has a weight.
        reach = [2 * math.ceil(n / max(out, 1)) + 2 for n, out in zip(shape, sizes, strict=True)]

        def responses(axis: int) -> Tensor:
            """The output for each pixel set to 1 alone, or with pixels too far away to overlap."""
            size, alone = shape[axis], [1] * (axes - 1)
            apart = min(size, BLOCK + 8 * reach[axis])
            pixels = torch.arange(size, device=g.device) % apart
            lit = (pixels == torch.arange(apart, device=g.device).unsqueeze(1)).to(g.dtype)
            target = [*alone, sizes[axis]] if scale_factor is None else None
            scale = None if scale_factor is None else [*map(float, alone), given[axis]]
            options = (mode, align_corners, recompute_scale_factor, antialias)
            # The axis is last, because torch's antialias is wrong if the last has length 1.
            picture = lit.reshape(1, apart, *alone, size)
            return F.interpolate(picture, target, scale, *options).reshape(apart, sizes[axis])

        tables = [responses(axis) for axis in range(axes)]

        def weights(axis: int, start: int, stop: int) -> tuple[slice, Tensor]:
            table, ratio = tables[axis], sizes[axis] / shape[axis]
            first = int((start - reach[axis]) * ratio) - 1
            after = int((stop + reach[axis]) * ratio) + 2
            reached = slice(max(first, 0), min(after, sizes[axis]))
            rows = [i % len(table) for i in (start, stop)]
            if rows[0] < rows[1]:
                return reached, table[rows[0] : rows[1], reached]
            return reached, torch.cat((table[rows[0] :, reached], table[: rows[1], reached]))

        return along_every_axis(g, weights, shape)


class PixelShuffle(Formula):
    """a = z,  r² channels of a pixel as r × r pixels of one

    ∂C/∂z ≙ g, as r² channels again
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, upscale_factor: int) -> Tensor:
        return F.pixel_shuffle(input, upscale_factor)

    @staticmethod
    def grad_input(g: Tensor, upscale_factor: int) -> Tensor:
        return F.pixel_unshuffle(g, upscale_factor)


class PixelUnshuffle(Formula):
    """a = z,  r × r pixels of a channel as one of r² channels

    ∂C/∂z ≙ g, as r × r pixels again
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, downscale_factor: int) -> Tensor:
        return F.pixel_unshuffle(input, downscale_factor)

    @staticmethod
    def grad_input(g: Tensor, downscale_factor: int) -> Tensor:
        return F.pixel_shuffle(g, downscale_factor)


class ChannelShuffle(Formula):
    """a = z,  the channels of all groups in turn, as a table of groups read by columns

    ∂C/∂z ≙ g, as the table read by rows
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, groups: int) -> Tensor:
        return F.channel_shuffle(input, groups)

    @staticmethod
    def grad_input(g: Tensor, groups: int) -> Tensor:
        return F.channel_shuffle(g, g.shape[1] // groups)


class AffineGrid(Formula):
    """a = p θᵀ,  p = (x, y, 1), or (x, y, z, 1), of every pixel

    ∂C/∂θ = gᵀ p
    """

    @staticmethod
    def forward(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
        p = _grid_points(size, align_corners, theta)
        a = p.expand(size[0], -1, -1) @ theta.mT
        return owned(a.reshape(size[0], *size[2:], len(size) - 2))

    @staticmethod
    def grad_theta(g: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
        p = _grid_points(size, align_corners, g)
        return g.reshape(size[0], *p.shape[:1], g.shape[-1]).mT @ p


def _grid_points(size: Sequence[int], align_corners: bool, like: Tensor) -> Tensor:
    """(x, y, 1) of every pixel: the affine grid of the identity, and a 1."""
    axes = len(size) - 2
    still = torch.eye(axes, axes + 1, dtype=like.dtype, device=like.device)[None]
    places = torch.affine_grid_generator(still, [1, 1, *size[2:]], align_corners)
    return F.pad(places.reshape(-1, axes), (0, 1), value=1.0)


class GridSample(Formula):
    """a = Σₖ wₖ(x) zₖ,  the pixels k around the place x that the grid points at

    ∂C/∂z ≙ Σ g wₖ(x), over the places x around which k is
    ∂C/∂x ≙ Σₖ wₖ′(x) Σ g zₖ, over the channels
    """

    # A point lies between K pixels along an axis, so k is one of K² or K³ pixels. Its weight is the
    # product of the weights along the axes. Tensors of taps are (N, K, points). All pixels outside
    # of the image are one pixel, after the last, which is 0.

    @staticmethod
    def forward(
        input: Tensor,
        grid: Tensor,
        mode: str,
        padding_mode: str,
        align_corners: bool,
        shape: Shape,
    ) -> Tensor:
        return F.grid_sample(input, grid, mode, padding_mode, align_corners)

    @staticmethod
    def taps(
        grid: Tensor, mode: str, padding_mode: str, align_corners: bool, shape: Shape
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Along each axis the nearby pixels, their weights, and the slopes of the weights."""
        # A point of the grid is (x, y) or (x, y, z): the last axis comes first.
        return [
            _taps(as_one_axis(x, len(shape)), size, mode, padding_mode, align_corners)
            for x, size in zip(grid.unbind(-1), reversed(shape), strict=True)
        ]

    @staticmethod
    def pixels(taps: list[tuple[Tensor, Tensor, Tensor]], shape: Shape) -> Tensor:
        """The pixels near each point, as indices in the plane; one after the last, if outside."""
        indices, step = taps[0][0], shape[-1]
        outside = taps[0][0] < 0
        for (index, _, _), size in zip(taps[1:], reversed(shape[:-1]), strict=True):
            indices = _outer(indices, index * step, torch.add)
            outside = _outer(outside, index < 0, torch.logical_or)
            step *= size
        return indices.masked_fill(outside, step)

    @staticmethod
    def grad_input(
        g: Tensor, taps: list[tuple[Tensor, Tensor, Tensor]], pixels: Tensor, shape: Shape
    ) -> Tensor:
        planes = g.shape[:2]
        weights = _product([w for _, w, _ in taps])
        shares = as_one_axis(g, len(shape)).unsqueeze(2) * weights.unsqueeze(1)
        where = pixels.unsqueeze(1).expand(shares.shape)
        plane = g.new_zeros((*planes, math.prod(shape) + 1))
        plane = plane.scatter_add(2, as_one_axis(where, 2), as_one_axis(shares, 2))
        return plane[..., :-1].reshape(*planes, *shape)

    @staticmethod
    def grad_grid(
        g: Tensor,
        taps: list[tuple[Tensor, Tensor, Tensor]],
        pixels: Tensor,
        input: Tensor,
        grid: Tensor,
        mode: str,
    ) -> Tensor:
        if mode == "nearest":
            return torch.zeros_like(grid)
        axes = len(taps)
        where = pixels.unsqueeze(1).expand(-1, g.shape[1], -1, -1)
        plane = F.pad(as_one_axis(input, axes), (0, 1))
        z = plane.gather(2, as_one_axis(where, 2)).reshape(where.shape)
        gz = (as_one_axis(g, axes).unsqueeze(2) * z).sum(1)
        slopes = (
            _product([slope if a == axis else w for a, (_, w, slope) in enumerate(taps)])
            for axis in range(axes)
        )
        return torch.stack([(gz * slope).sum(1) for slope in slopes], -1).reshape(grid.shape)


def _outer(a: Tensor, b: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Every tap of a combined with every tap of b."""
    both = combine(a.unsqueeze(1), b.unsqueeze(2))
    return both.reshape(both.shape[0], both.shape[1] * both.shape[2], both.shape[3])


def _product(factors: list[Tensor]) -> Tensor:
    product = factors[0]
    for factor in factors[1:]:
        product = _outer(product, factor, torch.mul)
    return product


def _taps(
    x: Tensor, size: int, mode: str, padding_mode: str, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Along an axis, pixels near the points x ∈ [−1, 1], their weights, and the weights' slopes.

    A pixel outside of the image is −1.
    """
    # ±1 are the centres of the first and the last pixel if align_corners, else their outer edges.
    stretch: float | Tensor = (size - 1) / 2 if align_corners else size / 2
    x = (x + 1) * stretch - (0 if align_corners else 0.5)
    if mode != "bicubic":
        x, slope = _padded(x, size, padding_mode, align_corners)
        stretch = stretch * slope.unsqueeze(1)
    if mode == "nearest":
        pixel = x.round().unsqueeze(1)
        weight, slope = torch.ones_like(pixel), torch.zeros_like(pixel)
    else:
        first = x.floor()
        weight, slope = (_linear if mode == "bilinear" else _cubic)(x - first)
        around = (0, 1) if mode == "bilinear" else (-1, 0, 1, 2)
        pixel = torch.stack([first + k for k in around], 1)
        if mode == "bicubic":
            pixel, _ = _padded(pixel, size, padding_mode, align_corners)
    there = (pixel >= 0) & (pixel < size)
    return torch.where(there, pixel, -1).long(), weight, slope * stretch


def _linear(t: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of the pixels at 0 and 1 for a point t between them, and their slopes."""
    one = torch.ones_like(t)
    return torch.stack((1 - t, t), 1), torch.stack((-one, one), 1)


def _cubic(t: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of the pixels at −1, 0, 1 and 2 for a point t ∈ [0, 1], and their slopes."""
    a = -0.75  # Keys' parameter, as in torch
    weights = (
        a * t * (t - 1) ** 2,
        ((a + 2) * t - (a + 3)) * t * t + 1,
        ((-(a + 2) * t + (2 * a + 3)) * t - a) * t,
        a * t * t * (1 - t),
    )
    slopes = (
        a * (t - 1) * (3 * t - 1),
        (3 * (a + 2) * t - 2 * (a + 3)) * t,
        (-3 * (a + 2) * t + 2 * (2 * a + 3)) * t - a,
        a * t * (2 - 3 * t),
    )
    return torch.stack(weights, 1), torch.stack(slopes, 1)


def _padded(x: Tensor, size: int, padding_mode: str, align_corners: bool) -> tuple[Tensor, Tensor]:
    """The point x, moved into the image if it is outside, and its derivative by x."""
    slope = torch.ones_like(x)
    if padding_mode == "zeros":
        return x, slope
    if padding_mode == "reflection":
        low, span = (0.0, size - 1) if align_corners else (-0.5, size)
        # Reflected at both ends: a triangle wave of period 2 span, even in x − low.
        phase = (x - low).abs() % (2 * max(span, 1))
        falls = phase >= span
        slope = torch.where(falls ^ (x < low), -slope, slope)
        x = torch.where(falls, 2 * span - phase, phase) + low
    inside = (x > 0) & (x < size - 1)
    return x.clamp(0, size - 1), slope * inside
