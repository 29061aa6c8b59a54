"""Fewer numbers from many: sums, means, spreads, norms, along some axes or over everything.

The axes ``dim`` are one, several, or all where it is None or (); n is how many numbers make one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Size, Tensor

from manualbp.core.formula import Formula

__all__ = [
    "Amax",
    "Amin",
    "Cumprod",
    "Cumsum",
    "Dist",
    "LogSumExp",
    "Mean",
    "NanSum",
    "Norm",
    "PickAlong",
    "PickOne",
    "Prod",
    "Std",
    "Sum",
    "Var",
]

Dim = int | tuple[int, ...] | None


def _with_axes(a: Tensor, dim: Dim, keepdim: bool, shape: Size) -> Tensor:
    """The value of a reduction with its axes restored, of length 1, to broadcast."""
    if keepdim or not shape or dim is None:
        return a
    if isinstance(dim, int):
        return a.unsqueeze(dim)
    for axis in sorted(d % len(shape) for d in dim):
        a = a.unsqueeze(axis)
    return a


# ------------------------------------------------------------------------------ sums and means


class Sum(Formula):
    """a = Σ x

    ∂C/∂x = g
    """

    holomorphic = True
    opmath = False

    @staticmethod
    def forward(input: Tensor, dim: Dim, keepdim: bool, shape: Size) -> Tensor:
        return torch.sum(input, dim, keepdim)

    @staticmethod
    def grad_input(g: Tensor, dim: Dim, keepdim: bool, shape: Size) -> Tensor:
        return _with_axes(g, dim, keepdim, shape).expand(shape)


class Mean(Formula):
    """a = Σ x / n

    ∂C/∂x = g / n
    """

    holomorphic = True
    opmath = False

    @staticmethod
    def forward(input: Tensor, dim: Dim, keepdim: bool, shape: Size) -> Tensor:
        return torch.mean(input, dim, keepdim)

    @staticmethod
    def grad_input(g: Tensor, dim: Dim, keepdim: bool, shape: Size) -> Tensor:
        share = g / max(math.prod(shape) // max(g.numel(), 1), 1)
        return _with_axes(share, dim, keepdim, shape).expand(shape)


class NanSum(Formula):
    """a = Σ (x where x is a number, else 0)

    ∂C/∂x = g where x is a number, else 0
    """

    @staticmethod
    def forward(input: Tensor, dim: Dim, keepdim: bool) -> Tensor:
        return torch.nansum(input, dim, keepdim)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, dim: Dim, keepdim: bool) -> Tensor:
        return _with_axes(g, dim, keepdim, input.shape) * ~input.isnan()


class LogSumExp(Formula):
    """a = log Σ eˣ

    ∂C/∂x = g ⊙ e^(x − a)
    """

    @staticmethod
    def forward(input: Tensor, dim: int | tuple[int, ...], keepdim: bool) -> Tensor:
        return torch.logsumexp(input, dim, keepdim)

    @staticmethod
    def grad_input(
        g: Tensor, input: Tensor, output: Tensor, dim: int | tuple[int, ...], keepdim: bool
    ) -> Tensor:
        a = _with_axes(output, dim, keepdim, input.shape)
        return _with_axes(g, dim, keepdim, input.shape) * (input - a).exp()


class Cumsum(Formula):
    """aⱼ = Σ_{i ≤ j} xᵢ,  along an axis

    ∂C/∂xᵢ = Σ_{j ≥ i} gⱼ
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, dim: int) -> Tensor:
        return torch.cumsum(input, dim)

    @staticmethod
    def grad_input(g: Tensor, dim: int) -> Tensor:
        return g.flip(dim).cumsum(dim).flip(dim) if g.dim() else g


# ---------------------------------------------------------------------------------- products


class Prod(Formula):
    """a = Π x,  along an axis or over everything

    ∂C/∂xᵢ = g Π_{j ≠ i} xⱼ
    """

    @staticmethod
    def forward(input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
        return torch.prod(input) if dim is None else torch.prod(input, dim, keepdim)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
        # The product of those before and after x, not a / x, because x may be 0.
        x = input.flatten() if dim is None else input
        axis = 0 if dim is None else dim
        others = _product_before(x, axis) * _product_before(x.flip(axis), axis).flip(axis)
        return _with_axes(g, dim, keepdim, input.shape) * others.reshape(input.shape)


class Cumprod(Formula):
    """aⱼ = Π_{i ≤ j} xᵢ,  along an axis

    ∂C/∂xᵢ = Σ_{j ≥ i} gⱼ Π_{k ≤ j, k ≠ i} xₖ
    """

    @staticmethod
    def forward(input: Tensor, dim: int) -> Tensor:
        return torch.cumprod(input, dim)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, dim: int) -> Tensor:
        if not input.dim():
            return g
        # The product before xᵢ times rᵢ = gᵢ + xᵢ₊₁ rᵢ₊₁, not g a / x, because x may be 0. Each
        # round of the loop doubles the span of the recurrence; x is the product over a span.
        r, n = g.movedim(dim, -1), input.shape[dim]
        x, span = _shifted(input.movedim(dim, -1), 1), 1
        while span < n:
            r = r + x * _shifted(r, span)
            x = x * _shifted(x, span)
            span *= 2
        return _product_before(input, dim) * r.movedim(-1, dim)


def _product_before(x: Tensor, dim: int) -> Tensor:
    """The product of all x before each x along an axis."""
    if not x.dim():
        return torch.ones_like(x)
    ones = torch.ones_like(x.narrow(dim, 0, min(1, x.shape[dim])))
    return torch.cat([ones, x.narrow(dim, 0, max(x.shape[dim] - 1, 0))], dim).cumprod(dim)


def _shifted(x: Tensor, places: int) -> Tensor:
    """x shifted to the left by ``places`` along the last axis, with 0 at the end."""
    return torch.nn.functional.pad(x[..., places:], (0, min(places, x.shape[-1])))


# ------------------------------------------------------------------------- spreads and norms


class Var(Formula):
    """a = Σ (x − m)² / (n − c),  m = mean(x)

    ∂C/∂x = 2 g (x − m) / (n − c)
    """

    @staticmethod
    def forward(input: Tensor, dim: Dim, correction: float, keepdim: bool) -> Tensor:
        return torch.var(input, dim, correction=correction, keepdim=keepdim)

    @staticmethod
    def grad_input(
        g: Tensor,
        input: Tensor,
        dim: Dim,
        correction: float,
        keepdim: bool,
    ) -> Tensor:
        return _deviation(2 * g, input, dim, correction, keepdim)


class Std(Formula):
    """a = √(Σ (x − m)² / (n − c)),  m = mean(x)

    ∂C/∂x = 0 where a = 0, else g (x − m) / a (n − c)
    """

    @staticmethod
    def forward(input: Tensor, dim: Dim, correction: float, keepdim: bool) -> Tensor:
        return torch.std(input, dim, correction=correction, keepdim=keepdim)

    @staticmethod
    def grad_input(
        g: Tensor,
        input: Tensor,
        output: Tensor,
        dim: Dim,
        correction: float,
        keepdim: bool,
    ) -> Tensor:
        share = (g / output).masked_fill(output == 0, 0)
        return _deviation(share, input, dim, correction, keepdim)


def _deviation(share: Tensor, input: Tensor, dim: Dim, correction: float, keepdim: bool) -> Tensor:
    """share (x − m) / (n − c)."""
    mean = torch.mean(input, dim, keepdim=True)
    left = max(input.numel() // max(share.numel(), 1) - correction, 0)
    each = share / left if left else share * math.inf
    return _with_axes(each, dim, keepdim, input.shape) * (input - mean)


class Norm(Formula):
    """a = (Σ |x|ᵖ)^(1/p),  the largest |x| where p = ∞

    ∂C/∂x = 0 where a = 0, else g sign x (|x| / a)ᵖ⁻¹
    """

    @staticmethod
    def forward(input: Tensor, p: float, dim: Dim, keepdim: bool) -> Tensor:
        return torch.linalg.vector_norm(input, p, dim, keepdim)

    @staticmethod
    def grad_input(
        g: Tensor,
        input: Tensor,
        output: Tensor,
        p: float,
        dim: Dim,
        keepdim: bool,
    ) -> Tensor:
        a = _with_axes(output, dim, keepdim, input.shape)
        return _masked_at_norm_0(_with_axes(g, dim, keepdim, input.shape), a, p) * _slope_of_norm(
            input, a, p, dim
        )


class Dist(Formula):
    """a = (Σ |x − y|ᵖ)^(1/p)

    ∂C/∂x = 0 where a = 0, else g sign(x − y) (|x − y| / a)ᵖ⁻¹
    ∂C/∂y = −∂C/∂x
    """

    broadcasts = True

    @staticmethod
    def forward(input: Tensor, other: Tensor, p: float) -> Tensor:
        return torch.dist(input, other, p)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, other: Tensor, output: Tensor, p: float) -> Tensor:
        difference = input - other
        # Rounded, the output is the size of no difference.
        a = torch.linalg.vector_norm(difference, p) if math.isinf(p) else output
        return _masked_at_norm_0(g, a, p) * _slope_of_norm(difference, a, p, None)

    @staticmethod
    def grad_other(g: Tensor, grad_input: Tensor) -> Tensor:
        return -grad_input


def _masked_at_norm_0(g: Tensor, a: Tensor, p: float) -> Tensor:
    """g, but 0 where the norm a is 0, because the second derivative is not finite there.

    For p ≤ 1 and p = 2 the slope of the norm is 0 there instead, as in torch; for p = 0 everywhere.
    """
    if p == 0:
        return torch.zeros_like(g)
    return g if p <= 1 or p == 2 or math.isinf(p) else g.masked_fill(a == 0, 0)


def _slope_of_norm(x: Tensor, a: Tensor, p: float, dim: Dim) -> Tensor:
    """∂a/∂x, where a is the norm of x."""
    if p == 0:
        return torch.zeros_like(x)
    if p == 1:
        return x.sign()
    if p == 2:
        return (x / a.masked_fill(a == 0, 1)).masked_fill(a == 0, 0)
    size = x.abs()
    if math.isinf(p):  # equals share the gradient
        largest = (size == a) | (size.isnan() & a.isnan())
        return x.sign() * largest / largest.sum(dim, keepdim=True)
    scaled = size / a.masked_fill(a == 0, 1)
    # For p < 1 a power of 0 is ∞, and times sign x = 0 it would be nan.
    slope = x.sign() * scaled.masked_fill(size == 0, 1).pow(p - 1)
    return slope if p > 0 else slope.masked_fill(a == 0, 0)


# ------------------------------------------------------------------------------------- choices


def _in_equal_parts(g: Tensor, chosen: Tensor, dim: Dim) -> Tensor:
    return chosen * (g / chosen.sum(dim, keepdim=True))


class Amax(Formula):
    """a = maxⱼ xⱼ

    ∂C/∂x = g [x = a] / Σⱼ [xⱼ = a]
    """

    @staticmethod
    def forward(input: Tensor, dim: Dim, keepdim: bool) -> Tensor:
        return torch.amax(input, () if dim is None else dim, keepdim)

    @staticmethod
    def grad_input(
        g: Tensor,
        input: Tensor,
        output: Tensor,
        dim: Dim,
        keepdim: bool,
    ) -> Tensor:
        largest = input == _with_axes(output, dim, keepdim, input.shape)
        return _in_equal_parts(_with_axes(g, dim, keepdim, input.shape), largest, dim)


class Amin(Amax):
    """a = minⱼ xⱼ

    ∂C/∂x = g [x = a] / Σⱼ [xⱼ = a]
    """

    @staticmethod
    def forward(input: Tensor, dim: Dim, keepdim: bool) -> Tensor:
        return torch.amin(input, () if dim is None else dim, keepdim)

    grad_input = Amax.__dict__["grad_input"]


class PickOne(Formula):
    """a = one of all x: the largest, smallest, median

    ∂C/∂x = g [x = a] / Σⱼ [xⱼ = a]
    """

    @staticmethod
    def forward(input: Tensor, which: str) -> Tensor:
        return getattr(torch, which)(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, output: Tensor) -> Tensor:
        chosen = (input == output) | (input.isnan() & output.isnan())
        return torch.where(chosen, g / chosen.sum(), 0)


class PickAlong(Formula):
    """a = x_m,  m where the largest, smallest, median … are along an axis

    ∂C/∂xⱼ = g [m = j]
    """

    outputs = ("values", "indices")

    @staticmethod
    def forward(
        input: Tensor, which: str, dim: int, keepdim: bool, options: dict[str, Any], shape: Size
    ) -> tuple[Tensor, Tensor]:
        return tuple(getattr(torch, which)(input, dim=dim, **options))

    @staticmethod
    def grad_input(
        g_values: Tensor, indices: Tensor, dim: int, keepdim: bool, shape: Size
    ) -> Tensor:
        g = _with_axes(g_values, dim, keepdim, shape)
        zeros = g.new_zeros(()).expand(shape)
        return zeros.scatter(dim, _with_axes(indices, dim, keepdim, shape), g)
