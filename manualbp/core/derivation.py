"""From the signatures of a formula to the code that saves its values and runs its rules."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from manualbp.core import source
from manualbp.core.annotations import TensorContainer, kinds
from manualbp.core.modes import is_dynamo_compiling

Method = Callable[..., Any]


class Kernel(NamedTuple):
    """A faster way to what one method of a formula computes, or several of its rules at once."""

    #: the methods that it is the twin of
    of: tuple[Method, ...]
    function: Method
    #: of what it names likewise: whether the kernel computes the same there; None for always
    supported: Method | None = None
    #: of what it names likewise: whether the kernel is faster there; None for always
    profitable: Method | None = None

    @property
    def conditional(self) -> bool:
        return self.supported is not None or self.profitable is not None

    @property
    def parameters(self) -> tuple[str, ...]:
        """What it and its conditions ask for."""
        functions = (self.function, self.supported, self.profitable)
        return tuple(dict.fromkeys(p for f in functions if f for p in signature(f).parameters))


#: each kernel by each method that it is the twin of
KERNELS: dict[Method, Kernel] = {}


class Derivation(NamedTuple):
    """What the signatures of a formula say, as two functions without a loop in them.

    They are written when the class is defined, because a loop over the rules would double the few
    microseconds that a layer of the document's network takes.
    """

    arguments: tuple[str, ...]
    #: the arguments that have a rule
    differentiable: tuple[str, ...]
    #: for each output, whether a rule asks for the gradient that arrives for it
    differentiable_outputs: tuple[bool, ...]
    #: the positions of the arguments that can be tensors
    tensor_positions: tuple[int, ...]
    #: how many values are saved, None among them
    num_saved: int
    #: how many of them, from the first, are tensors or None, if the others never are;
    #: None where only the values can tell
    num_saved_tensors: int | None
    #: keep(needs, *arguments, *outputs) → the values that the required gradients need, or None
    keep: Method
    #: gradients(needs, *incoming, *saved) → one gradient an argument, or None
    gradients: Method
    source: str
    #: versions(saved) → how often each saved tensor has been changed in place
    versions: Method
    #: whether the tests of this package have proved the formula
    proved: bool
    #: what computes the value: ``forward``, or its kernels where they may run. Of a formula from
    #: outside the package, each call checks what its author can get wrong
    forward: Any = None
    #: the arguments and outputs that rules need, by name
    saved: tuple[str, ...] = ()
    #: the kernels that run in the place of methods, where they may
    kernels: tuple[Kernel, ...] = ()
    #: those of ``saved`` that the gradient of each differentiable argument needs
    needs: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    @property
    def multiple_outputs(self) -> bool:
        """Whether ``forward`` returns a tuple."""
        return len(self.differentiable_outputs) > 1


def derive(cls: Any, base: type) -> Derivation:
    """Read ``cls``, a subclass of ``base`` that states ``forward`` and ``grad_…``.

    Raises:
        TypeError: the signatures do not fit together; says which and how.
    """
    formula = _Reader(cls, base)
    code, namespace = source.write(formula), source.namespace(formula)
    source.compiled(code, f"<derived from {cls.__module__}.{cls.__qualname__}>", namespace)
    proved = cls.__module__.startswith("manualbp.")
    return Derivation(
        arguments=formula.arguments,
        differentiable=tuple(formula.rules),
        differentiable_outputs=tuple(
            g in formula.used_grads or not formula.rules for g in formula.incoming
        ),
        tensor_positions=tuple(
            i for i, a in enumerate(formula.arguments) if formula.kinds[a] is not None
        ),
        num_saved=source.num_saved(formula),
        num_saved_tensors=formula.num_saved_tensors,
        keep=namespace["keep"],
        gradients=namespace.get("with_kernels", namespace["gradients"]),
        source=code,
        versions=source.versions(source.num_saved(formula), formula.num_saved_tensors),
        proved=proved,
        forward=namespace.get("forward", cls.forward) if proved else _checked(cls, formula),
        saved=formula.saved,
        kernels=formula.kernels,
        needs=MappingProxyType(
            {a: tuple(v for v in formula.saved if v in formula.needs[a]) for a in formula.rules}
        ),
    )


def _checked(cls: Any, formula: _Reader) -> Method:
    """``forward`` with checks of what autograd accepts silently."""
    forward, name, outputs = cls.forward, cls.__name__, cls.outputs
    options = [i for i, a in enumerate(formula.arguments) if formula.kinds[a] is None]

    def checked(*arguments: Any) -> Any:
        if is_dynamo_compiling():  # which traces no count of changes
            return forward(*arguments)
        before = [version(a) for a in arguments]
        for argument in arguments:
            if isinstance(argument, (list, tuple)) and any(
                isinstance(item, Tensor) and item.requires_grad for item in argument
            ):
                raise TypeError(
                    f"{name}.apply was given a {type(argument).__name__} of tensors, which gets no "
                    f"gradient: let forward take them one by one, the last ones as *tensors"
                )
        for i in options:
            if i < len(arguments) and isinstance(arguments[i], Tensor):
                raise TypeError(
                    f"{name}.forward annotates '{formula.arguments[i]}' as what is no tensor, but "
                    f"was given one: annotate it as Tensor and write grad_{formula.arguments[i]}, "
                    f"or pass a number"
                )
        output = forward(*arguments)
        for i, argument in enumerate(arguments):
            if version(argument) != before[i]:
                raise TypeError(
                    f"{name}.forward changed its argument '{formula.arguments[i]}' in place, which "
                    f"autograd does not see: compute a new tensor, such as x + 1 and not x.add_(1)"
                )
        found = f"{len(output)} values" if isinstance(output, tuple) else type(output).__name__
        if len(outputs) == 1 and not isinstance(output, Tensor):
            raise TypeError(
                f"{name}.forward returned {found}, but one tensor is declared: name what it "
                f"returns by outputs = ('output', …)"
            )
        if len(outputs) > 1 and found != f"{len(outputs)} values":
            raise TypeError(
                f"{name}.forward returned {found}, but {len(outputs)} are declared: return a tuple "
                f"({', '.join(outputs)}), or declare what it returns by outputs"
            )
        return output

    return checked


def version(value: Any) -> int | None:
    """The version counter of a tensor, if it has one."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else None


def lineage(cls: type, base: type) -> list[type]:
    """The classes that state a formula: its own and its ancestors' below ``base``."""
    return list(itertools.takewhile(lambda c: c is not base, cls.__mro__))


class _Reader:
    """The names in the signatures of one formula, and where each of them comes from."""

    def __init__(self, cls: Any, base: type) -> None:
        self.cls = cls
        stated: dict[str, Any] = {}
        for ancestor in reversed(lineage(cls, base)):
            stated |= vars(ancestor)
        if not isinstance(stated["forward"], staticmethod):
            raise TypeError(
                f"{cls.__name__}.forward must be a static method: put @staticmethod before it"
            )
        if "ctx" in [*signature(stated["forward"].__func__).parameters][:1]:
            raise TypeError(
                f"{cls.__name__}.forward takes a ctx, but a formula has none: leave it out, and "
                f"what a rule names is saved for it; or write backward(ctx, …) instead of rules"
            )
        self.variadic = variadic(stated["forward"].__func__)
        self.parameters = {
            name: self._positional(name, value.__func__)
            for name, value in stated.items()
            if isinstance(value, staticmethod) and name not in _PROTOCOL
        }
        arguments = self.parameters.pop("forward")
        #: what a variadic parameter stands for, one argument a tensor
        self.variadic_arguments = (
            tuple(f"{self.variadic}_{i}" for i in range(cls.arity)) if self.variadic else ()
        )
        self.arguments = (*(a for a in arguments if a != self.variadic), *self.variadic_arguments)
        self.outputs: tuple[str, ...] = cls.outputs
        self.multiple_outputs = len(self.outputs) > 1
        self.incoming = tuple(f"g_{o}" for o in self.outputs) if self.multiple_outputs else ("g",)
        self.without_gradient = {n for n in stated if n.startswith("grad_") and stated[n] is None}
        self.kinds = kinds(cls.forward) | dict.fromkeys(
            (*self.variadic_arguments, *self.outputs), Tensor
        )
        self.rules = self._rules(stated)
        #: what each rule needs of arguments and outputs, directly or through an intermediate
        self.needs: dict[str, dict[str, None]] = {a: {} for a in self.rules}
        #: each intermediate after those that it needs, with the arguments whose rules want it
        self.intermediates: dict[str, dict[str, None]] = {}
        self.used_grads: set[str] = set()
        for argument, rule in self.rules.items():
            self._trace(rule, argument, ())
        for argument, rule in self.rules.items():
            if argument in self.variadic_arguments:  # one rule gives the gradients of all of them
                self.intermediates.setdefault(rule, {})
            if rule in self.intermediates:  # another rule is stated by this one
                self.intermediates[rule][argument] = None
        used = {name for need in self.needs.values() for name in need}
        saved = [v for v in (*self.arguments, *self.outputs) if v in used]
        tensors = [v for v in saved if self.kinds[v] is not None]
        self.saved = (*tensors, *(v for v in saved if self.kinds[v] is None))
        self.num_saved_tensors = None if any(self.kinds[v] is Any for v in saved) else len(tensors)
        self.kernels = self._kernels()

    def _positional(self, name: str, method: Method) -> tuple[str, ...]:
        for p in signature(method).parameters.values():
            if name == "forward" and p.name == self.variadic:
                continue
            if p.kind is not Parameter.POSITIONAL_OR_KEYWORD or p.default is not Parameter.empty:
                raise TypeError(
                    f"{self.cls.__name__}.{name} has the parameter '{p}', but a formula takes "
                    f"plain parameters without defaults: state a default in the function that "
                    f"calls apply"
                )
        return tuple(signature(method).parameters)

    def _rules(self, stated: dict[str, Any]) -> dict[str, str]:
        cls, forward = self.cls.__name__, ", ".join(self.arguments)
        reserved = {"g", "delta", "needs", *self.outputs, *self.incoming} & {*self.arguments}
        if reserved:
            raise TypeError(
                f"{cls}.forward({forward}) has an argument called '{min(reserved)}', a name that "
                f"formulas use themselves: rename it"
            )
        rules: dict[str, str] = {}
        for rule in (name for name in stated if name.startswith("grad_")):
            argument = rule.removeprefix("grad_")
            if argument not in (*self.arguments, self.variadic):
                raise TypeError(
                    f"{cls}.{rule} is a rule for '{argument}', which is not an argument of "
                    f"{cls}.forward({forward})"
                )
            if rule in self.without_gradient:
                continue
            if rule not in self.parameters:
                raise TypeError(
                    f"{cls}.{rule} must be a static method: put @staticmethod before it"
                )
            first = self.parameters[rule][:1]
            if not self.multiple_outputs and first not in {("g",), ("delta",)}:
                raise TypeError(
                    f"{cls}.{rule}({', '.join(self.parameters[rule])}) must take the gradient that "
                    f"arrives from above as its first parameter, called 'g' or 'delta'"
                )
            if argument != self.variadic and self.kinds[argument] is None:
                raise TypeError(
                    f"{cls}.{rule} is a rule for '{argument}', which {cls}.forward annotates as "
                    f"what is no tensor: annotate it as Tensor"
                )
            rules |= dict.fromkeys(
                self.variadic_arguments if argument == self.variadic else [argument], rule
            )
        for argument in self.arguments:
            if (
                self.kinds[argument] is TensorContainer
                and f"grad_{argument}" not in self.without_gradient
            ):
                raise TypeError(
                    f"{cls}.forward annotates '{argument}' as several tensors in one argument, of "
                    f"which autograd sees none: let forward take them one by one, the last ones as "
                    f"*tensors, or say grad_{argument} = None if the cost does not depend on them"
                )
        return {a: rules[a] for a in self.arguments if a in rules}

    def _trace(self, method: str, argument: str, trail: tuple[str, ...]) -> None:
        """Note what ``method`` needs for the rule of ``argument``."""
        cls = self.cls.__name__
        if method in trail:
            raise TypeError(f"{cls}.{method} needs itself: {' ← '.join((*trail, method))}")
        for name in self.parameters[method]:
            if self._incoming(name) in self.incoming:
                self.used_grads.add(self._incoming(name))
            elif name in self.arguments or name in self.outputs:
                self.needs[argument][name] = None
            elif name in self.parameters:
                self._trace(name, argument, (*trail, method))
                self.intermediates.setdefault(name, {})[argument] = None
            else:
                raise TypeError(
                    f"{cls}.{method} asks for '{name}', which is neither an argument of "
                    f"{cls}.forward({', '.join(self.arguments)}), nor "
                    f"{' or '.join(map(repr, self.outputs))}, nor another method of {cls}"
                )

    def _kernels(self) -> tuple[Kernel, ...]:
        """The kernels of this formula: those all of whose methods it has not stated anew."""
        methods = [self.cls.forward, *(getattr(self.cls, name) for name in self.parameters)]
        found = dict.fromkeys(KERNELS[m] for m in methods if m in KERNELS)
        kernels = tuple(k for k in found if all(m in methods for m in k.of))
        for kernel in kernels:
            known = {"needs", *self.incoming, "delta", *self.saved}
            if self.cls.forward in kernel.of:
                known = {*self.arguments}
            if unknown := [p for p in kernel.parameters if p not in known]:
                raise TypeError(
                    f"the kernel {kernel.function.__name__} of {self.cls.__name__} asks for "
                    f"'{unknown[0]}', which the methods that it is the twin of do not have: "
                    f"{', '.join(sorted(known))}"
                )
        return kernels

    def _incoming(self, name: str) -> str:
        return "g" if name == "delta" and not self.multiple_outputs else name


def variadic(forward: Method) -> str | None:
    """The name of the last parameter of ``forward``, if that takes any number of tensors."""
    last = next(reversed([*signature(forward).parameters.values()]), None)
    return last.name if last and last.kind is Parameter.VAR_POSITIONAL else None


#: static methods of an ordinary Function: derived, or written by hand, but no part of a formula
_PROTOCOL = {"setup_context", "backward", "apply", "in_graph", "in_place", "jvp", "vmap"}
