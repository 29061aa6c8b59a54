"""torch's own functions, operators and methods, run by formula while a context is open."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn
from torch._C import _disabled_torch_function_impl
from torch._C._dynamo.eval_frame import (
    _FrameAction,
    _FrameExecStrategy,
    set_code_exec_strategy,
)
from torch.nn import functional as torch_functional
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from manualbp import functional
from manualbp.core.modes import (
    any_autocast,
    is_dynamo_compiling,
    is_jit_tracing,
    may_be_differentiated,
    transforms_active,
    without_autocast,
)
from manualbp.core.recording import recorder
from manualbp.tape.in_place import overwrite, prepare_write

Call = Callable[..., Any]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class by_formula(TorchFunctionMode):
    """Inside, every function of torch that :mod:`manualbp.functional` has runs by formula.

    The layers of :mod:`manualbp.nn` that torch writes in Python over other functions (attention,
    Transformers) run torch's own Python in it. To enter it again inside itself has no effect.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pushed: list[bool] = []
        self._entered: list[Any] = []

    def __enter__(self) -> by_formula:
        inner = any(isinstance(m, by_formula) for m in _get_current_function_mode_stack())  # type: ignore[no-untyped-call]
        self._pushed.append(not inner)
        if not inner:
            super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._pushed.pop():
            super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self,
        func: Call,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        # torch disables this mode while the method runs, so formulas call torch's own functions.
        if types and not all(map(_is_plain_class, types)):
            return func(*args, **kwargs)  # the class has a __torch_function__ of its own
        if func is torch_functional.l1_loss:
            kwargs = _with_weight(kwargs)
        twin = twins().get(func)
        if twin is not None:
            if _requires_grad(args, kwargs):
                given = [a if type(a) in _PYTHON_TYPES else _as_python(a) for a in args]
                try:
                    return twin(*given, **(_renamed(twin, kwargs) if kwargs else kwargs))
                except Exception as error:
                    # torch computes what no formula supports, and raises if the arguments are
                    # wrong. Errors of hooks and tapes are not about the arguments.
                    if type(error).__module__ != "builtins":
                        raise
        elif (
            (composite := _composite(func)) is not None
            and func not in self._entered  # it asks again, inside its own Python
            and _requires_grad(args, kwargs)
        ):
            self._entered.append(func)
            try:
                with self:
                    return composite(*args, **kwargs)
            finally:
                self._entered.pop()
        if (
            recorder.get() is not None
            and args
            and isinstance(args[0], Tensor)
            and _writes_in_place(func)
        ):
            prepare_write(args[0])
        return func(*args, **kwargs)


def in_python(forward: Call) -> Call:
    """``forward`` of a layer that torch writes in Python over functions, which run by formula.

    If no gradient is recorded, torch's own runs, with its fast path. ``torch.compile`` traces it
    if it traces torch's own.
    """

    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if is_dynamo_compiling():
            with _traced():
                return forward(*args, **kwargs)
        if (
            not may_be_differentiated() or is_jit_tracing()
        ):  # torch.jit.trace records torch's operations
            return forward(*args, **kwargs)
        with by_formula():
            return forward(*args, **kwargs)

    return run


def not_compiled(function: Any) -> Any:
    """``function``, which Dynamo skips: it runs in eager mode with all that it calls.

    Otherwise Dynamo would compile the functions that it calls, one by one. Where Dynamo inlines
    the function, as in ``torch.export``, this changes nothing.
    """
    code = function.__code__ = function.__code__.replace()  # Dynamo keeps strategies by code object
    set_code_exec_strategy(code, _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP))
    return function


class _traced(TorchFunctionMode):
    """:class:`by_formula` in a form that Dynamo can trace.

    Dynamo itself finds out what requires a gradient, and traces no rule where nothing does.
    """

    def __torch_function__(
        self, func: Call, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        twin = _TWINS.get(func)
        if twin is None or any(name == "out" or name in _NUMPY_NAMES for name in kwargs):
            return func(*args, **kwargs)
        return twin(*args, **kwargs)


#: the attributes that torch.compiler.disable sets, because its import takes seconds
_NOT_TRACED = {
    "_torchdynamo_disable": True,
    "_torchdynamo_disable_msg": "manualbp runs torch's Python by formula here, in eager mode",
    "_torchdynamo_disable_recursive": True,
}
vars(by_formula.__torch_function__).update(_NOT_TRACED)


def _requires_grad(args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a real tensor among the arguments requires a gradient, or a transform is active."""
    if not may_be_differentiated() or kwargs.get("out") is not None:
        return False
    found, transforms = False, transforms_active()
    for value in (*args, *kwargs.values()):
        for item in value if type(value) in (tuple, list) else (value,):
            if isinstance(item, Tensor):
                if item.layout is not torch.strided or item.is_nested or item.dtype in _COMPLEX:
                    return False
                found = found or item.requires_grad or (transforms and item.is_floating_point())
            elif isinstance(item, complex) or (isinstance(item, torch.dtype) and item.is_complex):
                return False
    return found


def _writes_in_place(func: Call) -> bool:
    """Whether the name of ``func`` says that it writes into its first argument."""
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.startswith("__"))


def _with_weight(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of l1_loss, with the weight, which torch does not pass to a mode."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not torch_functional.l1_loss.__code__:
        frame = frame.f_back
    return kwargs if frame is None else kwargs | {"weight": frame.f_locals["weight"]}


_COMPLEX = {torch.complex32, torch.complex64, torch.complex128}


@cache
def _is_plain_class(cls: type) -> bool:
    """Whether this class of tensors has no ``__torch_function__`` of its own."""
    own: Any = getattr(cls, "__torch_function__", None)
    return own is _disabled_torch_function_impl or (
        getattr(own, "__func__", None) is vars(Tensor)["__torch_function__"].__func__
    )


def _renamed(twin: Call, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by torch's names, which may have come by numpy's."""
    kwargs = {k: _as_python(v) for k, v in kwargs.items()}
    if not _NUMPY_NAMES.keys().isdisjoint(kwargs):
        ours = _parameters(twin)
        kwargs = {k if k in ours else _NUMPY_NAMES.get(k, k): v for k, v in kwargs.items()}
    if isinstance(kwargs.get("dim"), Tensor):  # torch.max(x, dim=tensor) too means an axis
        kwargs["dim"] = int(kwargs["dim"])
    return kwargs


#: numpy's names of arguments, which torch accepts too
_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "a": "input", "x": "input"}
_NUMPY_NAMES |= {"x1": "input", "x2": "other"}


def _as_python(value: Any) -> Any:
    """A scalar of numpy's as Python's number, which rules expect."""
    return value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value


_PYTHON_TYPES = {Tensor, nn.Parameter, int, float, bool, type(None), tuple, list, str}


@cache
def _parameters(twin: Call) -> frozenset[str]:
    return frozenset(inspect.signature(twin).parameters)


# ------------------------------------------------------- the function that replaces torch's own


@cache
def twins() -> dict[Any, Call]:
    """torch's function, method or operator → ours, of the same name and order of parameters."""
    table: dict[Any, Call] = {}
    for name, ours in vars(functional).items():
        if name.startswith("_") or not inspect.isfunction(ours) or name in _COMPOSITES_TO_ENTER:
            continue
        ours = inspect.unwrap(ours)  # torch.fx replaces them by wrappers while it traces
        if theirs := getattr(torch_functional, name, None):
            table[theirs] = ours
        for alias in (name, *ALIASES.get(name, ())):
            for space, prefix in _NAMESPACES.items():
                other = getattr(space, alias, None)
                if callable(other) and _same_parameters(f"{prefix}{alias}", other, ours):
                    table.setdefault(other, ours)
                if not name.endswith("_") and callable(other := getattr(space, f"{alias}_", None)):
                    table.setdefault(other, _in_place_twin(name, ours))
    table[Tensor.__getitem__] = _getitem
    # torch's operators of these names return indices too, and take the reduction as a number.
    table[torch.adaptive_max_pool1d] = functional.adaptive_max_pool1d_with_indices
    del table[torch.ctc_loss]
    # The parameters of these methods have another order than those of the function.
    table[Tensor.where] = lambda input, condition, other: functional.where(condition, input, other)
    for softmax in (Tensor.softmax, torch.softmax, torch.special.softmax):
        table[softmax] = _with_dtype_third(functional.softmax)
    for log_softmax in (Tensor.log_softmax, torch.log_softmax, torch.special.log_softmax):
        table[log_softmax] = _with_dtype_third(functional.log_softmax)
    return table


def _with_dtype_third(ours: Call) -> Call:
    return lambda input, dim, dtype=None: ours(input, dim, dtype=dtype)


#: modules with torch's functions, and the prefix of the names of their operators
_NAMESPACES = {torch: "", Tensor: "", torch.special: "special_", torch.linalg: "linalg_"}

#: they call a function of the user's; that runs by formula if torch's Python runs in the mode
_COMPOSITES_TO_ENTER = {"triplet_margin_with_distance_loss"}

#: torch's further names
ALIASES = {
    "abs": ("absolute",),
    "acos": ("arccos",),
    "acosh": ("arccosh",),
    "asin": ("arcsin",),
    "asinh": ("arcsinh",),
    "atan": ("arctan",),
    "atan2": ("arctan2",),
    "atanh": ("arctanh",),
    "cat": ("concatenate",),
    "clamp": ("clip",),
    "div": ("divide",),
    "mul": ("multiply",),
    "neg": ("negative",),
    "outer": ("ger",),
    "sigmoid": ("expit",),
    "sub": ("subtract",),
    "trunc": ("fix",),
    "vstack": ("row_stack",),
}


def _same_parameters(operator: str, theirs: Call, ours: Call) -> bool:
    """Whether torch's function, or its schema, has our parameters by position."""
    taken = list(inspect.signature(ours).parameters)
    for positional in _positional_parameters(operator, theirs):
        named = [_RENAMED.get(name, name) for name in positional]
        if named == [_RENAMED.get(name, name) for name in taken[: len(named)]]:
            return True
    return False


def _positional_parameters(operator: str, function: Call) -> Iterator[list[str]]:
    """The names of the parameters that each overload takes by position."""
    if isinstance(function, types.FunctionType):
        parameters = inspect.signature(function).parameters.values()
        yield [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        return
    for schema in torch._C._jit_get_schemas_for_operator(f"aten::{operator}"):
        yield [a.name for a in schema.arguments if not a.kwarg_only]


#: parameters of operators that have another name in functions
_RENAMED = {"self": "input", "x": "input", "train": "training"}


def _in_place_twin(name: str, ours: Call) -> Call:
    """``x.add_(y)``: the value of ``x + y`` written into x, with the history of ``x + y``."""

    @wraps(ours)
    def run(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        others = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t is not input]
        if any(torch._C._is_alias_of(input, t) for t in others):  # type: ignore[attr-defined]
            raise NotImplementedError(f"{name}_: of a tensor that is read while it is written to")
        if kwargs.get("dtype", input.dtype) is not input.dtype:
            raise NotImplementedError(f"{name}_: in another dtype than that of its input")

        def value(given: Tensor) -> Tensor:
            # torch's autocast does not cast for operations in place.
            with without_autocast(input) if any_autocast() else nullcontext():
                output = ours(given, *args, **kwargs)
            if output.shape != input.shape or not torch.can_cast(output.dtype, input.dtype):
                raise NotImplementedError(
                    f"{name}_: the result does not fit in the place of its input"
                )
            return output

        # The rules of add and sub save no argument.
        return overwrite(input, value, saves_input=name not in ("add", "sub"))

    return run


def _getitem(input: Tensor, index: Any) -> Tensor:
    """``x[index]``: a view, or values gathered by an index that is a tensor or a list."""
    parts = index if isinstance(index, tuple) else (index,)
    if any(_gathers(part) for part in parts):
        return functional.index(input, index)
    return input[index]


def _gathers(part: Any) -> bool:
    if isinstance(part, Tensor):
        return part.dim() > 0 or part.dtype in (torch.bool, torch.uint8)
    return isinstance(part, bool) or not (
        part is None or part is Ellipsis or isinstance(part, (int, slice))
    )


# ------------------------------------------------------------------- functions written in Python

_COMPOSITES = ("torch.nn.functional", "torch.functional", "torch._tensor")


@cache
def _composite(func: Any) -> Call | None:
    """A function that torch writes in Python, without its own ``__torch_function__`` dispatch."""
    inner = getattr(func, "__wrapped__", None)
    if inner is not None:
        return inner
    if not isinstance(func, types.FunctionType) or func.__module__ not in _COMPOSITES:
        return None
    twin = types.FunctionType(
        func.__code__,
        _without_dispatch(func.__module__),
        func.__name__,
        func.__defaults__,
        func.__closure__,
    )
    twin.__kwdefaults__ = func.__kwdefaults__
    return twin


@cache
def _without_dispatch(module: str) -> dict[str, Any]:
    names = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    space = dict(vars(sys.modules[module]))
    return space | {name: lambda *_: False for name in names if name in space}


#: for Dynamo, which can read a dictionary but not trace the function that makes it
_TWINS = twins()
