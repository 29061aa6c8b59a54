"""Conversion of torch's layers to manualbp's in place, and back."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NoReturn

import torch
from torch import nn

from manualbp import nn as ours
from manualbp.core.tables import table_lines
from manualbp.nn._registration import NOT_SCRIPTABLE


@dataclass
class Conversion:
    """What :func:`convert` did: the class of each module by its path, and why some were left."""

    converted: dict[str, str] = field(default_factory=dict)
    left: dict[str, tuple[str, str]] = field(default_factory=dict)
    keep_types: bool = False

    def __str__(self) -> str:
        rows = [[path, name, "converted"] for path, name in self.converted.items()]
        rows += [[path, name, f"left: {why}"] for path, (name, why) in self.left.items()]
        lines = table_lines(["module", "class", ""], rows)
        lines.append(f"{len(self.converted)} converted, {len(self.left)} left")
        if self.converted and not self.keep_types:
            lines.append(_EXACT)
        return "\n".join(lines)


_EXACT = (
    "Code that looks up the exact class of a layer (captum, Opacus, quantize_dynamic, thop) does "
    "not know the new classes, and may say nothing: for it, convert(model, keep_types=True), or "
    "intercept() alone, which changes no layer."
)


def convert(model: nn.Module, *, keep_types: bool = False) -> Conversion:
    """Make every layer of ``model`` that manualbp has run by formula, in place.

    The class of a layer becomes that of the same name in :mod:`manualbp.nn`. Nothing else changes:
    parameters, buffers, hooks, names, ``state_dict``, references held by optimizers, training
    mode and device stay, ``isinstance`` and pickling too. A subclass of a layer of torch is
    converted if it inherits what the layer computes with, and a parametrized layer stays
    parametrized. :func:`revert` undoes it.

    Libraries that ask for the exact class of a layer, ``type(layer) in table``, do not find the
    new one, and some then skip the layer silently: captum's DeepLift and LRP, Opacus' samplers,
    ``torch.ao.quantization.quantize_dynamic``, thop. For them there are two ways:
    ``keep_types=True``, or :func:`manualbp.intercept` without ``convert``, which changes no layer.
    torch-pruning reads the names of torch's own nodes in autograd's graph: :func:`revert` first.

    Left alone, and listed with the reason: layers that override ``forward`` or what it calls,
    quantized and scripted ones, layers of torch that manualbp lacks, and options that it lacks.
    Functions and operators that a model calls outside of its layers are not converted: see
    :func:`manualbp.intercept`.

    Args:
        model: a module, or a single layer.
        keep_types: leave ``type(layer)`` torch's, and give each layer the attribute ``forward``
            instead. It is bound to the layer: ``copy.deepcopy``, pickling, hooks, ``state_dict``,
            parametrization and ``torch.compile`` work as before; ``copy.copy`` of a layer, and the
            replicas of ``DataParallel``, would run the original. A layer and its attribute refer
            to each other, so the garbage collector frees it, not the last reference.

    Raises:
        TypeError: ``model`` is no ``torch.nn.Module``.
    """
    _check(model)
    report, skipped = Conversion(keep_types=keep_types), set[nn.Module]()
    for path, module in model.named_modules():
        if module in skipped:
            continue
        if why := _reason_to_skip(module):
            report.left[path] = (getattr(module, "original_name", type(module).__name__), why)
            skipped.update(module.modules())
            continue
        if _keeps_its_type(module) if keep_types else isinstance(module, _OURS):
            continue
        _revert(module)
        layer = next((c for c in type(module).__mro__ if c in LAYERS), None)
        name = _user_class(type(module)).__name__
        why = _reason(module, layer)
        if why:
            report.left[path] = (name, why)
        elif layer is not None and not isinstance(module, _OURS):
            if keep_types:
                module.forward = _ByFormula(LAYERS[layer].forward, module)
            else:
                module.__class__ = _converted_class(type(module), layer)
            report.converted[path] = name
    return report


def revert(model: nn.Module) -> nn.Module:
    """Make every layer of ``model`` torch's own again, in place, and return the model.

    Layers parametrized or sharded after they were converted stay so.

    Raises:
        TypeError: ``model`` is no ``torch.nn.Module``.
    """
    _check(model)
    for module in model.modules():
        _revert(module)
    return model


@contextmanager
def converted(model: nn.Module) -> Iterator[None]:
    """Every layer by formula inside the block; afterwards each is what it was before."""
    with _restored(model):
        convert(model)
        yield


@contextmanager
def reverted(model: nn.Module) -> Iterator[bool]:
    """Every layer torch's own inside the block; the value says whether one was not."""
    with _restored(model) as is_changed:
        revert(model)
        yield is_changed()


@contextmanager
def _restored(model: nn.Module) -> Iterator[Callable[[], bool]]:
    """Afterwards each layer is what it was before; the value says whether one is another."""
    before = [(m, type(m), vars(m).get("forward")) for m in model.modules()]

    def is_changed() -> bool:
        return any(type(m) is not kind or vars(m).get("forward") is not f for m, kind, f in before)

    try:
        yield is_changed
    finally:
        for module, kind, forward in before:
            if type(module) is not kind:
                module.__class__ = kind
            if forward is not None:
                module.forward = forward


#: torch's layer → ours, by name
LAYERS: dict[type, Any] = {
    getattr(nn, name): layer
    for name, layer in vars(ours).items()
    if inspect.isclass(layer) and getattr(nn, name, layer) is not layer
}
_TWINS = {layer: twin for twin, layer in LAYERS.items()}
_OURS = tuple(_TWINS)

#: modules of torch that subclass the class of a layer, which is then the last of the bases
_WRAPPERS = ("torch.nn.utils.parametrize", "torch.distributed.")

#: methods that a subclass may override without changing what the layer computes
_HARMLESS = {"extra_repr", "reset_parameters", "train", "eval", "to", "half", "float"}


def _check(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")


def _reason_to_skip(module: nn.Module) -> str | None:
    """Why ``module`` and its submodules are left, or None."""
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted: convert the model that it was made of"
    # A layer fused for quantization is a Sequential of torch's own layers, which are converted.
    kind = type(module)
    if kind.__module__.startswith("torch.ao.") and not issubclass(kind, _NO_LAYERS):
        return "quantized"
    return None


def _reason(module: nn.Module, layer: type | None) -> str | None:
    """Why ``module`` is left, or None. ``layer`` is its nearest base that manualbp has."""
    kind = _user_class(type(module))
    if layer is None:
        own = kind.__module__.startswith("torch.nn.") and not issubclass(kind, _NO_LAYERS)
        return f"manualbp has no {kind.__name__}" if own else None
    if "forward" in vars(module):
        return "its forward was replaced"
    between = kind.__mro__[: kind.__mro__.index(layer)]
    for name in (n for c in between for n, v in vars(c).items() if callable(v)):
        if not name.startswith("__") and name not in _HARMLESS and hasattr(layer, name):
            return f"overrides {name}"
    if getattr(module, "sparse", False) and layer in (nn.Embedding, nn.EmbeddingBag):
        return "sparse=True asks for a sparse gradient, and the formulas state dense ones"
    return None


#: containers and wrappers, which compute nothing themselves; their submodules are converted
_NO_LAYERS: tuple[type, ...] = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_NO_LAYERS += (nn.ParameterList, nn.ParameterDict)
_NO_LAYERS += (nn.DataParallel, nn.parallel.DistributedDataParallel)


# ------------------------------------------------------------------------- classes and attributes


class _ByFormula(partial[Any]):
    """The attribute ``forward`` of a layer that keeps its type.

    A partial, unlike a method, is pickled with its module, and torch.compile traces it.
    """

    @property
    def __globals__(self) -> NoReturn:  # torch.jit.script reads it
        raise AttributeError(NOT_SCRIPTABLE.format(type(self.args[0]).__name__))


def _keeps_its_type(module: nn.Module) -> bool:
    """Whether ``module`` has torch's type, and runs by formula by its attribute ``forward``."""
    return isinstance(vars(module).get("forward"), _ByFormula)


def _revert(module: nn.Module) -> None:
    if _keeps_its_type(module):
        del module.forward
    elif isinstance(module, _OURS):
        module.__class__ = _original_class(type(module))


def _user_class(kind: type) -> type:
    """The class below those that torch made, as for parametrization."""
    return _user_class(kind.__bases__[-1]) if _is_wrapper(kind) else kind


def _is_wrapper(kind: type) -> bool:
    return kind.__module__.startswith(_WRAPPERS) and issubclass(kind, (*LAYERS,))


def _rewrapped(kind: type, base: type) -> type:
    """``kind``, a class that torch made, with another last base."""
    if base is kind.__bases__[-1]:
        return kind
    own = {n: v for n, v in vars(kind).items() if n not in ("__dict__", "__weakref__")}
    return types.new_class(
        kind.__name__, (*kind.__bases__[:-1], base), exec_body=lambda body: body.update(own)
    )


def _original_class(kind: type) -> type:
    """The class that ``kind`` was before its conversion; a class never converted stays."""
    if _is_wrapper(kind):
        return _rewrapped(kind, _original_class(kind.__bases__[-1]))
    return vars(kind).get("_converted_from") or _TWINS.get(kind, kind)


def _converted_class(kind: type, layer: type) -> Any:
    """``kind`` with the forward of our ``layer``."""
    if _is_wrapper(kind):
        return _rewrapped(kind, _converted_class(kind.__bases__[-1], layer))
    return LAYERS[layer] if kind is layer else _converted_subclass(kind, layer)


@cache
def _converted_subclass(kind: type, layer: type) -> type:
    """The class to which a user's subclass of a layer is converted."""
    namespace = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "__reduce_ex__": _reduce,
        "_converted_from": kind,
    }
    return types.new_class(
        kind.__name__, (LAYERS[layer], kind), exec_body=lambda body: body.update(namespace)
    )


def _reduce(module: Any, _: Any) -> Any:
    """Pickles and copies a module of a class made here, which has no importable name."""
    kind = type(module)._converted_from
    layer = next(c for c in kind.__mro__ if c in LAYERS)
    return _rebuild, (kind, layer), module.__dict__


def _rebuild(kind: type, layer: type) -> Any:
    cls: Any = _converted_subclass(kind, layer)
    return cls.__new__(cls)
