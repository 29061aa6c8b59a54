"""Convolutions."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from manualbp import functional as F

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Fold",
    "Unfold",
]


class Conv1d(nn.Conv1d):
    """torch.nn.Conv1d by formula: zₙₚ = Σₖᵢ [s p + d k = i] Wₖ aₙᵢ + b (formulas.Conv)."""

    def forward(self, input: Tensor) -> Tensor:
        return _conv(self, F.conv1d, input)


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d by formula: zₙₚ = Σₖᵢ [s p + d k = i] Wₖ aₙᵢ + b (formulas.Conv)."""

    def forward(self, input: Tensor) -> Tensor:
        return _conv(self, F.conv2d, input)


class Conv3d(nn.Conv3d):
    """torch.nn.Conv3d by formula: zₙₚ = Σₖᵢ [s p + d k = i] Wₖ aₙᵢ + b (formulas.Conv)."""

    def forward(self, input: Tensor) -> Tensor:
        return _conv(self, F.conv3d, input)


class ConvTranspose1d(nn.ConvTranspose1d):
    """torch.nn.ConvTranspose1d by formula: zₙᵢ = Σₖₚ [s p + d k = i] Wₖᵀ aₙₚ + b
    (formulas.ConvTranspose)."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _conv_transpose(self, F.conv_transpose1d, input, output_size)


class ConvTranspose2d(nn.ConvTranspose2d):
    """torch.nn.ConvTranspose2d by formula: zₙᵢ = Σₖₚ [s p + d k = i] Wₖᵀ aₙₚ + b
    (formulas.ConvTranspose)."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _conv_transpose(self, F.conv_transpose2d, input, output_size)


class ConvTranspose3d(nn.ConvTranspose3d):
    """torch.nn.ConvTranspose3d by formula: zₙᵢ = Σₖₚ [s p + d k = i] Wₖᵀ aₙₚ + b
    (formulas.ConvTranspose)."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _conv_transpose(self, F.conv_transpose3d, input, output_size)


class Unfold(nn.Unfold):
    """torch.nn.Unfold by formula: zₙₖₚ = Σᵢ [s p + d k = i] aₙᵢ (formulas.Unfold)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)


class Fold(nn.Fold):
    """torch.nn.Fold by formula: zₙᵢ = Σₖₚ [s p + d k = i] aₙₖₚ (formulas.Fold)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )


def _conv(
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, function: Callable[..., Tensor], input: Tensor
) -> Tensor:
    padding: str | tuple[int, ...] = layer.padding
    if layer.padding_mode != "zeros":
        margins = layer._reversed_padding_repeated_twice
        input, padding = F.pad(input, margins, mode=layer.padding_mode), (0,)
    weights = layer.weight, layer.bias
    return function(input, *weights, layer.stride, padding, layer.dilation, layer.groups)


def _conv_transpose(
    layer: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d,
    function: Callable[..., Tensor],
    input: Tensor,
    output_size: list[int] | None,
) -> Tensor:
    options = layer.stride, layer.padding, layer.kernel_size, len(layer.kernel_size)
    rest = layer._output_padding(input, output_size, *options, layer.dilation)  # type: ignore[arg-type]
    weights = layer.weight, layer.bias
    return function(
        input, *weights, layer.stride, layer.padding, rest, layer.groups, layer.dilation
    )
