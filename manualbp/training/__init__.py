"""Training through Lightning: data, classifier, console, callback and command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manualbp.training.callback import TraceCallback

__all__ = ["TraceCallback"]


def __getattr__(name: str) -> Any:
    if name == "TraceCallback":  # whose file imports Lightning, which takes seconds
        from manualbp.training.callback import TraceCallback

        return TraceCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
