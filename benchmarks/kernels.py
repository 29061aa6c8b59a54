"""What each kernel saves, beside its rule and beside torch: docs/kernels.md.

python benchmarks/kernels.py                     all of them, some ten minutes
python benchmarks/kernels.py relu layer_norm …   these alone, printed
"""

from __future__ import annotations

import os
import statistics
import sys
import timeit
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import torch
from cases import CASES, Case
from measure import machine, table
from support import SEQUENCES
from torch import Tensor
from torch.utils._pytree import tree_leaves

from manualbp import Formula
from manualbp.core import modes
from manualbp.core.derivation import KERNELS, Kernel

#: numbers that go in
SIZES = {"256": 1 << 8, "64 Ki": 1 << 16, "1 Mi": 1 << 20, "4 Mi": 1 << 22}
#: a kernel is slower from here on, or faster up to here
SLOWER, FASTER = 1.05, 0.9

Makers = dict[str, Callable[[int], list[Any]]]


def _square(n: int) -> int:
    return max(1, int(n**0.5))


def _image(n: int, channels: int) -> Tensor:
    side = max(4, int((n / channels / 4) ** 0.5))
    return torch.randn(max(1, n // (channels * side * side)), channels, side, side)


def _sequences(n: int, gates: int, states: int = 1) -> list[Any]:
    """16 steps of 16 numbers each, the states they start from, and the weights."""
    batch, rows = max(1, n // 256), 16 * gates
    shapes = [(16, batch, 16), *[(1, batch, 16)] * states, *[(rows, 16)] * 2, *[(rows,)] * 2]
    return [torch.randn(shape) / 4 for shape in shapes]


#: arguments of so many numbers, where those of the tests with the batch repeated are not what a
#: network has: many examples of three features
TYPICAL: Makers = {
    "linear": lambda n: [torch.randn(_square(n), _square(n)) for _ in range(2)],
    "matmul": lambda n: [torch.randn(_square(n), _square(n)) for _ in range(2)],
    "conv2d": lambda n: [_image(n, 16), torch.randn(16, 16, 3, 3)],
    "conv_transpose2d": lambda n: [_image(n, 16), torch.randn(16, 16, 3, 3)],
    "batch_norm": lambda n: [_image(n, 16), None, None],
    "group_norm": lambda n: [_image(n, 16), 4],
    "layer_norm": lambda n: [torch.randn(_square(n), _square(n)), [_square(n)]],
    "softmax": lambda n: [torch.randn(_square(n), _square(n)), 1],
    "log_softmax": lambda n: [torch.randn(_square(n), _square(n)), 1],
    "softmin": lambda n: [torch.randn(_square(n), _square(n)), 1],
    "multilabel_margin_loss": lambda n: [
        torch.randn(max(1, n // 16), 16),
        torch.randint(16, (max(1, n // 16), 16)),
    ],
    "rnn_tanh": lambda n: _sequences(n, 1),
    "gru": lambda n: _sequences(n, 3),
    "lstm": lambda n: _sequences(n, 4, 2),
    "prod": lambda n: [1 + torch.randn(n) / 1000],
    "cumprod": lambda n: [torch.randn(n // 16, 16), 1],
}
#: the function that runs a kernel, where that is not the first case of the tests that does
FUNCTIONS = {
    "conv": "conv2d",
    "conv_transpose": "conv_transpose2d",
    "linear_back": "linear",
    "matmul_back": "matmul",
    "softmin": "softmin",
}


def subclasses(cls: type) -> Iterator[Any]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def spaces() -> Iterator[tuple[Kernel, dict[str, Any], int]]:
    """Each kernel, with the namespace of the code that calls it, and its number there."""
    for formula in subclasses(Formula):
        if formula.derivation:
            for function in (formula.derivation.gradients, formula.derivation.forward):
                names = getattr(function, "__globals__", {})
                for i, kernel in enumerate(formula.derivation.kernels):
                    if names.get(f"_kernel{i}") is kernel.function:
                        yield kernel, names, i


def cases_of() -> dict[Kernel, Case]:
    """A case of the tests that runs each kernel, were it profitable everywhere."""
    found: dict[Kernel, Case] = {}
    called: set[Kernel] = set()
    with ExitStack() as patches:
        for kernel, names, i in spaces():

            def counted(*arguments: Any, kernel: Kernel = kernel) -> Any:
                called.add(kernel)
                return kernel.function(*arguments)

            always = {f"_kernel{i}": counted, f"_profitable{i}": lambda *arguments: True}
            patches.enter_context(mock.patch.dict(names, always))
        for made in CASES:
            called.clear()
            with suppress(RuntimeError, TypeError, ValueError):
                _run(made, made.ours, made.inputs(dtype=torch.float))()
            for kernel in called:
                wanted = FUNCTIONS.get(kernel.function.__name__, made.ours.__name__)
                if made.ours.__name__ == wanted:
                    found.setdefault(kernel, made)
    return found


def _run(made: Case, function: Callable[..., Any], values: list[Any]) -> Callable[[], None]:
    """Forward and backward."""

    def call() -> None:
        ends = [t for t in tree_leaves(made.call(function, *values)) if _wants(t)]
        if ends:
            torch.autograd.backward(ends, [torch.ones_like(t) for t in ends])

    return call


def _wants(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def arguments(made: Case, numbers: int) -> list[Any]:
    """Those that are typical, or those of the case with the first one's batch repeated."""
    typical = TYPICAL.get(made.ours.__name__)
    values = typical(numbers) if typical else made.inputs(dtype=torch.float)
    if not typical:
        first = values[0].numel()
        times = max(1, numbers // max(1, first))
        axis = 1 if made.ours.__name__.startswith(SEQUENCES) and values[0].dim() > 2 else 0
        shape = values[0].shape
        for i, value in enumerate(values):
            if isinstance(value, Tensor) and value.shape[:1] == shape[:1] and value.dim():
                counts = [1] * value.dim()
                counts[axis if value.dim() > axis else 0] = times
                values[i] = value.detach().repeat(counts)
    return [
        v.detach().requires_grad_() if isinstance(v, Tensor) and v.is_floating_point() else v
        for v in values
    ]


def times(
    made: Case, numbers: int, rounds: int = 5, seconds: float = 0.01
) -> tuple[float, float] | None:
    """With the kernel to without, and with it to torch: medians of what each round gives.

    None where one call of the rule takes more than a third of a second.
    """
    values = arguments(made, numbers)
    ours, theirs = _run(made, made.ours, values), _run(made, made.theirs, values)

    def switched(on: bool) -> Callable[[], None]:
        def call() -> None:
            modes.kernels_enabled = on
            ours()

        return call

    ways = {"kernel": switched(True), "rule": switched(False), "torch": theirs}
    figures: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for way in ways.values():
            way()
        once = timeit.timeit(ways["rule"], number=1)
        if once > 1 / 3:
            return None
        count = max(1, int(seconds / once))
        for _ in range(rounds):
            for name, way in ways.items():
                figures[name].append(timeit.timeit(way, number=count))
    finally:
        modes.kernels_enabled = True
    return tuple(  # type: ignore[return-value]
        statistics.median(a / b for a, b in zip(figures["kernel"], figures[to], strict=True))
        for to in ("rule", "torch")
    )


def line(kernel: Kernel, made: Case) -> list[str]:
    if made.ours.__name__ in TYPICAL:
        options = {"training": True} if made.ours.__name__ == "batch_norm" else {}
        made = replace(made, arguments=tuple(TYPICAL[made.ours.__name__](16)), options=options)
    formula = kernel.of[0].__qualname__.split(".")[0]
    rules = ", ".join(dict.fromkeys(method.__name__ for method in kernel.of))
    found = []
    for numbers in SIZES.values():
        if None in found:  # larger ones would take longer still
            found.append(None)
            continue
        try:
            found.append(times(made, numbers))
        except (RuntimeError, ValueError, IndexError):
            found.append(None)
    ratios = [f[0] for f in found if f]
    earns = ratios and max(ratios) <= SLOWER and min(ratios) <= FASTER
    cells = [f"{f[0]:.2f} ({f[1]:.2f})" if f else "" for f in found]
    return [f"`{formula}`", rules, *cells, "" if earns else "no"]


def main() -> None:
    asked = sys.argv[1:]
    torch.set_num_threads(1)
    lines = []
    cases = cases_of()
    for kernel in dict.fromkeys(KERNELS.values()):
        name = kernel.function.__name__
        if asked and name not in asked:
            continue
        if kernel not in cases:
            print(f"{name}: no case runs it", flush=True)
            continue
        lines.append(line(kernel, cases[kernel]))
        print(name, "  ".join(lines[-1]), flush=True)
    if asked:
        return
    written = table(["formula", "in place of", *SIZES, "earns its place"], sorted(lines))
    (ROOT / "docs" / "kernels.md").write_text(
        f"""# Kernels

Written by `python benchmarks/kernels.py`: forward and backward of a function with its kernel,
beside the same by its rules alone, and in brackets beside torch's own, for so many numbers that go
in. {machine()}; the ways take turns, and what is given is the median of five rounds,
if a call of the rules takes less than a third of a second. Where a kernel is not profitable it does
not run, and the two are the same.

A kernel earns its place if it nowhere takes more than {SLOWER} of the time of its rule, and
somewhere less than {FASTER}.

{written}
"""
    )


if __name__ == "__main__":
    main()
