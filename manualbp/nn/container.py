"""Layers one after the other, as one node of autograd's graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from inspect import signature
from itertools import chain, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad
from torch.nn.modules import module as torch_module

from manualbp import formulas
from manualbp.derivation import Derivation, compiled, function
from manualbp.formula import (
    any_autocast,
    as_in_forward,
    option_or_none,
    recorder,
    tensor_or_none,
    together,
)
from manualbp.nn import activation, linear

__all__ = ["Sequential"]

#: the layers that are one formula, of the layer's own name, on their input and their attributes
FORMULAS = {
    layer: formula
    for file in (activation, linear)
    for name in file.__all__
    for layer, formula in [(getattr(file, name), getattr(formulas, name, None))]
    if formula is not None
    and len(formula.outputs) == 1
    and {*formula.derivation.arguments[1:]} <= {*signature(layer).parameters, "weight"}
}


class Sequential(nn.Sequential):
    """torch's ``Sequential``; each run of manualbp's layers in it is one node of the graph.

    The node runs the formulas of its layers one after the other and walks back by their rules:
    the same gradients as layer by layer, with nothing to do between them. Layer by layer is how
    it runs where something looks in between: hooks on a layer, ``torch.func``, forward-mode AD,
    ``torch.compile``, autocast, a Tape that keeps; and when a backward pass is itself to be
    differentiated (``create_graph=True``).
    """

    def forward(self, input: Tensor) -> Tensor:
        if not _alone():
            return super().forward(input)  # type: ignore[no-untyped-call]
        for plain, group in groupby(self._modules.values(), _is_plain):
            layers = list(group)
            if plain and len(layers) > 1:
                input = _run(layers, input)
            else:
                for layer in layers:
                    input = layer(input)
        return input


def _run(layers: Sequence[Any], input: Tensor) -> Tensor:
    """The layers' formulas as one, noted on the tape if there is one, else by autograd."""
    whole = composition(tuple(map(type, layers)))
    arguments: list[Any] = [input]
    for layer, names in zip(layers, whole.attributes, strict=True):
        if names:
            parameters = layer._parameters
            for name in names:
                arguments.append(parameters[name] if name in parameters else layer.__dict__[name])
    record = recorder.get()
    if record is not None:
        return record(whole, arguments)[0]  # type: ignore[arg-type]
    return _apply(whole, *arguments)


def _alone() -> bool:
    """Whether nobody looks in between the layers."""
    record = recorder.get()
    return (
        torch.is_grad_enabled()
        and (record is None or not record.__self__.keep)  # type: ignore[attr-defined]
        and forward_ad._current_level < 0
        and not torch.compiler.is_compiling()
        and not any_autocast()
        and not torch._C._are_functorch_transforms_active()
        and not torch_module._has_any_global_hook()  # type: ignore[no-untyped-call]
    )


def _is_plain(layer: Any) -> bool:
    own = layer.__dict__  # a module looks long for what it does not have
    return type(layer) in FORMULAS and not (
        own["_forward_pre_hooks"]
        or own["_forward_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
        or own.get("inplace")
        or ("dim" in own and own["dim"] is None)  # a softmax that is to guess its axis, and warn
    )


class Composition:
    """Formulas one after the other, as one with their intermediate values for further outputs."""

    def __init__(self, layers: tuple[type, ...]) -> None:
        self.members: list[Any] = [FORMULAS[layer] for layer in layers]
        plans: list[Derivation] = [member.derivation for member in self.members]
        self.__name__ = " ".join(member.__name__ for member in self.members)
        #: for each layer, the attributes that its formula takes beside the input
        self.attributes = [plan.arguments[1:] for plan in plans]
        last = len(plans) - 1
        between = [f"v{i}" for i in range(last)]
        value = ["input", *between, "output"]
        own = [[f"{name}_{i}" for name in names] for i, names in enumerate(self.attributes)]
        arguments = ["input", *chain.from_iterable(own)]

        namespace: dict[str, Any] = {}
        unpack = f"{''.join(f'need_{name}, ' for name in arguments)}= needs"
        # Whether a gradient has to go back as far as the input of each layer, and past its output.
        reach = ["reach0 = need_input"]
        forward, keep, back, kept = [], [], [], 0
        for i, (member, plan) in enumerate(zip(self.members, plans, strict=True)):
            namespace |= {f"value{i}": member.forward, f"keep{i}": plan.keep}
            namespace |= {f"rules{i}": plan.gradients}
            taken = ", ".join([value[i], *own[i]])
            needs = [f"reach{i}", *(f"need_{name}" for name in own[i])]
            asked, given = f"({', '.join(needs)},)", ", ".join(f"{n}_" for n in ["input", *own[i]])
            reach += [f"reach{i + 1} = {' or '.join(needs)}"]
            forward += [f"{value[i + 1]} = value{i}({taken})"]
            keep += [f"*keep{i}({asked}, {taken}, {value[i + 1]}),"]
            rules = f"rules{i}({asked}, g, *kept[{kept}:{kept + plan.kept}])"
            back += [f"if reach{i + 1}:\n        {given}, = {rules}\n        g = input_"]
            kept += plan.kept
        self.source = "\n".join(
            [
                function(
                    "forward", arguments, *forward, f"return {', '.join(['output', *between])},"
                ),
                function(
                    "keep",
                    ["needs", *arguments, "output", *between],
                    unpack,
                    *reach[:-1],
                    f"return ({' '.join(keep)})",
                ),
                function(
                    "gradients",
                    ["needs", "g", *(f"_{v}" for v in between), "*kept"],
                    unpack,
                    *reach,
                    *(f"{name}_ = None" for name in arguments),
                    *reversed(back),
                    f"return {''.join(f'{name}_, ' for name in arguments)}",
                ),
            ]
        )
        compiled(self.source, f"<the chain {self.__name__}>", namespace)
        self.forward = namespace["forward"]
        self.derivation = Derivation(
            arguments=tuple(arguments),
            wanted=tuple(arguments),
            asked=(True, *[False] * last),
            tensors=tuple(range(len(arguments))),
            kept=kept,
            split=kept if all(plan.split == plan.kept for plan in plans) else None,
            keep=namespace["keep"],
            gradients=namespace["gradients"],
            source=self.source,
        )


composition = cache(Composition)


class Chain(Function):
    """A chain in autograd's graph."""

    @staticmethod
    def forward(ctx: Any, whole: Composition, *arguments: Any) -> Tensor:
        output, *between = whole.forward(*arguments)
        kept = whole.derivation.keep(ctx.needs_input_grad[1:], *arguments, output, *between)
        ctx.whole, ctx.length = whole, len(arguments)
        values = (*arguments, *kept)
        ctx.options = None
        if whole.derivation.split is None:
            ctx.options = [*map(option_or_none, values)]
            values = tuple(map(tensor_or_none, values))
        ctx.save_for_backward(*values)
        return output

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        values = ctx.saved_tensors
        if ctx.options:
            values = together(values, ctx.options)
        arguments, kept = values[: ctx.length], values[ctx.length :]
        needs = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            return None, *_differentiable(ctx.whole, arguments, needs, g)
        between = (None,) * (len(ctx.whole.attributes) - 1)
        if any_autocast():
            with as_in_forward(None, g):
                return None, *ctx.whole.derivation.gradients(needs, g, *between, *kept)
        return None, *ctx.whole.derivation.gradients(needs, g, *between, *kept)


def _differentiable(whole: Composition, arguments: Sequence[Any], needs: Any, g: Tensor) -> Any:
    """The gradients, formula by formula, with a graph of their own behind them."""
    output, rest = arguments[0], iter(arguments[1:])
    for member, attributes in zip(whole.members, whole.attributes, strict=True):
        output = member.apply(output, *(next(rest) for _ in attributes))
    wanted = [t for t, need in zip(arguments, needs, strict=True) if need]
    given = iter(torch.autograd.grad(output, wanted, g, create_graph=True))
    return [next(given) if need else None for need in needs]


_apply = super(Function, Chain).apply
