"""``manualbp.verify``: is this backward pass right?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from manualbp.verification import beside, first_order, further, precision, state
from manualbp.verification.examination import Examination, first_line, quiet
from manualbp.verification.models import verify_model
from manualbp.verification.report import Report, in_order
from manualbp.verification.subject import Subject, same_generators

#: what is held of every subject, in this order; what fails first explains what fails after it
CHECKS: tuple[Callable[[Examination], None], ...] = (
    first_order.at_the_inputs,
    state.deterministic,
    state.writes_nothing,
    beside.by_the_forward,
    beside.by_torchs_twin,
    first_order.of_one_output,
    first_order.of_any_layout,
    first_order.of_one_input,
    first_order.of_any_strides,
    first_order.at_other_points,
    first_order.without_an_argument,
    state.keeps_nothing_stale,
    precision.in_narrower_dtypes,
    precision.under_autocast,
    *further.CHECKS,
)
#: what can still be said where the gradient itself is not right
OF_WRONG_ONES = (state.deterministic, state.writes_nothing, state.keeps_nothing_stale)
#: what a rule of torch's own needs no check of
QUICK: tuple[Callable[[Examination], None], ...] = (
    first_order.at_the_inputs,
    first_order.of_any_layout,
)


def verify(
    f: Any,
    *inputs: Any,
    cost: Callable[..., Any] | None = None,
    reference: Callable[..., Any] | None = None,
    surrogate: Callable[..., Any] | None = None,
    progress: bool | None = None,
    compile: bool = True,
) -> Report:
    """Whether the backward pass of ``f`` is the derivative of its forward pass.

    The gradients are compared with central differences in float64 and with whatever else gives
    them, at the inputs and around them, for gradients of all layouts from above, for each input
    and each output alone, in narrower dtypes, in the second order, under forward mode, vmap and
    torch.compile. Nothing of what is passed is changed, the random state neither.

    Args:
        f: a :class:`manualbp.Formula` or any ``torch.autograd.Function`` (its ``apply`` is
            called), a function of tensors, or an ``nn.Module``, whose parameters that require a
            gradient are verified too.
        inputs: its arguments, by position: tensors of any floating dtype and shape, and whatever
            else a call takes. Those that require a gradient are verified; where none does, all
            that are floating. Precision is judged against their dtype.
        cost: of a model: ``cost(f(*inputs[:-1]), inputs[-1])`` is verified, layer by layer; the
            last input, the target, is verified if it requires a gradient.
        reference: another implementation of the same inputs: value and gradients are compared.
        surrogate: a function of the same inputs to whose derivative, in place of that of ``f``,
            the backward pass is held: ``lambda x: x`` for a straight-through estimator.
        progress: whether a bar shows the layers of a model, where rich is installed; None: on a
            terminal.
        compile: whether torch.compile is tried too, which takes as long as all other checks.

    Returns:
        A :class:`manualbp.verification.Report`: ``assert manualbp.verify(f, x)`` passes if and
        only if no finding says that a gradient is not right.

    Raises:
        TypeError: ``f`` cannot be called.
        ValueError: there is no floating point tensor to verify the gradient of.
        Exception: what the forward pass raises on the inputs as given.
    """
    with same_generators(), quiet(), torch.enable_grad():
        # What is compared with another function is compared as a whole.
        whole = reference is not None or surrogate is not None
        if isinstance(f, nn.Module) and not whole and (cost is not None or has_layers(f)):
            return verify_model(f, inputs, cost, progress, partial(_examine, compile=compile))
        subject = Subject(f, inputs, cost)
        report = Report(subject.name)
        examination = examine(subject, surrogate=surrogate, reference=reference, compile=compile)
        report.findings = in_order(examination.findings)
        report.checks = list(examination.checks.values())
        return report


def has_layers(module: nn.Module) -> bool:
    """Whether a module is a model of layers."""
    return any(True for _ in module.children())


def examine(
    subject: Subject,
    path: str = "",
    surrogate: Callable[..., Any] | None = None,
    reference: Callable[..., Any] | None = None,
    thorough: bool = True,
    compile: bool = True,
) -> Examination:
    """Make the checks of one subject."""
    examination = Examination(subject, path, surrogate, thorough)
    try:
        _settle_dtype(examination)
        checks: Sequence[Callable[[Examination], None]] = CHECKS if thorough else QUICK
        for check in checks:
            if examination.stopped:
                break
            if check is further.compiled and not compile:
                continue
            if examination.failed and check not in (*OF_WRONG_ONES, *QUICK[:1]):
                every = len(examination.accused) == len(subject.slots) or not examination.accused
                if every or check in further.CHECKS:
                    continue
            check(examination)
        if reference is not None:
            beside.reference(examination, reference)
    finally:
        subject.restore()
    return examination


def _examine(subject: Subject, path: str, thorough: bool, *, compile: bool) -> Examination:
    return examine(subject, path, thorough=thorough, compile=compile)


def _settle_dtype(ex: Examination) -> None:
    """float64, where the subject takes it; else what was given."""
    subject = ex.subject
    given = subject.given
    try:
        ex.dtype = torch.double
        subject.choose_outputs(given, torch.double)
        ex.pull(given)
    except Exception as raised:
        ex.dtype = None
        subject.choose_outputs(given, None)
        try:
            ex.pull(given)
        except Exception:
            ex.dtype = torch.double
            subject.choose_outputs(given, torch.double)
            return  # it raises in float64 as in what was given
        if subject.dtype is torch.double:
            ex.dtype = torch.double
            return
        ex.skip("float64", f"{first_line(raised)}; so all is seen as sharply as float32 allows")
