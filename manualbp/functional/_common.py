"""Helpers that several functions share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import _reduction

from manualbp.core.formula import Formula
from manualbp.core.modes import is_compiling


def dealiased(other: Any, input: Any) -> Any:
    """``other``, as a view if it is ``input``: Dynamo refuses the same tensor twice."""
    if other is input and is_compiling():
        return other.view_as(other)
    return other


def run_of(formula: type[Formula], *without_rule: Tensor | None) -> Callable[..., Tensor]:
    """``apply``; or ``forward``, where a gradient is asked for an argument without a rule.

    Autograd then differentiates torch's own operations, or refuses as torch does.
    """
    for argument in without_rule:
        if argument is not None and argument.requires_grad:
            return formula.forward
    return formula.apply


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    if size_average is not None or reduce is not None:
        return _reduction.legacy_get_string(size_average, reduce)
    check_reduction(reduction)
    return reduction


def check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction: expected 'none', 'mean' or 'sum'; got {reduction!r}")
