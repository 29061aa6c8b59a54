"""Dropout."""

from torch import Tensor, nn

from manualbp import functional as F

__all__ = [
    "AlphaDropout",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "FeatureAlphaDropout",
]


class Dropout(nn.Dropout):
    """torch.nn.Dropout by formula: a = z ⊙ m / (1 − p), m for each entry (formulas.Dropout)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(nn.Dropout1d):
    """torch.nn.Dropout1d by formula: a = z ⊙ m / (1 − p), m for each index of the first axes: for
    each channel (formulas.FeatureDropout)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(nn.Dropout2d):
    """torch.nn.Dropout2d by formula: a = z ⊙ m / (1 − p), m for each index of the first axes: for
    each channel (formulas.FeatureDropout)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(nn.Dropout3d):
    """torch.nn.Dropout3d by formula: a = z ⊙ m / (1 − p), m for each index of the first axes: for
    each channel (formulas.FeatureDropout)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(nn.AlphaDropout):
    """torch.nn.AlphaDropout by formula: a = s (z ⊙ m − α (1 − m) + α p), s = 1 / √((1 − p) (1 + α²
    p)), α ≈ 1.7580993 (formulas.AlphaDropout)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(nn.FeatureAlphaDropout):
    """torch.nn.FeatureAlphaDropout by formula: a = s (z ⊙ m − α (1 − m) + α p), s = 1 / √((1 − p)
    (1 + α² p)), α ≈ 1.7580993 (formulas.AlphaDropout)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.feature_alpha_dropout(input, self.p, self.training)
