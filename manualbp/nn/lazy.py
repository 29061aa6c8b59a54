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
    cls_to_become = BatchNorm1d
    forward = BatchNorm1d.forward  # torch looks for it before the class changes


class LazyBatchNorm2d(nn.LazyBatchNorm2d):
    cls_to_become = BatchNorm2d
    forward = BatchNorm2d.forward  # torch looks for it before the class changes


class LazyBatchNorm3d(nn.LazyBatchNorm3d):
    cls_to_become = BatchNorm3d
    forward = BatchNorm3d.forward  # torch looks for it before the class changes


class LazyConv1d(nn.LazyConv1d):
    cls_to_become = Conv1d
    forward = Conv1d.forward  # torch looks for it before the class changes


class LazyConv2d(nn.LazyConv2d):
    cls_to_become = Conv2d
    forward = Conv2d.forward  # torch looks for it before the class changes


class LazyConv3d(nn.LazyConv3d):
    cls_to_become = Conv3d
    forward = Conv3d.forward  # torch looks for it before the class changes


class LazyConvTranspose1d(nn.LazyConvTranspose1d):
    cls_to_become = ConvTranspose1d
    forward = ConvTranspose1d.forward  # torch looks for it before the class changes


class LazyConvTranspose2d(nn.LazyConvTranspose2d):
    cls_to_become = ConvTranspose2d
    forward = ConvTranspose2d.forward  # torch looks for it before the class changes


class LazyConvTranspose3d(nn.LazyConvTranspose3d):
    cls_to_become = ConvTranspose3d
    forward = ConvTranspose3d.forward  # torch looks for it before the class changes


class LazyInstanceNorm1d(nn.LazyInstanceNorm1d):
    cls_to_become = InstanceNorm1d
    forward = InstanceNorm1d.forward  # torch looks for it before the class changes


class LazyInstanceNorm2d(nn.LazyInstanceNorm2d):
    cls_to_become = InstanceNorm2d
    forward = InstanceNorm2d.forward  # torch looks for it before the class changes


class LazyInstanceNorm3d(nn.LazyInstanceNorm3d):
    cls_to_become = InstanceNorm3d
    forward = InstanceNorm3d.forward  # torch looks for it before the class changes


class LazyLinear(nn.LazyLinear):
    cls_to_become = Linear
    forward = Linear.forward  # torch looks for it before the class changes
