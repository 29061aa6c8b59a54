"""Layers that only change the shape."""

from torch import nn

__all__ = ["Flatten", "Unflatten"]


class Flatten(nn.Flatten):
    """torch.nn.Flatten, as it is: a view only moves values."""


class Unflatten(nn.Unflatten):
    """torch.nn.Unflatten, as it is: a view only moves values."""
