"""The rules for examples that formulas state, evaluated by their signatures.

``example_<argument>`` gives one gradient an example, ``square_<argument>`` the squares of their
norms. A parameter is, by name, what one of a ``grad_`` rule is. Intermediates are computed over the
whole batch. Every tensor but the argument itself is given as the passes of each example alone
would have it, stacked along a new axis 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, cached_property
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from manualbp.core.derivation import KERNELS
from manualbp.core.graph import Structural
from manualbp.core.modes import any_autocast, as_in_forward, may_run_kernels, plain
from manualbp.core.source import HALF, in_single, zeros
from manualbp.see.layout import Layout
from manualbp.tape import Tape
from manualbp.tape.backward import run_rules


class Values:
    """What the rules of one entry of a tape ask for, each computed once.

    Args:
        tape: the tape, after the forward pass.
        index: the place of the entry.
        incoming: the gradient of each of its outputs.
    """

    def __init__(self, tape: Tape, index: int, incoming: Sequence[Tensor | None]) -> None:
        self.formula: Any = tape._formulas[index]
        self.incoming = incoming
        self._saved, self._autocast = tape._saved[index], tape._autocasts[index]
        self._forms = (tape._shapes[index], tape._dtypes[index])
        self._laid_out: dict[tuple[str, Layout], Tensor] = {}
        self._names: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        return next(g.device for g in self.incoming if g is not None)

    def autocast(self) -> AbstractContextManager[Any]:
        """That of the forward pass."""
        if self._autocast is None and not any_autocast():
            return nullcontext()
        return as_in_forward(self._autocast, next(g for g in self.incoming if g is not None))

    def pull(self, needs: Sequence[bool], incoming: Sequence[Tensor | None]) -> Sequence[Any]:
        """What the ordinary rules give."""
        if isinstance(self.formula, Structural):
            assert self._saved is not None
            given = self._saved[0](*incoming)
            return given if isinstance(given, tuple) else (given,)
        return run_rules(self.formula, tuple(needs), incoming, self._saved, self._autocast)

    @cached_property
    def _known(self) -> dict[str, Any]:
        formula, incoming = self.formula, self.incoming
        outputs = formula.outputs
        self._names = ("g",) if len(outputs) == 1 else tuple(f"g_{o}" for o in outputs)
        assert self._saved is not None
        known = dict(zip(formula.derivation.saved, self._saved, strict=False))
        known |= dict(zip(self._names, incoming, strict=True))
        if formula.opmath and any(g is not None and g.dtype in HALF for g in incoming):
            known = dict(zip(known, in_single(*known.values()), strict=True))
        return known

    def __call__(self, name: str) -> Any:
        """An argument, an output, a gradient that arrives, or what a method gives for the batch."""
        known = self._known
        if name == "delta" and self._names == ("g",):
            name = "g"
        if name not in known:
            known[name] = self._run(getattr(self.formula, name))
        elif known[name] is None and name in self._names:
            slot = self._names.index(name)
            form = (self._forms[0][slot], self._forms[1][slot])
            known[name] = zeros(form, *(known[n] for n in self._names))
        return known[name]

    def _run(self, method: Callable[..., Any]) -> Any:
        kernel = KERNELS.get(method)
        if kernel is not None and kernel.of == (method,) and may_run_kernels():
            given = {p: self(p) for p in kernel.parameters}
            conditions = [c for c in (kernel.profitable, kernel.supported) if c is not None]
            tensors = [v for v in given.values() if isinstance(v, Tensor)]
            if plain(*tensors) and all(_called(c, given) for c in conditions):
                return _called(kernel.function, given)
        return method(*map(self, parameters(method)))

    def by_example(self, name: str, layout: Layout) -> Any:
        """The same as the passes of each example alone would have it."""
        value = self(name)
        if not isinstance(value, Tensor):
            return value
        key = (name, layout)
        found = self._laid_out.get(key)
        if found is None:
            found = self._laid_out[key] = layout.by_example(value)
        return found


def _called(function: Callable[..., Any], given: dict[str, Any]) -> Any:
    return function(**{p: given[p] for p in parameters(function)})


@cache
def parameters(method: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(signature(method).parameters)


def rule(formula: Any, kind: str, argument: str) -> Callable[..., Tensor] | None:
    """The rule ``kind`` of a formula for an argument, if it states one.

    A subclass that states the ordinary rule anew has no longer the rules that went with it.
    """
    found = getattr(formula, f"{kind}_{argument}", None)
    if found is None:
        return None
    owner = _owner(formula, f"{kind}_{argument}")
    of_rule = _owner(formula, f"grad_{argument}")
    return found if issubclass(owner, of_rule) else None


def _owner(formula: Any, name: str) -> type:
    return next(c for c in formula.__mro__ if name in vars(c))


def first_of(formula: Any, argument: str) -> str:
    """What the rule for examples is linear in."""
    return parameters(getattr(formula, f"example_{argument}"))[0]


def fits(formula: Any, argument: str, values: Values, layout: Layout) -> bool:
    """Whether the rule for examples holds where they lie so."""
    names = parameters(getattr(formula, f"example_{argument}"))
    first = values(names[0])
    if layout.axis > 0 and not (formula.each_row and layout.axis < first.dim() - 1):
        return False
    tensors = (values(n) for n in names if n != argument)
    return all(layout.fits(t) for t in tensors if isinstance(t, Tensor))


def arguments(
    method: Callable[..., Tensor], argument: str, values: Values, layout: Layout, part: slice
) -> list[Any]:
    """What a rule for examples is called with, for those of ``part``."""
    found = []
    for name in parameters(method):
        value = values(name) if name == argument else values.by_example(name, layout)
        if part is not ALL and isinstance(value, Tensor) and name != argument:
            value = value[part]
        found.append(value)
    return found


ALL = slice(None)


def sum_to(t: Tensor, shape: torch.Size) -> Tensor:
    """(n, …) summed to (n, *shape), as where a tensor of ``shape`` was stretched."""
    more = t.dim() - 1 - len(shape)
    return t.sum_to_size((t.shape[0], *[1] * more, *shape)).reshape(t.shape[0], *shape)
