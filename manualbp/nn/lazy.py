"""torch's lazy layers: each becomes the layer of manualbp when it sees its first input."""

from __future__ import annotations

import types
from typing import TypeVar

from torch import nn

from manualbp.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from manualbp.nn.linear import Linear
from manualbp.nn.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)

__all__ = [
    "LazyBatchNorm1d",
    "LazyBatchNorm2d",
    "LazyBatchNorm3d",
    "LazyConv1d",
    "LazyConv2d",
    "LazyConv3d",
    "LazyConvTranspose1d",
    "LazyConvTranspose2d",
    "LazyConvTranspose3d",
    "LazyInstanceNorm1d",
    "LazyInstanceNorm2d",
    "LazyInstanceNorm3d",
    "LazyLinear",
]


_Lazy = TypeVar("_Lazy", bound=nn.Module)


def _lazy(theirs: type[_Lazy], ours: type[nn.Module]) -> type[_Lazy]:
    """torch's lazy class, which becomes ``ours`` instead of torch's own."""
    name = theirs.__name__
    namespace = {
        "__doc__": f"torch.nn.{name}, which becomes {ours.__name__} when it sees its first input.",
        "__module__": __name__,
        "cls_to_become": ours,
        "forward": ours.forward,  # torch looks forward up before it changes the class
    }
    return types.new_class(name, (theirs,), exec_body=lambda body: body.update(namespace))


LazyBatchNorm1d = _lazy(nn.LazyBatchNorm1d, BatchNorm1d)
LazyBatchNorm2d = _lazy(nn.LazyBatchNorm2d, BatchNorm2d)
LazyBatchNorm3d = _lazy(nn.LazyBatchNorm3d, BatchNorm3d)
LazyConv1d = _lazy(nn.LazyConv1d, Conv1d)
LazyConv2d = _lazy(nn.LazyConv2d, Conv2d)
LazyConv3d = _lazy(nn.LazyConv3d, Conv3d)
LazyConvTranspose1d = _lazy(nn.LazyConvTranspose1d, ConvTranspose1d)
LazyConvTranspose2d = _lazy(nn.LazyConvTranspose2d, ConvTranspose2d)
LazyConvTranspose3d = _lazy(nn.LazyConvTranspose3d, ConvTranspose3d)
LazyInstanceNorm1d = _lazy(nn.LazyInstanceNorm1d, InstanceNorm1d)
LazyInstanceNorm2d = _lazy(nn.LazyInstanceNorm2d, InstanceNorm2d)
LazyInstanceNorm3d = _lazy(nn.LazyInstanceNorm3d, InstanceNorm3d)
LazyLinear = _lazy(nn.LazyLinear, Linear)
