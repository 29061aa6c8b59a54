"""What pickle, torch.fx and TorchScript know torch's layers by, for ours."""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from typing import Any, NoReturn

from torch import nn
from torch.fx import Tracer

REFUSED = (
    "{} runs by formula, in Python, and TorchScript holds torch's own layers alone: script "
    "manualbp.revert(model), or use torch.compile or torch.export"
)


def made_known(layers: Iterable[type[nn.Module]]) -> None:
    """Let the layers be found, be leaves of a traced graph, and refuse to be scripted."""
    for layer in layers:
        own = vars(layer).get("forward")
        if own is not None and not issubclass(layer, nn.modules.lazy.LazyModuleMixin):
            own.__module__, own.__qualname__ = layer.__module__, f"{layer.__qualname__}.forward"
        layer.__prepare_scriptable__ = _prepare_scriptable  # type: ignore[attr-defined]
    _leaves(tuple(layers))


def _prepare_scriptable(module: nn.Module) -> NoReturn:
    """What ``torch.jit.script`` calls on each module."""
    raise TypeError(REFUSED.format(type(module).__name__))


def _leaves(layers: tuple[type[nn.Module], ...]) -> None:
    """torch.fx leaves torch's layers whole, which it knows by where their class is defined.

    Ours it would enter, and fail there, since a Formula computes with tensors.
    """
    by_place = Tracer.is_leaf_module

    @wraps(by_place)
    def is_leaf_module(self: Tracer, m: nn.Module, module_qualified_name: str) -> Any:
        return isinstance(m, layers) or by_place(self, m, module_qualified_name)

    Tracer.is_leaf_module = is_leaf_module  # type: ignore[method-assign]
