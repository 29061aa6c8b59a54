"""Calls of formulas are drawn until the time is up; what is wrong is shrunk, and printed to paste.

Each call goes through :func:`manualbp.verify`. ``python -m manualbp fuzz`` is its command.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch

from manualbp.core.formula import Formula
from manualbp.verification import samples
from manualbp.verification.examination import quiet
from manualbp.verification.judging import examine, verify
from manualbp.verification.report import Report, in_order
from manualbp.verification.reproduction import program
from manualbp.verification.subject import Subject, same_generators

#: of a formula, before it is the next one's turn
CALLS = 4
#: seconds for making a call simpler
PATIENCE = 60.0

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a formula, in the simplest call that was found to show it."""

    formula: type[Formula]
    arguments: Arguments
    #: of the first finding
    kind: str
    #: the verdict, in a line
    verdict: str

    @property
    def program(self) -> str:
        """Lines of Python that show it."""
        lines = program(self.formula, self.arguments)
        passed = ", ".join(["formula", *lines.passed])
        if samples.surrogate(self.formula) is not None:
            lines.imports.append("from manualbp.verification import samples")
            passed += ", surrogate=samples.surrogate(formula)"
        return f"{lines}\nprint(manualbp.verify({passed}))"

    def __str__(self) -> str:
        return f"# {self.verdict}\n{self.program}"


@dataclass
class Summary:
    """How much was tried, and what was found."""

    formulas: set[type[Formula]] = field(default_factory=set)
    calls: int = 0
    faults: list[Fault] = field(default_factory=list)

    def __str__(self) -> str:
        found = f"{len(self.faults)} with a fault" if self.faults else "nothing found"
        formulas = f"{len(self.formulas)} formula" + "s" * (len(self.formulas) != 1)
        return f"{self.calls:,} calls of {formulas}: {found}"


def fuzz(
    formulas: Sequence[type[Formula]],
    seconds: float = math.inf,
    seed: int = 0,
    told: Callable[[Summary, Fault | None], None] = lambda summary, fault: None,
    *,
    rounds: float = math.inf,
    calls: int = CALLS,
) -> Summary:
    """Verify drawn calls of each formula in turn, round after round, until the time is up.

    A formula that has a fault is left out of the rounds that follow. The same seed draws the same
    calls. Ctrl-C ends it, with what was found until then.

    Args:
        formulas: of :mod:`manualbp.formulas`, or subclasses of them.
        seconds: how long. The formula whose turn it is then has its turn to the end.
        seed: another one draws other calls, and takes the formulas in another order.
        told: is called after each formula's turn, with its fault, if it has one.
        rounds: at most so many.
        calls: how many of a formula in one round.
    """
    summary, end, left, number = Summary(), time.monotonic() + seconds, list(formulas), 0
    Random(seed).shuffle(left)
    try:
        while left and number < rounds:
            for formula in list(left):
                if time.monotonic() > end:
                    return summary
                summary.formulas.add(formula)
                drawn = Random(zlib.crc32(f"{seed} {number} {formula.__name__}".encode()))
                fault = simplest_fault(formula, drawn, calls, summary)
                if fault is not None:
                    summary.faults.append(fault)
                    left.remove(formula)
                told(summary, fault)
            number += 1
    except KeyboardInterrupt:
        pass
    return summary


def simplest_fault(
    formula: type[Formula], random: Random, calls: int, summary: Summary
) -> Fault | None:
    """What is wrong with a drawn call of a formula, shown by the simplest one; None if nothing."""
    from manualbp.verification import strategies  # hypothesis takes a second to import

    found: list[Fault] = []
    look, until = fault_of, math.inf

    def wrong(arguments: Arguments) -> bool:
        nonlocal look, until
        if time.monotonic() > until:
            return False
        summary.calls += 1
        fault = look(formula, arguments)
        # Shrinking is not to slip from one fault into another.
        if fault is None or (found and fault.kind != found[0].kind):
            return False
        if not found:
            until = time.monotonic() + PATIENCE
            seen = fault_at_the_inputs(formula, arguments)
            look = fault_at_the_inputs if seen and seen.kind == fault.kind else fault_of
        found.append(fault)
        return True

    try:
        strategies.simplest(strategies.arguments(formula), wrong, examples=calls, random=random)
    except Exception:
        if not found:  # else hypothesis says that it does not fail each time
            raise
    if not found:
        return None
    simplest = fault_of(formula, found[-1].arguments)
    return simplest if simplest and simplest.kind == found[0].kind else found[-1]


def fault_of(formula: type[Formula], arguments: Arguments) -> Fault | None:
    """What :func:`manualbp.verify` says against a call; None if it is right."""
    _require_grad(formula, arguments)
    try:
        report = verify(formula, *arguments, surrogate=samples.surrogate(formula), progress=False)
    except Exception as raised:
        line = str(raised).partition("\n")[0]
        said = f"{formula.__name__}: {type(raised).__name__}: {line}"
        return Fault(formula, arguments, type(raised).__name__, said)
    return None if report.ok else Fault(formula, arguments, report.findings[0].kind, report.verdict)


def fault_at_the_inputs(formula: type[Formula], arguments: Arguments) -> Fault | None:
    """The same, but of a few of the checks, which take a tenth of the time."""
    _require_grad(formula, arguments)
    report = Report(formula.__name__)
    try:
        with same_generators(), quiet(), torch.enable_grad():
            subject, surrogate = Subject(formula, arguments), samples.surrogate(formula)
            report.findings = in_order(examine(subject, "", surrogate, thorough=False).findings)
    except Exception:
        return None
    return None if report.ok else Fault(formula, arguments, report.findings[0].kind, report.verdict)


def _require_grad(formula: type[Formula], arguments: Arguments) -> None:
    for place in samples.differentiable(formula, arguments):
        arguments[place].requires_grad_()
