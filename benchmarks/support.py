"""What holds of each module, by the properties of the tests, written to docs/support.md.

python benchmarks/support.py             every module, some minutes
python benchmarks/support.py Conv2d …    these alone, printed
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import properties
import torch
from cases import MODULES, Case, Module
from measure import machine, table
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from manualbp import nn

COLUMNS: dict[str, Callable[[Case], None]] = {
    "value": properties.value,
    "gradient": properties.same_gradient,
    "second order": properties.same_second_order,
    "vmap": properties.per_example,
    "jvp": properties.forward_mode,
    "compile": properties.compiled,
    "autocast": properties.autocast,
    "tape": properties.taped,
}
#: numbers that go into a module when its time is measured
NUMBERS = 1 << 16


def case(row: Module) -> Case:
    """The module as a function of its inputs and parameters, with one tensor for all it returns."""

    def function(library: Any) -> Callable[..., Tensor]:
        modules = {
            dtype: row.build(library).to(dtype)
            for dtype in (torch.double, torch.float, torch.bfloat16)
        }
        names = [name for name, _ in modules[torch.double].named_parameters()]

        def call(*values: Any) -> Tensor:
            inputs, parameters = values[: len(row.inputs)], values[len(row.inputs) :]
            dtype = next((v.dtype for v in values if _real(v)), torch.double)
            module = modules[dtype]
            named = dict(zip(names, parameters, strict=True))
            named |= {name: b.clone() for name, b in module.named_buffers()}
            given = torch.func.functional_call(module, named, inputs)
            outputs = [t for t in tree_leaves(given) if _real(t)]
            return outputs[0] if len(outputs) == 1 else torch.cat([t.flatten() for t in outputs])

        return call

    parameters = [p.detach() for p in row.build(torch.nn).parameters()]
    return Case(
        name=str(row),
        ours=function(nn),
        theirs=function(torch.nn),
        arguments=(*row.inputs, *(lambda _, p=p: p.clone() for p in parameters)),
        random=True,
    )


def _real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def holds(name: str, row: Module) -> str:
    """Whether the property does, of ours; where not, whether it does of torch's own."""
    if name != "tape" and not _holds(COLUMNS[name], case(row)):
        made = case(row)
        return "no" if _holds(COLUMNS[name], replace(made, ours=made.theirs)) else "nor torch"
    return "yes" if name != "tape" or _holds(COLUMNS[name], case(row)) else "no"


def _holds(property: Callable[[Case], None], made: Case) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            property(made)
    except Exception:
        return False
    return True


def kept(library: Any, row: Module) -> int:
    """Bytes kept from forward to backward, parameters not counted."""
    module, inputs = row.build(library), row.make()
    own = {p.data_ptr() for p in module.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            saved[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda t: t):
        module(*inputs)
    return sum(saved.values())


def seconds(row: Module, rounds: int = 7) -> float | None:
    """Our time for forward and backward beside torch's, the batch repeated; the median ratio."""
    import statistics
    import timeit

    made = row.make()
    numbers = max(t.numel() for t in made if isinstance(t, Tensor))
    times = max(1, NUMBERS // max(1, numbers))

    def ready(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.dim():
            return value
        # The batch is the second axis of a sequence, and the first of all else.
        counts = [1] * value.dim()
        counts[1 if sequence and value.dim() > 2 else 0] = times
        value = value.detach().repeat(counts)
        return value.float().requires_grad_() if value.is_floating_point() else value

    sequence = row.name in ("RNN", "LSTM", "GRU", "MultiheadAttention") or "Trans" in row.name[:5]
    inputs = [ready(value) for value in made]
    calls = []
    for library in (nn, torch.nn):
        module = row.build(library).float()

        def call(module: Any = module) -> None:
            ends = [t for t in tree_leaves(module(*inputs)) if _real(t) and t.requires_grad]
            if ends:
                torch.autograd.backward(ends, [torch.ones_like(t) for t in ends])

        calls.append(call)
    try:
        for call in calls:
            call()
        count = max(1, int(0.01 / timeit.timeit(calls[1], number=1)))
        turns = [[timeit.timeit(call, number=count) for call in calls] for _ in range(rounds)]
    except (RuntimeError, ValueError, IndexError):
        return None  # this one's inputs are not a batch
    return statistics.median(ours / theirs for ours, theirs in turns)


def line(row: Module) -> list[str]:
    said = [f"`{' '.join(str(row).split())[:60]}`"]
    said += [holds(name, row) for name in COLUMNS]
    ours, theirs = kept(nn, row), kept(torch.nn, row)
    said.append("0" if not ours else f"{ours / theirs:.2f}" if theirs else f"{ours} B to none")
    ratio = seconds(row)
    return [*said, "" if ratio is None else f"{ratio:.1f}"]


def main() -> None:
    asked = sys.argv[1:]
    torch.set_num_threads(1)
    rows = [row for row in MODULES if not asked or row.name in asked]
    first = list({row.name: row for row in reversed(rows)}.values())[::-1]
    lines = []
    for row in sorted(first, key=lambda row: row.name):
        lines.append(line(row))
        print("  ".join(lines[-1]), flush=True)
    if asked:
        return
    head = ["module", *COLUMNS, "bytes kept, × torch", "time, × torch"]
    (ROOT / "docs" / "support.md").write_text(
        f"""# What is supported

Written by `python benchmarks/support.py`: every module of `manualbp.nn` under the properties that
the tests check of every formula. {machine()}.

*value*, *gradient*, *second order*, *vmap* (of the gradient) and *jvp* are those of torch's module,
to 1e-9 in float64; *compile* traces it whole and changes nothing; *autocast* is to bfloat16; *tape*
is `manualbp.Tape`. Where torch's own module fails the same check it says *nor torch*; a *no* in a
column of derivatives is explained in [differences.md](differences.md). *bytes kept* is what
autograd holds from forward to backward; *time* is forward and backward with the batch repeated
until {NUMBERS:,} numbers go in.

{table(head, lines)}
""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
