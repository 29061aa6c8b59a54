"""The layers of one run: innermost modules, and the functions called between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from manualbp.core.docstrings import read_docstring
from manualbp.core.graph import Structural
from manualbp.see.running import Recorded
from manualbp.tape import Entry, Tape
from manualbp.tape.backward import MAX_OUTPUTS


@dataclass(repr=False)
class Layer:
    """One call of an innermost module, or of a function between modules.

    Tensors are detached. Where a module takes or returns several tensors, ``input``, ``output``
    and their gradients are tuples, or whatever it takes and returns.

    Attributes:
        path: of the module in the model; of a function, the path of the module that calls it, and
            its name: ``"layer1.0.Add()"``.
        name: the class of the module, or the formula of the function.
        module: the module, or None.
        input, output: what it took and gave.
        grad_output: ∂C/∂output; δ where the output is a weighted sum z. None where C does not
            depend on it.
        grad_input: ∂C/∂input by way of this layer alone. None where no gradient is wanted.
        parameters: its parameters that C depends on, by their names in the module.
        grads: ∂C/∂p of each: what this call adds to ``.grad``.
        entries: what it ran, as the tape has it.
    """

    path: str
    name: str
    module: nn.Module | None = None
    input: Any = None
    output: Any = None
    grad_output: Any = None
    grad_input: Any = None
    parameters: dict[str, Tensor] = field(default_factory=dict)
    grads: dict[str, Tensor] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    #: by which the tape knows its first output; None of what wants no gradient
    number: int | None = None

    @property
    def formulas(self) -> list[Entry]:
        """Its entries without torch's operations that only rearrange values."""
        return [entry for entry in self.entries if not isinstance(entry.formula, Structural)]

    @property
    def formula(self) -> str:
        """The value and the ∂ lines of each formula that it ran, from their docstrings."""
        lines: list[str] = []
        for formula in dict.fromkeys(entry.formula for entry in self.formulas):
            read = read_docstring(formula)
            lines += [read["output"], *dict.fromkeys(read["rules"].values())]
        return "\n".join(lines)

    @property
    def bytes(self) -> int:
        """What it saves for the backward pass, in bytes; parameters aside."""
        own = {id(p) for p in self.parameters.values()}
        saved = {id(v): v for e in self.entries for v in e.saved or () if isinstance(v, Tensor)}
        return sum(v.nbytes for number, v in saved.items() if number not in own)

    def __repr__(self) -> str:
        shapes = [tuple(t.shape) for t in tree_flatten(self.output)[0] if isinstance(t, Tensor)]
        return f"<{self.name} {self.path} → {', '.join(map(str, shapes))}>"


@dataclass(repr=False)
class _Value:
    """A tensor that a module took or gave: by its number on the tape, or by itself."""

    number: int | None
    tensor: Tensor | None


@dataclass
class _Call:
    """A call of a module, and the entries of the tape from ``start`` up to ``end``."""

    path: str
    module: nn.Module
    start: int
    input: Any
    end: int = 0
    output: Any = None
    innermost: bool = True


class Calls:
    """The calls of a model's modules while it runs on a tape."""

    def __init__(self, tape: Tape, model: nn.Module) -> None:
        self.tape, self.model = tape, model
        self.calls: list[_Call] = []
        self._running: list[_Call] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        hooks = []
        for path, module in self.model.named_modules():
            enter, leave = self._hooks(path)
            hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            hooks.append(module.register_forward_hook(leave))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hooks(self, path: str) -> Any:
        def enter(module: nn.Module, args: Any, keywords: Any) -> None:
            if self._running:
                self._running[-1].innermost = False
            # Numbered first: the tape notes here what torch's own operations made of values.
            given = self._numbered((*args, *keywords.values()))
            call = _Call(path, module, len(self.tape), given)
            self.calls.append(call)
            self._running.append(call)

        def leave(_: nn.Module, __: Any, output: Any) -> None:
            call = self._running.pop()
            call.output, call.end = self._numbered(output), len(self.tape)

        return enter, leave

    def _numbered(self, values: Any) -> Any:
        return tree_map(self._value, values)

    def _value(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        number = self.tape.number(value) if value.requires_grad else None
        if number is not None and number >= 0 and not _is_structural(self.tape, number):
            return _Value(number, None)
        # The tape keeps no value of its own here, and the model may write to this one.
        return _Value(number, value.detach().clone())


class Layers:
    """Makes layers of calls."""

    def __init__(self, recorded: Recorded, calls: Sequence[_Call]) -> None:
        self.recorded, self.calls = recorded, calls
        self.entries = list(recorded.tape)
        whole = next(call for call in calls if not call.path)
        self.start, self.end = whole.start, whole.end

    def innermost(self) -> list[Layer]:
        """In the order of the forward pass."""
        inner = [call for call in self.calls if call.innermost]
        within = {i for call in inner for i in range(call.start, call.end)}
        found = [(call.start, self.of_call(call)) for call in inner]
        found += [
            (i, self.of_function(i))
            for i in range(self.start, self.end)
            if i not in within and not isinstance(self.entries[i].formula, Structural)
        ]
        return [layer for _, layer in sorted(found, key=lambda pair: pair[0])]

    def of_call(self, call: _Call) -> Layer:
        inputs = call.input[0] if len(call.input) == 1 else call.input
        span = range(call.start, call.end)
        own = [v.number for v in tree_flatten(call.output)[0] if isinstance(v, _Value)]
        layer = Layer(
            call.path,
            type(call.module).__name__,
            call.module,
            input=tree_map(self._tensor, inputs),
            output=tree_map(self._tensor, call.output),
            grad_output=tree_map(self._gradient, call.output),
            grad_input=tree_map(lambda v: self._passed_back(v, span, own), inputs),
            entries=[self.entries[i] for i in span],
            number=next((n for n in own if n is not None), None),
        )
        self._add_parameters(layer, span)
        return layer

    def of_function(self, index: int) -> Layer:
        entry = self.entries[index]
        path = f"{entry.path}.{entry.name}()".removeprefix(".")
        inputs = {n: v for n, v in entry.inputs.items() if isinstance(v, Tensor)}
        parameters = {id(p) for p in self.recorded.parameters.values()}
        given = [(n, v.detach()) for n, v in inputs.items() if id(v) not in parameters]
        grads = [entry.gradients.get(name) for name, _ in given]
        # Places of the largest numbers, or masks, are outputs without a gradient.
        known = [i for i, d in enumerate(entry.formula.derivation.differentiable_outputs) if d]
        arrived = bool(entry.grad_outputs)
        layer = Layer(
            path,
            entry.name,
            input=_alone([v for _, v in given]),
            output=_alone([entry.outputs[i].detach() for i in known]),
            grad_output=_alone([entry.grad_outputs[i] if arrived else None for i in known]),
            grad_input=_alone(grads),
            entries=[entry],
            number=index * MAX_OUTPUTS,
        )
        self._add_parameters(layer, range(index, index + 1))
        return layer

    def of_cost(self, cost: Any) -> Layer:
        """The cost, from the output of the model to C."""
        span = range(self.end, len(self.entries))
        call = next(call for call in self.calls if not call.path)
        own = [len(self.entries) * MAX_OUTPUTS]
        layer = Layer(
            "cost",
            getattr(cost, "__name__", type(cost).__name__),
            cost if isinstance(cost, nn.Module) else None,
            input=tree_map(self._tensor, call.output),
            output=self.recorded.cost,
            grad_output=torch.ones_like(self.recorded.cost),
            grad_input=tree_map(lambda v: self._passed_back(v, span, own), call.output),
            entries=[self.entries[i] for i in span],
        )
        self._add_parameters(layer, span)
        return layer

    # ------------------------------------------------------------------------------- values

    def _tensor(self, value: Any) -> Any:
        if not isinstance(value, _Value):
            return value
        if value.tensor is not None:
            return value.tensor
        assert value.number is not None
        index, slot = divmod(value.number, MAX_OUTPUTS)
        return self.entries[index].outputs[slot].detach()

    def _gradient(self, value: Any) -> Tensor | None:
        if not isinstance(value, _Value) or value.number is None:
            return None
        if value.number < 0:
            return self.recorded.leaf_grads[-1 - value.number]
        index, slot = divmod(value.number, MAX_OUTPUTS)
        arrived = self.entries[index].grad_outputs
        return arrived[slot] if arrived else None

    def _passed_back(self, value: Any, span: range, outputs: Sequence[int | None]) -> Tensor | None:
        """∂C/∂value by way of the entries of a span alone."""
        if not isinstance(value, _Value) or value.number is None:
            return None
        if value.number in outputs:  # a layer that returns its input
            return self._gradient(value)
        return self._sum(value.number, span)

    def _sum(self, number: int, span: range) -> Tensor | None:
        """What the entries of a span pass back to one value or leaf."""
        total: Tensor | None = None
        for i in span:
            entry = self.entries[i]
            for source, grad in zip(entry.sources, entry.grad_inputs, strict=False):
                if source == number and grad is not None:
                    total = grad if total is None else total + grad
        return total

    def _add_parameters(self, layer: Layer, span: range) -> None:
        leaves = {n for i in span for n in self.entries[i].sources if n is not None and n < 0}
        summed = {n: self._sum(n, span) for n in sorted(leaves, reverse=True)}
        grads = {n: grad for n, grad in summed.items() if grad is not None}
        inside = f"{layer.path}."
        for name, grad in self.recorded.parameter_grads(grads).items():
            names = self.recorded.aliases[name]
            short = next((n for n in names if n.startswith(inside)), name).removeprefix(inside)
            layer.parameters[short] = self.recorded.parameters[name].detach()
            layer.grads[short] = grad


def _alone(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def _is_structural(tape: Tape, number: int) -> bool:
    return isinstance(tape[number // MAX_OUTPUTS].formula, Structural)
