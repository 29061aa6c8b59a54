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

from manualbp.core.formula import Formula
from manualbp.core.modes import autocasts, transformed

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
    """What the formulas share that subtract a mean."""

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
        shape = _channels(input)
        if input.numel() == 0:  # torch's kernel refuses what its batch_norm allows
            nothing = input.new_zeros(shape)
            return torch.empty_like(input), nothing, nothing.clone()
        running = [running_mean, running_var]
        # The channels of several examples side by side (instance_norm): each moves its own.
        each = [t if t is None or len(t) == shape[1] else _repeated(t, shape[1]) for t in running]
        output, mean, rstd = torch.native_batch_norm(
            input, weight, bias, each[0], each[1], True, momentum, eps
        )
        for shared, own in zip(running, each, strict=True):
            if shared is not None and own is not None and own is not shared:
                shared.copy_(own.view(-1, len(shared)).mean(0))
        return output, mean.view(shape), rstd.view(shape)

    @staticmethod
    def sum_g(g_output: Tensor) -> Tensor:
        return g_output.sum_to_size(_channels(g_output))

    @staticmethod
    def centred(g_output: Tensor, input: Tensor, mean: Tensor) -> Tensor:
        return input - mean

    @staticmethod
    def sum_gx(g_output: Tensor, centred: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
        return (g_output * centred).sum_to_size(mean.shape) * rstd

    @staticmethod
    def grad_input(
        g_output: Tensor,
        g_mean: Tensor,
        g_rstd: Tensor,
        sum_g: Tensor,
        sum_gx: Tensor,
        centred: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
    ) -> Tensor:
        n, scale = _count(centred, rstd), rstd
        if weight is not None:
            w = weight.view(rstd.shape)
            scale, sum_g, sum_gx = rstd * w, sum_g * w, sum_gx * w
        slope, shift = _coefficients(sum_g, sum_gx, rstd, g_mean, g_rstd, n)
        return _affine(g_output, scale, centred, slope * rstd, shift * rstd)

    @staticmethod
    def grad_weight(g_output: Tensor, sum_gx: Tensor) -> Tensor:
        return sum_gx.view(-1)

    @staticmethod
    def grad_bias(g_output: Tensor, sum_g: Tensor) -> Tensor:
        return sum_g.view(-1)


class FixedBatchNorm(_Running):
    """y = (x − μ) r w + b,  μ and r = 1 / √(σ² + ε) of each channel being given

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
        output = torch.nn.functional.batch_norm(
            input, running_mean, running_var, weight, bias, eps=eps
        )
        if transformed():  # torch's rule for vmap returns a view, into which nobody may write
            output = torch.ops.aten._unsafe_view(output, output.shape)
        return output

    @staticmethod
    def rstd(g: Tensor, running_var: Tensor, eps: float) -> Tensor:
        return (running_var + eps).rsqrt()

    @staticmethod
    def grad_input(g: Tensor, rstd: Tensor, weight: Tensor | None) -> Tensor:
        return g * (rstd if weight is None else rstd * weight).view(_channels(g))

    @staticmethod
    def grad_weight(g: Tensor, input: Tensor, running_mean: Tensor, rstd: Tensor) -> Tensor:
        # Not Σ g x − μ Σ g, of which far from 0 little is left.
        centred = input - running_mean.view(_channels(g))
        return (g * centred).sum_to_size(_channels(g)).view(-1) * rstd

    @staticmethod
    def grad_bias(g: Tensor) -> Tensor:
        return g.sum_to_size(_channels(g)).view(-1)


class GroupNorm(_Normalization):
    """y = x̂ w + b,  μ and σ² of each group of channels of each example

    ∂C/∂x = r (g w − mean(g w) − x̂ mean(g w x̂)) + (∂C/∂μ − x̂ r² ∂C/∂r) / n
    ∂C/∂w = Σ g x̂
    ∂C/∂b = Σ g
    """

    # Sums over positions are few numbers, one for each channel of each example: all others, over
    # a group or over the examples, are taken of them.

    @staticmethod
    def forward(
        input: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, channels, *positions = input.shape
        return torch.native_group_norm(
            _dense(input), weight, bias, count, channels, math.prod(positions), num_groups, eps
        )

    @staticmethod
    def sum_g(g_output: Tensor) -> Tensor:
        return _over_positions(g_output)

    @staticmethod
    def sum_gx(
        g_output: Tensor, sum_g: Tensor, input: Tensor, mean: Tensor, rstd: Tensor
    ) -> Tensor:
        total = _over_positions(g_output * input)
        return (total - _each_channel(mean, input) * sum_g) * _each_channel(rstd, input)

    @staticmethod
    def grad_input(
        g_output: Tensor,
        g_mean: Tensor,
        g_rstd: Tensor,
        sum_g: Tensor,
        sum_gx: Tensor,
        input: Tensor,
        mean: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
    ) -> Tensor:
        n, scale = _count(input, rstd), _each_channel(rstd, input)
        if weight is not None:
            w = weight.view(_channels(input))
            scale, sum_g, sum_gx = scale * w, sum_g * w, sum_gx * w
        sum_g, sum_gx = _over_group(sum_g, rstd), _over_group(sum_gx, rstd)
        slope, shift = _coefficients(sum_g, sum_gx, rstd, g_mean, g_rstd, n)
        shift = shift - slope * mean
        slope, shift = _each_channel(slope * rstd, input), _each_channel(shift * rstd, input)
        return _affine(g_output, scale, input, slope, shift)

    @staticmethod
    def grad_weight(g_output: Tensor, sum_gx: Tensor) -> Tensor:
        return sum_gx.sum(0).view(-1)

    @staticmethod
    def grad_bias(g_output: Tensor, sum_g: Tensor) -> Tensor:
        return sum_g.sum(0).view(-1)


class LayerNorm(_Normalization):
    """y = x̂ ⊙ w + b,  μ and σ² of each example over the last axes

    ∂C/∂x = r (g w − mean(g w) − x̂ mean(g w x̂)) + (∂C/∂μ − x̂ r² ∂C/∂r) / n
    ∂C/∂w = Σ g x̂
    ∂C/∂b = Σ g
    """

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
    def centred(g_output: Tensor, input: Tensor, mean: Tensor) -> Tensor:
        return input - mean

    @staticmethod
    def product(g_output: Tensor, centred: Tensor) -> Tensor:
        return g_output * centred

    @staticmethod
    def grad_input(
        g_output: Tensor,
        g_mean: Tensor,
        g_rstd: Tensor,
        product: Tensor,
        centred: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
    ) -> Tensor:
        gw, sum_gx = g_output, product
        if weight is not None:
            gw, sum_gx = g_output * weight, _rows_times(product, weight, rstd)
        sum_g = gw.sum_to_size(rstd.shape)
        sum_gx = sum_gx.sum_to_size(rstd.shape) * rstd
        n = _count(centred, rstd)
        slope, shift = _coefficients(sum_g, sum_gx, rstd, g_mean, g_rstd, n)
        return torch.addcmul(gw, centred, slope).add_(shift).mul_(rstd)

    @staticmethod
    def grad_weight(
        g_output: Tensor, product: Tensor, rstd: Tensor, normalized_shape: Sequence[int]
    ) -> Tensor:
        return _times_rows(rstd, product, normalized_shape)

    @staticmethod
    def grad_bias(g_output: Tensor, normalized_shape: Sequence[int]) -> Tensor:
        # Of a single example too it is a tensor of its own, as torch's.
        return g_output.unsqueeze(0).sum_to_size(normalized_shape)


class RMSNorm(Formula):
    """y = x̂ ⊙ w,  x̂ = x r,  r = 1 / √(mean(x²) + ε) of each example over the last axes

    ∂C/∂x = r (g w − x̂ mean(g w x̂))
    ∂C/∂w = Σ g x̂
    """

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
        return (square + (torch.finfo(input.dtype).eps if eps is None else eps)).rsqrt_()

    @staticmethod
    def normalized(g: Tensor, input: Tensor, rstd: Tensor) -> Tensor:
        return input * rstd

    @staticmethod
    def product(g: Tensor, normalized: Tensor) -> Tensor:
        return g * normalized

    @staticmethod
    def grad_input(
        g: Tensor, product: Tensor, normalized: Tensor, rstd: Tensor, weight: Tensor | None
    ) -> Tensor:
        gw, gwx = (g, product) if weight is None else (g * weight, product * weight)
        slope = gwx.sum_to_size(rstd.shape) * (-rstd / _count(normalized, rstd))
        return torch.addcmul(normalized * slope, gw, rstd)

    @staticmethod
    def grad_weight(g: Tensor, product: Tensor, normalized_shape: Sequence[int]) -> Tensor:
        return product.sum_to_size(normalized_shape)


class LocalResponseNorm(Formula):
    """y = x d⁻ᵝ,  d = k + α A(x²),  A the mean over neighbouring channels

    ∂C/∂x = g d⁻ᵝ − 2αβ x Aᵀ(g x d⁻ᵝ⁻¹)
    """

    @staticmethod
    def forward(input: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        return torch.nn.functional.local_response_norm(input, size, alpha, beta, k)

    @staticmethod
    def grad_input(
        g: Tensor, input: Tensor, size: int, alpha: float, beta: float, k: float
    ) -> Tensor:
        before, after = size // 2, (size - 1) // 2
        d = k + alpha * _mean_of_neighbours(input * input, before, after)
        share = g * d.pow(-beta)
        through = _mean_of_neighbours(share * input / d, after, before)
        return torch.addcmul(share, input, through, value=-2 * alpha * beta)


class Normalize(Formula):
    """y = x / d,  d = max(‖x‖, ε),  ‖x‖ = (Σ |x|ᵖ)^¹ᐟᵖ along some axes

    ∂C/∂x = (g − y′ Σ g y) / d + y′ ∂C/∂‖x‖,  y′ = |y|ᵖ⁻¹ sign y where ‖x‖ ≥ ε, else 0
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
        y = input / d  # not the output, which the caller may write over as he may torch's
        through = g_norm - (g_output * y).sum_to_size(norm.shape) / d
        through = torch.where(norm >= eps, through, 0)
        return torch.addcmul(g_output / d, _slope_of_norm(y, norm, p), through)


def _coefficients(
    sum_g: Tensor,
    sum_gx: Tensor,
    rstd: Tensor,
    g_mean: Tensor,
    g_rstd: Tensor,
    n: int,
) -> tuple[Tensor, Tensor]:
    """The two with which ∂C/∂x = r (g w + slope · (x − μ) + shift), one for each mean.

    So many numbers are gone through only to sum g and g x, and once more for this expression.
    """
    slope = torch.addcmul(sum_gx, rstd, g_rstd) * (-rstd / n)
    return slope, (g_mean / rstd - sum_g) / n


def _affine(g: Tensor, scale: Tensor, x: Tensor, slope: Tensor, shift: Tensor) -> Tensor:
    """scale · g + slope · x + shift, few numbers times many."""
    return torch.addcmul((x * slope).add_(shift), g, scale)


def _rows_times(rows: Tensor, weight: Tensor, one_each: Tensor) -> Tensor:
    """Σⱼ rows · w over the last axes."""
    if not _multiplied_as_they_are(rows, weight):
        return (rows * weight).sum_to_size(one_each.shape)
    count, n = one_each.numel(), weight.numel()
    return torch.mv(rows.reshape(count, n), weight.reshape(n)).view(one_each.shape)


def _times_rows(one_each: Tensor, rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Σᵢ rᵢ · rows over all axes but the last, which have ``shape``."""
    if not _multiplied_as_they_are(rows, one_each):
        return (rows * one_each).sum_to_size(shape)
    count, n = one_each.numel(), math.prod(shape)
    return torch.mv(rows.reshape(count, n).mT, one_each.reshape(count)).view(shape)


def _multiplied_as_they_are(a: Tensor, b: Tensor) -> bool:
    """Whether a matrix product of the two keeps their precision: not so under autocast."""
    return a.dtype == b.dtype and not autocasts(a)


def _count(input: Tensor, rstd: Tensor) -> int:
    """How many numbers are normalised together."""
    return max(input.numel() // max(rstd.numel(), 1), 1)


def _channels(input: Tensor) -> list[int]:
    """The shape of one number a channel that broadcasts against ``input``."""
    return [1, input.shape[1], *[1] * (input.dim() - 2)]


def _repeated(running: Tensor, channels: int) -> Tensor:
    return running.repeat(channels // len(running))


def _each_channel(grouped: Tensor, input: Tensor) -> Tensor:
    """A number for each group of each example, at each of its channels."""
    count, channels = input.shape[:2]
    per_group = channels // max(grouped.shape[1], 1)
    return (
        grouped.unsqueeze(-1)
        .expand(-1, -1, per_group)
        .reshape(count, channels, *[1] * (input.dim() - 2))
    )


def _over_positions(t: Tensor) -> Tensor:
    return t.sum_to_size((*t.shape[:2], *[1] * (t.dim() - 2)))


def _over_group(t: Tensor, grouped: Tensor) -> Tensor:
    """The sum over the channels of each group of each example."""
    count, groups = grouped.shape
    return t.reshape(count, groups, t.shape[1] // groups).sum(2)


def _dense(input: Tensor) -> Tensor:
    """Without gaps, in the order of memory that torch's group_norm would choose."""
    if input.is_contiguous():
        return input
    if input.device.type == "cpu" and input.dim() in (4, 5) and input.stride(1) == 1:
        return input.movedim(1, -1).contiguous().movedim(-1, 1)
    return input.contiguous()


def _mean_of_neighbours(t: Tensor, before: int, after: int) -> Tensor:
    """The mean over each channel, so many before it and so many after it; 0 where there is none."""
    padded = torch.nn.functional.pad(
        t.reshape(t.shape[0], 1, t.shape[1], -1), (0, 0, before, after)
    )
    size = before + after + 1
    return torch.nn.functional.avg_pool2d(padded, (size, 1), stride=1).reshape(t.shape)


def _slope_of_norm(y: Tensor, norm: Tensor, p: float) -> Tensor:
    """∂‖x‖/∂x in terms of y = x / ‖x‖."""
    if p == 2:
        return y
    if p == 1:
        return y.sign()
    if p == 0:  # the number of entries that are not 0
        return torch.zeros_like(y)
    size = y.abs()
    if math.isinf(p):  # shared by those that are as large as the largest
        largest = (size == 1).to(y.dtype)
        return y.sign() * largest / largest.sum_to_size(norm.shape)
    return y.sign() * size.pow(p - 1).masked_fill(y == 0, 0)
