"""Formulas by the names that people give them: ``Conv``, ``Conv2d``, ``conv2d``, ``mse_loss``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from manualbp.commands.line import near, program
from manualbp.core.formula import Formula
from manualbp.training.errors import UserError
from manualbp.verification import samples


def formulas_of(names: Sequence[str]) -> dict[str, type[Formula]]:
    """The formulas of these names, or all, by their own names.

    Raises:
        UserError: a name that no formula has; says which are near to it.
    """
    every = samples.formulas()
    if not names:
        return every
    by_plain = {_plain(name): name for name in every}
    found = {}
    for name in names:
        own = name if name in every else by_plain.get(_plain(name)) or by_plain.get(_base(name))
        if own is None:
            meant = near(name, every) or near(_base(name), every)
            hint = f"near to it: {', '.join(meant)}" if meant else f"{program()} formulas has all"
            raise UserError(f"no formula is called {name}; {hint}")
        found[own] = every[own]
    return found


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _base(name: str) -> str:
    """Without what torch's names say beside the formula: the dimensions, that it is a loss."""
    return re.sub(r"(loss|\dd)$", "", _plain(name))
