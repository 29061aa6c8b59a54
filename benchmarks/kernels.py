"""What each kernel saves, beside its rule and beside torch: docs/kernels.md.

python benchmarks/kernels.py                     all of them, some three minutes
python benchmarks/kernels.py ReLU LayerNorm …     these alone, printed
"""

from __future__ import annotations

import os
import statistics
import sys
import time
import timeit
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
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
from torch import Tensor
from torch.utils._pytree import tree_leaves

from manualbp import Formula
from manualbp.core import modes
from manualbp.core.derivation import KERNELS, Kernel

#: numbers that go in
SIZES = {"256": 1 << 8, "64 Ki": 1 << 16, "1 Mi": 1 << 20, "4 Mi": 1 << 22}
#: a kernel is slower from here on, or faster up to here
SLOWER, FASTER = 1.05, 0.9
#: seconds of a call beyond which it is not timed
LONG = 0.25

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


def _labels(n: int, classes: int) -> Tensor:
    """Two different labels of each example, then −1."""
    labels = torch.full((n, classes), -1)
    labels[:, 0], labels[:, 1] = torch.randint(classes // 2, (n,)), classes - 1
    return labels


def _spoken(n: int) -> list[Any]:
    """16 steps of 32 letters each, and 8 letters that were said."""
    batch = max(1, n // 512)
    log_probs = torch.randn(16, batch, 32).log_softmax(2)
    return [log_probs, torch.randint(1, 32, (batch, 8)), (16,) * batch, (8,) * batch]


#: arguments of so many numbers, where those of the tests with the batch repeated are not what a
#: network has: many examples of three features
TYPICAL: Makers = {
    "linear": lambda n: [torch.randn(_square(n), _square(n)) for _ in range(2)],
    "matmul": lambda n: [torch.randn(_square(n), _square(n)) for _ in range(2)],
    "conv2d": lambda n: [_image(n, 16), torch.randn(16, 16, 3, 3)],
    "conv_transpose2d": lambda n: [_image(n, 16), torch.randn(16, 16, 3, 3)],
    "max_pool2d": lambda n: [_image(n, 16).to(memory_format=torch.channels_last), 2],
    "avg_pool2d": lambda n: [_image(n, 16), 2],
    "lp_pool2d": lambda n: [_image(n, 16), 2.0, 2],
    "adaptive_avg_pool2d": lambda n: [_image(n, 16), 3],
    "batch_norm": lambda n: [_image(n, 16), None, None],
    "group_norm": lambda n: [_image(n, 16), 4],
    "layer_norm": lambda n: [torch.randn(_square(n), _square(n)), [_square(n)]],
    "softmax": lambda n: [torch.randn(_square(n), _square(n)), 1],
    "log_softmax": lambda n: [torch.randn(_square(n), _square(n)), 1],
    "softmin": lambda n: [torch.randn(_square(n), _square(n)), 1],
    "multilabel_margin_loss": lambda n: [torch.randn(n // 16, 16), _labels(n // 16, 16)],
    "rnn_tanh": lambda n: _sequences(n, 1),
    "gru": lambda n: _sequences(n, 3),
    "lstm": lambda n: _sequences(n, 4, 2),
    "prod": lambda n: [1 + torch.randn(n) / 1000],
    "cumprod": lambda n: [torch.randn(n // 16, 16), 1],
    "ctc_loss": _spoken,
}
#: the function that runs the kernels of a formula, where that is not the first of the tests' cases
FUNCTIONS = {
    "Conv": "conv2d",
    "ConvTranspose": "conv_transpose2d",
    "CTC": "ctc_loss",
    "Linear": "linear",
    "MaxPool": "max_pool2d",
    "AdaptiveAvgPool": "adaptive_avg_pool2d",
    "AvgPool": "avg_pool2d",
    "LPPool": "lp_pool2d",
    "MatMul": "matmul",
    "Softmin": "softmin",
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


@contextmanager
def counted(always: bool = False) -> Iterator[set[Kernel]]:
    """The kernels that run inside the block; with ``always`` even those that are not profitable."""
    called: set[Kernel] = set()
    with ExitStack() as patches:
        for kernel, names, i in spaces():

            def noted(*arguments: Any, kernel: Kernel = kernel) -> Any:
                called.add(kernel)
                return kernel.function(*arguments)

            replaced: dict[str, Any] = {f"_kernel{i}": noted}
            if always:
                replaced[f"_profitable{i}"] = lambda *arguments: True
            patches.enter_context(mock.patch.dict(names, replaced))
        yield called


def formula_of(kernel: Kernel) -> str:
    return kernel.of[0].__qualname__.split(".")[0]


def cases_of() -> dict[str, tuple[Case, list[Kernel]]]:
    """For each formula with kernels, a case of the tests that runs them, and which it runs."""
    found: dict[str, tuple[Case, list[Kernel]]] = {}
    for made in CASES:
        with counted(always=True) as called, suppress(RuntimeError, TypeError, ValueError):
            _run(made, made.ours, made.inputs(dtype=torch.float))()
        for kernel in dict.fromkeys(KERNELS.values()):
            formula, name = formula_of(kernel), made.ours.__name__
            if kernel in called and name == FUNCTIONS.get(formula, name):
                case, kernels = found.setdefault(formula, (typical(made), []))
                if case.ours is made.ours and kernel not in kernels:
                    kernels.append(kernel)
    return found


def typical(made: Case) -> Case:
    """The case beside torch's own function, and with the arguments that are typical of it."""
    name = made.ours.__name__
    made = replace(made, theirs=getattr(torch.nn.functional, name, made.theirs))
    if name not in TYPICAL:
        return made
    options = {"training": True} if name == "batch_norm" else {}
    return replace(made, arguments=tuple(TYPICAL[name](256)), options=options)


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
    makers = TYPICAL.get(made.ours.__name__)
    if makers:
        values = [*makers(numbers), *made.options.values()]
    else:
        values = made.inputs(dtype=torch.float)
        first = values[0]
        times = max(1, numbers // max(1, first.numel()))
        for i, value in enumerate(values):
            if isinstance(value, Tensor) and value.dim() and len(value) == len(first):
                values[i] = value.detach().repeat(times, *[1] * (value.dim() - 1))
    return [
        v.detach().requires_grad_() if isinstance(v, Tensor) and v.is_floating_point() else v
        for v in values
    ]


def _time(way: Callable[[], None], number: int) -> float:
    """Of the processor, for this thread alone: another program takes none of it."""
    return timeit.timeit(way, number=number, timer=time.thread_time)


def times(
    made: Case, kernels: Collection[Kernel], numbers: int, seconds: float = 0.01
) -> tuple[float, float] | str:
    """With kernels to without, and with them to torch: medians of what each round gives.

    Or why there is nothing to be timed.
    """
    values = arguments(made, numbers)
    ours, theirs = _run(made, made.ours, values), _run(made, made.theirs, values)
    with counted() as called:
        ours()
    if called.isdisjoint(kernels):
        return "the rule"

    def switched(on: bool) -> Callable[[], None]:
        def call() -> None:
            modes.kernels_enabled = on
            ours()

        return call

    ways = {"kernel": switched(True), "rule": switched(False), "torch": theirs}
    figures: dict[str, list[float]] = {name: [] for name in ways}
    try:
        once = 0.0
        for way in ways.values():
            way()
            once = max(once, _time(way, 1))
            if once > LONG:
                return "long"
        count = max(1, int(seconds / once))
        for _ in range(max(5, min(25, int(1 / (3 * count * once))))):
            for name, way in ways.items():
                figures[name].append(_time(way, count))
    finally:
        modes.kernels_enabled = True
    return tuple(  # type: ignore[return-value]
        statistics.median(a / b for a, b in zip(figures["kernel"], figures[to], strict=True))
        for to in ("rule", "torch")
    )


def line(formula: str, made: Case, kernels: Collection[Kernel]) -> list[str]:
    rules = dict.fromkeys(method.__name__ for kernel in kernels for method in kernel.of)
    found: list[tuple[float, float] | str] = []
    for numbers in SIZES.values():
        if "long" in found:  # larger ones would take longer still
            found.append("long")
            continue
        ratio = times(made, kernels, numbers)
        slower = not isinstance(ratio, str) and ratio[0] > SLOWER
        found.append(times(made, kernels, numbers) if slower else ratio)
    ratios = [f[0] for f in found if not isinstance(f, str)]
    earns = ratios and max(ratios) <= SLOWER and min(ratios) <= FASTER
    cells = [f if isinstance(f, str) else f"{f[0]:.2f} ({f[1]:.2f})" for f in found]
    return [f"`{formula}`", ", ".join(rules), *cells, "" if earns else "no"]


def main() -> None:
    asked = sys.argv[1:]
    torch.set_num_threads(1)
    lines, cases = [], cases_of()
    for formula in dict.fromkeys(map(formula_of, KERNELS.values())):
        if asked and formula not in asked:
            continue
        if formula not in cases:
            print(f"{formula}: no case runs its kernels", flush=True)
            continue
        lines.append(line(formula, *cases[formula]))
        print("  ".join(lines[-1]), flush=True)
    if asked:
        return
    written = table(["formula", "in place of", *SIZES, "earns its place"], sorted(lines))
    (ROOT / "docs" / "kernels.md").write_text(
        f"""# Kernels

Written by `python benchmarks/kernels.py`: forward and backward of a function with its kernel,
beside the same by its rules alone, and in brackets beside torch's own, for so many numbers that go
in. {machine()}; the ways take turns, and what is given is
the median of 5 to 25 rounds, of the processor's time; what seems slower is timed once more.
Where it says "the rule", no kernel is profitable, and none runs. Where it says "long", a call of
the kernels, of the rules or of torch takes more than {LONG} s.

Kernels earn their place if they nowhere take more than {SLOWER} of the time of their rules, and
somewhere less than {FASTER}.

{written}
"""
    )


if __name__ == "__main__":
    main()
