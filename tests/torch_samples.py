"""PyTorch's own tables of samples: on what its functions and modules are tested by its makers.

They come in its wheel, as `torch.testing._internal`. Nothing is promised of them: an entry that
another release lacks is not there, and what asks for it goes without.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

Function = Callable[..., Any]


class Call(NamedTuple):
    """Arguments of one call of a function of torch, as torch has them."""

    #: the table's entry, as 'nn.functional.pad reflect', and the number of the sample in it
    entry: str
    dtype: torch.dtype
    function: Function
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __str__(self) -> str:
        def short(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            kind = f"{str(value.dtype)[6:]} {list(value.shape)} by {value.stride()}"
            return f"<{kind}{', nan in it' if value.isnan().any() else ''}>"

        stated = [repr(a) for a in tree_map(short, self.args)]
        stated += [f"{name}={value!r}" for name, value in tree_map(short, self.kwargs).items()]
        return f"{self.entry}: {self.function.__name__}({', '.join(stated)})".replace("'", "")

    def fresh(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with tensors of their own: the same numbers, strides and wishes."""
        return fresh((self.args, self.kwargs))


class Table(NamedTuple):
    operators: tuple[Any, ...]
    modules: tuple[Any, ...]
    functions: tuple[Any, ...]


@cache
def tables() -> Table:
    """torch's tables of operators (OpInfo), of modules (ModuleInfo), and of custom Functions.

    Their import takes 6 s, needs `expecttest`, and freezes the flags of `torch.backends`: they are
    freed again, for other tests set them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal import common_utils
        from torch.testing._internal.autograd_function_db import autograd_function_db
        from torch.testing._internal.common_methods_invocations import op_db
        from torch.testing._internal.common_modules import module_db
        from torch.testing._internal.opinfo import core
    torch.backends.__allow_nonbracketed_mutation_flag = True
    # For each list of samples torch looks twice through the stack, for a unittest that there is
    # not: 0.1 s, and all samples of all functions are drawn some 20 times.
    for module in (common_utils, core):
        module.extract_test_fn = lambda: None
    return Table(tuple(op_db), tuple(module_db), tuple(autograd_function_db))


def title(info: Any) -> str:
    return f"{info.name} {info.variant_test_name}".strip()


def function_of(info: Any) -> Function | None:
    """The function of torch that an entry is about; the table may wrap it."""
    if not _wrapped(info):
        return info.op
    found: Any = torch
    for part in info.name.split("."):
        found = getattr(found, part, None)
    return found or getattr(Tensor, info.name, None)


def _wrapped(info: Any) -> bool:
    return (getattr(info.op, "__module__", None) or "").startswith("torch.testing")


@cache
def _entries() -> dict[Function, list[Any]]:
    index: dict[Function, list[Any]] = {}
    for info in tables().operators:
        owners = (info, *info.aliases)
        variants = [function_of(info), *(alias.op for alias in info.aliases)]
        variants += [getattr(o, f"{v}_variant") for o in owners for v in ("method", "inplace")]
        variants += _namesakes(info)
        for function in variants:
            if function is not None and info not in index.setdefault(function, []):
                index[function].append(info)
    return index


def _namesakes(info: Any) -> list[Any]:
    """What bears the same name beside the function that the entry states, as torch.relu_ does."""
    name = info.name.removeprefix("nn.functional.")
    if "." in name:
        return []
    spaces: tuple[Any, ...] = (torch, torch.nn.functional, torch._C._nn, Tensor)
    if not hasattr(torch, name):  # Tensor.unfold has but its name in common with F.unfold
        spaces = spaces[1:3] if name != info.name else (Tensor,)
    return [getattr(space, n, None) for space in spaces for n in (name, f"{name}_")]


def entries(function: Function) -> list[Any]:
    """The entries that are about a function of torch: itself, its methods, aliases, in place."""
    try:
        return _entries().get(function, [])
    except TypeError:  # not hashable
        return []


def calls(
    function: Function,
    dtype: torch.dtype = torch.double,
    *,
    kind: str = "sample",
    at_most: int | None = None,
    largest: int | None = None,
) -> Iterator[Call]:
    """torch's samples for ``function``: of every entry about it that takes ``dtype``.

    Some are of an overload that ``function`` lacks, or would be written in place of a leaf: then
    torch's own raises, and there is nothing to compare.

    Args:
        kind: ``"sample"``; ``"reference"`` for the larger set, with the ends of the range, empty
            shapes and mixed dtypes; ``"noncontiguous"`` for the samples with gaps in memory;
            ``"mixed"`` for those with every other tensor in float32.
        at_most: about how many of an entry's, drawn evenly from all.
        largest: of how many numbers a tensor may be, for others are left out.
    """
    for info in entries(function):
        made = list(samples(info, dtype, kind=kind, function=function))
        if largest is not None:
            made = [c for c in made if all(t.numel() <= largest for t in _tensors(c))]
        yield from made[:: 1 if at_most is None else -(-len(made) // at_most) or 1]


def _tensors(call: Call) -> list[Tensor]:
    return [t for t in tree_leaves((call.args, call.kwargs)) if isinstance(t, Tensor)]


def samples(
    info: Any,
    dtype: torch.dtype = torch.double,
    *,
    kind: str = "sample",
    function: Function | None = None,
) -> Iterator[Call]:
    """The samples of one entry, for ``function``, else for the function that it is about."""
    if dtype not in info.supported_dtypes("cpu"):
        return
    grad = info.supports_autograd and dtype in info.supported_backward_dtypes("cpu")
    make = info.reference_inputs if kind == "reference" else info.sample_inputs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = list(make("cpu", dtype, requires_grad=grad))
        except ValueError:  # from samples with whole numbers among them, which want no gradient
            made = list(make("cpu", dtype, requires_grad=False))
            for sample in made:
                sample.input, sample.args = tree_map(_wanting, (sample.input, sample.args))
    for number, sample in enumerate(made):
        call = as_called(info, sample)
        if call is not None:
            if kind == "noncontiguous":
                call = tree_map(_with_gaps, call)
            if kind == "mixed" and (call := _mixed(call)) is None:
                continue
            yield Call(f"{title(info)} #{number}", dtype, function or function_of(info), *call)


def _wanting(value: Any) -> Any:
    continuous = isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
    return value.detach().requires_grad_() if continuous else value


def _mixed(call: Any) -> Any:
    """Every other tensor of floating point in float32; None where there are no two."""
    found = 0

    def widened(value: Any) -> Any:
        nonlocal found
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        found += 1
        return value if found % 2 else value.detach().float().requires_grad_(value.requires_grad)

    call = tree_map(widened, call)
    return call if found > 1 else None


def _with_gaps(value: Any) -> Any:
    """The same numbers with others between them in memory."""
    if not isinstance(value, Tensor) or value.numel() < 2 or value.layout is not torch.strided:
        return value
    old = value.detach()
    between = torch.zeros_like(old) if old.dtype is torch.bool else torch.full_like(old, 12)
    new = torch.stack((between, old, between), -1)[..., 1]
    return new.requires_grad_(value.requires_grad)


def as_called(info: Any, sample: Any) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments that torch's function gets for a sample, which the table may rearrange."""
    args, kwargs = (sample.input, *sample.args), sample.kwargs
    if not _wrapped(info):
        return args, kwargs
    with _Caught(function_of(info)) as caught, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            info.op(*args, **kwargs)
        except _Stop:
            return caught.arguments
    return None


class _Stop(Exception):
    pass


class _Caught(TorchFunctionMode):
    """Stops at the first call of one function and has its arguments."""

    def __init__(self, function: Function | None) -> None:
        super().__init__()
        self.function = function
        self.arguments: Any = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is self.function:
            self.arguments = (tuple(args), dict(kwargs or {}))
            raise _Stop
        return func(*args, **(kwargs or {}))


def fresh(values: Any) -> Any:
    """The same numbers in tensors of their own; what was one tensor is one again."""
    made: dict[int, Any] = {}

    def renew(value: Any) -> Any:
        if isinstance(value, torch.Generator):
            return copy.copy(value)
        if not isinstance(value, Tensor):
            return value
        if id(value) not in made:
            made[id(value)] = _renewed(value)
        return made[id(value)]

    return tree_map(renew, values)


def _renewed(value: Tensor) -> Tensor:
    old = value.detach()
    if old.layout is not torch.strided:
        return old.clone().requires_grad_(value.requires_grad)
    if old.is_conj():
        return _renewed(old.conj()).conj().requires_grad_(value.requires_grad)
    if old.is_neg():
        return torch._neg_view(_renewed(torch._neg_view(old))).requires_grad_(value.requires_grad)
    new = torch.empty(0, dtype=old.dtype)
    new.set_(old.untyped_storage().clone(), old.storage_offset(), old.shape, old.stride())
    return new.requires_grad_(value.requires_grad)


def errors(function: Function) -> Iterator[Call]:
    """torch's samples that ``function`` has to refuse."""
    for info in entries(function):
        if info.error_inputs_func is None:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = list(info.error_inputs("cpu"))
        for number, error in enumerate(made):
            call = as_called(info, error.sample_input)
            if call is not None:
                entry = f"{title(info)}, error #{number}"
                yield Call(entry, torch.double, function, *call)


class Layer(NamedTuple):
    """One sample for a module: how it is constructed, and what it is called with."""

    entry: str
    constructor: Any
    forward: Any


def layers(
    module: type, dtype: torch.dtype = torch.double, *, training: bool, errors: bool = False
) -> Iterator[Layer]:
    """torch's samples for a class of modules, or those that it has to refuse."""
    for info in tables().modules:
        made = info.module_error_inputs_func if errors else info.module_inputs_func
        if info.module_cls is not module or made is None or dtype not in info.dtypes:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            found = list(made(info, "cpu", dtype, requires_grad=True, training=training))
        for number, sample in enumerate(found):
            sample = getattr(sample, "module_error_input", sample)
            entry = f"{info.name} {getattr(sample, 'desc', '')} #{number}"
            yield Layer(entry, sample.constructor_input, sample.forward_input)
