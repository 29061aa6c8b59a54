"""From the signatures of a formula to the code that keeps its values and runs its rules."""

from __future__ import annotations

import itertools
import linecache
from collections.abc import Callable, Iterable
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import torch
from torch import Size, Tensor

Method = Callable[..., Any]


class Derivation(NamedTuple):
    """What the signatures of a formula say, as two functions without a loop in them.

    A layer of the document's network works for a few microseconds: a loop over rules would take
    as long again. So the functions are written out, once, when the class is defined.
    """

    arguments: tuple[str, ...]
    #: the arguments that have a rule
    wanted: tuple[str, ...]
    #: for each output, whether a rule asks for the gradient that arrives for it
    asked: tuple[bool, ...]
    #: the places of the arguments that can be tensors
    tensors: tuple[int, ...]
    #: how many values are kept, None among them
    kept: int
    #: how many of them, from the first, are tensors or None, where the others surely are not;
    #: None where only the values can tell
    split: int | None
    #: keep(needs, *arguments, *outputs) → the values that the wanted gradients need, or None
    keep: Method
    #: gradients(needs, *incoming, *kept) → one gradient an argument, or None
    gradients: Method
    source: str
    #: is_complex(*arguments) → whether the rules do not hold, because an argument is complex;
    #: None where they always hold
    is_complex: Method | None = None
    #: what computes the value: ``forward``, with what an author can get wrong checked at each call
    forward: Any = None
    #: the arguments and outputs that rules need
    needed: tuple[str, ...] = ()


def derive(cls: Any, base: type) -> Derivation:
    """Read ``cls``, a subclass of ``base`` that states ``forward`` and ``grad_…``.

    Raises:
        TypeError: the signatures do not fit together; says which and how.
    """
    formula = _Reader(cls, base)
    source = formula.write()
    namespace = formula.namespace()
    compiled(source, f"<derived from {cls.__module__}.{cls.__qualname__}>", namespace)
    return Derivation(
        arguments=formula.arguments,
        wanted=tuple(formula.rules),
        asked=tuple(g in formula.asked or not formula.rules for g in formula.incoming),
        tensors=tuple(i for i, a in enumerate(formula.arguments) if formula.kinds[a] is not None),
        kept=len(formula.kept) + (len(formula.rules) if cls.broadcasts else 0),
        split=formula.split,
        keep=namespace["keep"],
        gradients=namespace["gradients"],
        source=source,
        is_complex=namespace.get("is_complex"),
        forward=cls.forward if _is_ours(cls) else _checked(cls, formula),
        needed=formula.kept,
    )


def _is_ours(cls: type) -> bool:
    """Whether the tests of this package have proved the formula."""
    return cls.__module__.startswith("manualbp.")


def _checked(cls: Any, formula: _Reader) -> Method:
    """``forward``, refusing what autograd would take for right without a word."""
    forward, name, outputs = cls.forward, cls.__name__, cls.outputs
    options = [i for i, a in enumerate(formula.arguments) if formula.kinds[a] is None]

    def checked(*arguments: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():  # which traces no count of changes
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
    """How often a tensor has been changed in place, if it counts that."""
    return value._version if isinstance(value, Tensor) and not value.is_inference() else None


def conjugates(*values: Any) -> tuple[Any, ...]:
    """The complex conjugate of each tensor and number, and everything else as it is."""
    return tuple(
        v.conj() if isinstance(v, Tensor) else v.conjugate() if isinstance(v, complex) else v
        for v in values
    )


def compiled(source: str, filename: str, namespace: dict[str, Any]) -> None:
    """Define what ``source`` states in ``namespace``; a traceback shows its lines."""
    linecache.cache[filename] = (len(source), None, source.splitlines(True), filename)
    exec(compile(source, filename, "exec"), namespace)


def lineage(cls: type, base: type) -> list[type]:
    """The classes that state a formula: its own and its ancestors' below ``base``."""
    return list(itertools.takewhile(lambda c: c is not base, cls.__mro__))


def unbroadcast(gradient: Tensor, shape: Size) -> Tensor:
    """Sum a gradient over the axes along which its argument, of ``shape``, was stretched."""
    return gradient if gradient.shape == shape else gradient.sum_to_size(shape)


#: the dtypes in which a rule's intermediate results would lose what torch's kernels keep
HALF = (torch.float16, torch.bfloat16)


def in_single(*values: Any) -> tuple[Any, ...]:
    """The values, tensors of half precision in single precision."""
    return tuple(v.float() if isinstance(v, Tensor) and v.dtype in HALF else v for v in values)


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
        self.rest = rest(stated["forward"].__func__)
        self.parameters = {
            name: self._positional(name, value.__func__)
            for name, value in stated.items()
            if isinstance(value, staticmethod) and name not in _PROTOCOL
        }
        arguments = self.parameters.pop("forward")
        #: what a variadic parameter stands for, one argument a tensor
        self.expanded = tuple(f"{self.rest}_{i}" for i in range(cls.arity)) if self.rest else ()
        self.arguments = (*(a for a in arguments if a != self.rest), *self.expanded)
        self.outputs: tuple[str, ...] = cls.outputs
        self.several = len(self.outputs) > 1
        self.incoming = tuple(f"g_{o}" for o in self.outputs) if self.several else ("g",)
        self.silent = {n for n in stated if n.startswith("grad_") and stated[n] is None}
        self.kinds = _kinds(cls.forward) | dict.fromkeys((*self.expanded, *self.outputs), Tensor)
        self.rules = self._rules(stated)
        #: what each rule needs of arguments and outputs, directly or through an intermediate
        self.needs: dict[str, dict[str, None]] = {a: {} for a in self.rules}
        #: each intermediate after those that it needs, with the arguments whose rules want it
        self.intermediates: dict[str, dict[str, None]] = {}
        self.asked: set[str] = set()
        for argument, rule in self.rules.items():
            self._trace(rule, argument, ())
        for argument, rule in self.rules.items():
            if argument in self.expanded:  # one rule gives the gradients of all of them
                self.intermediates.setdefault(rule, {})
            if rule in self.intermediates:  # another rule is stated by this one
                self.intermediates[rule][argument] = None
        used = {name for need in self.needs.values() for name in need}
        kept = [v for v in (*self.arguments, *self.outputs) if v in used]
        tensors = [v for v in kept if self.kinds[v] is not None]
        self.kept = (*tensors, *(v for v in kept if self.kinds[v] is None))
        self.split = None if any(self.kinds[v] is Any for v in kept) else len(tensors)

    def _positional(self, name: str, method: Method) -> tuple[str, ...]:
        for p in signature(method).parameters.values():
            if name == "forward" and p.name == self.rest:
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
            if argument not in (*self.arguments, self.rest):
                raise TypeError(
                    f"{cls}.{rule} is a rule for '{argument}', which is not an argument of "
                    f"{cls}.forward({forward})"
                )
            if rule in self.silent:
                continue
            if rule not in self.parameters:
                raise TypeError(
                    f"{cls}.{rule} must be a static method: put @staticmethod before it"
                )
            first = self.parameters[rule][:1]
            if not self.several and first not in {("g",), ("delta",)}:
                raise TypeError(
                    f"{cls}.{rule}({', '.join(self.parameters[rule])}) must take the gradient that "
                    f"arrives from above as its first parameter, called 'g' or 'delta'"
                )
            if argument != self.rest and self.kinds[argument] is None:
                raise TypeError(
                    f"{cls}.{rule} is a rule for '{argument}', which {cls}.forward annotates as "
                    f"what is no tensor: annotate it as Tensor"
                )
            rules |= dict.fromkeys(self.expanded if argument == self.rest else [argument], rule)
        for argument in self.arguments:
            if self.kinds[argument] is _Several and f"grad_{argument}" not in self.silent:
                raise TypeError(
                    f"{cls}.forward annotates '{argument}' as several tensors in one argument, of "
                    f"which autograd sees none: let forward take them one by one, the last ones as "
                    f"*tensors, or say grad_{argument} = None if the cost does not depend on them"
                )
        return {a: rules[a] for a in self.arguments if a in rules}

    def _trace(self, method: str, argument: str, trail: tuple[str, ...]) -> None:
        """Note what ``method`` needs on behalf of the rule of ``argument``."""
        cls = self.cls.__name__
        if method in trail:
            raise TypeError(f"{cls}.{method} needs itself: {' ← '.join((*trail, method))}")
        for name in self.parameters[method]:
            if self._incoming(name) in self.incoming:
                self.asked.add(self._incoming(name))
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

    def _incoming(self, name: str) -> str:
        return "g" if name == "delta" and not self.several else name

    # ------------------------------------------------------------------------------ writing

    def write(self) -> str:
        """``keep`` and ``gradients``, as Python."""
        stretched = [a for a in self.rules if self.cls.broadcasts]
        shapes = [f"shape_{a}" for a in stretched]
        unpack = f"{''.join(f'need_{a}, ' for a in self.arguments)}= needs"
        keep = [
            f"{v} if {_any(a for a in self.rules if v in self.needs[a])} else None"
            for v in self.kept
        ]
        keep += [f"{a}.shape if need_{a} and {self._is_tensor(a)} else None" for a in stretched]
        # An argument that nobody thought of would otherwise be given no gradient in silence.
        without = [a for a in self.arguments if a not in self.rules and self.kinds[a] is not None]
        without = [a for a in without if f"grad_{a}" not in self.silent]
        shared = [
            f"{name} = {self._call(name)} if {_any(users)} else None"
            for name, users in self.intermediates.items()
        ]
        count = len(self.expanded)
        shared += [
            f"if {rule} is not None and len({rule}) != {count}: _too_few({rule})"
            for rule in dict.fromkeys(self.rules[a] for a in self.expanded)
        ]
        conjugated = ", ".join(self.kept)
        several = [f"{i} is not None and {i}.is_complex()" for i in self.incoming]
        is_complex = " or ".join(several) if self.several else "g.is_complex()"
        conjugate = [f"if {is_complex}: {conjugated}, = _conjugates({conjugated})"]
        gradients = []
        for argument in self.arguments:
            rule = self.rules.get(argument)
            value = rule if rule in self.intermediates else rule and self._call(rule)
            if argument in self.expanded:
                value = f"{rule}[{self.expanded.index(argument)}]"
            if argument in stretched:
                value = f"_unbroadcast({value}, shape_{argument})"
            gradients.append(f"{value} if need_{argument} else None" if rule else "None")
        return "\n".join(
            [
                function(
                    "keep", ("needs", *self.arguments, *self.outputs), unpack, *_returned(keep)
                ),
                function(
                    "gradients",
                    ("needs", *self.incoming, *self.kept, *shapes),
                    unpack,
                    *(f"if need_{a}: _no_rule('{a}')" for a in without),
                    *(conjugate if self.cls.holomorphic and self.kept else []),
                    *self._raised(),
                    *shared,
                    *_returned(gradients),
                ),
                *self._write_is_complex(),
            ]
        )

    def _write_is_complex(self) -> list[str]:
        tensors = [a for a in self.arguments if self.kinds[a] in (Tensor, Any)]
        if self.cls.holomorphic or not tensors:
            return []
        asked = " or ".join(f"isinstance({a}, _Tensor) and {a}.is_complex()" for a in tensors)
        return [function("is_complex", self.arguments, f"return {asked}")]

    def _raised(self) -> list[str]:
        """Where half precision arrives, all that is in half precision is raised to single."""
        if not self.cls.opmath or not self.rules:
            return []
        values = (*self.incoming, *(v for v in self.kept if self.kinds[v] is not None))
        names = "".join(f"{v}, " for v in values)
        first = next((g for g in self.incoming if g in self.asked), self.incoming[0])
        arrived = f"{first} is not None and " if self.several else ""
        return [f"if {arrived}{first}.dtype in _HALF: {names}= _in_single({names})"]

    def _is_tensor(self, argument: str) -> str:
        """A condition: cheap where only a tensor or None can come."""
        if self.kinds[argument] is Tensor:
            return f"{argument} is not None"
        return f"isinstance({argument}, _Tensor)"

    def _call(self, method: str) -> str:
        return f"_{method}({', '.join(map(self._incoming, self.parameters[method]))})"

    def namespace(self) -> dict[str, Any]:
        def no_rule(argument: str) -> None:
            raise NotImplementedError(
                f"{self.cls.__name__} has no rule for the gradient of '{argument}': pass "
                f"{argument}.detach(), or subclass {self.cls.__name__} and write grad_{argument}"
            )

        def too_few(given: Any) -> None:
            raise TypeError(
                f"{self.cls.__name__}.grad_{self.rest} returned {len(given)} gradients for "
                f"{len(self.expanded)} tensors: return one for each"
            )

        methods = {f"_{name}": getattr(self.cls, name) for name in self.parameters}
        methods |= {"_unbroadcast": unbroadcast, "_no_rule": no_rule, "_Tensor": Tensor}
        methods |= {"_conjugates": conjugates, "_too_few": too_few}
        return methods | {"_HALF": HALF, "_in_single": in_single}


def rest(forward: Method) -> str | None:
    """The name of the last parameter of ``forward``, if that takes any number of tensors."""
    last = next(reversed([*signature(forward).parameters.values()]), None)
    return last.name if last and last.kind is Parameter.VAR_POSITIONAL else None


#: static methods of an ordinary Function: derived, or written by hand, but no part of a formula
_PROTOCOL = {"setup_context", "backward", "apply", "in_place", "jvp", "vmap"}


def _any(users: Iterable[str]) -> str:
    return " or ".join(f"need_{user}" for user in users)


def function(name: str, parameters: Iterable[str], *body: str) -> str:
    """The source of a function."""
    return f"def {name}({', '.join(parameters)}):\n" + "".join(f"    {line}\n" for line in body)


def _returned(values: Iterable[str]) -> list[str]:
    return ["return (", *(f"    {value}," for value in values), ")"]


class _Several:
    """Several tensors in one argument."""


#: what is surely no tensor
_PLAIN = (int, float, complex, str, bytes, slice, torch.dtype, torch.device, Size, NoneType)


def _kinds(forward: Method) -> dict[str, Any]:
    """For each parameter: Tensor (or None), None for anything but, Any for either.

    What an annotation does not say for certain is Any.
    """
    try:
        hints = get_type_hints(forward)
    except NameError:  # annotations that only a type checker can read: then nothing is known
        hints = {}
    return {name: _kind(hints.get(name, Any)) for name in signature(forward).parameters}


def _kind(hint: Any) -> Any:
    origin, parts = get_origin(hint), get_args(hint)
    if isinstance(hint, TypeVar):
        hints = hint.__constraints__ or (hint.__bound__ or Any,)
        return _kind(Union[hints])  # noqa: UP007 # of a tuple
    if origin is Annotated:
        return _kind(parts[0])
    if origin in (Union, UnionType):
        kinds = [_kind(part) for part in parts if part is not NoneType]
        return kinds[0] if all(kind is kinds[0] for kind in kinds) else Any
    if origin in (Literal, type, Callable):
        return None
    if origin is not None:  # a container
        kinds = [_kind(part) for part in parts if part is not Ellipsis]
        if Tensor in kinds or _Several in kinds:
            return _Several
        return None if all(kind is None for kind in kinds) else Any
    if isinstance(hint, type):
        return Tensor if issubclass(hint, Tensor) else None if issubclass(hint, _PLAIN) else Any
    return Any
