"""What a formula is, and the ways to run one."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache, lru_cache
from inspect import signature
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad
from torch.autograd.function import FunctionMeta

from manualbp.core.derivation import KERNELS, Derivation, Kernel, derive, lineage, rest
from manualbp.core.recording import recorder


class _Meta(FunctionMeta):
    """Makes Dynamo trace a formula's own ``apply``.

    Of a class whose metaclass is FunctionMeta itself, Dynamo traces forward and backward instead.
    """

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> None:
        super().__init__(name, bases, namespace)  # type: ignore[no-untyped-call]
        if cls.backward is not Function.backward:  # type: ignore[attr-defined]
            cls.__class__ = FunctionMeta  # type: ignore[assignment]


class Formula(Function, metaclass=_Meta):
    """A function stated as mathematics: a value, and one gradient rule for each argument.

    A subclass writes static methods and nothing else::

        forward(<arguments>)       the value, in torch operations
        grad_<argument>(g, ...)    ∂C/∂<argument>, where g is ∂C/∂output

    The signature of a rule is its save list. Its first parameter is the gradient that arrives
    from above, called ``g`` (or ``delta`` where the output is a weighted sum z); every other
    parameter is, by name,

    - an argument of ``forward``, tensor or not, or its ``output``;
    - another static method of the class: an intermediate that rules share. Its own parameters
      are found in the same way, and it runs once in a backward pass however many rules want it.

    Inputs and outputs are all that can be saved, and only those that a wanted gradient needs are;
    so a rule is itself a function that can be differentiated, and second order is right.

    ``apply(*arguments)`` runs the formula: as a lean Function in eager mode, in the
    ``setup_context`` form, with its tangents, under ``torch.func`` and forward-mode AD, in the
    form that Dynamo traces under ``torch.compile``. A backward pass runs under the autocast of
    its forward pass.

    Where an argument is complex, the rules are computed at its conjugate if the formula says that
    it is ``holomorphic``, which is torch's gradient of such a function; otherwise autograd
    differentiates ``forward`` itself.

    Attributes:
        outputs: names of what ``forward`` returns. With several names ``forward`` returns a
            tuple, and the gradient that arrives for ``<name>`` is the parameter ``g_<name>``.
            An output whose gradient no rule asks for is marked as not differentiable.
        broadcasts: True where the arguments with a rule are tensors that broadcast against one
            another. Each gradient is then summed over the axes along which its argument was
            stretched.
        opmath: True where the rules of half-precision tensors are computed in single precision, as
            torch's kernels compute (it calls that opmath); autograd rounds what they return. False
            saves the copies where a rule only moves numbers, or is one operation of torch's.
        holomorphic: True where the rules are the derivative for complex numbers too.
        derivation: what was read off the signatures; ``derivation.source`` is readable code.

    The last parameter of ``forward`` may take any number of tensors, ``*tensors``; the one rule
    ``grad_tensors(g, ...)`` gives their gradients in a sequence, and asks for options alone.

    An argument without a rule has no gradient: if one is asked for, the backward pass raises
    ``NotImplementedError``. ``grad_<argument> = None`` says instead that the cost is taken not to
    depend on it. A class that writes its own ``backward`` is left an ordinary ``Function``. To
    change a rule, subclass a formula and write that rule anew.

    Raises:
        TypeError: when the class is defined, for a rule of an argument that ``forward`` does not
            have, or for one that asks for something that is none of the above. When it is called,
            for a ``forward`` that changes its arguments in place or returns what ``outputs`` does
            not declare.
    """

    outputs: ClassVar[tuple[str, ...]] = ("output",)
    broadcasts: ClassVar[bool] = False
    holomorphic: ClassVar[bool] = False
    opmath: ClassVar[bool] = True
    derivation: ClassVar[Derivation | None] = None
    #: ``apply`` with the first output in the place of the first argument, which is returned: for
    #: eager mode, and only where no rule needs that argument; else None
    in_place: ClassVar[Callable[..., Any] | None] = None
    #: how many tensors a variadic parameter takes, in the subclass made for that number
    arity: ClassVar[int | None] = None
    _in_graph: ClassVar[Callable[..., Any]]
    generate_vmap_rule = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        ancestors = lineage(cls, Formula)
        if not any("forward" in vars(a) for a in ancestors):
            return  # a family of formulas, without a value of its own
        if cls.backward is not Function.backward:  # written by hand
            cls.derivation = None
            cls.apply = super().apply
            return
        if rest(cls.forward) is None or cls.arity is not None:
            _derive(cls)
            return
        for name, function in _variadic(cls).items():
            setattr(cls, name, staticmethod(function))


def _derive(cls: type[Formula]) -> None:
    """Give ``cls`` what its signatures, and the kernels of its methods, say."""
    cls.derivation = derive(cls, Formula)
    for name, function in _functions(cls).items():
        setattr(cls, name, staticmethod(function))


def register(kernel: Kernel) -> None:
    """Let ``kernel`` run, where it may, in the place of the methods that it is the twin of.

    Raises:
        TypeError: no formula has these methods, all together.
    """
    found = [c for c in _subclasses(Formula) if c.derivation is not None and _states(c, kernel.of)]
    if not found:
        raise TypeError(
            f"no formula has the methods of which {kernel.function.__name__} is to be the twin: "
            f"{', '.join(method.__qualname__ for method in kernel.of)}"
        )
    before = {method: KERNELS[method] for method in kernel.of if method in KERNELS}
    KERNELS.update(dict.fromkeys(kernel.of, kernel))
    try:
        for cls in found:
            _derive(cls)
    except TypeError:
        for method in kernel.of:
            del KERNELS[method]
        KERNELS.update(before)
        raise


def _states(cls: type[Formula], methods: Sequence[Callable[..., Any]]) -> bool:
    return all(getattr(cls, method.__name__, None) is method for method in methods)


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _variadic(cls: type[Formula]) -> dict[str, Callable[..., Any]]:
    """``apply`` of a formula of any number of tensors: it runs a subclass for their number."""
    name = rest(cls.forward)
    options = tuple(signature(cls.forward).parameters)[:-1]
    rule = getattr(cls, f"grad_{name}", None)
    if rule is None:
        raise TypeError(
            f"{cls.__name__}.forward takes any number of tensors, *{name}, and no rule gives their "
            f"gradients: write grad_{name}(g, …), which returns one for each"
        )
    parameters = tuple(signature(rule).parameters)[1:]
    if others := [p for p in parameters if p not in options]:
        raise TypeError(
            f"{cls.__name__}.grad_{name} asks for '{others[0]}': a rule for *{name} may ask for "
            f"the arguments before them alone, {', '.join(options) or 'of which there are none'}"
        )
    if others := [o for o in options if callable(getattr(cls, f"grad_{o}", None))]:
        raise TypeError(
            f"{cls.__name__}.grad_{others[0]}: beside *{name} no argument may have a rule"
        )
    asked = [options.index(p) for p in parameters]

    @lru_cache(maxsize=64)
    def of(arity: int) -> type[Formula]:
        namespace: dict[str, Any] = {"arity": arity, "stated": cls, "__doc__": cls.__doc__}
        namespace["__module__"] = cls.__module__
        return types.new_class(cls.__name__, (cls,), exec_body=lambda b: b.update(namespace))

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.options = inputs[: len(options)]

    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return (*(None for _ in options), *rule(g, *(ctx.options[i] for i in asked)))

    def in_graph(*arguments: Any) -> Any:
        return of(len(arguments) - len(options))._in_graph(*arguments)

    # Dynamo does not trace the definition of a class.
    function = _function(cls, forward=cls.forward, setup_context=setup_context, backward=backward)
    apply_traced = _apply_traced(function, in_graph)

    def apply(*arguments: Any, **keywords: Any) -> Any:
        if keywords:
            _no_keywords(cls, keywords)
        if torch.compiler.is_dynamo_compiling():
            return apply_traced(*arguments)
        return of(len(arguments) - len(options)).apply(*arguments)

    return {"apply": apply}


def _functions(cls: type[Formula]) -> dict[str, Callable[..., Any]]:
    """``apply`` of a formula, the cheapest way to run it that is right where it is called.

    Hence several Functions, which only ``apply`` knows: Dynamo refuses one that has a ``jvp``, and
    what torch.func needs takes five times as long in eager mode.
    """
    derivation = cls.derivation
    assert derivation is not None
    arguments, wanted, asked = derivation.arguments, derivation.wanted, derivation.asked
    keep, count, split = derivation.keep, derivation.kept, derivation.split
    forward, gradients = derivation.forward, derivation.gradients
    is_complex, arity, several = derivation.is_complex, len(arguments), len(asked) > 1
    first = derivation.tensors[0] if derivation.tensors else 0
    #: whether an argument may be real beside a complex one, as torch's promotion of dtypes has it
    mixes = cls.holomorphic and (cls.broadcasts or cls.arity is not None)
    # A zero gradient is made up for an output that went unused only where a rule sums over several.
    materialize = sum(asked) > 1 or not several

    def note(ctx: Any, arguments: tuple[Any, ...], output: Any) -> None:
        outputs = output if several else (output,)
        kept = keep(ctx.needs_input_grad, *arguments, *outputs)
        if split == count:
            ctx.save_for_backward(*kept)
        elif split is not None:
            ctx.save_for_backward(*kept[:split])
            ctx.options = kept[split:]
        else:
            ctx.save_for_backward(*map(tensor_or_none, kept))
            ctx.options = tuple(map(option_or_none, kept))
        if several:
            ctx.mark_non_differentiable(
                *(o for o, differentiable in zip(outputs, asked, strict=True) if not differentiable)
            )
            ctx.set_materialize_grads(materialize)

    def kept_by(ctx: Any) -> tuple[Any, ...]:
        if split == count:
            return ctx.saved_tensors
        if split is not None:
            return (*ctx.saved_tensors, *ctx.options)
        return together(ctx.saved_tensors, ctx.options)

    def backward_of(kept_by: Callable[[Any], tuple[Any, ...]]) -> Callable[..., Any]:
        def backward(ctx: Any, *incoming: Tensor | None) -> tuple[Tensor | None, ...]:
            if not materialize and incoming[asked.index(True)] is None:
                return (None,) * arity
            if ctx.autocast or any_autocast():
                with as_in_forward(ctx.autocast, next(g for g in incoming if g is not None)):
                    return gradients(ctx.needs_input_grad, *incoming, *kept_by(ctx))
            if mixes and incoming[0].is_complex():  # type: ignore[union-attr]
                found = gradients(ctx.needs_input_grad, *incoming, *kept_by(ctx))
                return of_real_arguments(ctx, found)
            return gradients(ctx.needs_input_grad, *incoming, *kept_by(ctx))

        return backward

    backward = backward_of(kept_by)

    # ------------------------------------------------------------------ eager: the lean Function

    def lean_forward(ctx: Any, *arguments: Any) -> Any:
        output = forward(*arguments)
        if not (several or torch.compiler.is_dynamo_compiling()) and output._is_view():
            output = apart(output, arguments)
        note(ctx, arguments, output)
        ctx.autocast = autocast_of(output[0] if several else output) if any_autocast() else None
        return output

    def in_place_forward(ctx: Any, input: Tensor, *others: Any) -> Any:
        output = forward(input, *others)
        input.copy_(output[0] if several else output)
        ctx.mark_dirty(input)
        output = (input, *output[1:]) if several else input
        note(ctx, (input, *others), output)
        ctx.autocast = autocast_of(input) if any_autocast() else None
        return output

    # ------------------------------------------------------ torch.func and forward mode: the dual

    def kept_by_dual(ctx: Any) -> tuple[Any, ...]:
        return together(ctx.saved_tensors[:count], ctx.options) if ctx.tangents else kept_by(ctx)

    def jvp(ctx: Any, *tangents: Tensor | None) -> Any:
        """The tangent of the output: the transpose of the rules, which are linear in g."""
        saved = ctx.saved_tensors
        kept, outputs = together(saved[:count], ctx.options), saved[count:]
        needs = tuple(
            a in wanted and t is not None for a, t in zip(arguments, tangents, strict=True)
        )

        def rules(*g: Tensor) -> tuple[Tensor, ...]:
            arriving = iter(g)
            incoming = (next(arriving) if a else None for a in asked)
            pulled = gradients(needs, *incoming, *kept)
            return tuple(p for p, need in zip(pulled, needs, strict=True) if need)

        zeros = (torch.zeros_like(o) for o, a in zip(outputs, asked, strict=True) if a)
        pulled: tuple[Tensor, ...]
        pulled, transpose = torch.func.vjp(rules, *zeros)  # type: ignore[misc]
        given = (t for t, n in zip(tangents, needs, strict=True) if n and t is not None)
        # The tangent of a real argument beside a complex one is complex in the rules.
        pushed = iter(transpose(tuple(t.to(p.dtype) for t, p in zip(given, pulled, strict=True))))
        result = tuple(next(pushed) if a else None for a in asked)
        return result if several else result[0]

    def dual(has_tangents: Callable[[], bool]) -> Callable[..., Any]:
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            note(ctx, inputs, output)
            ctx.autocast = autocast_of(output[0] if several else output)
            ctx.tangents = has_tangents()
            if ctx.tangents:
                # The same tensors twice, since torch's vmap has one list of axes for both.
                outputs = output if several else (output,)
                kept = keep((True,) * arity, *inputs, *outputs)
                tensors = (*map(tensor_or_none, kept), *outputs)
                ctx.save_for_backward(*tensors)
                ctx.save_for_forward(*tensors)
                ctx.options = tuple(map(option_or_none, kept))

        methods = {"setup_context": setup_context, "backward": backward_of(kept_by_dual)}
        return _function(cls, forward=forward, jvp=jvp, **methods).apply

    lean = _function(cls, forward=lean_forward, backward=backward)
    # The C++ apply itself: its Python layer serves only the setup_context form.
    lean_apply = super(Function, lean).apply
    dual_apply = dual(lambda: forward_ad._current_level >= 0)
    in_place = None
    if arguments[0] not in derivation.needed:
        function = _function(cls, forward=in_place_forward, backward=backward)
        in_place = super(Function, function).apply

    # A compiled program that enters a dual level tells autograd of it, but not forward_ad.
    dual_in_graph = cache(lambda: dual(lambda: True))

    def in_graph(*arguments: Any) -> Any:
        return dual_in_graph()(*map(as_leaf, arguments))

    apply_traced = _apply_traced(lean, in_graph)

    def apply(*arguments: Any, **keywords: Any) -> Any:
        if keywords:
            _no_keywords(cls, keywords)
        if is_complex is not None and is_complex(*arguments):
            return forward(*arguments)  # differentiated by autograd
        if torch.compiler.is_dynamo_compiling():
            return apply_traced(*arguments)
        if _transforms_active() or forward_ad._current_level >= 0:
            return dual_apply(*map(as_leaf, arguments))
        if _grad_enabled():
            if _tracing():
                _not_traced()
                return forward(*arguments)
            record = recorder.get()
            if record is not None:
                return record(cls, arguments)
            if getattr(arguments[first], "is_nested", False):
                return forward(*arguments)  # differentiated by autograd
            return lean_apply(*arguments)
        return of_its_own(forward(*arguments), arguments)

    methods: dict[str, Any] = {"apply": apply, "_in_graph": in_graph}
    return methods | ({"in_place": in_place} if in_place else {})


def _apply_traced(function: Any, in_graph: Callable[..., Any]) -> Callable[..., Any]:
    """``apply`` as Dynamo traces it: the forward and backward of ``function``.

    Under torch.func and in forward mode a call of ``in_graph``, because Dynamo's own trace of a
    Function knows neither. AOTAutograd then traces what that calls.
    """

    def transformed() -> bool:
        if not (_transforms_active() or forward_ad._current_level >= 0):
            return False
        torch.compiler.allow_in_graph(in_graph)  # type: ignore[no-untyped-call]
        return True

    # So marked, a function runs while Dynamo traces, which takes its result for a constant.
    transformed._dynamo_marked_constant = True  # type: ignore[attr-defined]

    def apply(*arguments: Any) -> Any:
        return in_graph(*arguments) if transformed() else function.apply(*arguments)

    return apply


def rule(method: Callable[..., _Value]) -> Callable[..., _Value]:
    """``method``, for a type checker: a rule may ask for less or more than the one it replaces.

    The parameters of a rule are its save list, so a rule written anew in a subclass has others,
    which a type checker would call incompatible. Below ``@staticmethod``, and only if wanted: it
    does nothing when the program runs.
    """
    return method


_Value = TypeVar("_Value")


def eager() -> bool:
    """Whether a formula called now would run as the lean Function under autograd."""
    return (
        _grad_enabled()
        and recorder.get() is None
        and not _transforms_active()
        and forward_ad._current_level < 0
        and not _tracing()
        and not torch.compiler.is_compiling()
    )


def _not_traced() -> None:
    warnings.warn(
        "torch.jit.trace records torch's operations, not formulas: the derivatives of the traced "
        "program are torch's own",
        stacklevel=4,
    )


def of_its_own(output: Any, arguments: tuple[Any, ...]) -> Any:
    """``output``, or where it is an argument another tensor of its memory, as autograd gives it."""
    for argument in arguments:
        if argument is output:
            return output.detach()
    return output


def apart(output: Tensor, arguments: tuple[Any, ...]) -> Tensor:
    """``output`` as no view, unless of an argument: autograd lets nobody write into a view."""
    if not torch._C._has_storage(output):
        return output
    tensors = (a for a in arguments if isinstance(a, Tensor) and torch._C._has_storage(a))
    if any(torch._C._is_alias_of(t, output) for t in tensors):  # type: ignore[attr-defined]
        return output
    return torch.ops.aten._unsafe_view(output, output.shape)


def _no_keywords(cls: type[Formula], keywords: dict[str, Any]) -> None:
    order = ", ".join(signature(cls.forward).parameters)
    raise TypeError(
        f"{cls.__name__}.apply takes its arguments by position, ({order}), as every "
        f"torch.autograd.Function does, and was given '{next(iter(keywords))}' by name"
    )


def _function(cls: type[Formula], **methods: Callable[..., Any]) -> Any:
    """An ordinary Function under the formula's own name, which ``grad_fn`` then bears."""
    namespace: dict[str, Any] = {name: staticmethod(method) for name, method in methods.items()}
    namespace |= {"__module__": cls.__module__, "__doc__": cls.__doc__}
    namespace |= {"formula": getattr(cls, "stated", cls), "generate_vmap_rule": True}
    return types.new_class(cls.__name__, (Function,), exec_body=lambda body: body.update(namespace))


_transforms_active = torch._C._are_functorch_transforms_active
any_autocast = torch._C._is_any_autocast_enabled
_grad_enabled = torch.is_grad_enabled
_tracing = torch._C._is_tracing


def autocast_of(output: Tensor) -> torch.dtype | None:
    """The dtype of the autocast under which ``output`` was computed, if there was one."""
    return torch.get_autocast_dtype(output.device.type) if autocasts(output) else None


def autocasts(tensor: Tensor) -> bool:
    """Whether an autocast holds for ``tensor``; the meta device knows none."""
    device = tensor.device.type
    return device != "meta" and torch.is_autocast_enabled(device)


def as_in_forward(autocast: torch.dtype | None, g: Tensor) -> torch.autocast | nullcontext[None]:
    """The autocast of the forward pass, which :func:`autocast_of` noted, for its backward pass."""
    device = g.device.type
    if device == "meta":
        return nullcontext()
    return torch.autocast(device, autocast, enabled=autocast is not None)


class _Tuple(tuple[Any, ...]):
    """A leaf to torch's pytrees."""


class _Dict(dict[str, Any]):
    """A leaf to torch's pytrees."""


def as_leaf(value: Any) -> Any:
    """``value`` as one argument, since torch's vmap takes a container for several."""
    if isinstance(value, (tuple, list)):
        return _Tuple(value)
    return _Dict(value) if isinstance(value, dict) else value


def of_real_arguments(ctx: Any, gradients: tuple[Any, ...]) -> tuple[Any, ...]:
    """The gradients, complex ones of real arguments by their real part: autograd refuses those."""
    # One edge a tensor, and nothing behind it where no gradient is wanted.
    edges = iter([edge for edge in ctx.next_functions if edge[0] is not None])
    found = []
    for gradient, need in zip(gradients, ctx.needs_input_grad, strict=True):
        if need:
            node, number = next(edges)
            if gradient is not None and not node._input_metadata[number].dtype.is_complex:
                gradient = gradient.real
        found.append(gradient)
    return tuple(found)


def tensor_or_none(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) else None


def option_or_none(value: Any) -> Any:
    return None if isinstance(value, Tensor) else value


def together(tensors: Sequence[Tensor | None], options: Sequence[Any]) -> tuple[Any, ...]:
    """The values of which :func:`tensor_or_none` and :func:`option_or_none` are the parts."""
    return tuple(o if t is None else t for t, o in zip(tensors, options, strict=True))
