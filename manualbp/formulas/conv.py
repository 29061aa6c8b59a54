"""Convolutions: all positions of the image share the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor
from torch.nn import functional as F

from manualbp.core.formula import Formula
from manualbp.formulas.linear import squares_of_products

__all__ = ["Conv", "ConvTranspose", "Fold", "Unfold"]

# k is a position in the kernel, p a position of the window, i one in the padded image, in one, two
# or three axes. With stride s and dilation d, Wₖ is multiplied by the pixel s p + d k.


class Window(NamedTuple):
    """Stride, padding, dilation and groups.

    In a formula the first three have one number for each axis; a caller may give one number, or
    the name of a padding.
    """

    stride: Any
    padding: Any
    dilation: Any
    groups: int


class Conv(Formula):
    """zₙₚ = Σₖᵢ [s p + d k = i] Wₖ aₙᵢ + b

    ∂C/∂aₙᵢ = Σₖₚ [s p + d k = i] Wₖᵀ δₙₚ
    ∂C/∂Wₖ = Σₙₚᵢ [s p + d k = i] δₙₚ aₙᵢᵀ
    ∂C/∂b = Σₙₚ δₙₚ
    """

    holomorphic = True
    opmath = False

    @staticmethod
    def forward(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
        size: Size,
    ) -> Tensor:
        return _conv(input, weight, bias, Window(stride, padding, dilation, groups))

    @staticmethod
    def grad_input(
        delta: Tensor,
        weight: Tensor,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
        size: Size,
    ) -> Tensor:
        # torch's transposed convolution refuses some empty tensors that its convolution accepts.
        if not (delta.numel() and weight.numel()):
            return delta.new_zeros((delta.shape[0], weight.shape[1] * groups, *size))
        # ``size`` is an argument, so that the input is not saved. ``rest`` counts the pixels behind
        # the last window, by which the output is padded.
        rest = [
            n + 2 * p - d * (k - 1) - 1 - s * (m - 1)
            for n, p, d, k, s, m in zip(
                size, padding, dilation, weight.shape[2:], stride, delta.shape[2:], strict=True
            )
        ]
        window = Window(stride, padding, dilation, groups)
        return _conv_transpose(delta, weight, None, rest, window)

    @staticmethod
    def grad_weight(
        delta: Tensor,
        input: Tensor,
        weight: Tensor,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> Tensor:
        if not (delta.numel() and input.numel()):
            return torch.zeros_like(weight)
        window = Window(stride, padding, dilation, groups)
        return _correlate(delta, input, weight.shape[2:], window)

    @staticmethod
    def grad_bias(delta: Tensor) -> Tensor:
        return _sum_over_positions(delta)

    @staticmethod
    def example_weight(
        delta: Tensor,
        input: Tensor,
        weight: Tensor,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> Tensor:
        window = Window(stride, padding, dilation, groups)
        return _correlate_each(delta, input, weight.shape, window)

    @staticmethod
    def square_weight(
        delta: Tensor,
        input: Tensor,
        weight: Tensor,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> Tensor:
        window = Window(stride, padding, dilation, groups)
        return _squares_of_correlations(delta, input, weight.shape, window)

    @staticmethod
    def example_bias(delta: Tensor) -> Tensor:
        return delta.sum((1, *range(3, delta.dim())))


class ConvTranspose(Formula):
    """zₙᵢ = Σₖₚ [s p + d k = i] Wₖᵀ aₙₚ + b

    ∂C/∂aₙₚ = Σₖᵢ [s p + d k = i] Wₖ δₙᵢ
    ∂C/∂Wₖ = Σₙₚᵢ [s p + d k = i] aₙₚ δₙᵢᵀ
    ∂C/∂b = Σₙᵢ δₙᵢ
    """

    holomorphic = True
    opmath = False

    # Its value is the gradient of Conv. So its own gradient is Conv, with a and δ exchanged.

    @staticmethod
    def forward(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        output_padding: tuple[int, ...],
        groups: int,
        dilation: tuple[int, ...],
        size: Size,
    ) -> Tensor:
        window = Window(stride, padding, dilation, groups)
        return _conv_transpose(input, weight, bias, output_padding, window)

    @staticmethod
    def grad_input(
        delta: Tensor,
        weight: Tensor,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        groups: int,
        dilation: tuple[int, ...],
        size: Size,
    ) -> Tensor:
        if not (delta.numel() and weight.numel()):
            return delta.new_zeros((delta.shape[0], weight.shape[0], *size))
        return _first_windows(delta, weight, size, Window(stride, padding, dilation, groups))

    @staticmethod
    def grad_weight(
        delta: Tensor,
        input: Tensor,
        weight: Tensor,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        groups: int,
        dilation: tuple[int, ...],
    ) -> Tensor:
        if not (delta.numel() and input.numel()):
            return torch.zeros_like(weight)
        window = Window(stride, padding, dilation, groups)
        return _correlate(input, delta, weight.shape[2:], window)

    @staticmethod
    def grad_bias(delta: Tensor) -> Tensor:
        return _sum_over_positions(delta)

    @staticmethod
    def example_weight(
        delta: Tensor,
        input: Tensor,
        weight: Tensor,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> Tensor:
        window = Window(stride, padding, dilation, groups)
        return _correlate_each(input, delta, weight.shape, window)

    @staticmethod
    def square_weight(
        delta: Tensor,
        input: Tensor,
        weight: Tensor,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> Tensor:
        window = Window(stride, padding, dilation, groups)
        return _squares_of_correlations(input, delta, weight.shape, window)

    @staticmethod
    def example_bias(delta: Tensor) -> Tensor:
        return delta.sum((1, *range(3, delta.dim())))


class Unfold(Formula):
    """zₙₖₚ = Σᵢ [s p + d k = i] aₙᵢ

    ∂C/∂aₙᵢ = Σₖₚ [s p + d k = i] gₙₖₚ
    """

    holomorphic = True
    opmath = False

    @staticmethod
    def forward(
        input: Tensor,
        kernel_size: tuple[int, ...],
        dilation: tuple[int, ...],
        padding: tuple[int, ...],
        stride: tuple[int, ...],
        size: Size,
    ) -> Tensor:
        return F.unfold(input, kernel_size, dilation, padding, stride)

    @staticmethod
    def grad_input(
        g: Tensor,
        kernel_size: tuple[int, ...],
        dilation: tuple[int, ...],
        padding: tuple[int, ...],
        stride: tuple[int, ...],
        size: Size,
    ) -> Tensor:
        return F.fold(g, size, kernel_size, dilation, padding, stride)


class Fold(Formula):
    """zₙᵢ = Σₖₚ [s p + d k = i] aₙₖₚ

    ∂C/∂aₙₖₚ = Σᵢ [s p + d k = i] gₙᵢ
    """

    holomorphic = True
    opmath = False

    @staticmethod
    def forward(
        input: Tensor,
        output_size: tuple[int, ...],
        kernel_size: tuple[int, ...],
        dilation: tuple[int, ...],
        padding: tuple[int, ...],
        stride: tuple[int, ...],
    ) -> Tensor:
        return F.fold(input, output_size, kernel_size, dilation, padding, stride)

    @staticmethod
    def grad_input(
        g: Tensor,
        kernel_size: tuple[int, ...],
        dilation: tuple[int, ...],
        padding: tuple[int, ...],
        stride: tuple[int, ...],
    ) -> Tensor:
        return F.unfold(g, kernel_size, dilation, padding, stride)


# ------------------------------------------------------------------- in any number of axes

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

#: entries of windows that are copied at once, 16 MB in single precision
COLUMNS = 1 << 22


def _conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    window: Window,
) -> Tensor:
    return _CONV[len(window.stride)](input, weight, bias, *window)


def _conv_transpose(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    output_padding: Sequence[int],
    window: Window,
) -> Tensor:
    stride, padding, dilation, groups = window
    conv = _CONV_TRANSPOSE[len(stride)]
    return conv(input, weight, bias, stride, padding, output_padding, groups, dilation)


def _first_windows(input: Tensor, weight: Tensor, size: Sequence[int], window: Window) -> Tensor:
    """The first ``size`` pixels of a convolution, where the image may have room for more.

    What those do not see is cut off before: it would be multiplied by a gradient of 0, and may be
    infinite.
    """
    stride, padding, dilation, _ = window
    last = [
        s * (m - 1) + d * (k - 1) + 1
        for m, k, s, d in zip(size, weight.shape[2:], stride, dilation, strict=True)
    ]
    room = zip(input.shape[2:], padding, last, stride, strict=True)
    if any(n + 2 * p - seen >= s for n, p, seen, s in room):
        margins = [p for p in reversed(padding) for _ in range(2)]
        input = _first(F.pad(input, margins), last)
        window = window._replace(padding=(0,) * len(padding))
    return _conv(input, weight, None, window)


def _sum_over_positions(delta: Tensor) -> Tensor:
    """Σ over the examples and the pixels."""
    return delta.sum((0, *range(2, delta.dim())))


def _first(t: Tensor, size: Sequence[int]) -> Tensor:
    """The first pixels of each axis."""
    for axis, n in enumerate(size, start=2):
        if t.shape[axis] != n:
            t = t.narrow(axis, 0, n)
    return t


def _correlate(
    windows: Tensor,
    image: Tensor,
    kernel: Sequence[int],
    window: Window,
) -> Tensor:
    """Σₙₚ wₙₚ xₙᵢᵀ for each k, i being s p + d k, with w the ``windows`` and x the ``image``."""
    # A convolution with w as its kernel would give it too, but is slow for a kernel as large as an
    # image, except with one channel in a group.
    if image.shape[1] == window.groups:
        return _by_convolution(windows, image, kernel, window)
    return by_products(windows, image, kernel, window, _windows, torch.matmul)


def _by_convolution(
    windows: Tensor,
    image: Tensor,
    kernel: Sequence[int],
    window: Window,
) -> Tensor:
    """Depthwise: every channel of every example is a group of its own, with w as its kernel."""
    n, channels = image.shape[:2]
    images = image.reshape(1, n * channels, *image.shape[2:])
    kernels = windows.reshape(n * windows.shape[1], 1, *windows.shape[2:])
    # With w as the kernel, stride and dilation are exchanged.
    swapped = Window(window.dilation, window.padding, window.stride, n * channels)
    found = _first_windows(images, kernels, kernel, swapped)
    return found.reshape(n, windows.shape[1], 1, *kernel).sum(0)


def by_products(
    windows: Tensor,
    image: Tensor,
    kernel: Sequence[int],
    window: Window,
    seen: Callable[[Tensor, int, int, int, int, int], Tensor],
    multiply: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """One matrix product: w_p in the columns of the one factor, all that it saw in the other's.

    The channels come last, so that what is copied lies together in memory.
    """
    stride, padding, dilation, groups = window
    image, positions = image.movedim(1, -1), windows.shape[2:]
    margins = [0, 0, *(p for p in reversed(padding) for _ in range(2))]
    image = F.pad(image, margins) if any(padding) else image.contiguous()
    channels, outputs = image.shape[-1] // groups, windows.shape[1] // groups
    axes = list(enumerate(zip(positions, kernel, stride, dilation, strict=True), start=1))

    def product(w: Tensor, x: Tensor) -> Tensor:
        for axis, (count, k, s, d) in axes:
            x = seen(x, axis, count, k, s, d)
        rows = w.shape[0] * math.prod(positions)
        x = x.movedim(len(axes) + 1, -1).reshape(
            *w.shape[:1], *positions, *kernel, groups, channels
        )
        x = x.movedim(-2, 0).reshape(groups, rows, math.prod(kernel) * channels)
        w = w.transpose(0, 1).reshape(groups, outputs, rows)
        return w @ x if groups > 1 else multiply(w[0], x[0])

    # A few examples at a time, because the windows of all of them may not fit in memory.
    step = max(1, COLUMNS // max(1, math.prod((*positions, *kernel, image.shape[-1]))))
    parts = map(product, torch.split(windows, step), torch.split(image, step))
    total = reduce(torch.add, parts)
    return total.reshape(groups * outputs, *kernel, channels).movedim(-1, 1)


def _correlate_each(windows: Tensor, image: Tensor, shape: Sequence[int], window: Window) -> Tensor:
    """:func:`_correlate` for each example, of windows (n, rows, outputs, *p) and images alike."""
    parts = [w.mT @ x for w, x in _factors(windows, image, shape, window)]
    each = parts[0] if len(parts) == 1 else torch.cat(parts)
    return each.reshape(windows.shape[0], *shape)


def _squares_of_correlations(
    windows: Tensor, image: Tensor, shape: Sequence[int], window: Window
) -> Tensor:
    """‖·‖² of each of them."""
    parts = [
        squares_of_products(w.flatten(0, 1), x.flatten(0, 1)).reshape(w.shape[:2]).sum(1)
        for w, x in _factors(windows, image, shape, window)
    ]
    return torch.cat(parts)


def _factors(
    windows: Tensor, image: Tensor, shape: Sequence[int], window: Window
) -> Iterator[tuple[Tensor, Tensor]]:
    """The two factors of each example and group: (n, groups, positions, outputs), (…, inputs).

    A few examples at a time, because the second has every pixel once for each window that sees it.
    """
    stride, padding, dilation, groups = window
    kernel, positions = shape[2:], windows.shape[3:]
    axes, outputs = len(kernel), windows.shape[2] // groups
    margins = [p for p in reversed(padding) for _ in range(2)]
    size = math.prod((*image.shape[1:3], *positions, *kernel))
    step = max(1, COLUMNS // 4 // max(1, size))
    for w, x in zip(windows.split(step), image.split(step), strict=True):  # type: ignore[no-untyped-call]
        x = F.pad(x, margins) if any(padding) else x
        for axis, (count, k, s, d) in enumerate(
            zip(positions, kernel, stride, dilation, strict=True), start=3
        ):
            x = x.unfold(axis, d * (k - 1) + 1, s).narrow(axis, 0, count)
            x = x if d == 1 else x[..., ::d]
        # → (n, groups, channels · kernel, rows · positions)
        x = x.unflatten(2, (groups, -1)).movedim(1, 3)
        x = x.permute(0, 1, 2, *range(4 + axes, 4 + 2 * axes), *range(3, 4 + axes))
        x = x.reshape(len(x), groups, -1, windows.shape[1] * math.prod(positions))
        w = w.movedim(1, 2).reshape(len(w), groups, outputs, -1)
        yield w.mT, x.mT


def _windows(x: Tensor, axis: int, count: int, k: int, s: int, d: int) -> Tensor:
    """The k entries of each window along an axis, as a new last axis."""
    # Not Tensor.unfold, because its derivative has no rule for vmap.
    before, last = (slice(None),) * axis, s * (count - 1) + 1
    each = ((*before, slice(d * i, d * i + last, s)) for i in range(k))
    return torch.stack([x[e] for e in each], -1)
