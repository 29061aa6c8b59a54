"""The slope σ′(z) of an activation, as its own rule has it."""

from __future__ import annotations

import torch
from torch import Tensor

from manualbp.core.docstrings import read_docstring
from manualbp.core.graph import Structural
from manualbp.tape import Entry

#: below this share of the steepest slope a unit is saturated
SATURATED = 0.05


def slope(entry: Entry, *, named: bool = True) -> Tensor | None:
    """σ′(z), in the shape of z, where a formula is an activation that acts entry by entry.

    With ``named=False`` it may be any formula that acts so, such as dropout.

    A rule acts entry by entry if what it returns for any g is g ⊙ what it returns for ones.
    """
    if isinstance(entry.formula, Structural) or entry.sources[0] is None:
        return None
    value = next(iter(entry.inputs.values()), None)
    if (
        not isinstance(value, Tensor)
        or value.shape != entry.shapes[0]
        or (named and not _named(entry))
    ):
        return None
    g = torch.randn(value.shape, generator=torch.Generator().manual_seed(0), dtype=value.dtype)
    g = g.to(value.device)
    of_ones = entry.pull_back(torch.ones_like(g))[0]
    of_g = entry.pull_back(g)[0]
    if of_ones is None or of_g is None or of_ones.shape != value.shape:
        return None
    off = (of_g - g * of_ones).abs().max() if g.numel() else 0.0
    small = 16 * torch.finfo(value.dtype).eps * (1 + of_ones.abs().max()) * 4 if g.numel() else 0.0
    return of_ones if off <= small else None


def _named(entry: Entry) -> bool:
    """Whether it is an activation by its docstring, a = σ(z), or somebody's own formula."""
    module: str = getattr(entry.formula, "__module__", "")
    lines = read_docstring(entry.formula)
    symbols = list(lines["symbols"].values())
    return not module.startswith("manualbp.formulas.") or (
        module.endswith(".activation") and symbols[:1] == ["z"]
    )


def steepest(entry: Entry) -> float:
    """The largest slope that the activation of ``entry`` has, for z from −8 to 8."""
    first, *others = entry.inputs.values()
    z = torch.linspace(-8, 8, 257, dtype=first.dtype, device=first.device, requires_grad=True)
    others = [o.detach().flatten()[:1] if isinstance(o, Tensor) else o for o in others]
    with torch.enable_grad():
        a = entry.formula.apply(z, *others)
        a = a[0] if isinstance(a, tuple) else a
        (found,) = torch.autograd.grad(a.sum(), z)
    return float(found.abs().max())


def activation(entries: list[Entry]) -> tuple[Entry, Tensor] | None:
    """The activation that a layer is, and its slope; None where it is another thing."""
    formulas = [entry for entry in entries if not isinstance(entry.formula, Structural)]
    if len(formulas) != 1 or (found := slope(formulas[0])) is None:
        return None
    return formulas[0], found
