"""Noise while training."""

from torch import Tensor, nn

from manualbp import functional as F

__all__ = ["Dropout"]


class Dropout(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)
