"""The rules of resampling by torch's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.formulas.pooling import Shape
from manualbp.kernels import of
from manualbp.kernels.pooling import adaptive_avg_pool

aten = torch.ops.aten

#: torch's kernels that take the nearest pixel, by mode and number of axes
_NEAREST: dict[tuple[str, int], Any] = {
    ("nearest", 1): aten.upsample_nearest1d_backward,
    ("nearest", 2): aten.upsample_nearest2d_backward,
    ("nearest", 3): aten.upsample_nearest3d_backward,
    ("nearest-exact", 1): aten._upsample_nearest_exact1d_backward,
    ("nearest-exact", 2): aten._upsample_nearest_exact2d_backward,
    ("nearest-exact", 3): aten._upsample_nearest_exact3d_backward,
}
#: torch's kernels that weigh several pixels, by mode and antialias
_WEIGHED: dict[tuple[str, bool], Any] = {
    ("linear", False): aten.upsample_linear1d_backward,
    ("bilinear", False): aten.upsample_bilinear2d_backward,
    ("bicubic", False): aten.upsample_bicubic2d_backward,
    ("trilinear", False): aten.upsample_trilinear3d_backward,
    ("bilinear", True): aten._upsample_bilinear2d_aa_backward,
    ("bicubic", True): aten._upsample_bicubic2d_aa_backward,
    ("lanczos", True): getattr(aten, "_upsample_lanczos2d_aa_backward", None),
}


#: size above which the rule's matrix product for each axis is faster than torch's kernels
_LARGE = 1 << 16


def _is_small(g: Tensor, mode: str) -> bool:
    return g.numel() < _LARGE or mode in ("nearest", "nearest-exact")


def _rounds_alike(mode: str, scale_factor: float | Sequence[float] | None) -> bool:
    """Whether torch's kernel adds g to the pixel that the forward pass read."""
    given = scale_factor if isinstance(scale_factor, Sequence) else (scale_factor,)
    return mode not in ("nearest", "nearest-exact") or all(s in (None, 1, 2, 4, 8) for s in given)


@of(formulas.Interpolate.grad_input, supported=_rounds_alike, profitable=_is_small)
def interpolate(
    g: Tensor,
    scale_factor: float | Sequence[float] | None,
    mode: str,
    align_corners: bool | None,
    recompute_scale_factor: bool | None,
    antialias: bool,
    shape: Shape,
) -> Tensor:
    if mode == "area":
        return adaptive_avg_pool(g, shape)
    sizes = (g.shape[2:], (*g.shape[:2], *shape))
    scales: Sequence[float | None] = [None] * len(shape)
    if scale_factor is not None and not recompute_scale_factor:
        given = isinstance(scale_factor, Sequence)
        scales = scale_factor if given else [scale_factor] * len(shape)  # type: ignore[assignment, list-item]
    if (mode, len(shape)) in _NEAREST:
        return _NEAREST[mode, len(shape)](g, *sizes, *scales)
    return _WEIGHED[mode, antialias](g, *sizes, bool(align_corners), *scales)


_MODES = {"bilinear": 0, "nearest": 1, "bicubic": 2}
_PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}


@of(formulas.GridSample.grad_input, formulas.GridSample.grad_grid)
def grid_sample(
    needs: tuple[bool, bool],
    g: Tensor,
    input: Tensor | None,
    grid: Tensor,
    mode: str,
    padding_mode: str,
    align_corners: bool,
    shape: Shape,
) -> tuple[Tensor, Tensor]:
    if input is None:  # only the rule of the grid reads it
        input = g.new_zeros(()).expand(*g.shape[:2], *shape)
    backward = aten.grid_sampler_2d_backward if len(shape) == 2 else aten.grid_sampler_3d_backward
    how = (_MODES[mode], _PADDINGS[padding_mode], align_corners)
    return backward(g, input, grid, *how, needs)
