"""Formulas verified on arguments that are drawn, in several processes where that pays."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from manualbp.commands.console import progress
from manualbp.commands.loading import told
from manualbp.core.formula import Formula
from manualbp.training.errors import UserError
from manualbp.verification import Check, Report, samples, verify
from manualbp.verification.report import in_order

#: as many samples as one process verifies while two import torch and compile for the first time
STARTUP = 30

Key = tuple[str, int]
"""A formula by its name, and a seed."""


def verify_drawn(formulas: Mapping[str, Any], seeds: Sequence[int], jobs: int) -> list[Report]:
    """One report a formula, on the arguments that each of ``seeds`` draws.

    Args:
        formulas: by name.
        seeds: of the arguments.
        jobs: the number of processes; it is 1 where there is little to do, or where a formula is
            not one of manualbp.
    """
    keys = [(name, seed) for seed in seeds for name in formulas]
    known = samples.formulas()
    ours = all(known.get(name) is formula for name, formula in formulas.items())
    found: dict[Key, Report] = {}
    with progress(len(keys)) as advance:
        if jobs > 1 and ours and len(keys) > STARTUP:
            results = _by_processes(keys, jobs, seeds[0])
        else:
            results = (
                (key, verify_sample(formulas[key[0]], key[1], key[1] == seeds[0])) for key in keys
            )
        for key, report in results:
            found[key] = report
            advance(key[0])
    return [_merged(name, {s: found[name, s] for s in seeds}) for name in formulas]


def verify_sample(formula: type[Formula], seed: int, compiled: bool = True) -> Report:
    """The report on one formula, on the arguments of one seed.

    Args:
        compiled: whether it is compiled too, which takes as long as all other checks together.
    """
    arguments = samples.draw(formula, samples.Seeded(seed))
    for place in samples.differentiable(formula, arguments):
        arguments[place].requires_grad_()
    if not any(isinstance(a, Tensor) and a.is_floating_point() for a in arguments):
        skipped = "no argument of it is a floating point tensor"
        return Report(formula.__name__, checks=[Check("gradients", skipped=skipped)])
    surrogate = samples.surrogate(formula)
    try:
        return verify(formula, *arguments, surrogate=surrogate, progress=False, compile=compiled)
    except Exception as error:
        raise UserError(
            f"{formula.__name__} could not be run on the arguments of seed {seed}: {told(error)}"
        ) from error


def _by_processes(keys: Sequence[Key], jobs: int, first: int) -> Iterator[tuple[Key, Report]]:
    # Started anew, because a process that is forked after torch has run threads may hang.
    context = multiprocessing.get_context("spawn")
    with _ended(ProcessPoolExecutor(jobs, context, initializer=_one_thread)) as pool:
        with _uninterrupted():
            futures = {pool.submit(_in_process, *key, key[1] == first): key for key in keys}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as broken:
            why = "a process ended before its work: is there memory enough? try --jobs 1"
            raise UserError(why) from broken


@contextmanager
def _ended(pool: ProcessPoolExecutor) -> Iterator[ProcessPoolExecutor]:
    """Where it is left early, by Ctrl-C or an error, what its processes do is given up."""
    others = multiprocessing.active_children()
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise
    finally:
        pool.shutdown()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes begun here do not answer Ctrl-C themselves, each by a traceback."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _in_process(name: str, seed: int, compiled: bool) -> Report:
    return verify_sample(samples.formulas(name)[name], seed, compiled)


def _merged(name: str, reports: Mapping[int, Report]) -> Report:
    """The reports of several samples as one; a finding against it says on which."""
    checks: dict[str, Check] = {}
    findings = []
    for seed, report in reports.items():
        for finding in report.findings:
            on = f" (arguments of seed {seed})" if finding.against else ""
            findings.append(replace(finding, how=finding.how + on))
        for check in report.checks:
            sum_ = checks.setdefault(check.name, Check(check.name))
            sum_.tried += check.tried
            sum_.error = max(filter(None, (sum_.error, check.error)), default=check.error)
            sum_.skipped = sum_.skipped or check.skipped
    return Report(name, in_order(findings), list(checks.values()))
