"""torch.nn.functional, by formula: torch's names, signatures and defaults, nothing else.

Each function does what torch's function of the same name does, for the same arguments, and its
backward pass is the formula of :mod:`manualbp.formulas` that it applies. Only
:func:`squared_error`, the document's cost, is not torch's.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import _reduction
from torch.nn import functional as torch_functional

from manualbp import formulas
from manualbp.formula import Formula
from manualbp.tape import overwrite

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "dropout",
    "elu",
    "flatten",
    "gelu",
    "leaky_relu",
    "linear",
    "log_softmax",
    "mse_loss",
    "nll_loss",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "squared_error",
    "tanh",
]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """z = a Wᵀ + b: input (\\*, in), weight (out, in), bias (out) → (\\*, out).

    A weight (in,) is one row, and its axis of outputs is left out of the result.
    """
    if weight.dim() == 1:
        row = linear(input, weight.unsqueeze(0), None if bias is None else bias.reshape(1))
        return row.squeeze(-1)
    return formulas.Linear.apply(input, weight, bias)


# ----------------------------------------------------------------------------------- activations


def sigmoid(input: Tensor) -> Tensor:
    """a = 1 / (1 + e⁻ᶻ), of any shape."""
    return formulas.Sigmoid.apply(input)


def tanh(input: Tensor) -> Tensor:
    """a = tanh z, of any shape."""
    return formulas.Tanh.apply(input)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """a = max(z, 0), of any shape."""
    return _inplace(formulas.ReLU, input) if inplace else formulas.ReLU.apply(input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """a = max(z, 0) + α min(z, 0) with α = ``negative_slope``, of any shape."""
    if inplace:
        return _inplace(formulas.LeakyReLU, input, negative_slope)
    return formulas.LeakyReLU.apply(input, negative_slope)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """a = z where z > 0, else α (eᶻ − 1), of any shape."""
    return _inplace(formulas.ELU, input, alpha) if inplace else formulas.ELU.apply(input, alpha)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """a = z Φ(z), or its approximation by ``"tanh"``, of any shape."""
    return formulas.GELU.apply(input, approximate)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """a = z σ(z), of any shape."""
    return _inplace(formulas.SiLU, input) if inplace else formulas.SiLU.apply(input)


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


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """a = z ⊙ m / (1 − p), m = 0 with probability ``p``; drawn as torch draws it.

    Raises:
        ValueError: ``p`` is no probability.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0 or input.numel() == 0:
        return input
    if inplace:
        return _inplace(formulas.Dropout, input, p)
    return formulas.Dropout.apply(input, p)[0]


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes ``start_dim`` … ``end_dim`` as one."""
    return formulas.Flatten.apply(input, start_dim, end_dim, input.shape)


# ----------------------------------------------------------------------------------------- costs


def squared_error(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The document's cost: C = (1/n) Σₙ Σⱼ (aₙⱼ − yₙⱼ)², a sum over outputs, a mean over examples.

    Nielsen's quadratic cost is half of it, ``mse_loss`` is it divided by the number of outputs:
    a learning rate belongs to one of the three.

    Args:
        input: activations a, (n, outputs, \\*), or (outputs,) for a single example.
        target: desired outputs y in the shape of ``input``, or classes as integers: (n, \\*), or ()
            for a single example.
        reduction: ``"mean"`` over examples, ``"sum"``, or ``"none"`` for the cost C₀ of each.

    Raises:
        ValueError: ``target`` has another shape, or ``reduction`` is none of the three.
    """
    _check_reduction(reduction)
    classes = not target.is_floating_point()
    expected = (*input.shape[:1], *input.shape[2:]) if input.dim() > 1 else ()
    if target.shape != (expected if classes else input.shape):
        raise ValueError(
            f"target: expected {tuple(input.shape)} for real values or {expected} for classes "
            f"(integers), to go with an input of {tuple(input.shape)}; got {tuple(target.shape)} "
            f"of {target.dtype}"
        )
    return formulas.SquaredError.apply(input, target, reduction)


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """C = mean of w (a − y)² over all entries: torch's, whose mean is over outputs too."""
    reduction = _legacy(size_average, reduce, reduction)
    if target.shape != input.shape and not torch.compiler.is_compiling():
        warnings.warn(
            f"Using a target size ({target.size()}) that is different to the input size "
            f"({input.size()}). This will likely lead to incorrect results due to broadcasting. "
            f"Please ensure they have the same size.",
            stacklevel=2,
        )
    if weight is not None and weight.shape != input.shape:
        raise ValueError(
            f"weight: expected the input's shape {tuple(input.shape)}; got {tuple(weight.shape)}"
        )
    return formulas.MSE.apply(input, target, weight, reduction)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """C = −log p_y, p = softmax(z): input (n, K, \\*) or (K,), target classes or probabilities."""
    reduction = _legacy(size_average, reduce, reduction)
    return formulas.CrossEntropy.apply(
        input, target, weight, ignore_index, reduction, label_smoothing
    )


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """C = −a_y: input log-probabilities (n, K, \\*) or (K,), target classes."""
    reduction = _legacy(size_average, reduce, reduction)
    return formulas.NLL.apply(input, target, weight, ignore_index, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """C = −y log σ(z) − (1 − y) log(1 − σ(z)), in a form that does not overflow."""
    reduction = _legacy(size_average, reduce, reduction)
    return formulas.BCEWithLogits.apply(input, target, weight, reduction, pos_weight)


# --------------------------------------------------------------------------------------- helpers


def _inplace(formula: type[Formula], input: Tensor, *options: float) -> Tensor:
    """torch's ``inplace``: the value takes the place of ``input``, which is returned."""
    # A formula is a function of its inputs, so it gets a copy that nobody overwrites.
    output = formula.apply(input.clone(), *options)
    return overwrite(input, output[0] if isinstance(output, tuple) else output)


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


def _legacy(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    if size_average is not None or reduce is not None:
        return _reduction.legacy_get_string(size_average, reduce)
    _check_reduction(reduction)
    return reduction


def _check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction: expected 'none', 'mean' or 'sum'; got {reduction!r}")
