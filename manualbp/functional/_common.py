"""What several of the functions need."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import _reduction

from manualbp.core.formula import Formula
from manualbp.core.modes import is_compiling
from manualbp.core.running import eager
from manualbp.tape.tape import overwrite, unhooked


def inplace_(formula: type[Formula], input: Tensor, *options: float | None) -> Tensor:
    """torch's ``inplace``: the value takes the place of ``input``, which is returned."""
    if (
        formula.in_place is not None
        and eager()
        and not (input.is_leaf and input.requires_grad)
        # Autograd looks at a view after the formula has run, and takes one output alone of it.
        and not input._is_view()
    ):
        output = formula.in_place(input, *options)
        return output[0] if isinstance(output, tuple) else output
    # A formula is a function of its inputs, so it gets a copy that nobody overwrites.
    output = formula.apply(unhooked(input).clone(), *options)
    return overwrite(input, output[0] if isinstance(output, tuple) else output)


def dealiased(other: Any, input: Any) -> Any:
    """``other``, as another tensor where it is ``input``: Dynamo refuses one tensor twice."""
    if other is input and is_compiling():
        return other.view_as(other)
    return other


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    if size_average is not None or reduce is not None:
        return _reduction.legacy_get_string(size_average, reduce)
    check_reduction(reduction)
    return reduction


def check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction: expected 'none', 'mean' or 'sum'; got {reduction!r}")
