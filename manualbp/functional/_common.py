"""What several of the functions need."""

from __future__ import annotations

from torch import Tensor
from torch.nn import _reduction

from manualbp.formula import Formula
from manualbp.tape import overwrite


def inplace_(formula: type[Formula], input: Tensor, *options: float) -> Tensor:
    """torch's ``inplace``: the value takes the place of ``input``, which is returned."""
    # A formula is a function of its inputs, so it gets a copy that nobody overwrites.
    output = formula.apply(input.clone(), *options)
    return overwrite(input, output[0] if isinstance(output, tuple) else output)


def legacy_reduction(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    if size_average is not None or reduce is not None:
        return _reduction.legacy_get_string(size_average, reduce)
    check_reduction(reduction)
    return reduction


def check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction: expected 'none', 'mean' or 'sum'; got {reduction!r}")
