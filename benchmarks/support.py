"""What holds of each module and function, by the properties of the tests: docs/support.md.

python benchmarks/support.py                        all of them, some ten minutes
python benchmarks/support.py Conv2d grid_sample …   these alone, printed
"""

from __future__ import annotations

import os
import statistics
import sys
import timeit
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
from cases import CASES, MODULES, Case, Module
from measure import machine, table
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from manualbp import functional, nn
from manualbp.core.graph import formula_of, nodes

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
#: numbers that go in when the time is measured
SIZES = (1 << 8, 1 << 16)
#: whose batch is the second axis
SEQUENCES = ("RNN", "LSTM", "GRU", "MultiheadAttention", "CTCLoss", "ctc_loss")


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


def holds(name: str, made: Case) -> str:
    """Whether the property does, of ours; where not, whether it does of torch's own."""
    if _holds(COLUMNS[name], made):
        return "yes"
    if name == "tape":
        return "no"
    return "no" if _holds(COLUMNS[name], replace(made, ours=made.theirs)) else "nor torch"


def _holds(property: Callable[[Case], None], made: Case) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            property(made)
    except Exception:
        return False
    return True


def kept(function: Callable[..., Any], made: Case, inputs: int) -> int:
    """Bytes kept from forward to backward, parameters not counted."""
    values = made.inputs()
    own = {v.data_ptr() for v in values[inputs:] if isinstance(v, Tensor)}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            saved[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda t: t):
        made.call(function, *values)
    return sum(saved.values())


def ratio(made: Case, inputs: int, numbers: int, sequence: bool, rounds: int = 7) -> float | None:
    """Our time for forward and backward beside torch's, the batch repeated; the median ratio.

    None where these inputs are not a batch, or the outputs are as many as its square.
    """
    values = made.inputs()
    largest = max((v.numel() for v in values[:inputs] if isinstance(v, Tensor)), default=1)
    times = max(1, numbers // max(1, largest))

    def ready(value: Any, batch: bool) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.detach()
        if batch and value.dim():
            counts = [1] * value.dim()
            counts[1 if sequence and value.dim() > 2 else 0] = times
            value = value.repeat(counts)
        return value.float().requires_grad_() if value.is_floating_point() else value

    def size(count: int) -> int:
        nonlocal times
        times = count
        outputs = made.call(made.theirs, *(ready(v, i < inputs) for i, v in enumerate(values)))
        return sum(t.numel() for t in tree_leaves(outputs) if _real(t))

    try:
        if numbers > SIZES[0] and size(16) > 32 * max(1, size(1)):
            return None
    except (RuntimeError, ValueError, IndexError):
        return None
    times = max(1, numbers // max(1, largest))
    given = [ready(v, i < inputs) for i, v in enumerate(values)]

    def run(function: Callable[..., Any]) -> None:
        ends = [t for t in tree_leaves(made.call(function, *given)) if _real(t) and t.requires_grad]
        if ends:
            torch.autograd.backward(ends, [torch.ones_like(t) for t in ends])

    calls = [lambda: run(made.ours), lambda: run(made.theirs)]
    try:
        for call in calls:
            call()
        count = max(1, int(0.01 / timeit.timeit(calls[1], number=1)))
        turns = [[timeit.timeit(call, number=count) for call in calls] for _ in range(rounds)]
    except (RuntimeError, ValueError, IndexError):
        return None
    return statistics.median(ours / theirs for ours, theirs in turns)


def line(name: str, made: Case, inputs: int) -> list[str]:
    """A row of the table; the first ``inputs`` of the arguments are what the batch is."""
    said = [f"`{name}`", *(holds(column, made) for column in COLUMNS)]
    ours, theirs = kept(made.ours, made, inputs), kept(made.theirs, made, inputs)
    said.append("0" if not ours else f"{ours / theirs:.2f}" if theirs else f"{ours} B to none")
    sequence = made.name.startswith(SEQUENCES) or "Transformer" in made.name
    sequence &= "batch_first=True" not in made.name
    ratios = [ratio(made, inputs, numbers, sequence) for numbers in SIZES]
    return [*said, *("" if r is None else f"{r:.1f}" for r in ratios), reason(name, made, *ratios)]


#: why a module takes more than 1.5 of torch's time where the mathematics counts, not the calls
SLOW = {
    "GRUCell": "torch's cell is one fused kernel",
    "LSTMCell": "torch's cell is one fused kernel",
    "LSTM": "torch's layer is one call of oneDNN, which keeps what no formula returns",
}


def reason(name: str, made: Case, small: float | None, large: float | None) -> str:
    """Why this takes more than 1.5 of torch's time, if it does."""
    if (large or 0) > 1.55:
        return SLOW.get(name.partition("(")[0], "")
    if (small or 0) <= 1.55:
        return ""
    ends = [t for t in tree_leaves(made.call(made.ours, *made.inputs())) if _real(t)]
    count = sum(formula_of(node) is not None for node in nodes(*(t.grad_fn for t in ends)))
    return f"the calls of {count} formula{'s' if count > 1 else ''}"


def module_rows(asked: list[str]) -> dict[str, tuple[Case, int]]:
    """The first row of each module."""
    rows = {row.name: row for row in reversed(MODULES) if not asked or row.name in asked}
    return {" ".join(str(row).split())[:60]: (case(row), len(row.inputs)) for row in rows.values()}


def function_rows(asked: list[str]) -> dict[str, tuple[Case, int]]:
    """The first row of each function that no module is named after, if its twin is torch's own."""
    modules = {name.lower() for name in vars(nn)} | {f"{name.lower()}loss" for name in vars(nn)}
    rows: dict[str, tuple[Case, int]] = {}
    for made in CASES:
        name = made.ours.__name__
        plain = name.replace("_", "").removesuffix("withindices")
        known = plain in modules or name.endswith("_") or name in rows
        if (
            getattr(functional, name, None) is made.ours
            and not known
            and (not asked or name in asked)
        ):
            rows[name] = made, len(made.arguments)
    return rows


def main() -> None:
    asked = sys.argv[1:]
    torch.set_num_threads(1)
    tables = []
    for rows in (module_rows(asked), function_rows(asked)):
        lines = []
        for name, (made, inputs) in sorted(rows.items()):
            lines.append(line(name, made, inputs))
            print("  ".join(lines[-1]), flush=True)
        tables.append(lines)
    if asked:
        return
    times = [f"time of {'64 Ki' if n == 1 << 16 else n}, × torch" for n in SIZES]
    modules, functions = (
        table([what, *COLUMNS, "bytes kept, × torch", *times, "above 1.5 because of"], lines)
        for what, lines in zip(("module", "function"), tables, strict=True)
    )
    (ROOT / "docs" / "support.md").write_text(
        f"""# What is supported

Written by `python benchmarks/support.py`: every module of `manualbp.nn`, and every function of
`manualbp.functional` that is no module, under the properties that the tests check of every
formula. {machine()}.

*value*, *gradient*, *second order*, *vmap* (of the gradient) and *jvp* are those of torch's,
to 1e-9 in float64; *compile* traces it whole and changes nothing; *autocast* is to bfloat16; *tape*
is `manualbp.Tape`. Where torch's own fails the same check it says *nor torch*; a *no* in a
column of derivatives is explained in [differences.md](differences.md). *bytes kept* is what
autograd holds from forward to backward; *time* is forward and backward with the batch repeated
until so many numbers go in: at {SIZES[0]} it is that of the calls, at 64 Ki (65,536) that of the
mathematics.

## Modules

{modules}

## Functions

{functions}
""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
