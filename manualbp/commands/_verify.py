"""``verify``: is this backward right?"""

from __future__ import annotations

import contextlib
import inspect
import json as json_module
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd import Function

from manualbp.commands import loading
from manualbp.commands.arguments import described, make
from manualbp.commands.console import say, table
from manualbp.commands.drawn import verify_drawn
from manualbp.commands.line import RIGHT, WRONG
from manualbp.commands.names import formulas_of
from manualbp.core.formula import Formula
from manualbp.training.errors import UserError
from manualbp.verification import Report, samples
from manualbp.verification import verify as verified


def verify(
    *subjects: str,
    input: Sequence[str] = (),
    target: str | None = None,
    cost: str | None = None,
    reference: str | None = None,
    surrogate: str | None = None,
    seed: int = 0,
    samples: int = 3,
    jobs: int = 2,
    json: bool = False,
) -> int:
    """Is this backward pass right? Of formulas by name, or of any code.

    SUBJECT  a formula (Linear, Conv2d); FILE.py:NAME or package.module:NAME, where
             NAME is a Function, a function, a module, or a function returning one,
             with arguments if it needs them: 'net.py:Net(16)'. None: all formulas.
    INPUT    SHAPE[:DTYPE[:MAX]], random: 4x3  4x3:float64  2:int64:10 (below 10)
             none, true, 0.5, =3, =mean, =(2,2): what is no tensor
    Exit status: 0 right, 1 wrong, 2 could not be run.

    Args:
        input (INPUT): an argument; once for each, in their order
        target (INPUT): of a model with a cost: what it should return
        cost (NAME): in torch.nn.functional, or FILE.py:NAME
        reference (NAME): FILE.py:NAME to compare value and gradients with
        surrogate (NAME): FILE.py:NAME whose derivative it is to have on purpose
        seed (N): of the first sample, and of all random numbers
        samples (N): how often the arguments of a formula are drawn
        jobs (N): how many processes verify formulas
        json: print the report as JSON
    """
    if min(samples, jobs) < 1:
        raise UserError("--samples and --jobs are at least 1")
    if (target is None) is not (cost is None):
        given, other = ("--target", "--cost") if cost is None else ("--cost", "--target")
        raise UserError(f"{given} without {other}: cost(model(inputs), target) is verified")
    began = time.monotonic()
    # What other people's code prints is no part of the answer.
    with contextlib.redirect_stdout(sys.stderr):
        if input or target:
            if not subjects:
                raise UserError("--input: whose? name a formula, or FILE.py:NAME")
            options = {"cost": cost, "reference": reference, "surrogate": surrogate}
            reports = [_on_inputs(each, input, target, options, seed) for each in subjects]
        else:
            if reference or surrogate:
                raise UserError("--reference and --surrogate are of --input: give its arguments")
            reports = _on_samples(subjects, range(seed, seed + samples), jobs)
    if json:
        one = reports[0].to_dict() if len(subjects) == 1 else _all(reports)
        print(json_module.dumps(one, ensure_ascii=False))
    elif len(subjects) == 1:
        _print_report(reports[0])
    else:
        _print_table(reports, time.monotonic() - began)
    return RIGHT if all(reports) else WRONG


# ------------------------------------------------------------------------------- what is run


def _on_samples(subjects: Sequence[str], seeds: Sequence[int], jobs: int) -> list[Report]:
    formulas: dict[str, Any] = {}
    for text in subjects:
        if not loading.is_path(text):
            formulas |= formulas_of([text])
            continue
        found = loading.subject(text)
        drawn = isinstance(found, type) and issubclass(found, Formula)
        if not drawn or not _can_be_drawn(found):
            takes = _signature(found)
            raise UserError(
                f"{text}: on which arguments? It takes ({', '.join(takes)}): give --input for "
                f"each, as in --input 4x3"
            )
        formulas[found.__name__] = found
    return verify_drawn(formulas or formulas_of([]), seeds, jobs)


def _can_be_drawn(formula: type[Formula]) -> bool:
    try:
        samples.draw(formula, samples.Seeded(0))
    except LookupError:
        return False
    return True


def _on_inputs(
    text: str, given: Sequence[str], target: str | None, names: dict[str, str | None], seed: int
) -> Report:
    torch.manual_seed(seed)
    if loading.is_path(text):
        subject = loading.subject(text)
    else:
        (subject,) = formulas_of([text]).values()
    named: dict[str, Any] = {
        "cost": loading.cost(names["cost"]) if names["cost"] else None,
        "reference": loading.function(names["reference"]) if names["reference"] else None,
        "surrogate": loading.function(names["surrogate"]) if names["surrogate"] else None,
    }
    generator = torch.Generator().manual_seed(seed)
    inputs = [make(each, generator) for each in given]
    _check_count(text, subject, len(inputs))
    if target is not None:
        inputs.append(make(target, generator, "--target"))
    try:
        return verified(subject, *inputs, **named)
    except Exception as error:
        shown = ", ".join(map(described, inputs))
        raise UserError(
            f"{text} could not be run on ({shown}): {loading.told(error)}; is each argument as it "
            f"expects? --input gives it"
        ) from error


def _check_count(text: str, subject: Any, count: int) -> None:
    takes = _signature(subject)
    required = [name for name in takes if not name.startswith("*") and "=" not in name]
    most = float("inf") if any(name.startswith("*") for name in takes) else len(takes)
    if takes and not len(required) <= count <= most:
        raise UserError(
            f"{text} takes ({', '.join(takes)}), but was given {count} "
            f"{'input' if count == 1 else 'inputs'}: give --input once for each"
        )


def _signature(subject: Any) -> list[str]:
    """Its positional parameters, as they are written: ``x``, ``bias=None``, ``*tensors``."""
    is_function = isinstance(subject, type) and issubclass(subject, Function)
    target: Any = subject.forward if is_function or isinstance(subject, nn.Module) else subject
    try:
        parameters = [*inspect.signature(target).parameters.values()]
    except (TypeError, ValueError):  # of a function in C
        return []
    if is_function and not issubclass(subject, Formula):
        # Beside setup_context, forward takes no context.
        parameters = parameters[int(subject.setup_context is Function.setup_context) :]
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return [str(p) for p in bare if p.kind not in kinds]


# ------------------------------------------------------------------------------- what is said


def _all(reports: Sequence[Report]) -> dict[str, Any]:
    return {"ok": all(reports), "reports": [report.to_dict() for report in reports]}


def _print_report(report: Report) -> None:
    verdict, _, rest = str(report).partition("\n")
    say(verdict, "green" if report.ok else "bold red")
    say(rest)


def _print_table(reports: Sequence[Report], seconds: float) -> None:
    rows, styles = [], []
    for report in reports:
        errors = [c.error or 0.0 for c in report.checks if c.name == "central differences"]
        tried = sum(c.tried for c in report.checks)
        how = report.verdict.removeprefix(f"{report.subject}: ")
        largest = f"{max(errors):.1e}" if errors and report.ok else ""
        rows.append([report.subject, f"{tried:,}", largest, "right" if report.ok else how])
        styles.append("" if report.ok else "red")
    table(["formula", "comparisons", "beside differences", "verdict"], rows, styles)
    wrong = [report.subject for report in reports if not report.ok]
    total = f"{sum(c.tried for r in reports for c in r.checks):,} comparisons, {seconds:.0f} s"
    say("")
    if wrong:
        say(
            f"{len(wrong)} of {len(reports)} are not right: {', '.join(wrong)}; {total}", "bold red"
        )
    else:
        say(f"all {len(reports)} are right: {total}", "green")
