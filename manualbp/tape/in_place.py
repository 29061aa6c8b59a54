"""Writing into a tensor in place, by formula: wherever torch does, autograd's way or a tape's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

from manualbp.core.formula import Formula
from manualbp.core.modes import is_compiling, is_grad_enabled
from manualbp.core.recording import recorder
from manualbp.core.running import eager
from manualbp.tape.tape import NO_HISTORY, REPLACED, TapeError


def inplace_(formula: type[Formula], input: Tensor, *options: Any) -> Tensor:
    """``input``, which holds the first output of ``formula``: torch's ``inplace=True``."""
    if (
        formula.in_place is not None
        and eager()
        and not (input.is_leaf and input.requires_grad)
        # Of a view, autograd takes one output alone, and reads the view after the formula ran.
        and not input._is_view()
    ):
        return _first(formula.in_place(input, *options))
    return overwrite(input, lambda copy: _first(formula.apply(copy, *options)))


def overwrite(
    input: Tensor, function: Callable[[Tensor], Tensor], *, saves_input: bool = True
) -> Tensor:
    """``input``, which holds the value of ``function(input)`` and has its history.

    Args:
        input: written to.
        function: takes a copy of ``input``, because a formula may save its argument.
        saves_input: False spares the copy, where the rules of ``function`` save no argument.
    """
    given = _regenerated(input)
    if saves_input:
        given = given.clone()
    output = function(given)
    if output is given:
        return input
    if eager() and output.requires_grad and not input.is_leaf and not input._is_view():
        return cast(Tensor, Copy.apply(input, output))
    prepare_write(input)
    return input.copy_(output)


class Copy(Function):
    """``input.copy_(output)``, which has the history of ``output`` alone.

    torch's own also gives zeros to the history that ``input`` had. They would be added to the
    gradient that ``output`` passes there, one addition for nothing; and then nobody else would
    hold what arrived from above, so that autograd might make it the ``.grad`` of a leaf.
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, output: Tensor) -> Tensor:
        ctx.mark_dirty(input)
        return input.copy_(output)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[None, Tensor]:
        return None, g


def prepare_write(input: Tensor) -> None:
    """Let torch write to ``input`` where it, or its base, is a value of a tape.

    A value of a tape is a leaf, and torch writes to no leaf. So a copy replaces it in the graph,
    and from here on the tensor is another value. Its version stays, because nothing is written
    yet: autograd regenerates the views of another version, without their hooks.
    """
    if not is_grad_enabled():
        return
    recording = getattr(recorder.get(), "__self__", None)
    if recording is not None and recording.keep:
        recording.keep_value(input)
    base = input if input._base is None else input._base
    for tensor in (input, base):
        taped = getattr(tensor, "_taped", None)
        if taped is not None and taped[3] and tensor.is_leaf:
            raise TapeError(
                "a value that shares its memory with an argument of the formula that returned it "
                "cannot be changed in place: the argument would change with it; change a copy"
            )
    taped = getattr(base, "_taped", None)
    if taped is None or not base.is_leaf or not base.requires_grad:
        return
    # Otherwise intercept would take requires_grad_ for a write, by its name.
    with torch._C.DisableTorchFunction():
        value = base.detach().requires_grad_()
        value._taped, value._backward_hooks = taped, NO_HISTORY  # type: ignore[attr-defined]
        base._taped = (*taped[:2], REPLACED, False)  # type: ignore[attr-defined]
        base.requires_grad_(False)
        with _unsafe_preserve_version_counter(base):
            base.copy_(value)
    base._backward_hooks = None
    del base.retain_grad


def _regenerated(input: Tensor) -> Tensor:
    """``input``; or a view with hooks, as autograd regenerates it when it is written to.

    The new view goes back to the base directly, not through the hooks of the old one.
    """
    if is_compiling() or not input._backward_hooks:
        return input
    base = input._base
    if base is None:
        return input
    return base.as_strided(input.shape, input.stride(), input.storage_offset())


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
