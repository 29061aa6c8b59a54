"""What arrives from above, and how far one gradient is from another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from manualbp.verification.truth import as_real


def upstream_like(outputs: Sequence[Tensor], number: int = 0) -> list[Tensor]:
    """Random gradients from above: normal, none of them near zero."""
    generator = torch.Generator().manual_seed(77 + number)
    found = []
    for t in outputs:
        g = torch.randn(t.shape, generator=generator, dtype=torch.double)
        g = g + 0.1 * torch.where(g < 0, -1.0, 1.0)
        found.append(g.to(device=t.device, dtype=t.dtype))
    return found


def inner(outputs: Sequence[Tensor], upstream: Sequence[Tensor]) -> Tensor:
    """⟨outputs, upstream⟩, as a vector of one number."""
    terms = [(t.double() * g.double()).sum() for t, g in zip(outputs, upstream, strict=True)]
    return torch.stack(terms).sum().reshape(1)


def dense(gradient: Tensor | None) -> Tensor | None:
    """A gradient that is sparse, as of an embedding, with its zeros."""
    return gradient.to_dense() if gradient is not None and gradient.is_sparse else gradient


def real(tensor: Any) -> Any:
    """A complex gradient as real numbers."""
    return None if tensor is None else as_real(tensor)


def nudge(value: Tensor, eps: float, number: int) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    noise = torch.randn(value.shape, generator=generator, dtype=torch.double).to(value.device)
    return (eps * noise * value.detach().abs()).to(torch.promote_types(value.dtype, torch.double))


def distance(found: Tensor | None, expected: Tensor | None) -> float:
    """The largest difference by the largest entry; None is zero."""
    if expected is None:
        found, expected = expected, found
    if expected is None:
        return 0.0
    found = torch.zeros_like(expected) if found is None else found
    if found.shape != expected.shape:
        return math.inf
    if not found.numel():
        return 0.0
    off = (found.detach().double() - expected.detach().double()).abs()
    off = torch.where(found.isnan() & expected.isnan(), torch.zeros_like(off), off)
    scale = float(expected.detach().double().abs().max())
    worst = float(off.max())
    if not math.isfinite(worst):
        same = torch.equal(found.detach().nan_to_num(), expected.detach().nan_to_num())
        return 0.0 if same else math.inf
    return worst / scale if scale else (worst if worst == 0 else math.inf)


def rounding_of(found: Tensor, expected: Tensor) -> str:
    """The precision as of which ``found`` is a rounded ``expected``; else ``""``.

    An error that is rounding has no pattern: entries are off both ways, by different factors.
    """
    scale = float(expected.abs().max())
    if expected.numel() < 4 or scale == 0:
        return ""
    there = expected.abs() > 1e-3 * scale
    off = ((found.double() - expected) / expected)[there]
    if off.numel() < 4 or bool((off > 0).all()) or bool((off < 0).all()):
        return ""
    worst = float((found.double() - expected).abs().max()) / scale
    if worst > 2e-6 or float(off.abs().max()) > 8e-6:
        return ""
    return "computed in float32" if float(off.std()) > 0.3 * float(off.abs().mean()) else ""


def where_not_finite(found: Tensor | None, value: Tensor) -> str:
    if found is None or found.shape != value.shape:
        return "is not finite, though the derivative is"
    bad = ~found.isfinite()
    what = "NaN" if bool(found.isnan().any()) else "infinite"
    at = value.detach()[bad].double()
    where = f"at inputs from {float(at.min()):.3g} to {float(at.max()):.3g}"
    if int(bad.sum()) == found.numel():
        where = "everywhere"
    return f"is {what} {where}, though the derivative is finite"


class NarrowDtypes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the narrowest floating dtype of what is computed inside, if narrower than ``than``."""

    def __init__(self, than: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.eps = torch.finfo(than).eps
        self.found: torch.dtype | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for t in tree_flatten(result)[0]:
            if isinstance(t, Tensor) and t.is_floating_point():
                eps = torch.finfo(t.dtype).eps
                if eps > self.eps:
                    self.eps, self.found = eps, t.dtype
        return result
