"""One table: of every formula, how the arguments of a call may be drawn."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from inspect import isclass
from typing import Any

from torch import Tensor

import manualbp.formulas
from manualbp.core.formula import Formula
from manualbp.verification.samples.source import Source

Draw = Callable[[Source], tuple[Any, ...]]
"""Draws the arguments of ``apply``, by position."""

#: the other tables add to it
TABLE: dict[type[Formula], Draw] = {}
SURROGATES: dict[type[Formula], Callable[..., Any]] = {}


def of(*formulas: type[Formula]) -> Callable[[Draw], Draw]:
    """The function below draws the arguments of these formulas."""

    def register(draw: Draw) -> Draw:
        TABLE.update(dict.fromkeys(formulas, draw))
        return draw

    return register


def formulas(*names: str) -> dict[str, type[Formula]]:
    """The formulas of these names, or all of :mod:`manualbp.formulas`, by name.

    Raises:
        ValueError: a name that no formula has; the message says which are near to it.
    """
    found = {
        name: value
        for name, value in sorted(vars(manualbp.formulas).items())
        if isclass(value) and issubclass(value, Formula) and not name.startswith("_")
    }
    for name in names:
        if name not in found:
            by_lower = {known.lower(): known for known in found}
            near = difflib.get_close_matches(name.lower(), by_lower, n=3)
            hint = f"; near to it: {', '.join(by_lower[n] for n in near)}" if near else ""
            raise ValueError(f"no formula is called {name!r}{hint}")
    return {name: found[name] for name in names} if names else found


def draw(formula: type[Formula] | str, source: Source) -> tuple[Any, ...]:
    """Arguments for ``formula.apply``, by position; no tensor requires a gradient.

    Args:
        formula: one of :mod:`manualbp.formulas`, its name, or a subclass of it that takes the
            same arguments.
        source: draws them, for example ``Seeded(seed)``.

    Raises:
        ValueError: a name that no formula has.
        LookupError: nothing is known about the arguments of the formula.
    """
    cls = formulas(formula)[formula] if isinstance(formula, str) else formula
    known = next((a for a in cls.__mro__ if a in TABLE), None)
    if known is None:
        raise LookupError(
            f"{cls.__name__}: how arguments are drawn is known of the formulas of manualbp alone, "
            f"and of their subclasses"
        )
    return TABLE[known](source)


def differentiable(formula: type[Formula], arguments: tuple[Any, ...]) -> tuple[int, ...]:
    """The positions of those arguments that a rule gives the gradient of."""
    derivation = formula.derivation
    return tuple(
        place
        for place, value in enumerate(arguments)
        if isinstance(value, Tensor)
        and value.is_floating_point()
        # Without a derivation it takes any number of tensors, which have one rule.
        and (derivation is None or derivation.arguments[place] in derivation.differentiable)
    )


def surrogate(formula: type[Formula]) -> Callable[..., Any] | None:
    """The function that the rules are the derivative of, if on purpose it is not the value."""
    return next((SURROGATES[a] for a in formula.__mro__ if a in SURROGATES), None)
