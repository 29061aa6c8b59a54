"""A function of torch, called outside and inside `intercept()`: in what the two calls differ."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._pytree import tree_flatten
from torch_samples import fresh

from manualbp import coverage, intercept

SPACES = {
    "F": torch.nn.functional,
    "torch": torch,
    "Tensor": Tensor,
    "special": torch.special,
    "linalg": torch.linalg,
}


def name_of(function: Callable[..., Any]) -> str:
    """Where torch keeps a function: `F.relu`, `Tensor.add_`."""
    for space, owner in SPACES.items():
        for name in dir(owner):
            if getattr(owner, name, None) == function:
                return f"{space}.{name}"
    raise LookupError(function)


@dataclass
class Outcome:
    """What a call gave, and what became of its arguments."""

    given: list[Tensor]
    leaves: list[Tensor]
    output: Any = None
    error: Exception | None = None

    @property
    def outputs(self) -> list[Any]:
        return tree_flatten(self.output)[0]

    def differentiable(self) -> list[Tensor]:
        return [o for o in self.outputs if isinstance(o, Tensor) and o.requires_grad]

    def gradients(self) -> Any:
        """Of random upstream gradients for all outputs; or the error that this raises."""
        outputs, leaves = self.differentiable(), [t for t in self.leaves if t.requires_grad]
        if not outputs or not leaves:
            return []
        generator = torch.Generator().manual_seed(7)
        above = [
            torch.randn(o.shape, generator=generator, dtype=torch.double).to(o.dtype)
            for o in outputs
        ]
        try:
            return torch.autograd.grad(outputs, leaves, above, allow_unused=True)
        except Exception as error:
            return error


def called(function: Any, args: Any, kwargs: Any, inside: bool, leaf: bool = True) -> Outcome:
    """The call with tensors of its own; the first is no leaf where ``leaf`` is False."""
    args, kwargs = fresh((args, kwargs))
    leaves = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
    if not leaf and isinstance(args[0], Tensor) and args[0].requires_grad:
        args = (args[0].clone(), *args[1:])
    given = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
    outcome = Outcome(given, leaves)
    torch.manual_seed(1)
    with warnings.catch_warnings(), intercept() if inside else nullcontext():
        warnings.simplefilter("ignore")
        try:
            outcome.output = function(*args, **kwargs)
        except Exception as error:
            outcome.error = error
    return outcome


def difference(
    theirs: Outcome, ours: Outcome, rtol: float = 1e-9, strides: bool = True
) -> str | None:
    """In what the two differ that a program could notice, or None."""
    if theirs.error or ours.error:
        same = type(theirs.error) is type(ours.error)
        return None if same else f"errors: {theirs.error!r}, ours {ours.error!r}"
    kinds = [[type(theirs.output), *map(type, theirs.outputs)]]
    kinds += [[type(ours.output), *map(type, ours.outputs)]]
    if kinds[0] != kinds[1]:
        return f"types: {kinds[0]}, ours {kinds[1]}"
    for i, (a, b) in enumerate(zip(theirs.outputs, ours.outputs, strict=True)):
        if not isinstance(a, Tensor):
            if a != b:
                return f"output {i}: {a}, ours {b}"
            continue
        for what in ("dtype", "shape", "layout", "requires_grad"):
            if getattr(a, what) != getattr(b, what):
                return f"output {i}: {what} {getattr(a, what)}, ours {getattr(b, what)}"
        if unequal := _unequal(a.detach(), b.detach(), 1e-12):
            return f"output {i}: {unequal}"
        if strides and a.layout is torch.strided and _strides(a) != _strides(b):
            return f"output {i}: strides {_strides(a)}, ours {_strides(b)}"
        for j, (x, y) in enumerate(zip(theirs.given, ours.given, strict=True)):
            if a is x and b is not y:
                return f"output {i}: input {j} itself, ours not"
            if a.numel() and _alias(a, x) != _alias(b, y):
                return f"output {i}: a view of input {j}: {_alias(a, x)}, ours otherwise"
    for j, (x, y) in enumerate(zip(theirs.given, ours.given, strict=True)):
        if (x._version > 0) != (y._version > 0):
            return f"input {j}: version {x._version}, ours {y._version}"
        if unequal := _unequal(x.detach(), y.detach(), 1e-12):
            return f"input {j} afterwards: {unequal}"
    expected, given = theirs.gradients(), ours.gradients()
    if isinstance(expected, Exception) or isinstance(given, Exception):
        # What torch cannot differentiate a formula may.
        same = type(expected) is type(given) or "not implemented" in str(expected)
        return None if same else f"gradients: {expected!r}, ours {given!r}"
    for j, (x, y) in enumerate(zip(expected, given, strict=True)):
        # Where torch knows that a gradient is zero it may give none.
        if x is None or y is None:
            other = y if x is None else x
            if other is not None and other.count_nonzero():
                return f"gradient {j}: {x}, ours {y}"
        elif unequal := _unequal(x, y, rtol):
            return f"gradient {j}: {unequal}"
    return None


def foreign(outcome: Outcome) -> list[str]:
    """The steps of torch's own in the graph of a call, or a word that nothing was computed."""
    if outcome.error or not outcome.differentiable():
        return []
    found = [coverage(o) for o in outcome.differentiable() if o.grad_fn is not None]
    return sorted({step.name for c in found for step in c.foreign})


def _unequal(expected: Tensor, given: Tensor, rtol: float) -> str | None:
    atol = rtol if expected.dtype in (torch.double, torch.cdouble) else None
    try:
        assert_close(given, expected, rtol=rtol if atol else None, atol=atol, equal_nan=True)
    except AssertionError as error:
        return " ".join(str(error).split())
    return None


def _strides(tensor: Tensor) -> list[int]:
    """Those that say where a number lies."""
    if not tensor.numel():
        return []
    return [s for s, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1]


def _alias(a: Tensor, b: Tensor) -> bool:
    strided = a.layout is b.layout is torch.strided
    return strided and torch._C._is_alias_of(a, b)
