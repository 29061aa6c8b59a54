"""Layers that learn the size of their input from the first that they see, and then become ours."""

from __future__ import annotations

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


class LazyBatchNorm1d(nn.LazyBatchNorm1d):
    """torch.nn.LazyBatchNorm1d, which becomes BatchNorm1d when it sees its first input."""

    cls_to_become = BatchNorm1d
    forward = BatchNorm1d.forward  # torch looks for it before the class changes


class LazyBatchNorm2d(nn.LazyBatchNorm2d):
    """torch.nn.LazyBatchNorm2d, which becomes BatchNorm2d when it sees its first input."""

    cls_to_become = BatchNorm2d
    forward = BatchNorm2d.forward  # torch looks for it before the class changes


class LazyBatchNorm3d(nn.LazyBatchNorm3d):
    """torch.nn.LazyBatchNorm3d, which becomes BatchNorm3d when it sees its first input."""

    cls_to_become = BatchNorm3d
    forward = BatchNorm3d.forward  # torch looks for it before the class changes


class LazyConv1d(nn.LazyConv1d):
    """torch.nn.LazyConv1d, which becomes Conv1d when it sees its first input."""

    cls_to_become = Conv1d
    forward = Conv1d.forward  # torch looks for it before the class changes


class LazyConv2d(nn.LazyConv2d):
    """torch.nn.LazyConv2d, which becomes Conv2d when it sees its first input."""

    cls_to_become = Conv2d
    forward = Conv2d.forward  # torch looks for it before the class changes


class LazyConv3d(nn.LazyConv3d):
    """torch.nn.LazyConv3d, which becomes Conv3d when it sees its first input."""

    cls_to_become = Conv3d
    forward = Conv3d.forward  # torch looks for it before the class changes


class LazyConvTranspose1d(nn.LazyConvTranspose1d):
    """torch.nn.LazyConvTranspose1d, which becomes ConvTranspose1d when it sees its first input."""

    cls_to_become = ConvTranspose1d
    forward = ConvTranspose1d.forward  # torch looks for it before the class changes


class LazyConvTranspose2d(nn.LazyConvTranspose2d):
    """torch.nn.LazyConvTranspose2d, which becomes ConvTranspose2d when it sees its first input."""

    cls_to_become = ConvTranspose2d
    forward = ConvTranspose2d.forward  # torch looks for it before the class changes


class LazyConvTranspose3d(nn.LazyConvTranspose3d):
    """torch.nn.LazyConvTranspose3d, which becomes ConvTranspose3d when it sees its first input."""

    cls_to_become = ConvTranspose3d
    forward = ConvTranspose3d.forward  # torch looks for it before the class changes


class LazyInstanceNorm1d(nn.LazyInstanceNorm1d):
    """torch.nn.LazyInstanceNorm1d, which becomes InstanceNorm1d when it sees its first input."""

    cls_to_become = InstanceNorm1d
    forward = InstanceNorm1d.forward  # torch looks for it before the class changes


class LazyInstanceNorm2d(nn.LazyInstanceNorm2d):
    """torch.nn.LazyInstanceNorm2d, which becomes InstanceNorm2d when it sees its first input."""

    cls_to_become = InstanceNorm2d
    forward = InstanceNorm2d.forward  # torch looks for it before the class changes


class LazyInstanceNorm3d(nn.LazyInstanceNorm3d):
    """torch.nn.LazyInstanceNorm3d, which becomes InstanceNorm3d when it sees its first input."""

    cls_to_become = InstanceNorm3d
    forward = InstanceNorm3d.forward  # torch looks for it before the class changes


class LazyLinear(nn.LazyLinear):
    """torch.nn.LazyLinear, which becomes Linear when it sees its first input."""

    cls_to_become = Linear
    forward = Linear.forward  # torch looks for it before the class changes
