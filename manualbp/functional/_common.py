"""What several of the functions need."""

from __future__ import annotations

from typing import Any

from torch.nn import _reduction

from manualbp.core.modes import is_compiling


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
