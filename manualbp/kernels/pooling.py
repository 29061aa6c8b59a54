"""The rules of pooling by torch's kernels. One axis is treated as two, the first of length 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.formulas.pooling import Each, Shape, each_axis, step_of
from manualbp.kernels import of

aten = torch.ops.aten


def _many(g_output: Tensor) -> bool:
    return g_output.numel() >= 1 << 15


# Of an adaptive pooling, for it reads indices alone; the kernel of max_pool2d reads windows too.
@of(formulas.MaxPool.grad_input, profitable=_many)
def max_pool(g_output: Tensor, indices: Tensor, shape: Shape) -> Tensor:
    if len(shape) == 3:
        # torch's kernel ignores the strides of the indices.
        indices = indices.contiguous()
        return aten.adaptive_max_pool3d_backward(g_output, input_of(g_output, shape), indices)
    if len(shape) == 1:
        g_output, indices = g_output.unsqueeze(-2), indices.unsqueeze(-2)
        return max_pool(g_output, indices, (1, *shape)).squeeze(-2)
    return aten.adaptive_max_pool2d_backward(g_output, input_of(g_output, shape), indices)


@of(formulas.AvgPool.grad_input)
def avg_pool(
    g: Tensor,
    kernel_size: Each,
    stride: Each | None,
    padding: Each,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    shape: Shape,
) -> Tensor:
    kernel, pad, step = kernel_size, padding, step_of(kernel_size, stride)
    options = (ceil_mode, count_include_pad, divisor_override)
    if len(shape) == 3:
        return aten.avg_pool3d_backward(g, input_of(g, shape), kernel, step, pad, *options)
    if len(shape) == 1:
        g, shape = g.unsqueeze(-2), (1, *shape)
        kernel, step = (1, *each_axis(kernel, 1)), (1, *each_axis(step, 1))
        pad = (0, *each_axis(pad, 1))
        flat = aten.avg_pool2d_backward(g, input_of(g, shape), kernel, step, pad, *options)
        return flat.squeeze(-2)
    return aten.avg_pool2d_backward(g, input_of(g, shape), kernel, step, pad, *options)


def _overlap(g: Tensor, shape: Shape) -> bool:
    """Whether windows differ in size. The rule expands equal ones, which is faster."""
    sizes = g.shape[-len(shape) :]
    return any(n % size for n, size in zip(shape, sizes, strict=True))


@of(formulas.AdaptiveAvgPool.grad_input, profitable=_overlap)
def adaptive_avg_pool(g: Tensor, shape: Shape) -> Tensor:
    if len(shape) == 3:
        return aten._adaptive_avg_pool3d_backward(g, input_of(g, shape))
    if len(shape) == 1:
        return adaptive_avg_pool(g.unsqueeze(-2), (1, *shape)).squeeze(-2)
    return aten._adaptive_avg_pool2d_backward(g, input_of(g, shape))


@of(formulas.LPPool.grad_input, supported=lambda norm_type: 0 < norm_type < math.inf)
def lp_pool(
    g: Tensor,
    input: Tensor,
    norm_type: float,
    kernel_size: Each,
    stride: Each | None,
    ceil_mode: bool,
    shape: Shape,
) -> Tensor:
    p, size = norm_type, math.prod(each_axis(kernel_size, len(shape)))
    pools: Sequence[Any] = (aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d)
    window = (kernel_size, step_of(kernel_size, stride), 0, ceil_mode)
    mean = pools[len(shape) - 1](input.pow(p), *window, True)
    share = (mean * size).pow_(1 / p - 1).mul_(g)  # g a¹⁻ᵖ, from the mean without its root
    share = share.masked_fill_(mean == 0, 0).mul_(size)
    sums = avg_pool(share, *window, True, None, shape)
    return sums.mul_(input if p == 2 else input.pow(p - 1))


def input_of(g: Tensor, shape: Shape) -> Tensor:
    """A tensor with ``shape`` as its last axes, from which torch's kernels read the shape alone."""
    shape = (*g.shape[: -len(shape)], *shape)
    last = g.dim() == 4 and g.is_contiguous(memory_format=torch.channels_last)
    if last and not g.is_contiguous():
        return g.new_empty(shape).to(memory_format=torch.channels_last)
    return g.new_empty(()).expand(shape)
