"""Linear layers."""

from torch import Tensor, nn

from manualbp import functional as F

__all__ = ["Bilinear", "Identity", "Linear"]


class Linear(nn.Linear):
    """torch.nn.Linear by formula: z = a Wᵀ + b (formulas.Linear)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


class Bilinear(nn.Bilinear):
    """torch.nn.Bilinear by formula: zₙₒ = aₙᵀ Wₒ a′ₙ + bₒ (formulas.Bilinear)."""

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)


class Identity(nn.Identity):
    """torch.nn.Identity, as it is: a = z has nothing to differentiate."""
