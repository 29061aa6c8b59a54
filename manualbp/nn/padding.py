"""Padding."""

from torch import Tensor, nn

from manualbp import functional as F

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class CircularPad1d(nn.CircularPad1d):
    """torch.nn.CircularPad1d by formula: z = a_m, m the place that ``mode`` takes for one outside
    of a (formulas.PadFromWithin)."""

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        return F.pad(input, self.padding, "circular")


class CircularPad2d(nn.CircularPad2d):
    """torch.nn.CircularPad2d by formula: z = a_m, m the place that ``mode`` takes for one outside
    of a (formulas.PadFromWithin)."""

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        return F.pad(input, self.padding, "circular")


class CircularPad3d(nn.CircularPad3d):
    """torch.nn.CircularPad3d by formula: z = a_m, m the place that ``mode`` takes for one outside
    of a (formulas.PadFromWithin)."""

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        return F.pad(input, self.padding, "circular")


class ConstantPad1d(nn.ConstantPad1d):
    """torch.nn.ConstantPad1d by formula: z = a with a margin of one value; with a margin below
    zero, a without its border (formulas.Pad)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)


class ConstantPad2d(nn.ConstantPad2d):
    """torch.nn.ConstantPad2d by formula: z = a with a margin of one value; with a margin below
    zero, a without its border (formulas.Pad)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)


class ConstantPad3d(nn.ConstantPad3d):
    """torch.nn.ConstantPad3d by formula: z = a with a margin of one value; with a margin below
    zero, a without its border (formulas.Pad)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)


class ReflectionPad1d(nn.ReflectionPad1d):
    """torch.nn.ReflectionPad1d by formula: z = a_m, m the place that ``mode`` takes for one outside
    of a (formulas.PadFromWithin)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "reflect")


class ReflectionPad2d(nn.ReflectionPad2d):
    """torch.nn.ReflectionPad2d by formula: z = a_m, m the place that ``mode`` takes for one outside
    of a (formulas.PadFromWithin)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "reflect")


class ReflectionPad3d(nn.ReflectionPad3d):
    """torch.nn.ReflectionPad3d by formula: z = a_m, m the place that ``mode`` takes for one outside
    of a (formulas.PadFromWithin)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "reflect")


class ReplicationPad1d(nn.ReplicationPad1d):
    """torch.nn.ReplicationPad1d by formula: z = a_m, m the place that ``mode`` takes for one
    outside of a (formulas.PadFromWithin)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "replicate")


class ReplicationPad2d(nn.ReplicationPad2d):
    """torch.nn.ReplicationPad2d by formula: z = a_m, m the place that ``mode`` takes for one
    outside of a (formulas.PadFromWithin)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "replicate")


class ReplicationPad3d(nn.ReplicationPad3d):
    """torch.nn.ReplicationPad3d by formula: z = a_m, m the place that ``mode`` takes for one
    outside of a (formulas.PadFromWithin)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "replicate")


class ZeroPad1d(nn.ZeroPad1d):
    """torch.nn.ZeroPad1d by formula: z = a with a margin of one value; with a margin below zero, a
    without its border (formulas.Pad)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)


class ZeroPad2d(nn.ZeroPad2d):
    """torch.nn.ZeroPad2d by formula: z = a with a margin of one value; with a margin below zero, a
    without its border (formulas.Pad)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)


class ZeroPad3d(nn.ZeroPad3d):
    """torch.nn.ZeroPad3d by formula: z = a with a margin of one value; with a margin below zero, a
    without its border (formulas.Pad)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)
