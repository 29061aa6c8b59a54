"""The rules of activations in one pass over memory, by torch's kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.kernels import of

aten = torch.ops.aten


def _below_512_ki(g: Tensor) -> bool:
    """Beyond, three passes over memory take longer than the rule's: 1.1 to 1.3 of its time."""
    return g.numel() < 1 << 19


def _below_2_mi(g: Tensor) -> bool:
    return g.numel() < 1 << 21


@of(formulas.Sigmoid.grad_input)
def sigmoid(g: Tensor, output: Tensor) -> Tensor:
    return aten.sigmoid_backward(g, output)


@of(formulas.Tanh.grad_input)
def tanh(g: Tensor, output: Tensor) -> Tensor:
    return aten.tanh_backward(g, output)


@of(formulas.ReLU.grad_input)
def relu(g: Tensor, output: Tensor) -> Tensor:
    return aten.threshold_backward(g, output, 0)


@of(formulas.ReLU6.grad_input, profitable=_below_512_ki)
def relu6(g: Tensor, input: Tensor) -> Tensor:
    return _inside(g, input, 0, 6)


@of(formulas.Hardtanh.grad_input, profitable=_below_512_ki)
def hardtanh(g: Tensor, input: Tensor, min_val: float, max_val: float) -> Tensor:
    return _inside(g, input, min_val, max_val)


@of(formulas.Threshold.grad_input)
def threshold(g: Tensor, input: Tensor, threshold: float) -> Tensor:
    return aten.threshold_backward(g, input, threshold)


@of(formulas.Hardshrink.grad_input, profitable=_below_2_mi)
def hardshrink(g: Tensor, input: Tensor, lambd: float) -> Tensor:
    return aten.threshold_backward(g, input.abs(), lambd)


@of(formulas.Softshrink.grad_input)
def softshrink(g: Tensor, input: Tensor, lambd: float) -> Tensor:
    return aten.threshold_backward(g, input.abs(), lambd)


@of(formulas.LeakyReLU.grad_input)
def leaky_relu(g: Tensor, input: Tensor, negative_slope: float) -> Tensor:
    return aten.leaky_relu_backward(g, input, negative_slope, False)


@of(
    formulas.PReLU.grad_input,
    formulas.PReLU.grad_weight,
    supported=lambda input, weight: weight is not None and input.dtype is weight.dtype,
    profitable=lambda g: g.numel() >= 1 << 12,
)
def prelu(
    needs: tuple[bool, bool], g: Tensor, input: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor | None]:
    channels = () if weight.numel() == 1 else (-1, *[1] * (input.dim() - 2))
    gradient, share = aten._prelu_kernel_backward(g, input, weight.reshape(channels).expand_as(g))
    if not needs[1]:
        return gradient, None
    if weight.numel() == 1:
        return gradient, share.sum().reshape(weight.shape)
    return gradient, share.sum([axis for axis in range(share.dim()) if axis != 1])


@of(formulas.ELU.grad_input)
def elu(g: Tensor, input: Tensor, alpha: float) -> Tensor:
    return aten.elu_backward(g, alpha, 1, 1, False, input)


@of(formulas.CELU.grad_input)
def celu(g: Tensor, input: Tensor, alpha: float) -> Tensor:
    return aten.elu_backward(g, alpha, 1, 1 / alpha, False, input)


@of(formulas.SELU.grad_input)
def selu(g: Tensor, input: Tensor) -> Tensor:
    return aten.elu_backward(g, formulas.SELU.ALPHA, formulas.SELU.SCALE, 1, False, input)


@of(formulas.GELU.grad_input)
def gelu(g: Tensor, input: Tensor, approximate: str) -> Tensor:
    return aten.gelu_backward(g, input, approximate=approximate)


@of(formulas.SiLU.grad_input)
def silu(g: Tensor, input: Tensor) -> Tensor:
    return aten.silu_backward(g, input)


@of(formulas.Mish.grad_input)
def mish(g: Tensor, input: Tensor) -> Tensor:
    return aten.mish_backward(g, input.clamp(max=40))  # the slope is 1 there; torch's is nan at ∞


# In float64 torch's kernel multiplies by 1/6 rounded to single precision.
@of(formulas.Hardsigmoid.grad_input, supported=lambda g, input: g.dtype is torch.float)
def hardsigmoid(g: Tensor, input: Tensor) -> Tensor:
    return aten.hardsigmoid_backward(g, input)


@of(formulas.Hardswish.grad_input)
def hardswish(g: Tensor, input: Tensor) -> Tensor:
    return aten.hardswish_backward(g, input)


@of(formulas.GLU.grad_input)
def glu(g: Tensor, input: Tensor, dim: int) -> Tensor:
    return aten.glu_backward(g, input, dim)


@of(formulas.Softplus.grad_input)
def softplus(g: Tensor, input: Tensor, beta: float, threshold: float) -> Tensor:
    return aten.softplus_backward(g, input, beta, threshold)


@of(formulas.Softmax.grad_input)
def softmax(g: Tensor, output: Tensor, dim: int) -> Tensor:
    return aten._softmax_backward_data(g, output, dim, output.dtype)


@of(formulas.Softmin.grad_input)
def softmin(g: Tensor, output: Tensor, dim: int) -> Tensor:
    return -aten._softmax_backward_data(g, output, dim, output.dtype)


@of(formulas.LogSoftmax.grad_input)
def log_softmax(g: Tensor, output: Tensor, dim: int) -> Tensor:
    return aten._log_softmax_backward_data(g, output, dim, output.dtype)


def _inside(g: Tensor, input: Tensor, low: float, high: float) -> Tensor:
    """g where low < z < high. At nan torch's hardtanh_backward gives 0 or g, by its position."""
    return aten.threshold_backward(aten.threshold_backward(g, input, low), -input, -high)
