"""``formulas``: what the code itself says of every formula."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from inspect import Parameter, signature

from manualbp.commands.console import say
from manualbp.commands.line import RIGHT
from manualbp.commands.names import formulas_of
from manualbp.core.derivation import variadic
from manualbp.core.docstrings import read_docstring
from manualbp.core.formula import Formula


def formulas(*names: str) -> int:
    """The formulas: their values; by NAME, gradients and what these keep.

    NAME  a formula, in capitals or not, or what torch calls it: Linear, mse_loss.
          None: a list of all, one a line.
    """
    found = formulas_of(names)
    if not names:
        width = max(map(len, found))
        for name, formula in found.items():
            say(f"{name:{width}}  {_value(formula)[0]}")
        return RIGHT
    for i, formula in enumerate(found.values()):
        if i:
            say("")
        arguments = [str(p.replace(annotation=Parameter.empty)) for p in _parameters(formula)]
        say(f"{formula.__name__}({', '.join(arguments)})  {_place(formula)}", "bold")
        for line in _value(formula):
            say(f"  {line}")
        for line in _aligned(_gradients(formula)):
            say(f"  {line}")
    return RIGHT


def _parameters(formula: type[Formula]) -> list[Parameter]:
    return [*signature(formula.forward).parameters.values()]


def _value(formula: type[Formula]) -> list[str]:
    """The lines of the docstring before and between those of gradients."""
    lines = [line.strip() for line in (inspect.getdoc(formula) or "").splitlines()]
    value = [line for line in lines if line and not line.startswith("∂C/∂")]
    return value or [formula.__name__]


def _gradients(formula: type[Formula]) -> list[tuple[str, str, str]]:
    """Of each argument that has a gradient: its name, its ∂ line, what the rule keeps."""
    if formula.derivation is None:  # it takes any number of tensors, which have one rule
        name = variadic(formula.forward)
        lines = [line.strip() for line in (inspect.getdoc(formula) or "").splitlines()]
        keeps = tuple(signature(getattr(formula, f"grad_{name}")).parameters)[1:]
        return [(f"*{name}", line, _listed(keeps)) for line in lines if line.startswith("∂C/∂")]
    lines_of = read_docstring(formula)["rules"]
    found = []
    for name, keeps in formula.derivation.needs.items():
        shape = ("its shape",) if formula.broadcasts else ()
        found.append((name, lines_of.get(name, ""), _listed((*keeps, *shape))))
    return found


def _listed(keeps: Sequence[str]) -> str:
    return f"keeps {', '.join(keeps) or 'nothing'}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _place(formula: type[Formula]) -> str:
    """``file:line``, of a file below this folder without it."""
    file = inspect.getsourcefile(formula) or ""
    try:
        line = inspect.getsourcelines(formula)[1]
    except OSError:  # a function states it, its rule, below a decorator
        line = inspect.getsourcelines(vars(formula)["grad_input"].__func__)[1]
    below = os.path.relpath(file)
    return f"{file if below.startswith('..') else below}:{line}"
