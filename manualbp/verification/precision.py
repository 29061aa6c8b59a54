"""Is it as precise as its inputs? In the dtype given, in narrower ones, under autocast."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from manualbp.verification.examination import BackwardRaised, Examination, first_line
from manualbp.verification.numbers import distance, upstream_like
from manualbp.verification.subject import Point

#: what a gradient may be off by the largest entry, beside what rounding the inputs changes
ALLOWED = {torch.float: 1e-4, torch.half: 0.04, torch.bfloat16: 0.2}


def in_narrower_dtypes(ex: Examination) -> None:
    """float32, bfloat16 and what was given, beside float64 at the same rounded numbers."""
    if ex.dtype is not torch.double:
        return
    given = ex.subject.dtype
    for dtype in dict.fromkeys((given, torch.float, torch.bfloat16)):
        if dtype is not torch.double:
            _beside_double(ex, dtype, dtype is given)


def _beside_double(ex: Examination, dtype: torch.dtype, given: bool) -> None:
    name = f"{str(dtype).removeprefix('torch.')} beside float64"
    point = _rounded(ex.base, dtype)
    try:
        found = ex.pull(point, _arriving, dtype=dtype)
    except BackwardRaised as raised:
        told = f"{_name(dtype)}: the backward pass raises {first_line(raised)}"
        ex.note("raises" if given else "unsupported", told)
        return
    except Exception as raised:
        ex.note("unsupported", f"{_name(dtype)}: {first_line(raised)}")
        return
    truth = ex.pull(point, lambda _: [g.double() for g in found.upstream])
    for i, grad in found.grads.items():
        if i in ex.accused:
            continue
        expected = truth.grads[i]
        error = distance(grad, expected)
        ex.check(name).saw(error)
        allowed = ALLOWED[dtype] * (1 + 0.3 * _conditioned(ex, point, found.upstream, i, dtype))
        if error <= allowed or not _representable(expected, dtype):
            continue
        if grad is not None and not bool(grad.isfinite().all()):
            if all(bool(t.isfinite().all()) for t in found.run.outputs):
                told = f"is not finite only in {_name(dtype)}, though value and derivative are"
                ex.find("nan", told, i)
            continue
        if any(
            distance(a, b) > allowed
            for a, b in zip(found.run.outputs, truth.run.outputs, strict=True)
        ):
            continue  # the value itself is as far off
        kind = "wrong" if error > 0.5 else "imprecise"
        told = f"is off by {100 * error:.2g} % only in {_name(dtype)}: "
        told += "does it subtract what is nearly equal?"
        ex.find(kind, told, i, error)


def under_autocast(ex: Examination) -> None:
    """Under autocast to bfloat16, beside float32."""
    name = "autocast"
    if ex.dtype is not torch.double or ex.subject.dtype not in (torch.double, torch.float):
        return
    point = _rounded(ex.base, torch.float)
    try:
        found = ex.pull(point, _arriving, dtype=torch.float, autocast=True)
    except Exception as raised:
        ex.note("unsupported", f"autocast: {first_line(raised)}")
        return
    truth = ex.pull(point, lambda _: [g.double() for g in found.upstream])
    for i, grad in found.grads.items():
        error = distance(grad, truth.grads[i])
        ex.check(name).saw(error)
        allowed = ALLOWED[torch.bfloat16]
        allowed *= 1 + 0.3 * _conditioned(ex, point, found.upstream, i, torch.bfloat16)
        if i in ex.accused or error <= allowed:
            continue
        if any(
            distance(a, b) > allowed
            for a, b in zip(found.run.outputs, truth.run.outputs, strict=True)
        ):
            continue
        finite = grad is None or bool(grad.isfinite().all())
        ex.find("wrong" if finite else "nan", "is wrong only under autocast", i, error)


def _arriving(outputs: Sequence[Tensor]) -> list[Tensor]:
    return upstream_like(outputs, 6)


def _rounded(point: Point, dtype: torch.dtype) -> Point:
    def rounded(t: object) -> object:
        if not isinstance(t, Tensor) or not t.is_floating_point():
            return t
        return t.detach().to(dtype).double()

    values = [v if v.is_complex() else v.detach().to(dtype).double() for v in point.values]
    return replace(point, values=values, others=[rounded(v) for v in point.others])


def _conditioned(
    ex: Examination, point: Point, upstream: list[Tensor], i: int, dtype: torch.dtype
) -> float:
    """How many times more the gradient changes than its inputs do, when these are rounded."""
    eps = torch.finfo(dtype).eps
    arriving = [g.double() for g in upstream]
    first = ex.pull(point, lambda _: arriving).grads[i]
    worst = 0.0
    for number in range(3):
        values = [
            v + eps * upstream_like([v.double()], number)[0] * v for v in map(_wide, point.values)
        ]
        with contextlib.suppress(Exception):
            near = ex.pull(replace(point, values=values), lambda _: arriving).grads[i]
            worst = max(worst, distance(near, first) / eps)
    return worst


def _wide(t: Tensor) -> Tensor:
    return t.detach() if t.is_complex() else t.detach().double()


def _representable(expected: Tensor | None, dtype: torch.dtype) -> bool:
    """Whether the right gradient fits the dtype's range."""
    if expected is None or not expected.numel():
        return True
    limits = torch.finfo(dtype)
    largest = float(expected.detach().abs().max())
    return 16 * limits.smallest_normal < largest < limits.max / 16


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
