"""All rules of a normalisation in two passes over memory, by torch's kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.formulas.normalization import dense, per_channel, sum_per_channel
from manualbp.kernels import of

aten = torch.ops.aten

Gradients = tuple[Tensor | None, ...]


def _supported(
    needs: tuple[bool, bool, bool],
    g_output: Tensor | None,
    g_mean: Tensor | None,
    g_rstd: Tensor | None,
    input: Tensor | None,
    weight: Tensor | None,
) -> bool:
    """torch's kernels have no gradients for the statistics, and take one dtype."""
    return (
        input is not None  # if only ∂C/∂b is required, it is not saved
        and input.numel() > 0
        and g_output is not None
        and g_mean is None
        and g_rstd is None
        and (weight is None or weight.dtype is input.dtype)
    )


def _alike(input: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Both contiguous, or both with their channels last in memory, if the input's are."""
    x = dense(input)
    if x.is_contiguous():
        return x, g.contiguous()
    return x, g.movedim(1, -1).contiguous().movedim(-1, 1)


@of(
    formulas.BatchNorm.grad_input,
    formulas.BatchNorm.grad_weight,
    formulas.BatchNorm.grad_bias,
    supported=_supported,
)
def batch_norm(
    needs: tuple[bool, bool, bool],
    g_output: Tensor,
    input: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
) -> Gradients:
    count, channels = input.numel() // input.shape[1], input.shape[1]
    if count < _VECTOR and channels >= _MANY and g_output.dtype is input.dtype is mean.dtype:
        return _short_channels(g_output, input, mean, rstd, weight, count)
    # torch's kernel ignores the strides of a weight, and mistakes those of a gradient that is laid
    # out otherwise than the input where an axis has length 1.
    weight = None if weight is None else weight.contiguous()
    x, g = _alike(input, g_output)
    # torch's kernel uses running statistics and ε in evaluation alone.
    return aten.native_batch_norm_backward.default(
        g, x, weight, None, None, mean, rstd, True, 0.0, needs
    )


#: numbers of a channel below which torch's kernel takes them one by one, and channels from which
#: that is slower, 1.3 to 1.6 times
_VECTOR, _MANY = 8, 1000


def _short_channels(
    g: Tensor, input: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, count: int
) -> Gradients:
    """The rules in place; such is instance_norm of a few positions."""

    def each(t: Tensor) -> Tensor:
        return per_channel(t, input)

    x_hat = (input - each(mean)).mul_(each(rstd))
    sum_g, sum_gx = sum_per_channel(g), sum_per_channel(g * x_hat)
    scale = rstd if weight is None else rstd * weight
    gradient = x_hat.mul_(each(sum_gx / -count)).add_(g).sub_(each(sum_g / count))
    return gradient.mul_(each(scale)), sum_gx, sum_g


@of(
    formulas.GroupNorm.grad_input,
    formulas.GroupNorm.grad_weight,
    formulas.GroupNorm.grad_bias,
    supported=_supported,
)
def group_norm(
    needs: tuple[bool, bool, bool],
    g_output: Tensor,
    input: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
) -> Gradients:
    x, g = _alike(input, g_output)
    count, channels, *positions = x.shape
    sizes = (count, channels, math.prod(positions), rstd.shape[1])
    return aten.native_group_norm_backward.default(g, x, mean, rstd, weight, *sizes, needs)


@of(
    formulas.LayerNorm.grad_input,
    formulas.LayerNorm.grad_weight,
    formulas.LayerNorm.grad_bias,
    # torch's kernel takes the shape of ∂C/∂b from b, which the rules do not save. They save w, of
    # the same shape, for ∂C/∂x.
    supported=lambda needs, g_output, g_mean, g_rstd, input, weight: (
        _supported(needs, g_output, g_mean, g_rstd, input, weight)
        and (weight is not None or not (needs[1] or needs[2]))
    ),
)
def layer_norm(
    needs: tuple[bool, bool, bool],
    g_output: Tensor,
    input: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    normalized_shape: Sequence[int],
) -> Gradients:
    return aten.native_layer_norm_backward.default(
        g_output, input, normalized_shape, mean, rstd, weight, weight, needs
    )
