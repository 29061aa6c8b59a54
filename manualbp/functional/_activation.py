"""Activations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as torch_functional

from manualbp import formulas
from manualbp.formula import Formula
from manualbp.functional._common import inplace_

__all__ = [
    "elu",
    "gelu",
    "leaky_relu",
    "log_softmax",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
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


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """a = max(z, 0) + α min(z, 0) with α = ``negative_slope``, of any shape."""
    if inplace:
        return inplace_(formulas.LeakyReLU, input, negative_slope)
    return formulas.LeakyReLU.apply(input, negative_slope)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """a = z where z > 0, else α (eᶻ − 1), of any shape."""
    return inplace_(formulas.ELU, input, alpha) if inplace else formulas.ELU.apply(input, alpha)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """a = z Φ(z), or its approximation by ``"tanh"``, of any shape."""
    return formulas.GELU.apply(input, approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """a = z σ(z), of any shape."""
    return inplace_(formulas.SiLU, input) if inplace else formulas.SiLU.apply(input)


def softplus(input: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    """a = log(1 + e^βz) / β, or z where βz > ``threshold``, of any shape."""
    return formulas.Softplus.apply(input, beta, threshold)


def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """aᵢ = e^zᵢ / Σⱼ e^zⱼ along ``dim``."""
    return _along(formulas.Softmax, "softmax", input, dim, _stacklevel, dtype)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """aᵢ = zᵢ − log Σⱼ e^zⱼ along ``dim``."""
    return _along(formulas.LogSoftmax, "log_softmax", input, dim, _stacklevel, dtype)


def _along(
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
