"""Normalisation: x̂ = (x − μ) r,  r = 1 / √(σ² + ε), and then an affine map of x̂.

μ and σ² are the mean and the variance of the n numbers that are normalised together. They depend
on x, so a formula returns them beside its value (r in place of σ²), and what arrives for them in
a second derivative is passed on: ∂μ/∂x = 1/n and ∂r/∂x = −r² x̂/n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from manualbp.core.formula import Formula

__all__ = [
    "BatchNorm",
    "FixedBatchNorm",
    "GroupNorm",
    "LayerNorm",
    "LocalResponseNorm",
    "Normalize",
    "RMSNorm",
]


class _Normalization(Formula):
    """x̂ = (x − μ) r,  μ = mean(x),  r = 1 / √(mean((x − μ)²) + ε)"""

    outputs = ("output", "mean", "rstd")


class _Running(Formula):
    """Running statistics are constants, also to the batch that moves them."""

    grad_running_mean = None
    grad_running_var = None


class BatchNorm(_Normalization, _Running):
    """y = x̂ w + b,  μ and σ² of each channel over all examples and positions

    ∂C/∂x = r (g w − mean(g w) − x̂ mean(g w x̂)) + (∂C/∂μ − x̂ r² ∂C/∂r) / n
    ∂C/∂w = Σ g x̂
    ∂C/∂b = Σ g
    """

    @staticmethod
    def forward(
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        if input.numel() == 0:  # torch's kernel raises, but its batch_norm accepts this
            nothing = input.new_zeros(input.shape[1])
            return torch.empty_like(input), nothing, nothing.clone()
        running = [running_mean, running_var]
        # For instance_norm the channels of all examples are channels here, each with statistics.
        each = [t if t is None else _repeated(t, input.shape[1]) for t in running]
        check_channels(input, weight=weight, bias=bias, running_mean=each[0], running_var=each[1])
        output, mean, rstd = torch.native_batch_norm(
            input, weight, bias, each[0], each[1], True, momentum, eps
        )
        for shared, own in zip(running, each, strict=True):
            if shared is not None and own is not None and own is not shared:
                shared.copy_(own.reshape(-1, len(shared)).mean(0))
        return output, mean, rstd

    @staticmethod
    def normalized(g_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        """x̂"""
        return (input - per_channel(mean, input)) * per_channel(rstd, input)

    @staticmethod
    def grad_input(
        g_output: Tensor,
        g_mean: Tensor,
        g_rstd: Tensor,
        normalized: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
    ) -> Tensor:
        gw = g_output if weight is None else g_output * per_channel(weight, normalized)
        r, g_mean, g_rstd = (per_channel(t, normalized) for t in (rstd, g_mean, g_rstd))
        return _grad_of_input(gw, g_mean, g_rstd, normalized, r)

    @staticmethod
    def grad_weight(g_output: Tensor, normalized: Tensor) -> Tensor:
        return sum_per_channel(g_output * normalized)

    @staticmethod
    def grad_bias(g_output: Tensor) -> Tensor:
        return sum_per_channel(g_output)


def check_channels(input: Tensor, **given: Tensor | None) -> None:
    """Raise unless each tensor has one number a channel: torch's kernels read on behind its end."""
    for name, tensor in given.items():
        if tensor is not None and tensor.numel() != input.shape[1]:
            raise RuntimeError(
                f"{name} should contain {input.shape[1]} elements not {tensor.numel()}"
            )


class FixedBatchNorm(_Running):
    """y = (x − μ) r w + b,  r = 1 / √(v + ε),  μ and v of each channel being given

    ∂C/∂x = g r w
    ∂C/∂w = Σ g (x − μ) r
    ∂C/∂b = Σ g
    """

    @staticmethod
    def forward(
        input: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
        eps: float,
    ) -> Tensor:
        return F.batch_norm(input, running_mean, running_var, weight, bias, eps=eps)

    @staticmethod
    def rstd(g: Tensor, running_var: Tensor, eps: float) -> Tensor:
        return (running_var + eps).rsqrt()

    @staticmethod
    def grad_input(g: Tensor, rstd: Tensor, weight: Tensor | None) -> Tensor:
        return g * per_channel(rstd if weight is None else rstd * weight, g)

    @staticmethod
    def grad_weight(g: Tensor, input: Tensor, running_mean: Tensor, rstd: Tensor) -> Tensor:
        # Not Σ g x − μ Σ g, whose terms nearly cancel if μ is large.
        return sum_per_channel(g * (input - per_channel(running_mean, g))) * rstd

    @staticmethod
    def grad_bias(g: Tensor) -> Tensor:
        return sum_per_channel(g)

    @staticmethod
    def normalized(g: Tensor, input: Tensor, running_mean: Tensor, rstd: Tensor) -> Tensor:
        return (input - per_channel(running_mean, input)) * per_channel(rstd, input)

    @staticmethod
    def example_weight(g: Tensor, normalized: Tensor) -> Tensor:
        return _sum_per_channel_of_each(g * normalized)

    @staticmethod
    def example_bias(g: Tensor) -> Tensor:
        return _sum_per_channel_of_each(g)


class GroupNorm(_Normalization):
    """y = x̂ w + b,  μ and σ² of each group of channels of each example

    ∂C/∂x = r (g w − mean(g w) − x̂ mean(g w x̂)) + (∂C/∂μ − x̂ r² ∂C/∂r) / n
    ∂C/∂w = Σ g x̂
    ∂C/∂b = Σ g
    """

    @staticmethod
    def forward(
        input: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, channels, *positions = input.shape
        return torch.native_group_norm(
            dense(input), weight, bias, count, channels, math.prod(positions), num_groups, eps
        )

    @staticmethod
    def normalized(g_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        """x̂"""
        centred = _grouped(input, mean) - mean.unsqueeze(-1)
        return (centred * rstd.unsqueeze(-1)).reshape(input.shape)

    @staticmethod
    def grad_input(
        g_output: Tensor,
        g_mean: Tensor,
        g_rstd: Tensor,
        normalized: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
    ) -> Tensor:
        gw = g_output if weight is None else g_output * per_channel(weight, normalized)
        gw, x = _grouped(gw, rstd), _grouped(normalized, rstd)
        g_mean, g_rstd, r = (t.unsqueeze(-1) for t in (g_mean, g_rstd, rstd))
        return _grad_of_input(gw, g_mean, g_rstd, x, r).reshape(normalized.shape)

    @staticmethod
    def grad_weight(g_output: Tensor, normalized: Tensor) -> Tensor:
        return sum_per_channel(g_output * normalized)

    @staticmethod
    def grad_bias(g_output: Tensor) -> Tensor:
        return sum_per_channel(g_output)

    @staticmethod
    def example_weight(g_output: Tensor, normalized: Tensor) -> Tensor:
        return _sum_per_channel_of_each(g_output * normalized)

    @staticmethod
    def example_bias(g_output: Tensor) -> Tensor:
        return _sum_per_channel_of_each(g_output)


class LayerNorm(_Normalization):
    """y = x̂ ⊙ w + b,  μ and σ² of each example over the last axes

    ∂C/∂x = r (g w − mean(g w) − x̂ mean(g w x̂)) + (∂C/∂μ − x̂ r² ∂C/∂r) / n
    ∂C/∂w = Σ g x̂
    ∂C/∂b = Σ g
    """

    each_row = True

    @staticmethod
    def forward(
        input: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_layer_norm(input, normalized_shape, weight, bias, eps)

    @staticmethod
    def normalized(g_output: Tensor, input: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        """x̂"""
        return (input - mean) * rstd

    @staticmethod
    def grad_input(
        g_output: Tensor,
        g_mean: Tensor,
        g_rstd: Tensor,
        normalized: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
    ) -> Tensor:
        gw = g_output if weight is None else g_output * weight
        return _grad_of_input(gw, g_mean, g_rstd, normalized, rstd)

    @staticmethod
    def grad_weight(
        g_output: Tensor, normalized: Tensor, normalized_shape: Sequence[int]
    ) -> Tensor:
        return (g_output * normalized).sum_to_size(normalized_shape)

    @staticmethod
    def grad_bias(g_output: Tensor, normalized_shape: Sequence[int]) -> Tensor:
        # Also of a single example it is a new tensor, as in torch.
        return g_output.unsqueeze(0).sum_to_size(normalized_shape)

    @staticmethod
    def example_weight(
        g_output: Tensor, normalized: Tensor, normalized_shape: Sequence[int]
    ) -> Tensor:
        return _sum_of_each(g_output * normalized, normalized_shape)

    @staticmethod
    def example_bias(g_output: Tensor, normalized_shape: Sequence[int]) -> Tensor:
        return _sum_of_each(g_output, normalized_shape)


class RMSNorm(Formula):
    """y = x̂ ⊙ w,  x̂ = x r,  r = 1 / √(mean(x²) + ε),  of each example over the last axes

    ∂C/∂x = r (g w − x̂ mean(g w x̂))
    ∂C/∂w = Σ g x̂
    """

    each_row = True

    @staticmethod
    def forward(
        input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, eps: float | None
    ) -> Tensor:
        return torch.rms_norm(input, normalized_shape, weight, eps)

    @staticmethod
    def rstd(
        g: Tensor, input: Tensor, normalized_shape: Sequence[int], eps: float | None
    ) -> Tensor:
        axes = tuple(range(-len(normalized_shape), 0))
        square = (input * input).mean(axes, keepdim=True)
        return (square + (torch.finfo(input.dtype).eps if eps is None else eps)).rsqrt()

    @staticmethod
    def normalized(g: Tensor, input: Tensor, rstd: Tensor) -> Tensor:
        """x̂"""
        return input * rstd

    @staticmethod
    def grad_input(g: Tensor, normalized: Tensor, rstd: Tensor, weight: Tensor | None) -> Tensor:
        gw = g if weight is None else g * weight
        return rstd * (gw - normalized * _mean(gw * normalized, rstd))

    @staticmethod
    def grad_weight(g: Tensor, normalized: Tensor, normalized_shape: Sequence[int]) -> Tensor:
        return (g * normalized).sum_to_size(normalized_shape)

    @staticmethod
    def example_weight(g: Tensor, normalized: Tensor, normalized_shape: Sequence[int]) -> Tensor:
        return _sum_of_each(g * normalized, normalized_shape)


class LocalResponseNorm(Formula):
    """y = x d⁻ᵝ,  d = k + α A(x²),  A the mean over neighbouring channels

    ∂C/∂x ≙ g d⁻ᵝ − 2αβ x Aᵀ(g x d⁻ᵝ⁻¹)
    """

    @staticmethod
    def forward(input: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        return F.local_response_norm(input, size, alpha, beta, k)

    @staticmethod
    def grad_input(
        g: Tensor, input: Tensor, size: int, alpha: float, beta: float, k: float
    ) -> Tensor:
        before, after = size // 2, (size - 1) // 2
        d = k + alpha * _mean_of_neighbours(input * input, before, after)
        share = g * d.pow(-beta)
        through = _mean_of_neighbours(share * input / d, after, before)
        return share - 2 * alpha * beta * input * through


class Normalize(Formula):
    """y = x / d,  d = max(‖x‖, ε),  ‖x‖ along some axes

    ∂C/∂x = (g − u′ Σⱼ gⱼ uⱼ [‖x‖ ≥ ε]) / d + u′ ∂C/∂‖x‖,  u = x / ‖x‖,  u′ = |u|ᵖ⁻¹ sign u
    """

    outputs = ("output", "norm")

    @staticmethod
    def forward(
        input: Tensor, p: float, dim: int | Sequence[int], eps: float
    ) -> tuple[Tensor, Tensor]:
        norm = input.norm(p, dim, keepdim=True)
        return input / norm.clamp_min(eps), norm

    @staticmethod
    def grad_input(
        g_output: Tensor, g_norm: Tensor, input: Tensor, norm: Tensor, p: float, eps: float
    ) -> Tensor:
        d = norm.clamp_min(eps)
        # Not the output, because the caller may write into it, as into torch's.
        unit = input / norm.masked_fill(norm == 0, 1)
        of_output = (g_output * unit).sum_to_size(norm.shape) / d
        through = g_norm - torch.where(norm >= eps, of_output, 0)
        return g_output / d + _slope_of_norm(unit, norm, p) * through


def _grad_of_input(gw: Tensor, g_mean: Tensor, g_rstd: Tensor, x: Tensor, r: Tensor) -> Tensor:
    """∂C/∂x, where g w is the gradient of x̂ = ``x``, and the others are those of μ and r."""
    straight = r * (gw - _mean(gw, r) - x * _mean(gw * x, r))
    return straight + (g_mean - x * r * r * g_rstd) / _count(x, r)


def _mean(t: Tensor, like: Tensor) -> Tensor:
    """The mean over the numbers that are normalised together; ``like`` has one of each."""
    return t.sum_to_size(like.shape) / _count(t, like)


def _count(t: Tensor, like: Tensor) -> int:
    """How many numbers are normalised together."""
    return max(t.numel() // max(like.numel(), 1), 1)


def per_channel(t: Tensor, input: Tensor) -> Tensor:
    """One number a channel, to broadcast against ``input``."""
    return t.reshape(1, -1, *[1] * (input.dim() - 2))


def _repeated(running: Tensor, channels: int) -> Tensor:
    return running if len(running) == channels else running.repeat(channels // len(running))


def sum_per_channel(t: Tensor) -> Tensor:
    """Σ over the examples and positions, for each channel."""
    return t.sum((0, *range(2, t.dim())))


def _sum_per_channel_of_each(t: Tensor) -> Tensor:
    """Σ over the rows and positions of each example: (n, rows, channels, *) → (n, channels)."""
    return t.sum((1, *range(3, t.dim())))


def _sum_of_each(t: Tensor, shape: Sequence[int]) -> Tensor:
    """(n, *, *shape) → (n, *shape)."""
    return t.flatten(1, t.dim() - len(shape) - 1).sum(1) if t.dim() > len(shape) + 1 else t


def _grouped(t: Tensor, like: Tensor) -> Tensor:
    """The numbers of each group of each example in one row; ``like`` has one number a group."""
    groups = like.shape[1]
    return t.reshape(*like.shape, math.prod(t.shape[1:]) // max(groups, 1))


def dense(input: Tensor) -> Tensor:
    """``input`` in contiguous memory: channels last if torch's group_norm would choose that."""
    if input.is_contiguous():
        return input
    if input.device.type == "cpu" and input.dim() in (4, 5) and input.stride(1) == 1:
        return input.movedim(1, -1).contiguous().movedim(-1, 1)
    return input.contiguous()


def _mean_of_neighbours(t: Tensor, before: int, after: int) -> Tensor:
    """The mean over ``before`` + 1 + ``after`` neighbouring channels; a missing one counts as 0."""
    padded = F.pad(t.reshape(t.shape[0], 1, t.shape[1], -1), (0, 0, before, after))
    size = before + after + 1
    return F.avg_pool2d(padded, (size, 1), stride=1).reshape(t.shape)


def _slope_of_norm(y: Tensor, norm: Tensor, p: float) -> Tensor:
    """∂‖x‖/∂x in terms of y = x / ‖x‖."""
    if p == 2:
        return y
    if p == 1:
        return y.sign()
    if p == 0:  # the number of entries that are not 0
        return torch.zeros_like(y)
    size = y.abs()
    if math.isinf(p):  # equals share the gradient
        largest = (size == 1).to(y.dtype)
        return y.sign() * largest / largest.sum_to_size(norm.shape).clamp(min=1)
    return y.sign() * size.pow(p - 1).masked_fill(y == 0, 0)
