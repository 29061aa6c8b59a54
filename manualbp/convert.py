"""torch's layers made ours in place, and back again."""

from __future__ import annotations

import inspect
import types
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from manualbp import nn as ours
from manualbp.reading import columns


@dataclass
class Conversion:
    """What :func:`convert` did: for each module by its path, the class, and why it was left."""

    converted: dict[str, str] = field(default_factory=dict)
    left: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __str__(self) -> str:
        rows = [[path, name, "converted"] for path, name in self.converted.items()]
        rows += [[path, name, f"left: {why}"] for path, (name, why) in self.left.items()]
        count = f"{len(self.converted)} converted, {len(self.left)} left"
        return "\n".join([*columns(["module", "class", ""], rows), count])


def convert(model: nn.Module) -> Conversion:
    """Let every layer of ``model`` that manualbp has run by formula, in place.

    A layer changes its class for that of the same name in :mod:`manualbp.nn`, and nothing else:
    parameters, buffers, hooks, names, ``state_dict``, references held by optimizers, training
    mode and device stay, ``isinstance`` and pickling too. A subclass of a layer of torch is
    converted where it inherits how the layer computes. :func:`revert` undoes it.

    Left alone, and listed with the reason: layers that override ``forward`` or what it calls,
    parametrized, quantized and scripted ones, and layers of torch that manualbp lacks.
    What a model computes with functions and operators is not in its layers: see
    :func:`manualbp.intercept`.

    Raises:
        TypeError: ``model`` is no ``torch.nn.Module``.
    """
    _check(model)
    report = Conversion()
    for path, module in model.named_modules():
        kind = type(module)
        layer = next((c for c in kind.__mro__ if c in LAYERS), None)
        if issubclass(kind, _OURS) or kind in _CONTAINERS:
            continue
        why = _reason(module, layer)
        if why is None and layer is not None:
            module.__class__ = _class(kind, layer)  # type: ignore[arg-type]
            report.converted[path] = kind.__name__
        elif why:
            report.left[path] = (kind.__name__, why)
    return report


def revert(model: nn.Module) -> nn.Module:
    """Make every layer of ``model`` torch's own again, in place; returns it.

    Raises:
        TypeError: ``model`` is no ``torch.nn.Module``.
    """
    _check(model)
    for module in model.modules():
        kind = type(module)
        if kind in _TWINS:
            module.__class__ = _TWINS[kind]
        elif "_converted_from" in vars(kind):
            module.__class__ = vars(kind)["_converted_from"]
    return model


#: torch's layer → ours, by name; a Sequential is torch's own
LAYERS: dict[type, type] = {
    getattr(nn, name): layer
    for name, layer in vars(ours).items()
    if inspect.isclass(layer) and hasattr(nn, name) and layer is not getattr(nn, name)
}
_TWINS = {layer: twin for twin, layer in LAYERS.items()}
_OURS = tuple(_TWINS)
_CONTAINERS = {nn.Module, nn.Sequential, nn.ModuleList, nn.ModuleDict}
_CONTAINERS |= {nn.ParameterList, nn.ParameterDict}

#: what a subclass of a layer may state anew without changing how the layer computes
_HARMLESS = {"extra_repr", "reset_parameters", "train", "eval", "to", "half", "float"}


def _check(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")


def _reason(module: nn.Module, layer: type | None) -> str | None:
    """Why ``module``, of which ``layer`` is the nearest class that we have, is to be left."""
    kind = type(module)
    if layer is None:
        if not kind.__module__.startswith("torch.nn."):
            return None  # somebody's own module, whose layers are looked at one by one
        return f"manualbp has no {kind.__name__}"
    if "torch.ao." in kind.__module__ or "quantized" in kind.__module__:
        return "quantized"
    if "torch.jit" in kind.__module__:
        return "scripted"
    if parametrize.is_parametrized(module):
        return "parametrized: call torch.nn.utils.parametrize.remove_parametrizations first"
    if "forward" in vars(module):
        return "its forward was replaced"
    between = kind.__mro__[: kind.__mro__.index(layer)]
    for name in (n for c in between for n, v in vars(c).items() if callable(v)):
        if not name.startswith("__") and name not in _HARMLESS and hasattr(layer, name):
            return f"overrides {name}"
    return None


@cache
def _class(kind: type, layer: type) -> type:
    """``kind`` with the forward of our ``layer``: ours itself, or a class made for a subclass."""
    if kind is layer:
        return LAYERS[layer]
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
    """For pickling and copying: a class made here is found by what it was made of."""
    kind = type(module)._converted_from
    layer = next(c for c in kind.__mro__ if c in LAYERS)
    return _rebuild, (kind, layer), module.__dict__


def _rebuild(kind: type, layer: type) -> Any:
    made: Any = _class(kind, layer)
    return made.__new__(made)
