"""Layers that only change the shape."""

from torch import Tensor, nn

from manualbp import functional as F

__all__ = ["Flatten", "Unflatten"]


class Flatten(nn.Flatten):
    """torch.nn.Flatten by formula: a = z, its axes start … end as one (formulas.Flatten)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.flatten(input, self.start_dim, self.end_dim)


class Unflatten(nn.Unflatten):
    """torch.nn.Unflatten, as it is: a view only moves values."""
