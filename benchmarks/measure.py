"""Time candidates in turn, A B C A B C …, so that a drift of the machine meets all alike."""

from __future__ import annotations

import os
import platform
import statistics
import timeit
from collections.abc import Callable, Mapping

import torch


def in_turn(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int = 15,
    seconds: float = 0.05,
    clock: Callable[[], float] = timeit.default_timer,
) -> dict[str, list[float]]:
    """Seconds a call of each candidate, one figure a round."""
    timers = {name: timeit.Timer(function, timer=clock) for name, function in candidates.items()}
    calls = {}
    for name, timer in timers.items():
        timer.timeit(3)
        number, taken = timer.autorange()
        calls[name] = max(1, round(number * seconds / max(taken, 1e-9)))
    figures: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            figures[name].append(timer.timeit(calls[name]) / calls[name])
    return figures


def ratio(figures: Mapping[str, list[float]], name: str, to: str) -> tuple[float, float, float]:
    """Median and quartiles of ``name``'s time to that of ``to``, round by round."""
    ratios = [a / b for a, b in zip(figures[name], figures[to], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return middle, low, high


def duration(seconds: float) -> str:
    """Three significant figures with a unit: 1.34 µs, 2.93 ms."""
    if seconds >= 1:
        return f"{seconds:#.3g} s"
    return f"{seconds * 1e3:#.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:#.3g} µs"


def machine() -> str:
    """What the figures depend on, in a line."""
    return (
        f"torch {torch.__version__}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose columns line up in the source too."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
