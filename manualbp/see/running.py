"""One run of a model and its cost by formula, on a tape that keeps; the model stays as it was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from manualbp.conversion.interception import intercept
from manualbp.conversion.modules import converted
from manualbp.conversion.report import coverage
from manualbp.core.formula import Formula
from manualbp.tape import Tape, TapeError
from manualbp.tape.backward import match_metadata, metadata
from manualbp.verification.subject import same_generators

Cost = Callable[..., Tensor]
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Recorded:
    """A forward pass, and the backward pass over it.

    Attributes:
        model: the model.
        tape: an entry for each formula that ran, with its inputs, values and gradients.
        cost: C, detached.
        inputs: what the model was called with.
        target: what the cost was called with, beside the output.
        parameters: those of the model, and of the cost, that require a gradient, by their names.
        leaf_grads: ∂C/∂ each of ``tape.leaves``.
    """

    model: nn.Module
    tape: Tape
    cost: Tensor
    inputs: tuple[Any, ...]
    target: Any
    parameters: dict[str, Tensor]
    leaf_grads: list[Tensor | None]

    def parameter_grads(self, leaf_grads: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """The gradients of parameters by name, from those of leaves by their numbers on the tape.

        A leaf of the tape may be what torch's own operations made of parameters alone, such as a
        slice of one: autograd goes on from there.
        """
        names = {id(p): name for name, p in self.parameters.items()}
        found: dict[str, Tensor] = {}
        for number, grad in leaf_grads.items():
            leaf = self.tape.leaves[-1 - number]
            if isinstance(leaf, Tensor) and leaf.is_leaf:
                parts = {names[id(leaf)]: grad} if id(leaf) in names else {}
            else:
                parts = self._through_autograd(leaf, grad)
            for name, part in parts.items():
                part = match_metadata(part, *metadata(self.parameters[name]))
                found[name] = found[name] + part if name in found else part
        return {name: found[name] for name in self.parameters if name in found}

    def _through_autograd(self, leaf: Any, grad: Tensor) -> dict[str, Tensor]:
        matched = match_metadata(grad, *metadata(leaf))
        parts = torch.autograd.grad(
            [leaf], [*self.parameters.values()], [matched], retain_graph=True, allow_unused=True
        )
        pairs = zip(self.parameters, parts, strict=True)
        return {name: part for name, part in pairs if part is not None}

    @cached_property
    def grads(self) -> dict[str, Tensor]:
        """∂C/∂p of each parameter that C depends on, by its name: what ``.grad`` would be."""
        numbered = {-1 - i: g for i, g in enumerate(self.leaf_grads) if g is not None}
        return self.parameter_grads(numbered)

    @cached_property
    def aliases(self) -> dict[str, list[str]]:
        """All names of each parameter, by its first."""
        found: dict[int, list[str]] = {}
        for name, p in self.model.named_parameters(remove_duplicate=False):
            found.setdefault(id(p), []).append(name)
        return {name: found.get(id(p), [name]) for name, p in self.parameters.items()}


class Input(Formula):
    """a = x

    ∂C/∂x = g
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return input.clone()

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return g


def record(
    model: nn.Module,
    x: Any,
    y: Any,
    cost: Cost,
    *,
    input_grads: bool = False,
    watch: Callable[[Tape, nn.Module], AbstractContextManager[Any]] = lambda _, __: nullcontext(),
) -> Recorded:
    """Run ``cost(model(x), y)`` forwards and backwards, and keep everything.

    Parameters, ``.grad``, buffers, mode, hooks and the generators of random numbers are
    afterwards as they were before.

    Args:
        model: any module that ``convert`` and ``intercept`` cover.
        x: its input, or a tuple of its inputs; examples along the first axis.
        y: the target of the cost.
        cost: a function of output and target that gives one number.
        input_grads: compute ∂C/∂x too, where x is floating and a formula covers what it goes
            through.
        watch: makes a context for the forward pass from the tape and the model.

    Raises:
        TypeError: ``model`` is no module, or ``cost`` cannot be called.
        ValueError: x and y differ in length, or the cost is no single number.
        TapeError: the model computes what manualbp has no formula of; lists it.
    """
    model = check(model, x, y, cost)
    inputs = tuple(x) if isinstance(x, tuple) else (x,)
    if input_grads:
        try:
            return _record(model, inputs, y, cost, watch, input_grads=True)
        except TapeError:
            pass  # what stands before the first layer may have no formula, and needs none
    try:
        return _record(model, inputs, y, cost, watch)
    except TapeError as error:
        with as_found(model, cost):
            raise _foreign(model, inputs, y, cost, error) from None


def check(model: Any, x: Any, y: Any, cost: Any) -> nn.Module:
    """``model``, without the wrapper of ``torch.compile``; or an error that says what to mend."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if not callable(cost):
        raise TypeError(
            f"cost: expected a function of the model's output and y, such as "
            f"torch.nn.CrossEntropyLoss(), got {type(cost).__name__}"
        )
    first = x[0] if isinstance(x, tuple) and x else x
    if isinstance(first, Tensor) and isinstance(y, Tensor) and first.dim() and y.dim():
        if len(first) != len(y):
            raise ValueError(
                f"x and y: expected one target for each example, got {len(first)} and {len(y)} "
                f"(shapes {tuple(first.shape)} and {tuple(y.shape)}); examples come along the "
                f"first axis"
            )
    return getattr(model, "_orig_mod", model)


def check_number(value: Any) -> None:
    """Raise where what a cost returned is no single number."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value)
        raise ValueError(
            f"cost: expected a single number, got {shape}; reduce it, as by its mean over the "
            f"examples"
        )


#: what torch says where a step wants the model's own precision
_DTYPES = re.compile("dtype|scalar type")


def in_double(run: Callable[[torch.dtype | None], _Found]) -> _Found:
    """``run(torch.double)``, or ``run(None)`` of a model that insists on its own precision."""
    try:
        return run(torch.double)
    except RuntimeError as error:
        if isinstance(error, NotImplementedError) or not _DTYPES.search(str(error)):
            raise
        return run(None)


def cast(value: Any, dtype: torch.dtype | None) -> Any:
    """A floating tensor in ``dtype``; anything else as it is."""
    if dtype is None or not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return value.to(dtype)


def _record(
    model: nn.Module,
    inputs: tuple[Any, ...],
    y: Any,
    cost: Cost,
    watch: Any,
    input_grads: bool = False,
) -> Recorded:
    with as_found(model, cost):
        with Tape(keep=True) as tape, intercept(), watch(tape, model):
            given = map(_on_tape, inputs) if input_grads else inputs
            value = cost(model(*given), y)
        check_number(value)
        if not value.requires_grad:
            raise ValueError(
                "cost: expected a value that depends on a parameter that requires a gradient, and "
                "it depends on none; model.requires_grad_() asks for all of them"
            )
        with torch.no_grad():
            found = tape.leaf_gradients(tape.number(value), torch.ones_like(value))
    parameters: dict[str, Tensor] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if isinstance(cost, nn.Module):
        parameters |= {f"cost.{n}": p for n, p in cost.named_parameters() if p.requires_grad}
    return Recorded(model, tape, value.detach(), tuple(inputs), y, parameters, found)


@contextmanager
def as_found(model: nn.Module, cost: Cost) -> Iterator[None]:
    """By formula inside the block; afterwards all is as it was."""
    modules = [m for m in (model, cost) if isinstance(m, nn.Module)]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(same_generators())
        for module in modules:
            stack.enter_context(_own_buffers(module))
            stack.enter_context(converted(module))
        yield


@contextmanager
def _own_buffers(model: nn.Module) -> Iterator[None]:
    """Copies of the buffers inside the block, because a forward pass may write to them.

    Putting values back would change the version of a buffer, which autograd may have saved.
    """
    originals = [(m, dict(m._buffers)) for m in model.modules()]
    for module, buffers in originals:
        for name, buffer in buffers.items():
            module._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for module, buffers in originals:
            module._buffers.clear()
            module._buffers.update(buffers)


def _on_tape(value: Any) -> Any:
    """A floating input as a value of the tape, which notes what torch's operations make of it."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return Input.apply(value.detach().requires_grad_())
    return value


def _foreign(model: nn.Module, inputs: Any, y: Any, cost: Cost, error: TapeError) -> TapeError:
    """The error of a tape at one step, as one that names all steps without a formula."""
    with torch.enable_grad(), intercept():
        found = coverage(cost(model(*inputs), y)).foreign
    if not found:
        return error
    steps = dict.fromkeys(f"{s.name} in {s.path}" if s.path else s.name for s in found)
    return TapeError(
        f"model: manualbp has no formula of {', '.join(steps)}: use a function that "
        f"manualbp.functional has, or write it as a manualbp.Formula"
    )
