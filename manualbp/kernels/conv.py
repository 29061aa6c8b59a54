"""The rules of convolutions by oneDNN, and the gradient of large weights by matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.formulas.conv import Window, by_products
from manualbp.kernels import of
from manualbp.kernels.matmul import product

aten = torch.ops.aten

#: number of weights from which oneDNN's gradient takes longer than products, up to 15 times
MANY = 1 << 18

Gradients = tuple[Tensor | None, ...]


def _supported(
    needs: tuple[bool, bool, bool], g: Tensor, input: Tensor | None, weight: Tensor | None
) -> bool:
    """torch's backward needs both factors, and does not accept all empty tensors of forward."""
    return (
        input is not None
        and weight is not None
        and g.dtype is input.dtype is weight.dtype
        and g.numel() > 0
        and input.numel() > 0
    )


@of(
    formulas.Conv.grad_input,
    formulas.Conv.grad_weight,
    formulas.Conv.grad_bias,
    supported=_supported,
)
def conv(
    needs: tuple[bool, bool, bool],
    g: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Gradients:
    window = Window(stride, padding, dilation, groups)
    return _gradients(needs, g, input, weight, window, [0] * len(stride), False)


@of(
    formulas.ConvTranspose.grad_input,
    formulas.ConvTranspose.grad_weight,
    formulas.ConvTranspose.grad_bias,
    supported=_supported,
)
def conv_transpose(
    needs: tuple[bool, bool, bool],
    g: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Gradients:
    sizes = zip(
        g.shape[2:], input.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
    )
    rest = [n - (m - 1) * s + 2 * p - d * (k - 1) - 1 for n, m, k, s, p, d in sizes]
    window = Window(stride, padding, dilation, groups)
    return _gradients(needs, g, input, weight, window, rest, True)


def _gradients(
    needs: tuple[bool, bool, bool],
    g: Tensor,
    input: Tensor,
    weight: Tensor,
    window: Window,
    output_padding: Sequence[int],
    transposed: bool,
) -> Gradients:
    """By torch's backward; the gradient of many weights by a product."""
    windows, image = (input, g) if transposed else (g, input)
    stride, padding, dilation, groups = window
    by_product = needs[1] and weight.numel() >= MANY and image.shape[1] > groups
    found = aten.convolution_backward.default(
        g,
        input,
        weight,
        [g.shape[1]],
        stride,
        padding,
        dilation,
        transposed,
        output_padding,
        groups,
        (needs[0], needs[1] and not by_product, needs[2]),
    )
    if not by_product:
        return found
    product_of = by_products(windows, image, weight.shape[2:], window, _windows, product)
    return found[0], product_of, found[2]


def _windows(x: Tensor, axis: int, count: int, k: int, s: int, d: int) -> Tensor:
    """The formula's windows, as a view."""
    x = x.unfold(axis, d * (k - 1) + 1, s).narrow(axis, 0, count)
    return x if d == 1 else x[..., ::d]
