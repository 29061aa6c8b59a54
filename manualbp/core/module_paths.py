"""Which module of a network a formula, or a node of autograd's graph, was made in."""

from __future__ import annotations

import sys
import threading
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_module

from manualbp.core.recording import recorder


class RunningModules:
    """Which module is running: a path of names below the outermost one."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._running: list[str] = []
        self._hooks = [
            torch_module.register_module_forward_pre_hook(self._enter),
            torch_module.register_module_forward_hook(self._leave, always_call=True),
        ]
        self._recorder = recorder.get()

    def _enter(self, module: torch.nn.Module, _: Any) -> None:
        if recorder.get() is self._recorder:
            if not self._running:
                self._names = {id(m): name for name, m in module.named_modules()}
            self._running.append(self._names.get(id(module), type(module).__name__))

    def _leave(self, module: torch.nn.Module, _: Any, __: Any) -> None:
        if recorder.get() is self._recorder and self._running:
            self._running.pop()

    def path(self) -> str:
        return self._running[-1] if self._running else ""

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


class NodePaths:
    """Which module each node of autograd's graph was made in, by the sequence numbers of nodes."""

    def __init__(self) -> None:
        self._hooks: list[Any] = []
        self._running: list[tuple[str, int]] = []
        self._names: dict[int, str] = {}
        self._thread = 0

    def install(self) -> None:
        self._thread = threading.get_ident()
        _spans.__dict__.setdefault("list", [])
        self._hooks = [
            torch_module.register_module_forward_pre_hook(self._enter),
            torch_module.register_module_forward_hook(self._leave, always_call=True),
        ]

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _enter(self, module: nn.Module, _: Any) -> None:
        if threading.get_ident() == self._thread:
            if not self._running:
                self._names = {id(m): name for name, m in module.named_modules()}
            name = self._names.get(id(module)) or type(module).__name__
            self._running.append((name, torch._C._autograd._get_sequence_nr()))

    def _leave(self, module: nn.Module, _: Any, __: Any) -> None:
        if threading.get_ident() == self._thread and self._running:
            name, start = self._running.pop()
            spans = _spans.list
            spans.append((start, torch._C._autograd._get_sequence_nr(), name))
            del spans[:-_REMEMBERED]


_spans = threading.local()
_REMEMBERED = 100_000


def paths() -> Callable[[Any], str]:
    """A function of a node: the path of the innermost module of :class:`intercept` it was made in.

    The empty string where that is not known.
    """
    bounds, names, running = [-1], [""], [(sys.maxsize, "")]
    for start, end, name in sorted(getattr(_spans, "list", ()), key=lambda s: (s[0], -s[1])):
        while running[-1][0] <= start:
            bounds.append(running.pop()[0])
            names.append(running[-1][1])
        bounds.append(start)
        names.append(name)
        running.append((end, name))
    while len(running) > 1:
        bounds.append(running.pop()[0])
        names.append(running[-1][1])
    return lambda node: names[bisect_right(bounds, node._sequence_nr()) - 1]
