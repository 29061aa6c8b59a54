"""The recorder of formulas that are called without autograd: a tape's."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

#: called with a formula and its arguments in place of autograd, in this context; see manualbp.tape
recorder: ContextVar[Callable[[Any, tuple[Any, ...]], Any] | None]
recorder = ContextVar("recorder", default=None)
