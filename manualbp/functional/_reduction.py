"""Reductions. ``dim`` is one axis or several; None and () mean all."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as index_of
from typing import Any

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.core.modes import is_grad_enabled
from manualbp.functional._arithmetic import maximum, minimum

__all__ = [
    "amax",
    "amin",
    "aminmax",
    "cumprod",
    "cumsum",
    "dist",
    "kthvalue",
    "logsumexp",
    "max",
    "mean",
    "median",
    "min",
    "nanmedian",
    "nansum",
    "norm",
    "prod",
    "sort",
    "std",
    "std_mean",
    "sum",
    "topk",
    "trace",
    "var",
    "var_mean",
    "vector_norm",
]

Dim = int | Sequence[int] | None


# ------------------------------------------------------------------------------ sums and means


def sum(
    input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """a = Σ x."""
    input = _cast_input(input, dtype)
    return _cast_output(formulas.Sum.apply(input, _axes(dim), keepdim, input.shape), dtype)


def mean(
    input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """a = Σ x / n."""
    input = _cast_input(input, dtype)
    return formulas.Mean.apply(input, _axes(dim), keepdim, input.shape)


def nansum(
    input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """a = Σ x over those x that are not nan."""
    return formulas.NanSum.apply(_cast_input(input, dtype), _axes(dim), keepdim)


def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    if input.dim() != 2:
        raise RuntimeError(f"trace: expected a matrix, got {input.dim()} axes")
    return sum(input.diagonal())


def logsumexp(input: Tensor, dim: int | Sequence[int], keepdim: bool = False) -> Tensor:
    """a = log Σ eˣ."""
    return formulas.LogSumExp.apply(input, dim if isinstance(dim, int) else tuple(dim), keepdim)


def cumsum(input: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """aⱼ = Σ xᵢ over i ≤ j, along ``dim``."""
    return _cast_output(formulas.Cumsum.apply(_cast_input(input, dtype), dim), dtype)


def prod(
    input: Tensor,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """a = Π x, along one axis or over all."""
    axis = dim if dim is None else index_of(dim)
    return _cast_output(formulas.Prod.apply(_cast_input(input, dtype), axis, keepdim), dtype)


def cumprod(input: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """aⱼ = Π xᵢ over i ≤ j, along ``dim``."""
    return _cast_output(formulas.Cumprod.apply(_cast_input(input, dtype), dim), dtype)


# ----------------------------------------------------------------------- variances and norms


def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """a = Σ (x − m)² / (n − ``correction``),  m the mean; unbiased with 1, the default."""
    return formulas.Var.apply(input, *_axes_and_correction(dim, unbiased, correction), keepdim)


def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """The square root of :func:`var`."""
    return formulas.Std.apply(input, *_axes_and_correction(dim, unbiased, correction), keepdim)


def var_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`var` and :func:`mean`."""
    dim, correction = _axes_and_correction(dim, unbiased, correction)
    return formulas.Var.apply(input, dim, correction, keepdim), mean(input, dim, keepdim)


def std_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`std` and :func:`mean`."""
    dim, correction = _axes_and_correction(dim, unbiased, correction)
    return formulas.Std.apply(input, dim, correction, keepdim), mean(input, dim, keepdim)


def norm(
    input: Tensor,
    p: float | str | None = "fro",
    dim: Dim = None,
    keepdim: bool = False,
    out: None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """a = (Σ |x|ᵖ)^(1/p), of all numbers along ``dim``; ``"fro"`` is p = 2."""
    if out is not None:
        raise ValueError("norm: a formula does not write into out")
    if p == "nuc":
        raise NotImplementedError("norm: p='nuc', the sum of the singular values, has no formula")
    return vector_norm(
        input, 2 if p is None or isinstance(p, str) else p, dim, keepdim, dtype=dtype
    )


def vector_norm(
    x: Tensor,
    ord: float = 2,
    dim: Dim = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """a = (Σ |x|ᵖ)^(1/p) with p = ``ord``; the largest |x| where that is infinite."""
    if dtype is not None and torch.promote_types(x.dtype, dtype) is not dtype:
        raise RuntimeError(f"dtype: {dtype} holds less than the {x.dtype} of x")
    return formulas.Norm.apply(_cast_input(x, dtype), ord, _axes(dim), keepdim)


def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """a = (Σ |x − y|ᵖ)^(1/p); the shapes broadcast."""
    return formulas.Dist.apply(input, other, p)


# ----------------------------------------------------------------------------------- selection


def amax(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The largest x; the gradient goes to equals in equal parts."""
    return formulas.Amax.apply(input, _axes(dim), keepdim)


def amin(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The smallest x; the gradient goes to equals in equal parts."""
    return formulas.Amin.apply(input, _axes(dim), keepdim)


def aminmax(
    input: Tensor, *, dim: int | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """:func:`amin` and :func:`amax`, of one axis or all."""
    both = amin(input, dim, keepdim), amax(input, dim, keepdim)
    return torch.return_types.aminmax(both)


def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The largest x of all; along ``dim``, with its index; or of two tensors."""
    if isinstance(dim, Tensor) or other is not None:
        return maximum(input, dim if other is None else other)
    _check_tensor("max", input)
    return _pick_one("max", input) if dim is None else _pick_along("max", input, dim, keepdim)


def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The smallest x of all; along ``dim``, with its index; or of two tensors."""
    if isinstance(dim, Tensor) or other is not None:
        return minimum(input, dim if other is None else other)
    _check_tensor("min", input)
    return _pick_one("min", input) if dim is None else _pick_along("min", input, dim, keepdim)


def _check_tensor(name: str, input: Any) -> None:
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}")


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower median of all; or along ``dim``, with its index."""
    return _pick_one("median", input) if dim is None else _pick_along("median", input, dim, keepdim)


def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """:func:`median` of the entries that are not nan."""
    return (
        _pick_one("nanmedian", input)
        if dim is None
        else _pick_along("nanmedian", input, dim, keepdim)
    )


def kthvalue(
    input: Tensor, k: int, dim: int | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """The kth smallest along ``dim``, the last by default, with its index."""
    return _pick_along("kthvalue", input, -1 if dim is None else dim, keepdim, k=k)


def topk(
    input: Tensor, k: int, dim: int | None = None, largest: bool = True, sorted: bool = True
) -> tuple[Tensor, Tensor]:
    """The ``k`` largest, or smallest, along ``dim``, the last by default, with their indices."""
    options = {"k": k, "largest": largest, "sorted": sorted}
    return _pick_several("topk", input, -1 if dim is None else dim, **options)


def sort(
    input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False
) -> tuple[Tensor, Tensor]:
    """Smallest first, or largest first, along ``dim``, with their indices."""
    return _pick_several("sort", input, dim, descending=descending, stable=stable)


def _pick_one(which: str, input: Tensor) -> Tensor:
    return formulas.PickOne.apply(input, which)


def _pick_along(which: str, input: Tensor, dim: int, keepdim: bool, **options: Any) -> Any:
    dim, options["keepdim"] = index_of(dim), keepdim
    picked = formulas.PickAlong.apply(input, which, dim, keepdim, options, input.shape)
    return getattr(torch.return_types, which)(picked)


def _pick_several(which: str, input: Tensor, dim: int, **options: Any) -> Any:
    picked = formulas.PickAlong.apply(input, which, index_of(dim), True, options, input.shape)
    return getattr(torch.return_types, which)(picked)


# ------------------------------------------------------------------------------------ arguments


def _axes(dim: Dim) -> int | tuple[int, ...] | None:
    return dim if dim is None or isinstance(dim, int) else tuple(dim) or None


def _cast_input(input: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None:
        return input
    continuous = dtype.is_floating_point or dtype.is_complex
    if not continuous and input.requires_grad and is_grad_enabled():
        raise RuntimeError(f"dtype: {dtype} has no gradients, but input asks for one")
    return input.to(dtype)


def _cast_output(output: Tensor, dtype: torch.dtype | None) -> Tensor:
    """``output`` in ``dtype``, because sums and products of small integers are int64."""
    return output if dtype is None or output.dtype is dtype else output.to(dtype)


def _axes_and_correction(
    dim: Any, unbiased: bool | None, correction: float | None
) -> tuple[int | tuple[int, ...] | None, float]:
    """torch's three ways to say c: ``var(x, False)``, ``var(x, 1, False)``, ``correction=0``."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    return _axes(dim), correction
