"""Layers with weights."""

from torch import Tensor, nn

from manualbp import functional as F

__all__ = ["Identity", "Linear"]


class Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


class Identity(nn.Identity):
    """a = z: torch's own, since there is nothing to differentiate."""
