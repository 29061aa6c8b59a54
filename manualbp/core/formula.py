"""What a formula is, and the ways to run one."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from inspect import signature
from typing import Any, ClassVar, TypeVar

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionMeta

from manualbp.core.derivation import KERNELS, Derivation, Kernel, derive, lineage, variadic
from manualbp.core.modes import is_dynamo_compiling
from manualbp.core.running import derived_methods, function, refuse_keywords, traced


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
        each_row: True where any number of axes of examples may come first, and the last axis
            alone is the formula's own; for its rules for examples.
        derivation: what was read off the signatures; ``derivation.source`` is readable code.

    Beside a rule may stand ``example_<argument>``, which gives the gradients of all examples and
    not their sum, and ``square_<argument>``, the squares of the norms of these. They name what the
    rule names, and get every tensor but the argument itself with a further axis in front, of the
    examples: as the passes of each example alone would have it. See
    :func:`manualbp.per_example_grads`.

    The last parameter of ``forward`` may take any number of tensors, ``*tensors``; the one rule
    ``grad_tensors(g, ...)`` gives their gradients in a sequence, and asks for options alone.

    An argument without a rule has no gradient: if one is required, the backward pass raises
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
    each_row: ClassVar[bool] = False
    opmath: ClassVar[bool] = True
    derivation: ClassVar[Derivation | None] = None
    #: ``apply`` with the first output in the place of the first argument, which is returned: for
    #: eager mode, and only where no rule needs that argument; else None
    in_place: ClassVar[Callable[..., Any] | None] = None
    #: how many tensors a variadic parameter takes, in the subclass made for that number
    arity: ClassVar[int | None] = None
    #: the dual, which a compiled program calls under a transform
    in_graph: ClassVar[Callable[..., Any]]
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
        if variadic(cls.forward) is None or cls.arity is not None:
            _derive(cls)
            return
        for name, method in _apply_variadic(cls).items():
            setattr(cls, name, staticmethod(method))


def _derive(cls: type[Formula]) -> None:
    """Give ``cls`` what its signatures, and the kernels of its methods, say."""
    cls.derivation = derive(cls, Formula)
    for name, method in derived_methods(cls).items():
        setattr(cls, name, staticmethod(method))


def register(kernel: Kernel) -> None:
    """Let ``kernel`` replace its methods wherever it may run.

    Raises:
        TypeError: no formula has all of these methods.
    """
    found = [c for c in _subclasses(Formula) if c.derivation is not None and _states(c, kernel.of)]
    if not found:
        raise TypeError(
            f"no formula has all the methods that {kernel.function.__name__} is to replace: "
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


def _apply_variadic(cls: type[Formula]) -> dict[str, Callable[..., Any]]:
    """``apply`` of a formula of any number of tensors: it runs a subclass for their number."""
    name = variadic(cls.forward)
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
            f"the arguments before them alone: {', '.join(options) or 'there are none'}"
        )
    if others := [o for o in options if callable(getattr(cls, f"grad_{o}", None))]:
        raise TypeError(
            f"{cls.__name__}.grad_{others[0]}: beside *{name} no argument may have a rule"
        )
    positions = [options.index(p) for p in parameters]

    @lru_cache(maxsize=64)
    def of(arity: int) -> type[Formula]:
        namespace: dict[str, Any] = {"arity": arity, "stated": cls, "__doc__": cls.__doc__}
        namespace["__module__"] = cls.__module__
        return types.new_class(cls.__name__, (cls,), exec_body=lambda b: b.update(namespace))

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.options = inputs[: len(options)]

    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return (*(None for _ in options), *rule(g, *(ctx.options[i] for i in positions)))

    def in_graph(*arguments: Any) -> Any:
        return of(len(arguments) - len(options)).in_graph(*arguments)

    # Dynamo does not trace the definition of a class.
    lean = function(cls, forward=cls.forward, setup_context=setup_context, backward=backward)
    traced_apply = traced(lean, in_graph)

    def apply(*arguments: Any, **keywords: Any) -> Any:
        if keywords:
            refuse_keywords(cls, keywords)
        if is_dynamo_compiling():
            return traced_apply(*arguments)
        return of(len(arguments) - len(options)).apply(*arguments)

    return {"apply": apply}


def rule(method: Callable[..., _Value]) -> Callable[..., _Value]:
    """``method``, for a type checker: a rule may ask for less or more than the one it replaces.

    The parameters of a rule are its save list, so a rule written anew in a subclass has others,
    which a type checker would call incompatible. Below ``@staticmethod``, and only if wanted: it
    does nothing when the program runs.
    """
    return method


_Value = TypeVar("_Value")
