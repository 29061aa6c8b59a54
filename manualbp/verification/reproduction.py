"""A call as a person writes it: a few lines of Python that make the same arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor

#: what ``torch.tensor`` makes of a list without being told
_UNSAID = (torch.float32, torch.int64, torch.bool)


@dataclass
class Lines:
    """The lines of a program, and the names and values that it passes to the formula."""

    imports: list[str]
    body: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([*self.imports, "", *self.body])


def program(formula: Any, arguments: Sequence[Any]) -> Lines:
    """Lines that make ``formula`` and each tensor; other values are passed as they are written."""
    lines = Lines(["import torch", "import manualbp"], [f"formula = {_path(formula)}"])
    if not _path(formula).startswith("manualbp."):
        lines.imports.append(f"import {formula.__module__}")
    for name, value in zip(_names(formula, len(arguments)), arguments, strict=True):
        if isinstance(value, Tensor):
            lines.body.append(f"{name} = {written(value)}")
        lines.passed.append(name if isinstance(value, Tensor) else written(value))
    return lines


def written(value: Any) -> str:
    """An expression whose value is ``value``: of a tensor its numbers, dtype and strides."""
    if isinstance(value, Tensor):
        asked = ".requires_grad_()" if value.requires_grad else ""
        return f"{_tensor(value.detach())}{asked}"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, torch.Size):
        return written(tuple(value))
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{written(k)}: {written(v)}' for k, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(written, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _tensor(t: Tensor) -> str:
    shape, dtype = tuple(t.shape), f", dtype={t.dtype}"
    said = "" if t.dtype in _UNSAID else dtype
    if not t.numel():
        return f"torch.empty({shape}{said})"
    for axis, (size, stride) in enumerate(zip(t.shape, t.stride(), strict=True)):
        if stride == 0 and size > 1:
            t = t.narrow(axis, 0, 1)
    made = f"torch.tensor({written(t.tolist())}{said})"
    if tuple(t.shape) != shape:
        return f"{made}.expand{shape}"
    if t.is_contiguous():
        return made
    # Strides of axes of length 1 say nothing, but some kernels read them.
    return f"torch.empty_strided({shape}, {t.stride()}{dtype}).copy_({made})"


def _path(formula: Any) -> str:
    """How a formula is reached from what is imported."""
    module, name = formula.__module__, formula.__qualname__
    return (
        f"manualbp.formulas.{name}"
        if module.startswith("manualbp.formulas.")
        else (f"{module}.{name}")
    )


def _names(formula: Any, count: int) -> list[str]:
    """The names that ``forward`` has for so many arguments."""
    found: list[str] = []
    for name, parameter in signature(formula.forward).parameters.items():
        if parameter.kind is Parameter.VAR_POSITIONAL:
            return [*found, *(f"{name}_{i}" for i in range(count - len(found)))]
        found.append(name)
    return found
