"""Pooling."""

from typing import cast

from torch import Tensor, nn

from manualbp import functional as F

__all__ = [
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "FractionalMaxPool2d",
    "FractionalMaxPool3d",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
]


class MaxPool1d(nn.MaxPool1d):
    """torch.nn.MaxPool1d by formula: a = z_m, m the place of the greatest in the window
    (formulas.MaxPool)."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return F.max_pool1d(input, *window, self.ceil_mode, self.return_indices)


class MaxPool2d(nn.MaxPool2d):
    """torch.nn.MaxPool2d by formula: a = z_m, m the place of the greatest in the window
    (formulas.MaxPool)."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return F.max_pool2d(input, *window, self.ceil_mode, self.return_indices)


class MaxPool3d(nn.MaxPool3d):
    """torch.nn.MaxPool3d by formula: a = z_m, m the place of the greatest in the window
    (formulas.MaxPool)."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return F.max_pool3d(input, *window, self.ceil_mode, self.return_indices)


class MaxUnpool1d(nn.MaxUnpool1d):
    """torch.nn.MaxUnpool1d by formula: aⱼ = Σₚ zₚ [mₚ = j], m the places that max pooling found z
    at (formulas.MaxUnpool)."""

    def forward(
        self, input: Tensor, indices: Tensor, output_size: list[int] | None = None
    ) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding)
        return F.max_unpool1d(input, indices, *window, output_size)


class MaxUnpool2d(nn.MaxUnpool2d):
    """torch.nn.MaxUnpool2d by formula: aⱼ = Σₚ zₚ [mₚ = j], m the places that max pooling found z
    at (formulas.MaxUnpool)."""

    def forward(
        self, input: Tensor, indices: Tensor, output_size: list[int] | None = None
    ) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding)
        return F.max_unpool2d(input, indices, *window, output_size)


class MaxUnpool3d(nn.MaxUnpool3d):
    """torch.nn.MaxUnpool3d by formula: aⱼ = Σₚ zₚ [mₚ = j], m the places that max pooling found z
    at (formulas.MaxUnpool)."""

    def forward(
        self, input: Tensor, indices: Tensor, output_size: list[int] | None = None
    ) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding)
        return F.max_unpool3d(input, indices, *window, output_size)


class AvgPool1d(nn.AvgPool1d):
    """torch.nn.AvgPool1d by formula: a = W₁ z W₂ᵀ, row j of Wₐ = the shares in window j along axis
    a (formulas.AvgPool)."""

    def forward(self, input: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding, self.ceil_mode)
        return F.avg_pool1d(input, *window, self.count_include_pad)


class AvgPool2d(nn.AvgPool2d):
    """torch.nn.AvgPool2d by formula: a = W₁ z W₂ᵀ, row j of Wₐ = the shares in window j along axis
    a (formulas.AvgPool)."""

    def forward(self, input: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding, self.ceil_mode)
        return F.avg_pool2d(input, *window, self.count_include_pad, self.divisor_override)


class AvgPool3d(nn.AvgPool3d):
    """torch.nn.AvgPool3d by formula: a = W₁ z W₂ᵀ, row j of Wₐ = the shares in window j along axis
    a (formulas.AvgPool)."""

    def forward(self, input: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding, self.ceil_mode)
        return F.avg_pool3d(input, *window, self.count_include_pad, self.divisor_override)


class FractionalMaxPool2d(nn.FractionalMaxPool2d):
    """torch.nn.FractionalMaxPool2d by formula: a = z_m, m the place of the greatest in the window,
    of windows placed at random (formulas.FractionalMaxPool)."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        asked = (self.kernel_size, self.output_size, self.output_ratio)
        samples = cast(Tensor | None, self._random_samples)
        return F.fractional_max_pool2d(input, *asked, self.return_indices, samples)


class FractionalMaxPool3d(nn.FractionalMaxPool3d):
    """torch.nn.FractionalMaxPool3d by formula: a = z_m, m the place of the greatest in the window,
    of windows placed at random (formulas.FractionalMaxPool)."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        asked = (self.kernel_size, self.output_size, self.output_ratio)
        samples = cast(Tensor | None, self._random_samples)
        return F.fractional_max_pool3d(input, *asked, self.return_indices, samples)


class LPPool1d(nn.LPPool1d):
    """torch.nn.LPPool1d by formula: a = (Σ zᵖ)^(1/p) over the window (formulas.LPPool)."""

    def forward(self, input: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.ceil_mode)
        return F.lp_pool1d(input, float(self.norm_type), *window)


class LPPool2d(nn.LPPool2d):
    """torch.nn.LPPool2d by formula: a = (Σ zᵖ)^(1/p) over the window (formulas.LPPool)."""

    def forward(self, input: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.ceil_mode)
        return F.lp_pool2d(input, float(self.norm_type), *window)


class LPPool3d(nn.LPPool3d):
    """torch.nn.LPPool3d by formula: a = (Σ zᵖ)^(1/p) over the window (formulas.LPPool)."""

    def forward(self, input: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.ceil_mode)
        return F.lp_pool3d(input, float(self.norm_type), *window)


class AdaptiveMaxPool1d(nn.AdaptiveMaxPool1d):
    """torch.nn.AdaptiveMaxPool1d by formula: a = z_m, m the place of the greatest in the window, of
    windows as many as asked for (formulas.AdaptiveMaxPool)."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(nn.AdaptiveMaxPool2d):
    """torch.nn.AdaptiveMaxPool2d by formula: a = z_m, m the place of the greatest in the window, of
    windows as many as asked for (formulas.AdaptiveMaxPool)."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(nn.AdaptiveMaxPool3d):
    """torch.nn.AdaptiveMaxPool3d by formula: a = z_m, m the place of the greatest in the window, of
    windows as many as asked for (formulas.AdaptiveMaxPool)."""

    def forward(self, input: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return F.adaptive_max_pool3d(input, self.output_size, self.return_indices)


class AdaptiveAvgPool1d(nn.AdaptiveAvgPool1d):
    """torch.nn.AdaptiveAvgPool1d by formula: a = W₁ z W₂ᵀ, row j of Wₐ = the shares in window j
    along axis a (formulas.AdaptiveAvgPool)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """torch.nn.AdaptiveAvgPool2d by formula: a = W₁ z W₂ᵀ, row j of Wₐ = the shares in window j
    along axis a (formulas.AdaptiveAvgPool)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(nn.AdaptiveAvgPool3d):
    """torch.nn.AdaptiveAvgPool3d by formula: a = W₁ z W₂ᵀ, row j of Wₐ = the shares in window j
    along axis a (formulas.AdaptiveAvgPool)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool3d(input, self.output_size)
