"""What the docstring of a formula says: the line of its value, and a ∂ line for each rule."""

from __future__ import annotations

import re
from typing import Any

from manualbp.core.derivation import lineage, variadic
from manualbp.core.formula import Formula
from manualbp.core.graph import Structural


def read_docstring(formula: Any) -> dict[str, Any]:
    """The lines of a formula's docstrings, by what they state.

    The ∂ lines of a class belong to its own rules, in their order, or to all of its rules, those
    inherited first. A rule that no docstring of that class or of one above it states has no line.

    Returns:
        ``output``, the line of its value; ``rules``, the ∂ line of each argument that has one;
        ``symbols``, the symbol of each of these arguments; ``symbol``, that of the value.
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
        for argument in formula.derivation.differentiable
        if (method := _rule_of(formula, argument)) in lines
    }
    symbols = {a: re.split(" [=≙] ", line)[0][len("∂C/∂") :] for a, line in found.items()}
    return {"output": output, "rules": found, "symbols": symbols, "symbol": output[0]}


def _rule_of(formula: Any, argument: str) -> str:
    """The name of the rule of an argument, which one of any number shares with the others."""
    if formula.arity is not None and argument.rpartition("_")[0] == variadic(formula.forward):
        argument = argument.rpartition("_")[0]
    return f"grad_{argument}"
