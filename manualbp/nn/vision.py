"""Resampling of images."""

from torch import Tensor, nn

from manualbp import functional as F

__all__ = [
    "ChannelShuffle",
    "PixelShuffle",
    "PixelUnshuffle",
    "Upsample",
    "UpsamplingBilinear2d",
    "UpsamplingNearest2d",
]


class Upsample(nn.Upsample):
    """torch.nn.Upsample by formula: a = W₁ z W₂ᵀ, row j of Wₐ = the weights of the pixels that make
    pixel j along axis a (formulas.Interpolate)."""

    def forward(self, input: Tensor) -> Tensor:
        how = (self.mode, self.align_corners, self.recompute_scale_factor)
        return F.interpolate(input, self.size, self.scale_factor, *how)


class UpsamplingNearest2d(nn.UpsamplingNearest2d):
    """torch.nn.UpsamplingNearest2d by formula: a = W₁ z W₂ᵀ, row j of Wₐ = the weights of the
    pixels that make pixel j along axis a (formulas.Interpolate)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(input, self.size, self.scale_factor, self.mode)


class UpsamplingBilinear2d(nn.UpsamplingBilinear2d):
    """torch.nn.UpsamplingBilinear2d by formula: a = W₁ z W₂ᵀ, row j of Wₐ = the weights of the
    pixels that make pixel j along axis a (formulas.Interpolate)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(input, self.size, self.scale_factor, self.mode, self.align_corners)


class PixelShuffle(nn.PixelShuffle):
    """torch.nn.PixelShuffle by formula: a = z, r² channels of a pixel as r × r pixels of one
    (formulas.PixelShuffle)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)


class PixelUnshuffle(nn.PixelUnshuffle):
    """torch.nn.PixelUnshuffle by formula: a = z, r × r pixels of a channel as one of r² channels
    (formulas.PixelUnshuffle)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)


class ChannelShuffle(nn.ChannelShuffle):
    """torch.nn.ChannelShuffle by formula: a = z, the channels of all groups in turn, as a table of
    groups read by columns (formulas.ChannelShuffle)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)
