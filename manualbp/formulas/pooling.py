"""Pooling: one number for each window that slides over the last one, two or three axes.

``shape`` is that of the input along those axes; it is an argument so that the input need not be
kept for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from manualbp.core.formula import Formula
from manualbp.core.modes import autocasts, is_compiling

__all__ = [
    "AdaptiveAvgPool",
    "AdaptiveMaxPool",
    "AvgPool",
    "FractionalMaxPool",
    "LPPool",
    "MaxPool",
    "MaxUnpool",
]

Each = int | Sequence[int]
"""torch's way to say it for every axis: one number for all of them, or one for each."""

Asked = int | Sequence[int | None] | None
"""The same for a size that is asked for; None leaves an axis as it is."""

Shape = Sequence[int]

_LAST = torch.channels_last


class MaxPool(Formula):
    """a = z_m,  m the place of the greatest in the window

    ∂C/∂zⱼ = Σₚ gₚ [mₚ = j]
    """

    outputs = ("output", "indices")

    @staticmethod
    def forward(
        input: Tensor,
        kernel_size: Each,
        stride: Each | None,
        padding: Each,
        dilation: Each,
        ceil_mode: bool,
        shape: Shape,
    ) -> tuple[Tensor, Tensor]:
        pool = _for_axes(
            shape, F.max_pool1d_with_indices, F.max_pool2d_with_indices, F.max_pool3d_with_indices
        )
        output, indices = pool(input, kernel_size, stride, padding, dilation, ceil_mode)
        return owned(output), indices

    @staticmethod
    def grad_input(g_output: Tensor, indices: Tensor, shape: Shape) -> Tensor:
        return _scattered(g_output, indices, shape)


class AdaptiveMaxPool(Formula):
    """a = z_m,  m the place of the greatest in the window,  of windows as many as asked for

    ∂C/∂zⱼ = Σₚ gₚ [mₚ = j]
    """

    outputs = ("output", "indices")

    @staticmethod
    def forward(input: Tensor, output_size: Asked, shape: Shape) -> tuple[Tensor, Tensor]:
        pool = _for_axes(
            shape,
            F.adaptive_max_pool1d_with_indices,
            F.adaptive_max_pool2d_with_indices,
            F.adaptive_max_pool3d_with_indices,
        )
        output, indices = pool(input, output_size)
        return owned(output), indices

    @staticmethod
    def grad_input(g_output: Tensor, indices: Tensor, shape: Shape) -> Tensor:
        return _scattered(g_output, indices, shape)


class FractionalMaxPool(Formula):
    """a = z_m,  m the place of the greatest in the window,  of windows placed at random

    ∂C/∂zⱼ = Σₚ gₚ [mₚ = j]
    """

    outputs = ("output", "indices")

    @staticmethod
    def forward(
        input: Tensor, kernel_size: Each, output_size: Each, samples: Tensor, shape: Shape
    ) -> tuple[Tensor, Tensor]:
        pool: Any = torch._C._nn.fractional_max_pool2d
        if len(shape) == 3:
            pool = torch._C._nn.fractional_max_pool3d
        return pool(input, kernel_size, output_size, samples)

    @staticmethod
    def grad_input(g_output: Tensor, indices: Tensor, shape: Shape) -> Tensor:
        return _scattered(g_output, indices, shape)


class MaxUnpool(Formula):
    """aⱼ = Σₚ zₚ [mₚ = j],  m the places that max pooling found z at

    ∂C/∂z = g_m
    """

    @staticmethod
    def forward(input: Tensor, indices: Tensor, shape: Shape) -> Tensor:
        axes = len(shape)
        planes = input.shape[:-axes]
        plane = input.new_zeros((*planes, math.prod(shape)))
        plane = plane.scatter(-1, as_one_axis(indices, axes), as_one_axis(input, axes))
        output = owned(plane.reshape(*planes, *shape))
        if axes == 2 and not input.is_contiguous() and input.is_contiguous(memory_format=_LAST):
            return output.contiguous(memory_format=_LAST)
        return output

    @staticmethod
    def grad_input(g: Tensor, indices: Tensor, shape: Shape) -> Tensor:
        axes = len(shape)
        places = as_one_axis(indices, axes)
        return as_one_axis(g, axes).gather(-1, places).reshape(indices.shape)


class AvgPool(Formula):
    """a = W₁ z W₂ᵀ,  row j of Wₐ = the shares in window j along axis a

    ∂C/∂z = W₁ᵀ g W₂
    """

    @staticmethod
    def forward(
        input: Tensor,
        kernel_size: Each,
        stride: Each | None,
        padding: Each,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
        shape: Shape,
    ) -> Tensor:
        pool = _for_axes(shape, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
        step = step_of(kernel_size, stride)
        # torch's function for one axis has no divisor_override.
        divisor = () if divisor_override is None else (divisor_override,)
        options = (ceil_mode, count_include_pad, *divisor)
        return owned(pool(input, kernel_size, step, padding, *options))

    @staticmethod
    def grad_input(
        g: Tensor,
        kernel_size: Each,
        stride: Each | None,
        padding: Each,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
        shape: Shape,
    ) -> Tensor:
        options = (ceil_mode, count_include_pad, divisor_override)
        return _avg_pool_transpose(g, kernel_size, stride, padding, *options, shape)


class AdaptiveAvgPool(Formula):
    """a = W₁ z W₂ᵀ,  row j of Wₐ = the shares in window j along axis a

    ∂C/∂z = W₁ᵀ g W₂
    """

    @staticmethod
    def forward(input: Tensor, output_size: Asked, shape: Shape) -> Tensor:
        pool = _for_axes(shape, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
        return owned(pool(input, output_size))

    @staticmethod
    def grad_input(g: Tensor, shape: Shape) -> Tensor:
        sizes = g.shape[-len(shape) :]
        if all(n % size == 0 for n, size in zip(shape, sizes, strict=True)):
            return _expanded(g / (math.prod(shape) // math.prod(sizes)), shape)

        def weights(axis: int, start: int, stop: int) -> tuple[slice, Tensor]:
            size, out = shape[axis], sizes[axis]
            reached = slice(start * out // size, -(-stop * out // size))
            window = torch.arange(reached.start, reached.stop, device=g.device)
            first, end = window * size // out, -(-(window + 1) * size // out)
            inside = _window_contains(start, stop, first, end)
            return reached, inside.to(g.dtype) / (end - first)

        return along_every_axis(g, weights, shape)


class LPPool(Formula):
    """a = (Σ zᵖ)^(1/p) over the window

    ∂C/∂z ≙ zᵖ⁻¹ Σ g a¹⁻ᵖ over the windows that it is in, without those where a = 0
    """

    @staticmethod
    def forward(
        input: Tensor,
        norm_type: float,
        kernel_size: Each,
        stride: Each | None,
        ceil_mode: bool,
        shape: Shape,
    ) -> Tensor:
        pool = _for_axes(shape, F.lp_pool1d, F.lp_pool2d, F.lp_pool3d)
        return pool(input, norm_type, kernel_size, stride, ceil_mode)

    #: a, computed again, because the caller may have written into the output
    pooled = forward

    @staticmethod
    def grad_input(
        g: Tensor,
        input: Tensor,
        pooled: Tensor,
        norm_type: float,
        kernel_size: Each,
        stride: Each | None,
        ceil_mode: bool,
        shape: Shape,
    ) -> Tensor:
        zero = pooled == 0
        each = (g * pooled.masked_fill(zero, 1).pow(1 - norm_type)).masked_fill(zero, 0)
        # A sum is an average times the size of the window, also for a window beyond the edge.
        each = each * math.prod(each_axis(kernel_size, len(shape)))
        sums = _avg_pool_transpose(each, kernel_size, stride, 0, ceil_mode, True, None, shape)
        return input.pow(norm_type - 1) * sums


def _for_axes(shape: Shape, *functions: Any) -> Any:
    """Of three functions, the one for as many axes as ``shape`` has."""
    return functions[len(shape) - 1]


def each_axis(value: Each, axes: int) -> tuple[int, ...]:
    """``value`` as one number for each axis."""
    if isinstance(value, int):
        return (value,) * axes
    value = tuple(value)
    return value * axes if len(value) == 1 else value


def step_of(kernel_size: Each, stride: Each | None) -> Each:
    """The stride, which is the size of the window where none is given."""
    return kernel_size if stride in (None, (), []) else stride


def _scattered(g: Tensor, indices: Tensor, shape: Shape) -> Tensor:
    """Zeros of ``shape`` in the last axes, with each g added at its index in their plane."""
    axes = len(shape)
    planes = g.shape[:-axes]
    plane = g.new_zeros((*planes, math.prod(shape)))
    plane = plane.scatter_add(-1, as_one_axis(indices, axes), as_one_axis(g, axes))
    return plane.reshape(*planes, *shape)


def _avg_pool_transpose(
    g: Tensor,
    kernel_size: Each,
    stride: Each | None,
    padding: Each,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
    shape: Shape,
) -> Tensor:
    """The transpose of average pooling: each g is shared equally among its window."""
    axes = len(shape)
    if axes == 1:
        window = (kernel_size, step_of(kernel_size, stride), padding)
        kernel, step, pad = (each_axis(value, 1) for value in window)
        options = (ceil_mode, count_include_pad, divisor, (1, *shape))
        g = g.unsqueeze(-2)
        return _avg_pool_transpose(g, (1, *kernel), (1, *step), (0, *pad), *options).squeeze(-2)
    kernel, pad = each_axis(kernel_size, axes), each_axis(padding, axes)
    step = each_axis(step_of(kernel, stride), axes)
    if divisor is None:
        divisor = 1
        for axis, (size, k, s, p) in enumerate(zip(shape, kernel, step, pad, strict=True)):
            edge = p if count_include_pad else 0
            first = torch.arange(g.shape[axis - axes], device=g.device) * s - p
            width = (first + k).clamp(max=size + edge) - first.clamp(min=-edge)
            g = g / width.reshape(-1, *[1] * (axes - 1 - axis))
    # A number belongs to the windows that begin at most k − 1 before it.
    for size, k, s, p in zip(shape, kernel, step, pad, strict=True):
        g = g.movedim(
            -axes, -1
        )  # the first axis becomes the last; after all axes the order is restored
        apart = F.pad(g.unsqueeze(-1), (0, s - 1)).reshape(*g.shape[:-1], g.shape[-1] * s)
        before = k - 1 - p
        g = F.pad(apart, (before, size + k - 1 - before - apart.shape[-1]))
    pool = F.avg_pool2d if axes == 2 else F.avg_pool3d
    return pool(g, kernel, 1, divisor_override=1) / divisor


def _window_contains(start: int, stop: int, first: Tensor, end: Tensor) -> Tensor:
    """A row for each number from start to stop: whether each window, first to end, has it."""
    number = torch.arange(start, stop, device=first.device).unsqueeze(1)
    return (number >= first) & (number < end)


def _expanded(g: Tensor, shape: Shape) -> Tensor:
    """Each number repeated along each of the last axes, to fill ``shape``."""
    planes, sizes = g.shape[: -len(shape)], g.shape[-len(shape) :]
    apart = [n for size in sizes for n in (size, 1)]
    stretched = [n for size, whole in zip(sizes, shape, strict=True) for n in (size, whole // size)]
    return g.reshape(*planes, *apart).expand(*planes, *stretched).reshape(*planes, *shape)


def as_one_axis(tensor: Tensor, axes: int) -> Tensor:
    """The last axes as one. Unlike ``flatten`` it works under vmap, and for empty batches."""
    return tensor.reshape(*tensor.shape[:-axes], math.prod(tensor.shape[-axes:]))


def owned(output: Tensor) -> Tensor:
    """The same, no view, because autograd forbids writing into a view that a Function returned."""
    if is_compiling() or not output._is_view():
        return output
    return torch.ops.aten._unsafe_view(output, output.shape)


#: numbers along an axis that share a matrix; one for a long axis would be large, and mostly 0
BLOCK = 128

Weights = Callable[[int, int, int], tuple[slice, Tensor]]


def along_every_axis(g: Tensor, weights: Weights, shape: Shape) -> Tensor:
    """W₁ᵀ g W₂: along each of the last axes, the transpose of a linear map.

    ``weights(axis, start, stop)`` returns rows start to stop of Wᵀ along that axis, without columns
    of zeros, and the slice of the output that the remaining columns stand for.
    """
    if autocasts(g):
        with torch.autocast(g.device.type, enabled=False):
            return along_every_axis(g, weights, shape)
    for axis, size in enumerate(shape):
        # The first axis becomes the last; after all axes the order is restored.
        g = g.movedim(-len(shape), -1)
        parts = []
        for start in range(0, size, BLOCK):
            reached, w = weights(axis, start, min(start + BLOCK, size))
            part = g.narrow(-1, reached.start, reached.stop - reached.start)
            parts.append(part @ w.t())
        g = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
    return g
