"""Pooling of inputs (*, C, …): windows slide over the last one, two or three axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from typing import ParamSpec

import torch
from torch import Tensor
from torch.nn import functional as F

from manualbp import formulas
from manualbp.formulas.pooling import Asked, Each, each_axis

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_with_indices",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "fractional_max_pool2d",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d",
    "fractional_max_pool3d_with_indices",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_with_indices",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]

_Parameters = ParamSpec("_Parameters")


def _indices_on_request(
    pool: Callable[_Parameters, tuple[Tensor, Tensor]],
) -> Callable[_Parameters, Tensor | tuple[Tensor, Tensor]]:
    """``pool``, which returns indices, as a function that does so if ``return_indices``."""
    parameters = signature(pool)
    position = [*parameters.parameters].index("return_indices")

    @wraps(pool)
    def run(
        *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> Tensor | tuple[Tensor, Tensor]:
        both = pool(*args, **kwargs)
        requested = args[position:] or [kwargs.get("return_indices", False)]
        return both if requested[0] else both[0]

    # inspect.unwrap would return the function with indices.
    del run.__wrapped__
    run.__signature__ = parameters.replace(  # type: ignore[attr-defined]
        return_annotation=Tensor | tuple[Tensor, Tensor]
    )
    run.__name__ = run.__qualname__ = pool.__name__.removesuffix("_with_indices")
    run.__doc__ = f"{pool.__doc__} The index comes only with ``return_indices``."
    return run


def max_pool1d_with_indices(
    input: Tensor,
    kernel_size: Each,
    stride: Each | None = None,
    padding: Each = 0,
    dilation: Each = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """The greatest in each window, and its index in its plane."""
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    return formulas.MaxPool.apply(input, *window, input.shape[-1:])


max_pool1d = _indices_on_request(max_pool1d_with_indices)


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Each,
    stride: Each | None = None,
    padding: Each = 0,
    dilation: Each = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """The greatest in each window, and its index in its plane."""
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    return formulas.MaxPool.apply(input, *window, input.shape[-2:])


max_pool2d = _indices_on_request(max_pool2d_with_indices)


def max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Each,
    stride: Each | None = None,
    padding: Each = 0,
    dilation: Each = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """The greatest in each window, and its index in its plane."""
    window = (kernel_size, stride, padding, dilation, ceil_mode)
    return formulas.MaxPool.apply(input, *window, input.shape[-3:])


max_pool3d = _indices_on_request(max_pool3d_with_indices)


def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: Asked, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """The greatest in each of ``output_size`` windows, and its index in its plane."""
    return formulas.AdaptiveMaxPool.apply(input, output_size, input.shape[-1:])


adaptive_max_pool1d = _indices_on_request(adaptive_max_pool1d_with_indices)


def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: Asked, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """The greatest in each of ``output_size`` windows, and its index in its plane."""
    return formulas.AdaptiveMaxPool.apply(input, output_size, input.shape[-2:])


adaptive_max_pool2d = _indices_on_request(adaptive_max_pool2d_with_indices)


def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: Asked, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """The greatest in each of ``output_size`` windows, and its index in its plane."""
    return formulas.AdaptiveMaxPool.apply(input, output_size, input.shape[-3:])


adaptive_max_pool3d = _indices_on_request(adaptive_max_pool3d_with_indices)


def fractional_max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Each,
    output_size: Each | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The greatest in each window, of windows placed at random, and its index in its plane."""
    return _fractional(2, input, kernel_size, output_size, output_ratio, _random_samples)


fractional_max_pool2d = _indices_on_request(fractional_max_pool2d_with_indices)


def fractional_max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Each,
    output_size: Each | None = None,
    output_ratio: float | Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The greatest in each window, of windows placed at random, and its index in its plane."""
    return _fractional(3, input, kernel_size, output_size, output_ratio, _random_samples)


fractional_max_pool3d = _indices_on_request(fractional_max_pool3d_with_indices)


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Each,
    stride: Each | None = None,
    padding: Each = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Each number where max pooling found it, at ``indices``; zeros elsewhere."""
    return _unpooled(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Each,
    stride: Each | None = None,
    padding: Each = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Each number where max pooling found it, at ``indices``; zeros elsewhere."""
    return _unpooled(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Each,
    stride: Each | None = None,
    padding: Each = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """Each number where max pooling found it, at ``indices``; zeros elsewhere."""
    return _unpooled(3, input, indices, kernel_size, stride, padding, output_size)


def avg_pool1d(
    input: Tensor,
    kernel_size: Each,
    stride: Each | None = None,
    padding: Each = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window."""
    window = (kernel_size, stride, padding, ceil_mode)
    options = (count_include_pad, None)
    return formulas.AvgPool.apply(input, *window, *options, input.shape[-1:])


def avg_pool2d(
    input: Tensor,
    kernel_size: Each,
    stride: Each | None = None,
    padding: Each = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window, or its sum by ``divisor_override``."""
    window = (kernel_size, stride, padding, ceil_mode)
    options = (count_include_pad, divisor_override)
    return formulas.AvgPool.apply(input, *window, *options, input.shape[-2:])


def avg_pool3d(
    input: Tensor,
    kernel_size: Each,
    stride: Each | None = None,
    padding: Each = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window, or its sum by ``divisor_override``."""
    window = (kernel_size, stride, padding, ceil_mode)
    options = (count_include_pad, divisor_override)
    return formulas.AvgPool.apply(input, *window, *options, input.shape[-3:])


def adaptive_avg_pool1d(input: Tensor, output_size: Asked) -> Tensor:
    """The mean of each of ``output_size`` windows that cover the input."""
    return formulas.AdaptiveAvgPool.apply(input, output_size, input.shape[-1:])


def adaptive_avg_pool2d(input: Tensor, output_size: Asked) -> Tensor:
    """The mean of each of ``output_size`` windows that cover the input."""
    return formulas.AdaptiveAvgPool.apply(input, output_size, input.shape[-2:])


def adaptive_avg_pool3d(input: Tensor, output_size: Asked) -> Tensor:
    """The mean of each of ``output_size`` windows that cover the input."""
    return formulas.AdaptiveAvgPool.apply(input, output_size, input.shape[-3:])


def lp_pool1d(
    input: Tensor,
    norm_type: int | float,
    kernel_size: Each,
    stride: Each | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """(Σ zᵖ)^(1/p) over each window, p = ``norm_type``."""
    return _lp(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor,
    norm_type: int | float,
    kernel_size: Each,
    stride: Each | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """(Σ zᵖ)^(1/p) over each window, p = ``norm_type``."""
    return _lp(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor,
    norm_type: int | float,
    kernel_size: Each,
    stride: Each | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """(Σ zᵖ)^(1/p) over each window, p = ``norm_type``."""
    return _lp(3, input, norm_type, kernel_size, stride, ceil_mode)


def _fractional(
    axes: int,
    input: Tensor,
    kernel_size: Each,
    output_size: Each | None,
    output_ratio: float | Sequence[float] | None,
    samples: Tensor | None,
) -> tuple[Tensor, Tensor]:
    name = f"fractional_max_pool{axes}d"
    shape = input.shape[-axes:]
    if output_size is None:
        if output_ratio is None:
            raise ValueError(f"{name}: expected an output_size or an output_ratio; got neither")
        ratios = output_ratio if isinstance(output_ratio, Sequence) else [output_ratio] * axes
        if len(ratios) != axes:
            raise ValueError(f"{name}: expected {axes} ratios; got {len(ratios)}")
        output_size = [int(n * ratio) for n, ratio in zip(shape, ratios, strict=True)]
    if samples is None:
        # Drawn as torch draws them, so that a seed gives the same windows.
        batch = 1 if input.dim() == axes + 1 else input.shape[0]
        drawn = (batch, input.shape[-axes - 1], axes)
        samples = torch.rand(drawn, dtype=input.dtype, device=input.device)
    return formulas.FractionalMaxPool.apply(input, kernel_size, output_size, samples, shape)


def _unpooled(
    axes: int,
    input: Tensor,
    indices: Tensor,
    kernel_size: Each,
    stride: Each | None,
    padding: Each,
    output_size: Sequence[int] | None,
) -> Tensor:
    name = f"max_unpool{axes}d"
    if input.dim() not in (axes + 1, axes + 2):
        raise RuntimeError(f"{name}: expected {axes + 1} or {axes + 2} axes; got {input.dim()}")
    if input.shape != indices.shape:
        shapes = f"{tuple(indices.shape)} and {tuple(input.shape)}"
        raise RuntimeError(f"{name}: expected an index for each number; got shapes {shapes}")
    kernel, pad = each_axis(kernel_size, axes), each_axis(padding, axes)
    step = kernel if stride is None else each_axis(stride, axes)
    if axes == 3 and 0 in step:
        raise RuntimeError(f"{name}: expected strides of 1 and more; got {step}")
    shape = F._unpool_output_size(input, kernel, step, pad, output_size)  # type: ignore[attr-defined]
    return formulas.MaxUnpool.apply(input, indices, shape)


def _lp(
    axes: int,
    input: Tensor,
    p: float,
    kernel_size: Each,
    stride: Each | None,
    ceil_mode: bool,
) -> Tensor:
    if p == 0:
        raise ValueError("norm_type: expected a number other than 0; got 0")
    shape = input.shape[-axes:]
    if abs(p) < math.inf:
        return formulas.LPPool.apply(input, p, kernel_size, stride, ceil_mode, shape)
    # For p = ∞ the norm is the largest |z| of the window, for −∞ the smallest.
    size = formulas.Abs.apply(input)
    signed = formulas.Neg.apply(size) if p < 0 else size
    greatest = formulas.MaxPool.apply(signed, kernel_size, stride, 0, 1, ceil_mode, shape)[0]
    return formulas.Neg.apply(greatest) if p < 0 else greatest
