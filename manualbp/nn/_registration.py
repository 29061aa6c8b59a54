"""Registers the layers with pickle, torch.fx and TorchScript, which know torch's own by name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from typing import Any, NoReturn

from torch import nn
from torch.fx import Tracer

NOT_SCRIPTABLE = (
    "{} runs by formula, in Python, and TorchScript holds torch's own layers alone: script "
    "manualbp.revert(model), or use torch.compile or torch.export"
)


def register(layers: Iterable[type[nn.Module]]) -> None:
    """Make ``forward`` picklable, the layers leaves of a traced graph, and scripting an error."""
    for layer in layers:
        own = vars(layer).get("forward")
        if own is not None and not issubclass(layer, nn.modules.lazy.LazyModuleMixin):
            own.__module__, own.__qualname__ = layer.__module__, f"{layer.__qualname__}.forward"
        layer.__prepare_scriptable__ = _prepare_scriptable  # type: ignore[attr-defined]
    _make_leaves(tuple(layers))


def _prepare_scriptable(module: nn.Module) -> NoReturn:
    """``torch.jit.script`` calls this on each module."""
    raise TypeError(NOT_SCRIPTABLE.format(type(module).__name__))


def _make_leaves(layers: tuple[type[nn.Module], ...]) -> None:
    """Make torch.fx record a layer as one call.

    It does so for torch's layers, which it knows by the module of their class. It would enter ours,
    and fail there, because a formula computes with tensors.
    """
    is_torch_leaf = Tracer.is_leaf_module

    @wraps(is_torch_leaf)
    def is_leaf_module(self: Tracer, m: nn.Module, module_qualified_name: str) -> Any:
        return isinstance(m, layers) or is_torch_leaf(self, m, module_qualified_name)

    Tracer.is_leaf_module = is_leaf_module  # type: ignore[method-assign]
