"""The ways to run a formula, each an ordinary Function, and ``apply``, which chooses among them.

Lean under autograd in eager mode; in place of its input; the dual, with tangents and a rule for
vmap, under torch.func; as Dynamo traces it; noted by a tape; or the value alone.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from manualbp.core import source
from manualbp.core.derivation import Derivation
from manualbp.core.modes import (
    any_autocast,
    as_in_forward,
    autocast_of,
    forward_mode,
    has_storage,
    is_compiling,
    is_dynamo_compiling,
    is_grad_enabled,
    is_jit_tracing,
    transforms_active,
)
from manualbp.core.recording import recorder
from manualbp.core.saving import Save, Saved, save_for_both, saved_for_both, saving

Call = Callable[..., Any]


def derived_methods(cls: Any) -> dict[str, Call]:
    """The methods of a formula by which it is run, by name.

    ``apply`` chooses at each call the cheapest Function that is right there. There are several
    Functions, because Dynamo refuses one that has a ``jvp``, and because the form that torch.func
    needs takes five times as long in eager mode. ``in_place`` writes into the first argument, and
    ``in_graph`` is what a compiled program calls under a transform.
    """
    d: Derivation = cls.derivation
    save, saved = saving(d)
    backward = _backward(cls, saved)
    lean = function(cls, forward=_lean_forward(d, save), backward=backward)
    # The C++ apply itself: its Python layer serves only the setup_context form.
    lean_apply = super(Function, lean).apply
    dual = cache(lambda: _dual(cls, save, saved, forward_mode))
    # A compiled program that enters a dual level tells autograd of it, but not forward_ad.
    dual_in_graph = cache(lambda: _dual(cls, save, saved, lambda: True))

    def in_graph(*arguments: Any) -> Any:
        return dual_in_graph()(*map(_as_leaf, arguments))

    methods = {"apply": _apply(cls, lean_apply, dual, traced(lean, in_graph)), "in_graph": in_graph}
    if d.arguments[0] not in d.saved:
        in_place = function(cls, forward=_in_place_forward(d, save), backward=backward)
        methods["in_place"] = super(Function, in_place).apply
    return methods


def _apply(cls: Any, lean_apply: Call, dual: Callable[[], Call], traced_apply: Call) -> Call:
    d: Derivation = cls.derivation
    tensors = [d.arguments[i] for i in d.tensor_positions]
    space = {
        "__name__": cls.__module__,  # which Dynamo asks a function for
        "Tensor": Tensor,
        "cls": cls,
        "as_leaf": _as_leaf,
        "dual": dual,
        "forward": d.forward,
        "forward_mode": forward_mode,
        "is_dynamo_compiling": is_dynamo_compiling,
        "is_grad_enabled": is_grad_enabled,
        "is_jit_tracing": is_jit_tracing,
        "lean_apply": lean_apply,
        "recorder": recorder.get,
        "traced_apply": traced_apply,
        "transforms_active": transforms_active,
        "warn_not_recorded": _warn_not_recorded,
    }
    code = source.apply(d.arguments, tensors, cls.holomorphic)
    source.compiled(code, f"<apply of {cls.__module__}.{cls.__qualname__}>", space)
    apply: Any = space["apply"]
    apply.__qualname__ = f"{cls.__name__}.apply"
    return apply


def eager() -> bool:
    """Whether a formula called now would run as the lean Function under autograd."""
    return (
        is_grad_enabled()
        and recorder.get() is None
        and not transforms_active()
        and not forward_mode()
        and not is_jit_tracing()
        and not is_compiling()
    )


# ------------------------------------------------------------------------------ the backward pass


def _backward(cls: Any, saved: Saved) -> Call:
    d: Derivation = cls.derivation
    gradients = d.gradients
    main = d.differentiable_outputs.index(True) if True in d.differentiable_outputs else 0
    nothing = (None,) * len(d.arguments)
    #: whether an argument may be real beside a complex one, as torch's promotion of dtypes has it
    mixes = cls.holomorphic and (cls.broadcasts or cls.arity is not None)

    def backward(ctx: Any, *incoming: Tensor | None) -> tuple[Tensor | None, ...]:
        if incoming[main] is None and all(g is None for g in incoming):
            return nothing
        if ctx.autocast or any_autocast():
            with as_in_forward(ctx.autocast, next(g for g in incoming if g is not None)):
                return gradients(ctx.needs_input_grad, *incoming, *saved(ctx))
        if mixes and incoming[main].is_complex():  # type: ignore[union-attr]
            found = gradients(ctx.needs_input_grad, *incoming, *saved(ctx))
            return _of_real_arguments(ctx, found)
        return gradients(ctx.needs_input_grad, *incoming, *saved(ctx))

    return backward


def _of_real_arguments(ctx: Any, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
    """The gradients, complex ones of real arguments by their real part: autograd refuses those."""
    # One edge for each tensor; it has no node where no gradient is required.
    edges = iter([edge for edge in ctx.next_functions if edge[0] is not None])
    found = []
    for gradient, need in zip(gradients, ctx.needs_input_grad, strict=True):
        if need:
            node, number = next(edges)
            if gradient is not None and not node._input_metadata[number].dtype.is_complex:
                gradient = gradient.real
        found.append(gradient)
    return tuple(found)


# ----------------------------------------------------------------- eager: lean, and in its place


def _lean_forward(d: Derivation, save: Save) -> Call:
    forward, multiple_outputs = d.forward, d.multiple_outputs

    def lean_forward(ctx: Any, *arguments: Any) -> Any:
        output = forward(*arguments)
        if not (multiple_outputs or is_dynamo_compiling()) and output._is_view():
            output = without_base(output, arguments)
        save(ctx, arguments, output)
        ctx.autocast = (
            autocast_of(output[0] if multiple_outputs else output) if any_autocast() else None
        )
        return output

    return lean_forward


def _in_place_forward(d: Derivation, save: Save) -> Call:
    forward, multiple_outputs = d.forward, d.multiple_outputs

    def in_place_forward(ctx: Any, input: Tensor, *others: Any) -> Any:
        output = forward(input, *others)
        input.copy_(output[0] if multiple_outputs else output)
        ctx.mark_dirty(input)
        output = (input, *output[1:]) if multiple_outputs else input
        save(ctx, (input, *others), output)
        ctx.autocast = autocast_of(input) if any_autocast() else None
        return output

    return in_place_forward


def without_base(output: Tensor, arguments: tuple[Any, ...]) -> Tensor:
    """``output``, no view unless of an argument, because autograd forbids writing into it."""
    inner = _unwrapped(output)
    if not inner._is_view() or not has_storage(inner):
        return output
    tensors = (_unwrapped(a) for a in arguments if isinstance(a, Tensor))
    stored = (t for t in tensors if has_storage(t))
    if any(torch._C._is_alias_of(t, inner) for t in stored):  # type: ignore[attr-defined]
        return output
    return torch.ops.aten._unsafe_view(output, output.shape)


def _unwrapped(tensor: Tensor) -> Tensor:
    """The tensor that the transforms of torch.func have wrapped, or the tensor itself."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def detached_if_input(output: Any, arguments: tuple[Any, ...]) -> Any:
    """``output``; where it is an argument, a new tensor of the same memory, as autograd returns."""
    for argument in arguments:
        if argument is output:
            return output.detach()
    return output


# ------------------------------------------------------ torch.func and forward mode: the dual


def _dual(cls: Any, save: Save, saved: Saved, has_tangents: Callable[[], bool]) -> Call:
    d: Derivation = cls.derivation

    def forward(*arguments: Any) -> Any:
        output = d.forward(*arguments)
        # Some of torch's rules for vmap return views.
        return output if d.multiple_outputs else without_base(output, arguments)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        save(ctx, inputs, output)
        ctx.autocast = autocast_of(output[0] if d.multiple_outputs else output)
        ctx.tangents = has_tangents()
        if ctx.tangents:
            save_for_both(d, ctx, inputs, output)

    def saved_values(ctx: Any) -> tuple[Any, ...]:
        return saved_for_both(d, ctx)[0] if ctx.tangents else saved(ctx)

    methods = {
        "setup_context": setup_context,
        "backward": _backward(cls, saved_values),
        "jvp": _jvp(d),
    }
    return function(cls, forward=forward, **methods).apply


def _jvp(d: Derivation) -> Call:
    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        """The tangent of the output: the transpose of the rules, which are linear in g."""
        saved_values, outputs = saved_for_both(d, ctx)
        needs = tuple(
            a in d.differentiable and t is not None
            for a, t in zip(d.arguments, tangents, strict=True)
        )

        def rules(*g: Tensor) -> tuple[Tensor, ...]:
            arriving = iter(g)
            incoming = (next(arriving) if a else None for a in d.differentiable_outputs)
            pulled = d.gradients(needs, *incoming, *saved_values)
            return tuple(p for p, need in zip(pulled, needs, strict=True) if need)

        zeros = (
            torch.zeros_like(o) for o, a in zip(outputs, d.differentiable_outputs, strict=True) if a
        )
        pulled: tuple[Tensor, ...]
        pulled, transpose = torch.func.vjp(rules, *zeros)  # type: ignore[misc]
        given = (t for t, n in zip(tangents, needs, strict=True) if n and t is not None)
        # The tangent of a real argument beside a complex one is complex in the rules.
        pushed = iter(transpose(tuple(t.to(p.dtype) for t, p in zip(given, pulled, strict=True))))
        result = tuple(next(pushed) if a else None for a in d.differentiable_outputs)
        return result if d.multiple_outputs else result[0]

    return jvp


class _Tuple(tuple[Any, ...]):
    """A leaf to torch's pytrees."""


class _Dict(dict[str, Any]):
    """A leaf to torch's pytrees."""


def _as_leaf(value: Any) -> Any:
    """``value`` as one argument, because torch's vmap flattens containers."""
    if isinstance(value, (tuple, list)):
        return _Tuple(value)
    return _Dict(value) if isinstance(value, dict) else value


# -------------------------------------------------------------------------------------- tracers


def traced(lean: Any, in_graph: Call) -> Call:
    """``apply`` as Dynamo traces it: the forward and backward of ``lean``.

    Under torch.func and in forward mode a call of ``in_graph``, because Dynamo's own trace of a
    Function knows neither. AOTAutograd then traces what that calls.
    """

    def transformed() -> bool:
        if not (transforms_active() or forward_mode()):
            return False
        torch.compiler.allow_in_graph(in_graph)  # type: ignore[no-untyped-call]
        return True

    # Dynamo runs a function with this mark while it traces, and takes its result as a constant.
    transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def apply(*arguments: Any) -> Any:
        return in_graph(*arguments) if transformed() else lean.apply(*arguments)

    return apply


def _warn_not_recorded() -> None:
    warnings.warn(
        "torch.jit.trace records torch's operations, not formulas: the derivatives of the traced "
        "program are torch's own",
        stacklevel=4,
    )


# ------------------------------------------------------------------------------------ shared


def function(cls: Any, **methods: Call) -> Any:
    """An ordinary Function under the formula's own name, which ``grad_fn`` then bears."""
    namespace: dict[str, Any] = {name: staticmethod(method) for name, method in methods.items()}
    namespace |= {"__module__": cls.__module__, "__doc__": cls.__doc__}
    namespace |= {"formula": getattr(cls, "stated", cls), "generate_vmap_rule": True}
    return types.new_class(cls.__name__, (Function,), exec_body=lambda body: body.update(namespace))


def refuse_keywords(cls: Any, keywords: dict[str, Any]) -> None:
    order = ", ".join(signature(cls.forward).parameters)
    raise TypeError(
        f"{cls.__name__}.apply takes its arguments by position, ({order}), as every "
        f"torch.autograd.Function does, and was given '{next(iter(keywords))}' by name"
    )
