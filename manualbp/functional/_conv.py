"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from manualbp import formulas
from manualbp.formulas.conv import Window
from manualbp.formulas.pooling import each_axis
from manualbp.functional._padding import pad

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_tbc",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "fold",
    "unfold",
]

Count = int | Sequence[int]
"""One number for each axis, or one for all of them."""


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Count = 1,
    padding: Count | str = 0,
    dilation: Count = 1,
    groups: int = 1,
) -> Tensor:
    """zₙₚ = Σₖᵢ [s p + d k = i] Wₖ aₙᵢ + b, for a of shape (N, channels, length) or without N."""
    return _conv(1, input, weight, bias, Window(stride, padding, dilation, groups))


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Count = 1,
    padding: Count | str = 0,
    dilation: Count = 1,
    groups: int = 1,
) -> Tensor:
    """zₙₚ = Σₖᵢ [s p + d k = i] Wₖ aₙᵢ + b, for a of shape (N, channels, height, width) or no N."""
    return _conv(2, input, weight, bias, Window(stride, padding, dilation, groups))


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Count = 1,
    padding: Count | str = 0,
    dilation: Count = 1,
    groups: int = 1,
) -> Tensor:
    """zₙₚ = Σₖᵢ [s p + d k = i] Wₖ aₙᵢ + b, for a of shape (N, channels, depth, height, width)."""
    return _conv(3, input, weight, bias, Window(stride, padding, dilation, groups))


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Count = 1,
    padding: Count = 0,
    output_padding: Count = 0,
    groups: int = 1,
    dilation: Count = 1,
) -> Tensor:
    """zₙᵢ = Σₖₚ [s p + d k = i] Wₖᵀ aₙₚ + b, for a of shape (N, channels, length)."""
    return _conv_transpose(
        1, input, weight, bias, output_padding, Window(stride, padding, dilation, groups)
    )


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Count = 1,
    padding: Count = 0,
    output_padding: Count = 0,
    groups: int = 1,
    dilation: Count = 1,
) -> Tensor:
    """zₙᵢ = Σₖₚ [s p + d k = i] Wₖᵀ aₙₚ + b, for a of shape (N, channels, height, width)."""
    return _conv_transpose(
        2, input, weight, bias, output_padding, Window(stride, padding, dilation, groups)
    )


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Count = 1,
    padding: Count = 0,
    output_padding: Count = 0,
    groups: int = 1,
    dilation: Count = 1,
) -> Tensor:
    """zₙᵢ = Σₖₚ [s p + d k = i] Wₖᵀ aₙₚ + b, for a of shape (N, channels, *three axes)."""
    return _conv_transpose(
        3, input, weight, bias, output_padding, Window(stride, padding, dilation, groups)
    )


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """z_t = Σₖ a_{t + k} Wₖ + b, for a of shape (time, N, channels), W (k, channels, outputs)."""
    z = conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
    return z.permute(2, 0, 1).contiguous()  # torch's value is contiguous too


def unfold(
    input: Tensor, kernel_size: Count, dilation: Count = 1, padding: Count = 0, stride: Count = 1
) -> Tensor:
    """zₙₖₚ = Σᵢ [s p + d k = i] aₙᵢ: (N, channels, height, width) → (N, channels · k's, p's)."""
    options = _pairs(kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)
    return formulas.Unfold.apply(input, *options, input.shape[-2:])


def fold(
    input: Tensor,
    output_size: Count,
    kernel_size: Count,
    dilation: Count = 1,
    padding: Count = 0,
    stride: Count = 1,
) -> Tensor:
    """zₙᵢ = Σₖₚ [s p + d k = i] aₙₖₚ: (N, channels · k's, p's) → (N, channels, *i's)."""
    window = _pairs(kernel_size=kernel_size, dilation=dilation, padding=padding, stride=stride)
    return formulas.Fold.apply(input, *_pairs(output_size=output_size), *window)


def _pairs(**options: Count) -> list[tuple[int, ...]]:
    """One number for each of two axes; torch refuses a sequence of one here."""
    for name, value in options.items():
        if not isinstance(value, int) and len(value) != 2:
            raise RuntimeError(f"{name}: expected one number or two; got {tuple(value)}")
    return [each_axis(value, 2) for value in options.values()]


def _conv(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Window,
) -> Tensor:
    if input.dim() == axes + 1:
        return _conv(axes, input.unsqueeze(0), weight, bias, window).squeeze(0)
    padding = window.padding
    stride, dilation = each_axis(window.stride, axes), each_axis(window.dilation, axes)
    if isinstance(padding, str):
        if not input.dim() == weight.dim() == axes + 2:
            raise RuntimeError(
                f"expected an input and a weight of {axes + 2} axes; got {tuple(input.shape)} and "
                f"{tuple(weight.shape)}"
            )
        input, padding = _resolve_padding(padding, input, weight, stride, dilation)
    padding = each_axis(padding, axes)
    return formulas.Conv.apply(
        input, weight, bias, stride, padding, dilation, window.groups, input.shape[2:]
    )


def _resolve_padding(
    padding: str, input: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int]
) -> tuple[Tensor, Count]:
    """For ``"valid"`` and ``"same"``, the input and the padding of both its sides."""
    if padding == "valid":
        return input, 0
    if padding != "same":
        raise RuntimeError(f"padding: expected 'same', 'valid' or numbers; got {padding!r}")
    if any(s != 1 for s in stride):
        raise RuntimeError("padding='same' is not supported for strided convolutions")
    both = [d * (k - 1) for k, d in zip(weight.shape[2:], dilation, strict=True)]
    if any(n % 2 for n in both):  # an odd number of zeros has one more behind, as in torch
        input = pad(input, [z for n in reversed(both) for z in (0, n % 2)])
    return input, [n // 2 for n in both]


def _conv_transpose(
    axes: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    output_padding: Count,
    window: Window,
) -> Tensor:
    if input.dim() == axes + 1:
        alone = input.unsqueeze(0)
        return _conv_transpose(axes, alone, weight, bias, output_padding, window).squeeze(0)
    stride, padding, dilation, groups = window
    stride, padding, output_padding, dilation = (
        each_axis(option, axes) for option in (stride, padding, output_padding, dilation)
    )
    return formulas.ConvTranspose.apply(
        input, weight, bias, stride, padding, output_padding, groups, dilation, input.shape[2:]
    )
