"""Pictures made larger, smaller, and moved."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from cases.table import *
from manualbp import functional

UNMAPPED = dict.fromkeys(("per_example", "jacobians"), "torch's kernel does not map, and says so")
UNMAPPED_TWIN = {"jacobians": "torch's own does not map, and says so"}
NO_HESSIAN = {"jacobians": "torch has no tangents of its gradient"}
NO_BFLOAT16 = {"dtypes": "torch's antialias is not for bfloat16"}


def inside(*shape: int) -> Make:
    """Places in a grid over a picture and somewhat beyond its edges."""
    return uniform(-1.3, 1.3, *shape)


def quiet(function: str, *arguments: Make, **options: object) -> Case:
    """A row for a function that is deprecated; ours and torch's warn of it."""

    def silenced(library: object) -> Callable[..., Tensor]:
        loud = getattr(library, function)

        @wraps(loud)
        def call(*values: Any, **named: Any) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                return loud(*values, **named)

        return call

    ours, theirs = silenced(functional), silenced(torch.nn.functional)
    alone = dict.fromkeys(("compiled", "threads"), "silencing a warning changes the interpreter")
    return Case(function, ours, theirs, arguments, options, without=alone)


def sampled(input: Tensor, grid: Tensor, mode: str, align_corners: bool) -> Tensor:
    """grid_sample over zeros as a sum over all pixels; torch has every derivative of that."""
    planes = []
    for place, size in zip(grid.unbind(-1), reversed(input.shape[2:]), strict=True):
        x = (place + 1) * size / 2 - 0.5
        t = (x.unsqueeze(-1) - torch.arange(size, dtype=x.dtype, device=x.device)).abs()
        if mode == "bilinear":
            weight = (1 - t).relu()
        else:
            near, far = 1.25 * t**3 - 2.25 * t**2 + 1, -0.75 * (t - 1) * (t - 2) ** 2
            weight = torch.where(t < 1, near, torch.where(t < 2, far, 0))
        planes.append(weight)
    return torch.einsum("nchw,nyxw,nyxh->ncyx", input, *planes)


PLANE, GRID = real(2, 2, 3, 4), inside(2, 2, 3, 2)

FAR_OUTSIDE = {"precision": "far outside the gradient of a place is what rounding leaves"}

CASES = [
    row("interpolate", real(2, 3, 4), size=7),
    row("interpolate", real(2, 2, 3, 2), scale_factor=2),
    row("interpolate", real(1, 2, 3, 5), size=(4, 3), mode="nearest-exact", without=UNMAPPED),
    row("interpolate", real(1, 1, 2, 3, 2), scale_factor=(1.5, 2, 1.0)),
    row("interpolate", real(1, 1, 170), size=175, mode="linear", note="in blocks"),
    row("interpolate", real(2, 2, 4), scale_factor=2.6, mode="linear"),
    row("interpolate", real(2, 2, 4), scale_factor=2.6, mode="linear",
        recompute_scale_factor=True),
    row("interpolate", real(2, 2, 3, 4), scale_factor=2, mode="bilinear"),
    row("interpolate", transposed(real(1, 2, 3, 4)), size=(5, 3), mode="bilinear",
        align_corners=True),
    row("interpolate", real(1, 2, 5, 6), size=(2, 3), mode="bilinear", antialias=True,
        without=NO_BFLOAT16),
    row("interpolate", real(1, 1, 4, 3), scale_factor=(1.5, 2.0), mode="bicubic"),
    row("interpolate", real(1, 2, 5, 4), size=3, mode="bicubic", antialias=True,
        without=NO_BFLOAT16),
    row("interpolate", real(1, 1, 2, 3, 2), size=3, mode="trilinear", align_corners=True),
    row("interpolate", real(2, 1, 5, 4), size=(2, 3), mode="area"),
    row("interpolate", real(0, 2, 3, 3), scale_factor=2, mode="bilinear", without=EMPTY),
    row("pixel_shuffle", real(2, 8, 2, 3), 2),
    row("pixel_unshuffle", real(2, 4, 6), 2),
    row("channel_shuffle", real(2, 6, 2, 2), 3),
    row("native_channel_shuffle", real(2, 6, 2, 2), 2, twin=torch.channel_shuffle),
    *(row("grid_sample", PLANE, GRID, mode=m, padding_mode=p, align_corners=a,
          without=NO_HESSIAN | (FAR_OUTSIDE if m == "bicubic" else {}))
      for m in ("bilinear", "nearest", "bicubic")
      for p, a in (("zeros", False), ("border", True), ("reflection", False))),
    row("grid_sample", PLANE, GRID, padding_mode="reflection", align_corners=True,
        without=NO_HESSIAN),
    row("grid_sample", PLANE, GRID, padding_mode="zeros", align_corners=True, without=NO_HESSIAN),
    row("grid_sample", real(1, 2, 2, 3, 2), inside(1, 2, 1, 2, 3), align_corners=False,
        without=NO_HESSIAN),
    *(row("grid_sample", PLANE, GRID, mode=m, align_corners=False, note="twin", twin=sampled,
          without={"autocast": "the twin is a product of matrices",
                   "precision": "the twin rounds less often than torch's kernel and ours do"})
      for m in ("bilinear", "bicubic")),
    row("affine_grid", real(2, 2, 3), [2, 1, 3, 4], align_corners=False, without=UNMAPPED_TWIN),
    row("affine_grid", real(1, 3, 4), [1, 1, 2, 3, 2], align_corners=True, without=UNMAPPED_TWIN),
    quiet("upsample", real(1, 2, 3, 2), scale_factor=2),
    quiet("upsample_nearest", real(1, 2, 3, 2), scale_factor=2),
    quiet("upsample_bilinear", real(1, 2, 3, 2), size=(5, 3)),
]  # fmt: skip

MODULES = [
    module("Upsample", scale_factor=2, mode="bilinear", inputs=(real(2, 3, 3, 4),)),
    module("Upsample", (5, 6), mode="bicubic", align_corners=True, inputs=(real(2, 3, 3, 4),)),
    module("UpsamplingNearest2d", scale_factor=2, inputs=(real(2, 3, 3, 4),)),
    module("UpsamplingBilinear2d", (5, 6), inputs=(real(2, 3, 3, 4),)),
    module("PixelShuffle", 2, inputs=(real(2, 8, 2, 3),)),
    module("PixelUnshuffle", 2, inputs=(real(2, 2, 4, 6),)),
    module("ChannelShuffle", 3, inputs=(real(2, 6, 2, 3),)),
]
