"""A tape as a table, in the document's symbols, from the cost down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manualbp.core.docstrings import read_docstring
from manualbp.core.tables import table_lines
from manualbp.tape.backward import MAX_OUTPUTS

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def table(entries: Sequence[Any]) -> str:
    """The chain on one line; then, for each entry of a tape, its value and its ∂ lines."""
    if not entries:
        return "an empty tape: no formula has been called on it that wants a gradient"
    names, layers = _names(entries)
    chain = " ← ".join(_chain(entries, names))
    rows: list[list[str]] = []
    for index in range(len(entries) - 1, -1, -1):
        entry = entries[index]
        lines = read_docstring(entry.formula)
        shape = "×".join(map(str, entry.shapes[0])) or "number"
        saved = "freed" if entry.saved is None else _size(entry.bytes)
        rows.append([names[index], entry.name, entry.path, shape, saved, lines["output"], ""])
        for i, (argument, source) in enumerate(_arguments(entry)):
            if source is None:
                continue
            symbol = lines["symbols"].get(argument, argument)
            target = names[source // MAX_OUTPUTS] if source >= 0 else symbol + layers[index]
            norm = ""
            if entry.grad_inputs and entry.grad_inputs[i] is not None:
                norm = f"‖∂C/∂{target}‖ = {entry.grad_inputs[i].norm().item():.2e}"
            rows.append(
                ["", "", "", "", "", lines["rules"].get(argument, ""), norm or f"→ {target}"]
            )
    head = ["", "formula", "module", "shape", "saves", "value, and what it passes back", ""]
    return "\n".join([chain, "", *table_lines(head, rows)])


def _arguments(entry: Any) -> list[tuple[str, Any]]:
    return list(zip(entry.formula.derivation.arguments, entry.sources, strict=True))


def _names(entries: Sequence[Any]) -> tuple[list[str], list[str]]:
    """A name for the value of each entry, and the number of its layer, as superscripts."""
    names, layers, layer = [], [], 0
    for entry in entries:
        symbol = read_docstring(entry.formula)["symbol"]
        layer += symbol == "z"
        number = str(layer).translate(SUPERSCRIPTS)
        names.append(symbol if symbol == "C" else symbol + number)
        layers.append(number)
    return names, layers


def _chain(entries: Sequence[Any], names: list[str]) -> list[str]:
    """Names from the last value back, each followed by the latest of its sources."""
    index: int | None = len(entries) - 1
    chain = []
    while index is not None:
        chain.append(names[index])
        before = [
            source // MAX_OUTPUTS
            for source in entries[index].sources
            if source is not None and source >= 0
        ]
        index = max(before) if before else None
    return chain


def _size(count: int) -> str:
    return f"{count / 1024:.1f} KiB" if count >= 1024 else f"{count} B"
