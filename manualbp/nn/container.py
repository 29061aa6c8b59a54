"""Layers one after the other, as one node of autograd's graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad
from torch.nn.modules import module as torch_module

from manualbp import formulas
from manualbp.derivation import Derivation, compiled
from manualbp.formula import any_autocast, as_in_forward, option_or_none, recorder, tensor_or_none
from manualbp.nn import activation, linear

#: the layers that are one formula, of the layer's own name, on their input and their attributes
FORMULAS = {
    layer: getattr(formulas, name)
    for file in (activation, linear)
    for name, layer in vars(file).items()
    if getattr(layer, "__module__", "") == file.__name__ and hasattr(formulas, name)
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
    chain = chain_of(tuple(map(type, layers)))
    arguments: list[Any] = [input]
    for layer, names in zip(layers, chain.attributes, strict=True):
        if names:
            parameters = layer._parameters
            for name in names:
                arguments.append(parameters[name] if name in parameters else layer.__dict__[name])
    record = recorder.get()
    if record is not None:
        return record(chain, arguments)[0]  # type: ignore[arg-type]
    return _apply(chain, *arguments)


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
        members: list[Any] = [FORMULAS[layer] for layer in layers]
        plans: list[Derivation] = [member.derivation for member in members]
        self.__name__ = " ".join(member.__name__ for member in members)
        #: for each layer, the attributes that its formula takes beside the input
        self.attributes = [plan.arguments[1:] for plan in plans]
        last = len(members) - 1
        value = ["input", *(f"v{i}" for i in range(last)), "output"]
        own = [[f"{name}_{i}" for name in plan.arguments[1:]] for i, plan in enumerate(plans)]
        arguments = ", ".join(["input", *(name for names in own for name in names)])
        between = ", ".join(["output", *value[1:-1]])

        namespace: dict[str, Any] = {}
        forward, keep, back, at = [], [], [], 0
        unpack = f"{', '.join(f'need_{name}' for name in arguments.split(', '))}, = needs"
        reach = "need_input"  # whether a gradient has to go back this far
        for i, (member, plan) in enumerate(zip(members, plans, strict=True)):
            namespace |= {f"value{i}": member.forward, f"keep{i}": plan.keep}
            namespace |= {f"rules{i}": plan.gradients}
            taken = ", ".join([value[i], *own[i]])
            forward += [f"{value[i + 1]} = value{i}({taken})"]
            needs = f"({', '.join([f'reach{i}', *(f'need_{name}' for name in own[i])])},)"
            keep += [f"reach{i} = {reach}"]
            back += [(i, needs, at)]
            keep += [f"kept{i} = keep{i}({needs}, {taken}, {value[i + 1]})"]
            at += plan.kept
            reach = " or ".join([f"reach{i}", *(f"need_{name}" for name in own[i])])
        pull = [line for line in keep if line.startswith("reach")]
        given = ["None"] * arguments.count(",") + ["None"]
        order = arguments.split(", ")
        pull += [f"{name}_ = None" for name in order]
        for i, needs, start in reversed(back):
            into = ", ".join(f"{name}_" for name in ["input", *own[i]])
            pull += [f"if {needs[1:-2].replace(', ', ' or ')}:"]
            pull += [f"    {into}, = rules{i}({needs}, g, *kept[{start}:{start + plans[i].kept}])"]
            pull += ["    g = input_"]
        given = [f"{name}_" for name in order]
        self.source = "\n".join(
            [
                _function("forward", arguments, *forward, f"return {between},"),
                _function(
                    "keep",
                    f"needs, {arguments}, {between}",
                    unpack,
                    *keep,
                    f"return ({', '.join(f'*kept{i}' for i in range(last + 1))},)",
                ),
                _function(
                    "gradients",
                    f"needs, g, {''.join(f'_{v}, ' for v in value[1:-1])}*kept",
                    unpack,
                    *pull,
                    f"return {', '.join(given)},",
                ),
            ]
        )
        compiled(self.source, f"<the chain {self.__name__}>", namespace)
        self.forward = namespace["forward"]
        names = tuple(arguments.split(", "))
        self.derivation = Derivation(
            arguments=names,
            wanted=names,
            asked=(True, *[False] * last),
            tensors=tuple(range(len(names))),
            kept=at,
            split=at if all(plan.split == plan.kept for plan in plans) else None,
            keep=namespace["keep"],
            gradients=namespace["gradients"],
            source=self.source,
        )


chain_of = cache(Composition)


class Chain(Function):
    """A chain in autograd's graph."""

    @staticmethod
    def forward(ctx: Any, chain: Composition, *arguments: Any) -> Tensor:
        output, *between = chain.forward(*arguments)
        kept = chain.derivation.keep(ctx.needs_input_grad[1:], *arguments, output, *between)
        ctx.chain, ctx.length = chain, len(arguments)
        values = (*arguments, *kept)
        ctx.options = None
        if chain.derivation.split is None:
            ctx.options = [*map(option_or_none, values)]
            values = tuple(map(tensor_or_none, values))
        ctx.save_for_backward(*values)
        return output

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        values = ctx.saved_tensors
        if ctx.options:
            pairs = zip(values, ctx.options, strict=True)
            values = [option if tensor is None else tensor for tensor, option in pairs]
        arguments, kept = values[: ctx.length], values[ctx.length :]
        needs = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            return None, *_differentiable(ctx.chain, arguments, needs, g)
        between = (None,) * (len(ctx.chain.attributes) - 1)
        if any_autocast():
            with as_in_forward(None, g):
                return None, *ctx.chain.derivation.gradients(needs, g, *between, *kept)
        return None, *ctx.chain.derivation.gradients(needs, g, *between, *kept)


def _differentiable(chain: Composition, arguments: Sequence[Any], needs: Any, g: Tensor) -> Any:
    """The gradients, formula by formula, with a graph of their own behind them."""
    output, rest = arguments[0], iter(arguments[1:])
    for name, attributes in zip(chain.__name__.split(), chain.attributes, strict=True):
        output = getattr(formulas, name).apply(output, *(next(rest) for _ in attributes))
    wanted = [t for t, need in zip(arguments, needs, strict=True) if need]
    given = iter(torch.autograd.grad(output, wanted, g, create_graph=True))
    return [next(given) if need else None for need in needs]


_apply = super(Function, Chain).apply


def _function(name: str, parameters: str, *body: str) -> str:
    return f"def {name}({parameters}):\n" + "".join(f"    {line}\n" for line in body)
