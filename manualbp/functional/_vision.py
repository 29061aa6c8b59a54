"""Resampling of images: (N, C, …) with one, two or three axes of pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor

from manualbp import formulas

__all__ = [
    "affine_grid",
    "channel_shuffle",
    "grid_sample",
    "interpolate",
    "native_channel_shuffle",
    "pixel_shuffle",
    "pixel_unshuffle",
    "upsample",
    "upsample_bilinear",
    "upsample_nearest",
]


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """W₁ z W₂ᵀ: every pixel is a weighted mean of pixels nearby, along each axis separately."""
    options = (mode, align_corners, recompute_scale_factor, antialias)
    return formulas.Interpolate.apply(input, size, scale_factor, *options, input.shape[2:])


def upsample(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """The older name of :func:`interpolate`."""
    _warn_deprecated("upsample")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Tensor:
    """The nearest pixel; the older name of :func:`interpolate`."""
    _warn_deprecated("upsample_nearest")
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Tensor:
    """Linear along both axes, corners on corners; the older name of :func:`interpolate`."""
    _warn_deprecated("upsample_bilinear")
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(*, C r², H, W) as (*, C, H r, W r), r = ``upscale_factor``."""
    return formulas.PixelShuffle.apply(input, upscale_factor)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(*, C, H r, W r) as (*, C r², H, W), r = ``downscale_factor``."""
    return formulas.PixelUnshuffle.apply(input, downscale_factor)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels of axis 1, the first of every group, the second of every group, …"""
    return formulas.ChannelShuffle.apply(input, groups)


def native_channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The same as :func:`channel_shuffle`."""
    return formulas.ChannelShuffle.apply(input, groups)


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """The image at the points (x, y) ∈ [−1, 1]² of a grid (N, H, W, 2); or (x, y, z)."""
    corners = _align_corners(align_corners)
    return formulas.GridSample.apply(input, grid, mode, padding_mode, corners, input.shape[2:])


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """(x, y, 1) θᵀ at every pixel of an image of ``size`` (N, C, H, W); or (x, y, z, 1) θᵀ."""
    axes = len(size) - 2
    if axes not in (2, 3):
        raise NotImplementedError(f"affine_grid: expected a size of 4 or 5 numbers; got {size}")
    if theta.dim() != 3 or theta.shape[1:] != (axes, axes + 1) or theta.shape[0] != size[0]:
        expected = (size[0], axes, axes + 1)
        raise ValueError(f"affine_grid: expected θ of shape {expected}; got {tuple(theta.shape)}")
    if not theta.is_floating_point():
        raise ValueError(f"affine_grid: expected θ in floating point; got {theta.dtype}")
    if min(size) <= 0:
        raise ValueError(f"affine_grid: expected a size of positive numbers; got {size}")
    return formulas.AffineGrid.apply(theta, size, _align_corners(align_corners))


def _align_corners(align_corners: bool | None) -> bool:
    if align_corners is None:
        warnings.warn(
            "align_corners: grid_sample and affine_grid take False where nothing is said",
            stacklevel=3,
        )
    return bool(align_corners)


def _warn_deprecated(name: str) -> None:
    warnings.warn(f"{name} is deprecated: use interpolate", stacklevel=3)
