"""``fuzz``: drawn calls of formulas are verified until the time is up."""

from __future__ import annotations

import sys
import warnings

import torch

from manualbp.commands.console import say
from manualbp.commands.line import RIGHT, WRONG
from manualbp.commands.names import formulas_of
from manualbp.training.errors import UserError
from manualbp.verification.fuzz import Fault, Summary
from manualbp.verification.fuzz import fuzz as fuzzed


def fuzz(*names: str, minutes: float = 1.0, seed: int = 0) -> int:
    """Draw calls of formulas, verify them, and shrink what is wrong.

    NAME  a formula, in capitals or not, or what torch calls it: Linear, mse_loss.
          None: all formulas.
    Exit status: 0 nothing found, 1 something wrong, 2 could not be run.

    Args:
        minutes (N): how long; the formula whose turn it is has its turn to the end
        seed (N): another one draws other calls, and takes the formulas in another order
    """
    if not minutes > 0:
        raise UserError(f"--minutes: expected a number above 0, got {minutes:g}")
    chosen = list(formulas_of(names).values())
    torch.set_num_threads(1)  # the tensors are small
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            summary = fuzzed(chosen, 60 * minutes, seed, _told)
    except ModuleNotFoundError as missing:  # hypothesis
        raise UserError(str(missing)) from None
    if sys.stderr.isatty():
        print(file=sys.stderr)
    say(f"{summary} (seed {seed})")
    return WRONG if summary.faults else RIGHT


def _told(summary: Summary, fault: Fault | None) -> None:
    if fault is not None:
        say(f"\n{fault}\n")
    if sys.stderr.isatty():
        print(f"\r{summary}    ", end="", file=sys.stderr, flush=True)
