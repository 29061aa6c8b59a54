"""A tape as a table, in the document's symbols, from the cost down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manualbp.derivation import lineage, rest
from manualbp.formula import Formula
from manualbp.graph import Structural
from manualbp.walk import OUTPUTS

SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def table(entries: Sequence[Any]) -> str:
    """The chain on one line; then, for each entry of a tape, its value and its rules."""
    if not entries:
        return "an empty tape: no formula has been called on it that wants a gradient"
    names, layers = _names(entries)
    chain = " ← ".join(_chain(entries, names))
    rows: list[list[str]] = []
    for index in range(len(entries) - 1, -1, -1):
        entry = entries[index]
        lines = stated(entry.formula)
        shape = "×".join(map(str, entry.shapes[0])) or "number"
        kept = "let go" if entry.kept is None else _size(entry.bytes)
        rows.append([names[index], entry.name, entry.path, shape, kept, lines["output"], ""])
        for i, (argument, source) in enumerate(_arguments(entry)):
            if source is None:
                continue
            symbol = lines["symbols"].get(argument, argument)
            target = names[source // OUTPUTS] if source >= 0 else symbol + layers[index]
            norm = ""
            if entry.given and entry.given[i] is not None:
                norm = f"‖∂C/∂{target}‖ = {entry.given[i].norm().item():.2e}"
            rows.append(
                ["", "", "", "", "", lines["rules"].get(argument, ""), norm or f"→ {target}"]
            )
    head = ["", "formula", "module", "shape", "keeps", "value, and what it passes back", ""]
    return "\n".join([chain, "", *columns(head, rows)])


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, each column as wide as it must be."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]


def stated(formula: Any) -> dict[str, Any]:
    """What a formula's docstrings say, line by line.

    The ∂ lines of a class belong to its own rules, in their order, or to all of its rules, those
    inherited first. A rule that no docstring of that class or of one above it states has no line.

    Returns:
        ``output``, the line of its value; ``rules``, the ∂ line of each argument that has one;
        ``symbols``, what mathematics calls each of these arguments; ``symbol``, its value.
    """
    if isinstance(formula, Structural):
        return {"output": "", "rules": {}, "symbols": {}, "symbol": "a"}
    output, lines, methods = formula.__name__, dict[str, str](), dict[str, None]()
    for cls in reversed(lineage(formula, Formula)):
        text = [line.strip() for line in (vars(cls).get("__doc__") or "").splitlines()]
        text = [line for line in text if line]
        partials = [line for line in text if line.startswith("∂C/∂")]
        own = {name: value for name, value in vars(cls).items() if name.startswith("grad_")}
        rules = [name for name, rule in own.items() if rule is not None]
        methods = {m: None for m in (*methods, *rules) if own.get(m, m) is not None}
        if text and "arity" not in vars(cls):  # a class of one arity has the docstring of all
            output = text[0]
        if partials and len(partials) == len(rules):
            lines |= dict(zip(rules, partials, strict=True))
        elif partials and len(partials) == len(methods):
            lines = dict(zip(methods, partials, strict=True))
        elif partials:
            lines = {}
        lines = {method: line for method, line in lines.items() if method in methods}
    found = {
        argument: lines[method]
        for argument in formula.derivation.wanted
        if (method := _rule_of(formula, argument)) in lines
    }
    symbols = {a: line[len("∂C/∂") :].partition(" = ")[0] for a, line in found.items()}
    return {"output": output, "rules": found, "symbols": symbols, "symbol": output[0]}


def _rule_of(formula: Any, argument: str) -> str:
    """The name of the rule of an argument, which one of any number shares with the others."""
    if formula.arity is not None and argument.rpartition("_")[0] == rest(formula.forward):
        argument = argument.rpartition("_")[0]
    return f"grad_{argument}"


def _arguments(entry: Any) -> list[tuple[str, Any]]:
    return list(zip(entry.formula.derivation.arguments, entry.codes, strict=True))


def _names(entries: Sequence[Any]) -> tuple[list[str], list[str]]:
    """A name for the value of each entry, and the number of the layer that it belongs to."""
    names, layers, layer = [], [], 0
    for entry in entries:
        symbol = stated(entry.formula)["symbol"]
        layer += symbol == "z"
        number = str(layer).translate(SUPERSCRIPTS)
        names.append(symbol if symbol == "C" else symbol + number)
        layers.append(number)
    return names, layers


def _chain(entries: Sequence[Any], names: list[str]) -> list[str]:
    """The longest way back from the last value, by the first source of each entry."""
    index: int | None = len(entries) - 1
    chain = []
    while index is not None:
        chain.append(names[index])
        before = [
            code // OUTPUTS for code in entries[index].codes if code is not None and code >= 0
        ]
        index = max(before) if before else None
    return chain


def _size(count: int) -> str:
    return f"{count / 1024:.1f} KiB" if count >= 1024 else f"{count} B"
