"""Activations."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from manualbp import formulas
from manualbp.core.formula import Formula
from manualbp.tape.in_place import inplace_

__all__ = [
    "celu",
    "celu_",
    "elu",
    "elu_",
    "gelu",
    "glu",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hardtanh_",
    "leaky_relu",
    "leaky_relu_",
    "log_softmax",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "relu_",
    "rrelu",
    "rrelu_",
    "selu",
    "selu_",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "threshold_",
]


def sigmoid(input: Tensor) -> Tensor:
    """a = 1 / (1 + e⁻ᶻ), of any shape."""
    return formulas.Sigmoid.apply(input)


def tanh(input: Tensor) -> Tensor:
    """a = tanh z, of any shape."""
    return formulas.Tanh.apply(input)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """a = max(z, 0), of any shape."""
    return inplace_(formulas.ReLU, input) if inplace else formulas.ReLU.apply(input)


def relu_(input: Tensor) -> Tensor:
    """``relu`` in place of its input."""
    return relu(input, inplace=True)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """a = min(max(z, 0), 6), of any shape."""
    return inplace_(formulas.ReLU6, input) if inplace else formulas.ReLU6.apply(input)


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """a = min(max(z, ``min_val``), ``max_val``), of any shape."""
    if min_val > max_val:
        raise ValueError(f"min_val cannot be greater than max_val, but {min_val} > {max_val}")
    if inplace:
        return inplace_(formulas.Hardtanh, input, min_val, max_val)
    return formulas.Hardtanh.apply(input, min_val, max_val)


def hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """``hardtanh`` in place of its input."""
    return hardtanh(input, min_val, max_val, inplace=True)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """a = z where z > ``threshold``, else ``value``, of any shape."""
    if inplace:
        return inplace_(formulas.Threshold, input, threshold, value)
    return formulas.Threshold.apply(input, threshold, value)


def threshold_(input: Tensor, threshold: float, value: float) -> Tensor:
    """``threshold`` in place of its input."""
    return inplace_(formulas.Threshold, input, threshold, value)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """a = z where |z| > λ, else 0, of any shape."""
    return formulas.Hardshrink.apply(input, lambd)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """a = z − λ where z > λ, z + λ where z < −λ, else 0, of any shape."""
    if lambd < 0:
        raise RuntimeError(f"softshrink: lambd has to be 0 or greater, but got {lambd}")
    return formulas.Softshrink.apply(input, lambd)


def tanhshrink(input: Tensor) -> Tensor:
    """a = z − tanh z, of any shape."""
    return formulas.Tanhshrink.apply(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """a = max(z, 0) + α min(z, 0) with α = ``negative_slope``, of any shape."""
    if inplace:
        return inplace_(formulas.LeakyReLU, input, negative_slope)
    return formulas.LeakyReLU.apply(input, negative_slope)


def leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """``leaky_relu`` in place of its input."""
    return leaky_relu(input, negative_slope, inplace=True)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """a = max(z, 0) + w min(z, 0): w a single number, or one for each channel (axis 1)."""
    return formulas.PReLU.apply(input, weight)


def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """a = max(z, 0) + r min(z, 0), of any shape.

    In training r is drawn for each entry, as torch draws it; else it is (lower + upper) / 2.
    """
    if lower > upper:
        raise RuntimeError(f"lower cannot be greater than upper, but {lower} > {upper}")
    if not training:
        # torch's rrelu returns a contiguous tensor, unlike its other activations.
        return leaky_relu(input if inplace else input.contiguous(), (lower + upper) / 2, inplace)
    if inplace:
        return inplace_(formulas.RReLU, input, lower, upper)
    return formulas.RReLU.apply(input, lower, upper)[0]


def rrelu_(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False
) -> Tensor:
    """``rrelu`` in place of its input."""
    return rrelu(input, lower, upper, training, inplace=True)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """a = z where z > 0, else α (eᶻ − 1), of any shape."""
    return inplace_(formulas.ELU, input, alpha) if inplace else formulas.ELU.apply(input, alpha)


def elu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """``elu`` in place of its input."""
    return elu(input, alpha, inplace=True)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """a = z where z > 0, else α (e^(z/α) − 1), of any shape."""
    if alpha == 0:
        raise ZeroDivisionError("celu: alpha divides z and cannot be 0")
    return inplace_(formulas.CELU, input, alpha) if inplace else formulas.CELU.apply(input, alpha)


def celu_(input: Tensor, alpha: float = 1.0) -> Tensor:
    """``celu`` in place of its input."""
    return celu(input, alpha, inplace=True)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """a = λ z where z > 0, else λ α (eᶻ − 1), of any shape; λ and α keep mean 0 and variance 1."""
    return inplace_(formulas.SELU, input) if inplace else formulas.SELU.apply(input)


def selu_(input: Tensor) -> Tensor:
    """``selu`` in place of its input."""
    return selu(input, inplace=True)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """a = z Φ(z), or its approximation by ``"tanh"``, of any shape."""
    return formulas.GELU.apply(input, approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """a = z σ(z), of any shape."""
    return inplace_(formulas.SiLU, input) if inplace else formulas.SiLU.apply(input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """a = z tanh(log(1 + eᶻ)), of any shape."""
    return inplace_(formulas.Mish, input) if inplace else formulas.Mish.apply(input)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """a = min(max(z + 3, 0), 6) / 6, of any shape."""
    return inplace_(formulas.Hardsigmoid, input) if inplace else formulas.Hardsigmoid.apply(input)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """a = z min(max(z + 3, 0), 6) / 6, of any shape."""
    return inplace_(formulas.Hardswish, input) if inplace else formulas.Hardswish.apply(input)


def softsign(input: Tensor) -> Tensor:
    """a = z / (1 + |z|), of any shape."""
    return formulas.Softsign.apply(input)


def logsigmoid(input: Tensor) -> Tensor:
    """a = −log(1 + e⁻ᶻ), of any shape."""
    return formulas.LogSigmoid.apply(input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a = u σ(v), where u and v are the halves of the input along ``dim``."""
    if input.dim() == 0:
        raise RuntimeError("glu does not support 0-dimensional tensors: there is nothing to halve")
    if input.shape[dim] % 2:
        raise RuntimeError(
            f"glu: the size along dim {dim} has to be even, but is {input.shape[dim]}"
        )
    return formulas.GLU.apply(input, dim)


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """a = log(1 + e^(βz)) / β, or z where βz > ``threshold``, of any shape."""
    return formulas.Softplus.apply(input, beta, threshold)


def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """aᵢ = e^zᵢ / Σⱼ e^zⱼ along ``dim``."""
    return _softmax_along(formulas.Softmax, "softmax", input, dim, _stacklevel, dtype)


def softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """aᵢ = e^(−zᵢ) / Σⱼ e^(−zⱼ) along ``dim``."""
    return _softmax_along(formulas.Softmin, "softmin", input, dim, _stacklevel, dtype)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """aᵢ = zᵢ − log Σⱼ e^zⱼ along ``dim``."""
    return _softmax_along(formulas.LogSoftmax, "log_softmax", input, dim, _stacklevel, dtype)


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """a = softmax((z + γ) / τ) along ``dim``, γ Gumbel noise drawn as torch draws it.

    If ``hard``, the unit vector of the largest aᵢ, with the gradient of a.
    """
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    soft = formulas.GumbelSoftmax.apply(logits, tau, dim)
    return formulas.StraightThrough.apply(soft, dim) if hard else soft


def _softmax_along(
    formula: type[Formula],
    name: str,
    input: Tensor,
    dim: int | None,
    stacklevel: int,
    dtype: torch.dtype | None,
) -> Tensor:
    if dim is None:
        dim = torch_functional._get_softmax_dim(name, input.dim(), stacklevel + 1)  # type: ignore[attr-defined]
    return formula.apply(input if dtype is None else input.to(dtype), dim)
