"""What a traced program assumes beside its inputs, and whether that still holds."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from manualbp.core.modes import has_storage

#: the dictionaries of a module that a call of it reads
_READ = (
    "_parameters",
    "_buffers",
    "_modules",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
_MEMBERS = _READ[:3]
#: the dictionaries of hooks that run for every module
_GLOBAL = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)
_BASE = frozenset(vars(nn.Module()))
_LEAVES = (type, types.ModuleType, types.BuiltinFunctionType, str, int, float, complex, type(None))
_MISSING = object()
_is_set_to, _data_ptr = torch.Tensor.is_set_to, torch.Tensor.data_ptr
#: the attributes of a tensor that decide about its gradient
_gradient_flags = attrgetter("requires_grad", "_backward_hooks", "_post_accumulate_grad_hooks")


class Guards:
    """A snapshot of all that Python code can read from some functions and modules.

    It covers modules with all their attributes, functions with their closures, defaults and the
    globals that they name, lists, tuples, sets and dictionaries. Of any other object it covers the
    attributes that the code names. It does not cover attributes of classes, nor what a library
    computes from files or clocks.

    Args:
        roots: the functions and modules, by the names that messages use.
        entries: single items of dictionaries, as (dictionary, key), which the snapshot includes.
        opaque: objects that the snapshot does not enter.
    """

    def __init__(
        self,
        roots: dict[str, Any],
        entries: Sequence[tuple[dict[Any, Any], Any]] = (),
        opaque: Sequence[Any] = (),
    ) -> None:
        #: each tensor once
        self.tensors: list[Tensor] = []
        #: where tensors are found: a container, a key, and the tensor's index in ``tensors``
        self.places: list[tuple[Any, Any, int]] = []
        self._index: dict[int, int] = {}
        # It holds the objects too, so that Python reuses none of their ids.
        self._seen: dict[int, Any] = {id(value): value for value in opaque}
        self._names: set[str] = set()
        self._objects: list[tuple[Any, type, str]] = []
        self.modules: list[nn.Module] = []
        self._containers: list[Any] = []
        self._paths: list[str] = []
        self._entries: list[tuple[dict[Any, Any], Any]] = []
        self._entered: set[tuple[int, Any]] = set()
        for path, value in roots.items():
            self._visit(value, path)
        for hooks in _GLOBAL:
            self._visit(getattr(torch_module, hooks), "torch.nn.Module")
        #: how many of the tensors can be reached from the roots
        self._reached = len(self.tensors)
        for holder, key in entries:
            self._entry(holder, key, str(key))
        while self._objects:  # the attributes that the code names may hold further objects
            waiting, self._objects = self._objects, []
            for value, cls, path in waiting:
                self._attributes(value, cls, self._names, path)
        self._freeze()

    # ---------------------------------------------------------------------- making the snapshot

    def _visit(self, value: Any, path: str) -> None:
        if isinstance(value, _LEAVES) or isinstance(value, Tensor) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, nn.Module):
            self._module(value, path)
        elif isinstance(value, dict):
            self._container(value, path, value.items())
        elif isinstance(value, list):
            self._container(value, path, enumerate(value))
        elif isinstance(value, set | tuple | frozenset):
            if isinstance(value, set):
                self._container(value, path, ())
            for each in value:
                self._visit(each, path)
        elif isinstance(value, partial):
            for each in (value.func, value.args, value.keywords):
                self._visit(each, path)
        elif isinstance(value, types.MethodType):
            self._method(value, path)
        elif isinstance(value, types.FunctionType):
            self._function(value, path)
        elif hasattr(value, "__dict__"):
            self._objects.append((value, type(value), path))

    def _module(self, module: nn.Module, path: str) -> None:
        self.modules.append(module)
        own = vars(module)
        self._container(own, path, ((k, v) for k, v in own.items() if k not in _BASE))
        for name in _READ:
            if isinstance(inner := own.get(name), dict):
                self._container(
                    inner, path if name in _MEMBERS else f"{path}.{name}", inner.items()
                )
        self._code(type(module), {"forward"}, path)

    def _container(self, container: Any, path: str, items: Any) -> None:
        self._containers.append(container)
        self._paths.append(path)
        for key, value in items:
            if isinstance(value, Tensor):
                self._place(container, key, value)
            else:
                self._visit(value, f"{path}.{key}" if isinstance(key, str | int) else path)

    def _place(self, container: Any, key: Any, tensor: Tensor) -> None:
        number = self._index.setdefault(id(tensor), len(self.tensors))
        if number == len(self.tensors):
            self.tensors.append(tensor)
        self.places.append((container, key, number))

    def _entry(self, holder: dict[Any, Any], key: Any, path: str) -> None:
        if (id(holder), key) in self._entered:
            return
        self._entered.add((id(holder), key))
        value = holder.get(key, _MISSING)
        if isinstance(value, Tensor):
            self._place(holder, key, value)
        else:
            self._entries.append((holder, key))
            self._visit(value, path)

    def _method(self, method: types.MethodType, path: str) -> None:
        function, owner = method.__func__, method.__self__
        self._visit(function, path)
        if isinstance(function, types.FunctionType) and not isinstance(owner, type):
            names = self._code(type(owner), _names(function.__code__), path)
            self._attributes(owner, type(owner), names, path)

    def _attributes(self, value: Any, cls: type, names: set[str], path: str) -> None:
        """Include those of an object's attributes that ``names`` lists."""
        names = self._code(cls, names, path)
        own = getattr(value, "__dict__", {})
        inner = [own[name] for name in _MEMBERS] if isinstance(value, nn.Module) else []
        for holder in (own, *inner):
            for name in sorted(names & {key for key in holder if isinstance(key, str)}):
                self._entry(holder, name, f"{path}.{name}")

    def _code(self, cls: type, names: set[str], path: str) -> set[str]:
        """``names``, and the names in the methods and properties of ``cls`` that they refer to."""
        found, waiting = set(names), list(names)
        for name in waiting:
            member = inspect.getattr_static(cls, name, None)
            if isinstance(member, property):
                member = member.fget
            elif isinstance(member, cached_property):
                member = member.func
            elif isinstance(member, staticmethod | classmethod):
                member = member.__func__
            if isinstance(member, types.FunctionType):
                self._visit(member, path)
                further = _names(member.__code__) - found
                found |= further
                waiting.extend(further)
        return found

    def _function(self, function: types.FunctionType, path: str) -> None:
        for cell in function.__closure__ or ():
            if id(cell) not in self._seen and _contents(cell) is not _MISSING:
                self._seen[id(cell)] = cell
                holder = _Cell(cell)
                self._containers.append(holder)
                self._paths.append(path)
                value = cell.cell_contents
                if isinstance(value, Tensor):
                    self._place(holder, None, value)
                else:
                    self._visit(value, path)
        self._visit(function.__defaults__, path)
        self._visit(function.__kwdefaults__, path)
        if function.__dict__:
            self._visit(function.__dict__, path)
        names = _names(function.__code__)
        self._names |= names
        if str(function.__module__).partition(".")[0] in ("torch", "manualbp"):
            return  # the globals of these two packages are constants
        for name in sorted(names & function.__globals__.keys()):
            if not isinstance(function.__globals__[name], type | types.ModuleType):
                self._entry(function.__globals__, name, name)

    def _freeze(self) -> None:
        pairs = zip(self._containers, self._paths, strict=True)
        # Most containers are empty, such as dictionaries of hooks. That is the cheapest test.
        self._empty = [c for c in self._containers if not c]
        full = [(c, path) for c, path in pairs if c]
        self._containers, self._paths = [c for c, _ in full], [path for _, path in full]
        self._copies = [_copy(c) for c in self._containers]
        self._values = [holder.get(key, _MISSING) for holder, key in self._entries]
        self._known = [*zip(self._entries, self._values, strict=True)]
        self._classes = [type(module) for module in self.modules]
        self._lookups = [(container, key) for container, key, _ in self.places]
        self._at = [self.tensors[number] for _, _, number in self.places]
        # Comparing a container with its copy finds a replaced tensor, because torch's == of two
        # tensors has no single truth value and raises. Of tensors with one number it has one, so
        # these are compared by identity.
        self._by_identity = [
            (container, key, tensor)
            for (container, key), tensor in zip(self._lookups, self._at, strict=True)
            if tensor.numel() == 1 or not any(container is c for c in self._containers)
        ]
        #: views of the memory that the tensors have now, also after ``.data`` is replaced
        self.aliases = [t.detach() for t in self.tensors]
        numbered = zip(self.tensors, self.aliases, range(len(self.tensors)), strict=True)
        stored = [(t, a, i) for t, a, i in numbered if has_storage(t)]
        self._reached_tensors = self.tensors[: self._reached]
        self._stored = [t for t, _, i in stored if i < self._reached]
        self._stored_at = [a for _, a, i in stored if i < self._reached]
        self._state = [t for t, _, i in stored if i >= self._reached]
        self._state_at = [t.data_ptr() for t in self._state]
        self._flags = [*map(_gradient_flags, self._reached_tensors)]

    def index(self, tensor: Any) -> int | None:
        """The index of a tensor in ``tensors``."""
        return self._index.get(id(tensor))

    # --------------------------------------------------------------------- comparing with it

    def hold(self) -> bool:
        """Whether nothing has changed. It runs before every step, so it is kept cheap."""
        try:
            return (
                not any([container[key] is not t for container, key, t in self._by_identity])
                and self._containers == self._copies
                and not any(self._empty)
                and [*map(type, self.modules)] == self._classes
                and not any([h.get(k) is not v for (h, k), v in self._known])
                and all(map(_is_set_to, self._stored, self._stored_at))
                and [*map(_gradient_flags, self._reached_tensors)] == self._flags
                and [*map(_data_ptr, self._state)] == self._state_at
            )
        except (LookupError, TypeError, ValueError, RuntimeError):
            return False  # an item is gone, or two values cannot be compared

    def same_tensors(self) -> bool:
        """Whether every tensor is still where it was found."""
        try:
            return all(map(is_, [container[key] for container, key in self._lookups], self._at))
        except LookupError:
            return False

    def difference(self) -> str:
        """What has changed, in words."""
        for container, copy, path in zip(self._containers, self._copies, self._paths, strict=True):
            now, then = _items(container), _items(copy)
            for key in (*then, *(key for key in now if key not in then)):
                a, b = then.get(key, _MISSING), now.get(key, _MISSING)
                if a is not b and (isinstance(a, Tensor) or isinstance(b, Tensor) or a != b):
                    return f"{path}.{key} was {_shown(a)} and is {_shown(b)}"
        for (holder, key), then in zip(self._entries, self._values, strict=True):
            if (value := holder.get(key, _MISSING)) is not then:
                return f"{key} was {_shown(then)} and is {_shown(value)}"
        if any(self._empty):
            return f"{next(c for c in self._empty if c)} was empty"
        return "a tensor's memory, its hooks, or whether it requires a gradient"

    def hooks(self) -> Iterator[str]:
        """The methods by which hooks were registered on the tensors."""
        for required, backward, accumulated in self._flags:
            if required and (backward or accumulated):
                yield "register_hook" if backward else "register_post_accumulate_grad_hook"

    def swap(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor in its containers."""
        for container, key, number in self.places:
            if key in _items(container):
                container[key] = tensors[number]

    def found(self) -> list[Any]:
        """The value that is now in the place of each tensor."""
        return [_items(container).get(key) for container, key in self._lookups]

    def restore(self) -> None:
        """Restore every container and entry to the snapshot."""
        for container, copy in zip(self._containers, self._copies, strict=True):
            if isinstance(container, list):
                container[:] = copy
            elif isinstance(container, _Cell):
                container[None] = copy[0]
            elif isinstance(container, dict) and list(map(id, container.values())) != list(
                map(id, copy.values())
            ):
                container.clear()
                container.update(copy)
            elif isinstance(container, set):
                container.clear()
                container.update(copy)
        for container in self._empty:
            container.clear()
        for (holder, key), value in zip(self._entries, self._values, strict=True):
            if value is not _MISSING:
                holder[key] = value
        self.swap(self.tensors)


class _Cell:
    """A closure's cell, as a container of one value."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, cell: types.CellType) -> None:
        self._cell = cell

    def __getitem__(self, key: Any) -> Any:
        return self._cell.cell_contents

    def __setitem__(self, key: Any, value: Any) -> None:
        self._cell.cell_contents = value

    def __eq__(self, other: object) -> bool:
        value, then = self._cell.cell_contents, other[0]  # type: ignore[index]
        return bool(value is then or value == then)


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _MISSING


def _names(code: types.CodeType) -> set[str]:
    """The names in a function's code and in the code of the functions inside it."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
        elif isinstance(constant, str) and constant.isidentifier():  # as getattr takes it
            found.add(constant)
    return found


def _copy(container: Any) -> Any:
    if isinstance(container, _Cell):
        return [container[None]]
    kind: Callable[[Any], Any] = next(k for k in (dict, list, set) if isinstance(container, k))
    return kind(container)


def _items(container: Any) -> dict[Any, Any]:
    if isinstance(container, dict):
        return container
    if isinstance(container, _Cell):
        return {None: container[None]}
    return dict(enumerate(container)) if isinstance(container, list) else dict.fromkeys(container)


def _shown(value: Any) -> str:
    if value is _MISSING:
        return "missing"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    shown = repr(value)
    return shown if len(shown) < 60 else f"a {type(value).__name__}"
