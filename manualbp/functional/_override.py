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

    The layers of :mod:`manualbp.nn` that torch writes as Python over other functions
    (attention, Transformers) run torch's own Python in it. Entered twice it is entered once.
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
        # Inside here torch's functions are torch's own again: formulas are made of them.
        if types and not all(map(_is_plain_class, types)):
            return func(*args, **kwargs)  # another class says itself what torch's functions do
        if func is torch_functional.l1_loss:
            kwargs = _with_weight(kwargs)
        twin = twins().get(func)
        if twin is not None:
            if _requires_grad(args, kwargs):
                given = [a if type(a) in _PYTHON_TYPES else _as_python(a) for a in args]
                try:
                    return twin(*given, **(_renamed(twin, kwargs) if kwargs else kwargs))
                except Exception as error:
                    # What no formula can do torch does, and what is wrong it refuses. But a hook
                    # or a tape has errors of its own, which are not about the arguments.
                    if type(error).__module__ != "builtins":
                        raise
        elif (
            (composite := _composite(func)) is not None
            and func not in self._entered  # it asks under its own name for another function's sake
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
    """The forward pass of a layer that torch writes in Python over functions, by formula.

    Where no gradient is recorded it is torch's as it is, with its fast path. ``torch.compile``
    traces it wherever it traces torch's own.
    """

    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if is_dynamo_compiling():
            with _traced():
                return forward(*args, **kwargs)
        if not may_be_differentiated() or is_jit_tracing():  # torch.jit.trace keeps no formula
            return forward(*args, **kwargs)
        with by_formula():
            return forward(*args, **kwargs)

    return run


def not_compiled(function: Any) -> Any:
    """``function``, which ``torch.compile`` runs in eager mode where it cannot trace past it.

    Dynamo would otherwise compile what it calls, piece by piece. Where Dynamo does trace past the
    function, in ``torch.export`` say, this changes nothing.
    """
    code = function.__code__ = function.__code__.replace()  # the strategy belongs to a code object
    set_code_exec_strategy(code, _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP))
    return function


class _traced(TorchFunctionMode):
    """:class:`by_formula` for Dynamo, which traces a mode that does no more than this.

    Dynamo itself finds out what wants a gradient, and traces no rule where nothing does.
    """

    def __torch_function__(
        self, func: Call, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        twin = _TWINS.get(func)
        if twin is None or any(name == "out" or name in _NUMPY_NAMES for name in kwargs):
            return func(*args, **kwargs)
        return twin(*args, **kwargs)


#: what torch.compiler.disable writes on a function, without the seconds that its import takes
_NOT_TRACED = {
    "_torchdynamo_disable": True,
    "_torchdynamo_disable_msg": "manualbp runs torch's Python by formula here, in eager mode",
    "_torchdynamo_disable_recursive": True,
}
vars(by_formula.__torch_function__).update(_NOT_TRACED)


def _requires_grad(args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a real tensor among the arguments wants a gradient, or a transform may ask for it."""
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
    """Whether this writes into its first argument, as its name says."""
    name = getattr(func, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.startswith("__"))


def _with_weight(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of torch's l1_loss, which leaves out its weight when it asks a mode."""
    frame: types.FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not torch_functional.l1_loss.__code__:
        frame = frame.f_back
    return kwargs if frame is None else kwargs | {"weight": frame.f_locals["weight"]}


_COMPLEX = {torch.complex32, torch.complex64, torch.complex128}


@cache
def _is_plain_class(cls: type) -> bool:
    """Whether torch's functions do with a tensor of this class what they do with any other."""
    own: Any = getattr(cls, "__torch_function__", None)
    return own is _disabled_torch_function_impl or (
        getattr(own, "__func__", None) is vars(Tensor)["__torch_function__"].__func__
    )


def _renamed(twin: Call, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments under our names, where torch takes numpy's too."""
    kwargs = {k: _as_python(v) for k, v in kwargs.items()}
    if not _NUMPY_NAMES.keys().isdisjoint(kwargs):
        ours = _parameters(twin)
        kwargs = {k if k in ours else _NUMPY_NAMES.get(k, k): v for k, v in kwargs.items()}
    if isinstance(kwargs.get("dim"), Tensor):  # by this name it is an axis, of max as well
        kwargs["dim"] = int(kwargs["dim"])
    return kwargs


#: what numpy calls torch's arguments: torch takes either
_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "a": "input", "x": "input"}
_NUMPY_NAMES |= {"x1": "input", "x2": "other"}


def _as_python(value: Any) -> Any:
    """A number of numpy's as Python's, which is what the rules of a formula reckon with."""
    return value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value


_PYTHON_TYPES = {Tensor, nn.Parameter, int, float, bool, type(None), tuple, list, str}


@cache
def _parameters(twin: Call) -> frozenset[str]:
    return frozenset(inspect.signature(twin).parameters)


# ------------------------------------------------------------------------- which runs for which


@cache
def twins() -> dict[Any, Call]:
    """torch's function, method or operator → ours: of one name, and parameters in one order."""
    table: dict[Any, Call] = {}
    for name, ours in vars(functional).items():
        if name.startswith("_") or not inspect.isfunction(ours) or name in _COMPOSITES_TO_ENTER:
            continue
        ours = inspect.unwrap(ours)  # torch.fx puts others in their places while it traces
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
    # torch's operators of these names give the places too, and take the reduction as a number.
    table[torch.adaptive_max_pool1d] = functional.adaptive_max_pool1d_with_indices
    del table[torch.ctc_loss]
    # Methods whose parameters come in another order than those of the function of their name.
    table[Tensor.where] = lambda input, condition, other: functional.where(condition, input, other)
    for softmax in (Tensor.softmax, torch.softmax, torch.special.softmax):
        table[softmax] = _with_dtype_third(functional.softmax)
    for log_softmax in (Tensor.log_softmax, torch.log_softmax, torch.special.log_softmax):
        table[log_softmax] = _with_dtype_third(functional.log_softmax)
    return table


def _with_dtype_third(ours: Call) -> Call:
    return lambda input, dim, dtype=None: ours(input, dim, dtype=dtype)


#: where torch keeps its functions, and what the names of its operators begin with there
_NAMESPACES = {torch: "", Tensor: "", torch.special: "special_", torch.linalg: "linalg_"}

#: what calls a function of the user's is entered, so that this one runs by formula too
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
    """Whether torch's function takes by position what ours takes, as it or its schema says."""
    taken = list(inspect.signature(ours).parameters)
    for stated in _positional_parameters(operator, theirs):
        named = [_RENAMED.get(name, name) for name in stated]
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


#: what operators call otherwise than functions do
_RENAMED = {"self": "input", "x": "input", "train": "training"}


def _in_place_twin(name: str, ours: Call) -> Call:
    """``x.add_(y)``: the value of ``x + y`` in the place of x, with the history of ``x + y``."""

    @wraps(ours)
    def run(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        others = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t is not input]
        if any(torch._C._is_alias_of(input, t) for t in others):  # type: ignore[attr-defined]
            raise NotImplementedError(f"{name}_: of a tensor that is read while it is written to")
        if kwargs.get("dtype", input.dtype) is not input.dtype:
            raise NotImplementedError(f"{name}_: in another dtype than that of its input")

        def value(given: Tensor) -> Tensor:
            # An autocast changes the dtype of no operation in place.
            with without_autocast(input) if any_autocast() else nullcontext():
                output = ours(given, *args, **kwargs)
            if output.shape != input.shape or not torch.can_cast(output.dtype, input.dtype):
                raise NotImplementedError(
                    f"{name}_: the result does not fit in the place of its input"
                )
            return output

        # The rules of a sum save no argument.
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
    """A function that torch writes in Python, without its question who else would run it."""
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


#: for Dynamo, which reads a dictionary, but does not trace how it is made
_TWINS = twins()
