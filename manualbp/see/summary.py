"""A trace as a table: one row a layer, its numbers side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from manualbp.core.tables import table_lines
from manualbp.see.layers import Layer
from manualbp.see.slopes import SATURATED, activation, steepest

HEAD = [
    "layer",
    "",
    "shape",
    "‖a‖",
    "σ′",
    "saturated",
    "dead",
    "‖δ‖",
    "‖∂C/∂W‖",
    "∂C/∂W : W",
    "keeps",
]


def numbers_of(layer: Layer, examples: int) -> dict[str, Any]:
    """What a row says, as plain numbers; None where it does not apply.

    Norms of values and of their gradients are those of one example: the root mean square over the
    examples, where the gradient is that of the example's own cost. So they do not depend on how
    many examples there are. ‖∂C/∂W‖ is that of the gradient that trains.
    """
    output = [t for t in tree_flatten(layer.output)[0] if isinstance(t, Tensor)]
    deltas = [t for t in tree_flatten(layer.grad_output)[0] if isinstance(t, Tensor)]
    found: dict[str, Any] = {
        "path": layer.path,
        "name": layer.name,
        "shape": [list(t.shape) for t in output],
        "value": norm(output, 1 / math.sqrt(examples)),
        "slope": None,
        "saturated": None,
        "dead": None,
        "delta": norm(deltas, math.sqrt(examples)),
        "grads": {name: norm([g]) for name, g in layer.grads.items()},
        "ratios": {
            name: _ratio(norm([g]), norm([layer.parameters[name]]))
            for name, g in layer.grads.items()
        },
        "bytes": layer.bytes,
    }
    return found | activity(layer)


def activity(layer: Layer) -> dict[str, float]:
    """Of an activation the mean slope, and the shares of saturated and of dead units."""
    if (acts := activation(layer.entries)) is None:
        return {}
    entry, slope = acts
    size = slope.abs()
    return {
        "slope": float(slope.double().mean()),
        "saturated": float((size < SATURATED * steepest(entry)).double().mean()),
        "dead": float((size.flatten(1) == 0).all(0).double().mean()) if size.dim() > 1 else 0.0,
    }


def table(rows: Sequence[dict[str, Any]], cost: dict[str, Any]) -> str:
    """The rows from the input to the cost, and a line that says what the columns are."""
    cells = [_cells(row) for row in rows]
    cells.append(["C", cost["name"], "", f"C = {digits(cost['cost'])}", *[""] * 7])
    used = [i for i in range(len(HEAD)) if i < 3 or any(row[i] for row in cells)]
    lines = table_lines([HEAD[i] for i in used], [[row[i] for i in used] for row in cells])
    return "\n".join([*lines, "", *LEGEND])


LEGEND = (
    "‖a‖, ‖δ‖   norms of an example's value and of ∂Cₙ/∂ it: root mean square over the examples",
    f"saturated  share of slopes σ′ below {SATURATED:.0%} of the steepest",
    "dead       share of units with σ′ = 0 for all examples",
)


def _cells(row: dict[str, Any]) -> list[str]:
    shapes = ", ".join("×".join(map(str, shape)) for shape in row["shape"])
    weight = next(iter(row["grads"]), None)
    return [
        row["path"],
        row["name"],
        shapes,
        digits(row["value"]),
        digits(row["slope"]),
        share(row["saturated"]),
        share(row["dead"]),
        digits(row["delta"]),
        digits(row["grads"].get(weight)),
        digits(row["ratios"].get(weight)),
        _size(row["bytes"]),
    ]


def digits(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return ""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:#.3g}".rstrip(".")
    return f"{value:.2e}"


def share(value: float | None) -> str:
    """As a percentage."""
    return "" if value is None else f"{value:.1%}"


def _size(count: int) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024  # type: ignore[assignment]
    return ""


def norm(tensors: Sequence[Tensor], scale: float = 1.0) -> float | None:
    """Of all numbers together, times ``scale``; None where there are none."""
    floating = [t.detach().double().norm() for t in tensors if t.is_floating_point()]
    return float(torch.stack(floating).norm()) * scale if floating else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None
