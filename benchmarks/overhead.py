"""What a formula costs beside torch's own operation: the sigmoid of 8 numbers.

python benchmarks/overhead.py
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from measure import duration, in_turn, machine, ratio, table
from torch import Tensor
from torch.autograd import Function

from manualbp import functional


class WithContext(Function):
    """The leanest Function that Python can state: forward(ctx, …), for eager mode only."""

    @staticmethod
    def forward(ctx, input):
        output = torch.sigmoid(input)
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx, g):
        (output,) = ctx.saved_tensors
        return g * output * (1 - output)


class WithSetup(Function):
    """The form that torch.func needs, used for everything."""

    @staticmethod
    def forward(input):
        return torch.sigmoid(input)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    backward = WithContext.backward


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "torch.sigmoid": torch.sigmoid,
    "manualbp.functional.sigmoid": functional.sigmoid,
    "Function with forward(ctx, …)": WithContext.apply,
    "Function with setup_context": WithSetup.apply,
}


def report() -> str:
    """The table, as Markdown."""
    torch.set_num_threads(1)
    input = torch.randn(8, requires_grad=True)
    g = torch.randn(8)

    def forward(function: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        return lambda: function(input)

    def both(function: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        def run() -> None:
            torch.autograd.backward(function(input), g)
            input.grad = None

        return run

    columns = [in_turn({n: make(f) for n, f in FUNCTIONS.items()}) for make in (forward, both)]
    rows = []
    for name in FUNCTIONS:
        row = [name]
        for figures in columns:
            middle, low, high = ratio(figures, name, "torch.sigmoid")
            median = duration(statistics.median(figures[name]))
            row += [median, f"{middle:.2f} ({low:.2f}–{high:.2f})"]
        rows.append(row)
    head = ["sigmoid of 8 numbers", "forward", "× torch", "forward + backward", "× torch"]
    return f"{machine()}; median and quartiles of 15 rounds.\n\n{table(head, rows)}"


if __name__ == "__main__":
    print(report())
