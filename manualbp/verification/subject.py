"""What is verified, as a function of the tensors that are checked: run on copies, always alike."""

from __future__ import annotations

import copy
import functools
import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad
from torch.utils._pytree import tree_flatten, tree_unflatten

from manualbp.core.graph import nodes

SEED = 20231


@dataclass(frozen=True)
class Slot:
    """A tensor that is checked: an input by its position, or a parameter by its name."""

    name: str
    index: int | None = None
    parameter: str = ""


@dataclass
class Point:
    """Where a subject is evaluated.

    Attributes:
        values: one tensor for each slot.
        others: the flat inputs; those that are slots are taken from ``values``.
        training: the mode of the module, where there is one.
    """

    values: list[Tensor]
    others: list[Any]
    training: bool | None = None

    def at(self, index: int, value: Tensor) -> Point:
        """This point, with another value of one slot, which lies in memory as the one before."""
        before = self.values[index]
        if value.stride() != before.stride():  # a function may draw its numbers in memory order
            value = torch.empty_like(before, dtype=value.dtype).copy_(value)
        return replace(self, values=[*self.values[:index], value, *self.values[index + 1 :]])


@dataclass
class Run:
    """A forward pass: the leaves, one for each slot, and the outputs that take part."""

    leaves: list[Tensor]
    outputs: list[Tensor]
    #: the same as ``leaves``, but for functions that work in place, which get copies
    given: list[Tensor]
    others: list[Any] = field(default_factory=list)


def check_target(inputs: Sequence[Any], cost: Any) -> None:
    """Refuse a cost without a target."""
    if cost is not None and len(inputs) < 2:
        raise ValueError(
            "cost: expected the inputs of the model and then the target, as in "
            f"verify(model, x, y, cost=criterion), got {len(inputs)} input"
        )


def copied(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A copy with the same strides, expanded ones too; in ``dtype`` where that is floating."""
    tensor = tensor.detach()
    dtype = _cast(tensor.dtype, dtype)
    if tensor.layout is not torch.strided or type(tensor) not in (Tensor, nn.Parameter):
        return tensor.to(dtype).clone()
    if 0 not in tensor.stride() or tensor.numel() == 0:
        size = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        if tensor.numel() == 0 or size == tensor.numel():
            return tensor.to(dtype, copy=True)
    flat = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    flat = flat.set_(tensor.untyped_storage())
    flat = flat.to(dtype, copy=True)
    return flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _as_others(value: Any, flat: Sequence[Any]) -> Any:
    """A constant in the dtype in which the inputs are."""
    if not isinstance(value, Tensor):
        return value
    dtypes = [t.dtype for t in flat if isinstance(t, Tensor) and t.is_floating_point()]
    return copied(value, dtypes[0] if dtypes else None)


def _cast(dtype: torch.dtype, to: torch.dtype | None) -> torch.dtype:
    if to is None or not (dtype.is_floating_point or dtype.is_complex):
        return dtype
    return to.to_complex() if dtype.is_complex else to


class Subject:
    """A function, a Function or a module, and the inputs on which it is verified.

    Args:
        f: what :func:`manualbp.verify` takes.
        inputs: its arguments, by position.
        cost: takes the output and the last of ``inputs``.
        keywords: further arguments, by name: constants.

    Raises:
        TypeError: ``f`` cannot be called.
        ValueError: no input and no parameter is a floating point tensor.
    """

    def __init__(
        self,
        f: Any,
        inputs: Sequence[Any],
        cost: Callable[..., Any] | None = None,
        keywords: Mapping[str, Any] | None = None,
    ) -> None:
        if not callable(f):
            raise TypeError(
                f"f: expected a Function, a function of tensors or a module, got {type(f).__name__}"
            )
        check_target(inputs, cost)
        self.name = _name(f)
        self.f, self.cost, self.keywords = f, cost, dict(keywords or {})
        self.flat, self.spec = tree_flatten(list(inputs))
        self.module = f if isinstance(f, nn.Module) else None
        self.function = f.apply if _is_function(f) else f
        self.slots = [*self._input_slots(f, inputs), *self._parameter_slots()]
        if not self.slots:
            raise ValueError(
                f"inputs: expected a floating point tensor among them, got "
                f"{', '.join(_kind(value) for value in self.flat) or 'nothing'}: there is no "
                "gradient to verify"
            )
        self.needs_copies = False
        self._own = [value.dtype for value in self.given.values]
        #: which of the outputs take part: floating, and differentiable
        self.positions: list[int] | None = None
        self.floating: list[int] = []
        self._modules: dict[torch.dtype | None, tuple[nn.Module, dict[str, Tensor]]] = {}
        self._surrounding = [(b, b.detach().clone()) for b in _buffers_around(f, cost)]

    # ------------------------------------------------------------------------------- arguments

    def _input_slots(self, f: Any, inputs: Sequence[Any]) -> list[Slot]:
        names = self.names = _argument_names(f, inputs, self.cost is not None)
        floating = [
            i
            for i, value in enumerate(self.flat)
            if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
        ]
        wanted = [i for i in floating if self.flat[i].requires_grad]
        if not wanted:
            target = len(tree_flatten(inputs[-1])[0]) if self.cost is not None else 0
            wanted = [i for i in floating if i < len(self.flat) - target]
            counts = [len(tree_flatten(value)[0]) for value in inputs]
            owners = [k for k, count in enumerate(counts) for _ in range(count)]
            wanted = [i for i in wanted if _has_rule(f, owners[i])]
        return [Slot(names[i], index=i) for i in wanted]

    def _parameter_slots(self) -> list[Slot]:
        if self.module is None:
            return []
        own = self.module.named_parameters()
        return [Slot(name, parameter=name) for name, p in own if p.requires_grad and p.numel()]

    @property
    def given(self) -> Point:
        """The point at which the inputs and parameters are."""
        values = [
            self.flat[slot.index]
            if slot.index is not None
            else self.module.get_parameter(slot.parameter)  # type: ignore[union-attr]
            for slot in self.slots
        ]
        training = None if self.module is None else self.module.training
        return Point([v.detach() for v in values], list(self.flat), training)

    @property
    def dtype(self) -> torch.dtype:
        """The narrowest floating dtype among what was given."""
        dtypes = [v.dtype.to_real() for v in self.given.values]
        return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)

    @property
    def device(self) -> torch.device:
        return self.given.values[0].device

    # ------------------------------------------------------------------------------- running

    def run(
        self,
        point: Point,
        dtype: torch.dtype | None = torch.double,
        wanted: Sequence[int] | None = None,
        autocast: bool = False,
        f: Callable[..., Any] | None = None,
    ) -> Run:
        """A forward pass that records, on fresh copies of the point's values.

        Args:
            point: where.
            dtype: of the copies; None leaves each its own.
            wanted: the slots that require a gradient; None: all.
            autocast: whether it runs under autocast to bfloat16.
            f: another function of the same inputs, in place of the subject's own.
        """
        required = range(len(self.slots)) if wanted is None else wanted
        module = self._place(point, dtype)
        leaves = []
        slots = zip(self.slots, point.values, self._own, strict=True)
        for i, (slot, value, own) in enumerate(slots):
            if slot.index is None:
                leaf = module.get_parameter(slot.parameter)  # type: ignore[union-attr]
                leaf.data = copied(value, dtype or own)
            else:
                leaf = copied(value, dtype or own)
            leaves.append(leaf.requires_grad_(i in required))
        given = [
            leaf.clone() if self.needs_copies and slot.index is not None else leaf
            for slot, leaf in zip(self.slots, leaves, strict=True)
        ]
        others = self._arguments(point, given, dtype)
        try:
            callee, inner = (self.function, module) if f is None else (f, None)
            outputs = self._called(callee, inner, others, autocast)
        except RuntimeError as raised:
            if "leaf" not in str(raised) or self.needs_copies:
                raise
            self.needs_copies = True  # it works in place, which a leaf does not allow
            return self.run(point, dtype, wanted, autocast, f)
        return Run(leaves, outputs, given, others)

    def again(self, point: Point, dtype: torch.dtype | None) -> None:
        """One more forward pass on the inputs of ``point``: parameters and buffers as they are."""
        module = None if self.module is None else self._modules[dtype][0]
        others = [copied(v, dtype) if isinstance(v, Tensor) else v for v in point.others]
        for slot, value, own in zip(self.slots, point.values, self._own, strict=True):
            if slot.index is not None:
                leaf = copied(value, dtype or own).requires_grad_()
                others[slot.index] = leaf.clone() if self.needs_copies else leaf
        self._called(self.function, module, others)

    def value(
        self,
        point: Point,
        dtype: torch.dtype | None = torch.double,
        f: Callable[..., Any] | None = None,
        number: int = SEED,
    ) -> list[Tensor]:
        """The outputs alone, from the random state of ``number``: nothing is recorded."""
        module = self._place(point, dtype)
        others = [copied(v, dtype) if isinstance(v, Tensor) else v for v in point.others]
        for slot, value, own in zip(self.slots, point.values, self._own, strict=True):
            if slot.index is None:
                leaf = module.get_parameter(slot.parameter)  # type: ignore[union-attr]
                leaf.data = copied(value, dtype or own)
            else:
                others[slot.index] = copied(value, dtype or own)
        with torch.no_grad():
            callee, inner = (self.function, module) if f is None else (f, None)
            return self._called(callee, inner, others, number=number)

    def _called(
        self,
        function: Callable[..., Any],
        module: nn.Module | None,
        flat: list[Any],
        autocast: bool = False,
        number: int | None = SEED,
    ) -> list[Tensor]:
        if number is not None:  # a transform refuses to seed
            seed(number)
        inputs = tree_unflatten(flat, self.spec)
        keywords = {k: _as_others(v, flat) for k, v in self.keywords.items()}
        called = function if module is None else module
        cast = torch.autocast(self.device.type, torch.bfloat16) if autocast else nullcontext()
        with cast:
            if self.cost is None:
                result = called(*inputs, **keywords)
            else:
                output = called(*inputs[:-1], **keywords)
                result = self.cost(output, inputs[-1])
        found = [t for t in tree_flatten(result)[0] if isinstance(t, Tensor)]
        found = [torch.view_as_real(t) if t.is_complex() else t for t in found]
        self.floating = [i for i, t in enumerate(found) if t.is_floating_point()]
        chosen = self.positions
        if chosen is None or chosen[-1] >= len(found):
            chosen = self.floating
        return [found[i] for i in chosen]

    def called_with(
        self, point: Point, values: Sequence[Tensor], dtype: torch.dtype | None
    ) -> list[Tensor]:
        """The outputs for these very tensors as slots: for transforms, which wrap them."""
        given = [value.clone() if self.needs_copies else value for value in values]
        others = self._arguments(point, given, dtype)
        return self._called(self.function, None, others, number=None)

    def _arguments(
        self, point: Point, values: Sequence[Tensor], dtype: torch.dtype | None
    ) -> list[Any]:
        """The flat inputs: copies of the constants, and ``values`` at the slots."""
        others = [copied(v, dtype) if isinstance(v, Tensor) else v for v in point.others]
        for slot, value in zip(self.slots, values, strict=True):
            if slot.index is not None:
                others[slot.index] = value
        return others

    def with_tangent(
        self, point: Point, dtype: torch.dtype | None, index: int, tangent: Tensor
    ) -> list[Tensor]:
        """The outputs, as dual numbers, where one slot moves along ``tangent``."""
        values = [copied(v, dtype) for v in point.values]
        values[index] = forward_ad.make_dual(values[index], tangent)  # type: ignore[no-untyped-call]
        seed()
        return self.called_with(point, values, dtype)

    def without(self, index: int) -> Subject:
        """The same subject, one input of which is no longer checked."""
        made = copy.copy(self)
        made.slots = [slot for i, slot in enumerate(self.slots) if i != index]
        made._own = [dtype for i, dtype in enumerate(self._own) if i != index]
        return made

    def choose_outputs(self, point: Point, dtype: torch.dtype | None) -> None:
        """Settle which outputs take part: those that require a gradient, or all where none does."""
        self.positions = None
        outputs = self.run(point, dtype).outputs
        if not outputs:
            raise ValueError(
                f"{self.name}: expected a floating point tensor as its value, got none"
            )
        every = self.floating
        wanted = [i for i, t in zip(every, outputs, strict=True) if t.requires_grad]
        self.positions = wanted or every

    def _place(self, point: Point, dtype: torch.dtype | None) -> nn.Module | None:
        """The module in ``dtype``, its buffers and mode as at the beginning."""
        for buffer, was in self._surrounding:
            if buffer._version or not torch.equal(buffer, was):
                with torch.no_grad():
                    buffer.copy_(was)
        if self.module is None:
            return None
        if dtype not in self._modules:
            module = copy.deepcopy(self.module)
            if dtype is not None:
                module.to(dtype)
            for parameter in module.parameters():
                parameter.grad = None
            before = {n: b.detach().clone() for n, b in module.named_buffers()}
            self._modules[dtype] = module, before
        module, before = self._modules[dtype]
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                if name in before and buffer.shape == before[name].shape:
                    buffer.data = before[name].clone()
        if point.training is not None and module.training is not point.training:
            if point.training == self.module.training:
                for own, copied_module in zip(self.module.modules(), module.modules(), strict=True):
                    copied_module.training = own.training
            else:
                module.train(point.training)
        return module

    def copy_in(self, dtype: torch.dtype | None) -> nn.Module:
        """The copy of the module that runs in ``dtype``."""
        return self._modules[dtype][0]

    def buffers(self, dtype: torch.dtype | None) -> dict[str, Tensor]:
        """The buffers of the copy in ``dtype`` that was run last."""
        return dict(self._modules[dtype][0].named_buffers()) if dtype in self._modules else {}

    def restore(self) -> None:
        """Put back what a function around modules changed of their buffers."""
        with torch.no_grad():
            for buffer, was in self._surrounding:
                buffer.copy_(was)


# ------------------------------------------------------------------------------- random numbers


def _cuda() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def seed(number: int = SEED) -> None:
    """Seed every generator that a subject may draw from."""
    torch.default_generator.manual_seed(number)
    if _cuda():
        torch.cuda.manual_seed_all(number)
    random.seed(number)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(number)


@contextmanager
def same_generators() -> Iterator[None]:
    """Every generator is afterwards as it was before."""
    numpy = sys.modules.get("numpy")
    states = random.getstate(), numpy.random.get_state() if numpy else None
    devices = list(range(torch.cuda.device_count())) if _cuda() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            if numpy is not None:
                numpy.random.set_state(states[1])


# ------------------------------------------------------------------------------- names


def _is_function(f: Any) -> bool:
    return isinstance(f, type) and issubclass(f, Function)


def function_of(f: Any) -> Any:
    """The Function that ``f`` is, or whose ``apply`` it is; else None."""
    owner = getattr(f, "__self__", None)
    if _is_function(owner) and getattr(f, "__name__", "") == "apply":
        return owner
    return f if _is_function(f) else None


def takes_ctx(function: Any) -> bool:
    """Whether ``forward`` has ``ctx`` before its arguments; that of a formula has none."""
    return function.setup_context is Function.setup_context and not _is_formula(function)


def _name(f: Any) -> str:
    if isinstance(f, nn.Module):
        return type(f).__name__
    if (function := function_of(f)) is not None:
        return str(function.__name__)
    if isinstance(f, functools.partial):
        return _name(f.func)
    return str(getattr(f, "__name__", type(f).__name__)).replace("<lambda>", "function")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}".replace("torch.", "")
    return f"a value of {type(value).__name__}"


def _has_rule(f: Any, position: int) -> bool:
    """Whether a formula has a rule for an argument: those without have no gradient on purpose."""
    derivation = getattr(f, "derivation", None)
    if derivation is None or position >= len(derivation.arguments):
        return True
    return derivation.arguments[position] in derivation.differentiable


def _argument_names(f: Any, inputs: Sequence[Any], with_target: bool) -> list[str]:
    """A name for each flat input, as in the signature."""
    names = _positional_names(f)
    count = len(inputs) - with_target
    rest = names.pop() if names and names[-1].startswith("*") else ""
    for i in range(len(names), count):
        names.append(f"{rest[1:]}[{i - len(names)}]" if rest else f"input {i}")
    if rest:
        fixed = len([n for n in names if "[" not in n])
        names = [*names[:fixed], *(f"{rest[1:]}[{i}]" for i in range(count - fixed))]
    names = [*names[:count], *(["target"] if with_target else [])]
    found = []
    for name, value in zip(names, inputs, strict=True):
        flat = tree_flatten(value)[0]
        nested = not (len(flat) == 1 and flat[0] is value)
        found += [f"{name}[{i}]" if nested else name for i in range(len(flat))]
    return found


def _positional_names(f: Any) -> list[str]:
    function, skip = function_of(f), 0
    if function is not None:
        skip, target = int(takes_ctx(function)), function.forward
    else:
        target = f.forward if isinstance(f, nn.Module) else f
    try:
        parameters = list(inspect.signature(target).parameters.values())[skip:]
    except (TypeError, ValueError):
        return []
    names: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            return [*names, f"*{parameter.name}"]
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    return names


def _is_formula(function: Any) -> bool:
    return getattr(function, "derivation", None) is not None or hasattr(function, "in_graph")


# ------------------------------------------------------------------------------- surroundings


def modules_around(*functions: Any) -> list[nn.Module]:
    """The modules that functions reach: bound, in a partial, in a closure or a global name."""
    found: list[nn.Module] = []
    stack: list[Any] = [f for f in functions if f is not None]
    while stack:
        f = stack.pop()
        if isinstance(f, nn.Module):
            found.append(f)
        elif isinstance(f, functools.partial):
            stack += [f.func, *f.args, *f.keywords.values()]
        elif inspect.ismethod(f):
            stack.append(f.__self__)
        elif inspect.isfunction(f):
            reached = inspect.getclosurevars(f)
            values = (*reached.nonlocals.values(), *reached.globals.values())
            stack += [v for v in values if isinstance(v, nn.Module)]
    return found


def _buffers_around(f: Any, cost: Any) -> list[Tensor]:
    """Buffers that a run changes though they belong to no copy."""
    functions = (cost,) if isinstance(f, nn.Module) else (f, cost)
    return [b for module in modules_around(*functions) for b in module.buffers()]


def custom_functions(outputs: Sequence[Tensor]) -> list[Any]:
    """The autograd Functions written in Python that are behind ``outputs``."""
    found = [getattr(node, "_forward_cls", None) for node in nodes(*(t.grad_fn for t in outputs))]
    return [f for f in dict.fromkeys(found) if f is not None]
