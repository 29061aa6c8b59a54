"""The gradients of a trace beside those of autograd and of central differences."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from manualbp.conversion.modules import revert
from manualbp.core.recording import recorder
from manualbp.core.tables import table_lines
from manualbp.see.running import Cost, cast, in_double, record
from manualbp.see.summary import digits
from manualbp.verification.differences import sizes_of, slope
from manualbp.verification.subject import same_generators

if TYPE_CHECKING:
    from manualbp.see.tracing import Trace

#: how much of the usual step is the first one, where the usual one meets a kink of some unit
REACH = 2.0**-10
#: below this share of the network's largest gradient an entry is rounding
SMALL = 1e-9
#: what formula and autograd may differ by, in units of the precision's rounding
ROUNDINGS = 1e5
#: what they may differ from differences by, beside the differences' own doubt
COARSE = 1e-4


@dataclass(frozen=True)
class Line:
    """One parameter, three ways.

    Attributes:
        name: of the parameter.
        index: its entry with the largest gradient, of which the three numbers are.
        formula: ∂C/∂ that entry by the rules.
        autograd: by torch's autograd, on the model without a formula.
        difference: by central differences; None at a kink.
        beside_autograd: the largest difference of formula and autograd over all entries, by the
            largest gradient in the parameter.
        beside_difference: the relative difference of formula and central difference at that entry.
        doubt: what the central differences themselves may be off by, relative too.
    """

    name: str
    index: tuple[int, ...]
    formula: float
    autograd: float
    difference: float | None
    beside_autograd: float
    beside_difference: float | None
    doubt: float


@dataclass(frozen=True)
class Receipt:
    """Each parameter's gradient by formula, autograd and central difference.

    Attributes:
        lines: one for each parameter.
        dtype: in which all three were computed.
    """

    lines: list[Line]
    dtype: torch.dtype

    @property
    def worst(self) -> tuple[Line, Line | None]:
        """The line furthest from autograd, and the one furthest from differences."""
        measured = [line for line in self.lines if line.beside_difference is not None]
        return (
            max(self.lines, key=lambda line: _or_inf(line.beside_autograd)),
            max(measured, key=lambda line: _or_inf(line.beside_difference), default=None),
        )

    @property
    def ok(self) -> bool:
        """Whether no difference is more than rounding, and the doubt of differences, explain."""
        eps = torch.finfo(self.dtype).eps
        coarse = COARSE if eps < 1e-12 else 0.05
        return all(
            line.beside_autograd <= ROUNDINGS * eps
            and (line.beside_difference or 0.0) <= coarse + 20 * line.doubt
            for line in self.lines
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain numbers and names."""
        lines = [asdict(line) | {"index": list(line.index)} for line in self.lines]
        return {"ok": self.ok, "dtype": str(self.dtype).removeprefix("torch."), "lines": lines}

    def __str__(self) -> str:
        head = ["parameter", "entry", "formula", "autograd", "difference"]
        head += ["off autograd", "off difference"]
        rows = []
        for line in self.lines:
            told = [f"{v:.10g}" for v in (line.formula, line.autograd)]
            told.append("a kink" if line.difference is None else f"{line.difference:.10g}")
            index = ", ".join(map(str, line.index))
            gaps = [_gap(line.beside_autograd), _gap(line.beside_difference)]
            rows.append([line.name, index, *told, *gaps])
        of_autograd, of_difference = self.worst
        said = f"furthest from autograd: {of_autograd.name}, {_gap(of_autograd.beside_autograd)}"
        if of_difference is not None:
            gap = _gap(of_difference.beside_difference)
            said += f"; from central differences: {of_difference.name}, {gap}"
        verdict = "all agree" if self.ok else "they do NOT agree"
        name = str(self.dtype).removeprefix("torch.")
        about = (
            f"in {name}, at the largest entry; off autograd: the largest of all entries, relative"
        )
        return "\n".join([*table_lines(head, rows), "", about, f"{verdict}; {said}"])


def receipt(trace: Trace) -> Receipt:
    """See :meth:`manualbp.see.Trace.receipt`."""
    trace.check_unchanged()
    return in_double(lambda dtype: _receipt(trace, dtype))


def _receipt(trace: Trace, dtype: torch.dtype | None) -> Receipt:
    model, cost = _copied(trace.model, dtype), trace.function
    cost = _copied(cost, dtype) if isinstance(cost, nn.Module) else cost
    x, y = (tree_map(lambda v: cast(v, dtype), v) for v in (trace.x, trace.y))
    grads = record(model, x, y, cost).grads
    revert(model)
    if isinstance(cost, nn.Module):
        revert(cost)
    plain = _Plain(model, x, y, cost)
    autograd = plain.grads(grads)
    largest = max((float(g.abs().max()) for g in autograd.values() if g.numel()), default=0.0)
    lines = [
        _line(plain, name, grads[name], autograd[name], SMALL * largest)
        for name in grads
        if grads[name].numel()
    ]
    return Receipt(lines, next(iter(grads.values())).dtype)


def _line(plain: _Plain, name: str, ours: Tensor, theirs: Tensor, small: float) -> Line:
    flat = int(ours.abs().argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), ours.shape))
    measured, doubt = plain.difference(name, index)
    told = float(ours[index])
    # An entry of rounding is held to the size of the other gradients.
    size = max(abs(told), small) or 1.0
    return Line(
        name,
        index,
        told,
        float(theirs[index]),
        measured,
        float((ours - theirs).abs().max()) / (max(float(theirs.abs().max()), small) or 1.0),
        None if measured is None else abs(told - measured) / size,
        doubt / size,
    )


class _Plain:
    """A copy of a model, run by torch's own functions, which its parameters may be moved in."""

    def __init__(self, model: nn.Module, x: Any, y: Any, cost: Cost) -> None:
        self.model, self.y, self.cost = model, y, cost
        self.inputs = tuple(x) if isinstance(x, tuple) else (x,)
        self.parameters: dict[str, Tensor] = dict(model.named_parameters())
        modules = [model]
        if isinstance(cost, nn.Module):
            self.parameters |= {f"cost.{name}": p for name, p in cost.named_parameters()}
            modules.append(cost)
        buffers = [b for module in modules for b in module.buffers()]
        self.buffers = [(buffer, buffer.clone()) for buffer in buffers]

    def value(self) -> Tensor:
        with torch.no_grad():
            for buffer, before in self.buffers:
                buffer.copy_(before)
        with torch.inference_mode(False), same_generators(), _forward_alone():
            return self.cost(self.model(*map(_fresh, self.inputs)), self.y)

    def grads(self, names: Mapping[str, Any]) -> dict[str, Tensor]:
        with torch.enable_grad():
            wanted = [self.parameters[name] for name in names]
            found = torch.autograd.grad(
                self.value(), wanted, allow_unused=True, materialize_grads=True
            )
        return dict(zip(names, found, strict=True))

    def difference(self, name: str, index: tuple[int, ...]) -> tuple[float | None, float]:
        """∂C/∂ one entry by central differences, and the doubt in it; None at a kink."""
        p = self.parameters[name]
        before, size = p[index].item(), float(sizes_of(p)[index])
        eps = torch.finfo(p.dtype).eps

        def there(t: float) -> Tensor:
            p[index] = before + t * size
            return self.value().detach().double().reshape(1)

        with torch.no_grad():
            try:
                middle = there(0.0)
                for reach in (1.0, REACH) if eps < 1e-12 else (1.0,):
                    found = slope(there, middle, eps, reach=reach)
                    if not found.kink and found.finite:
                        return float(found.value) / size, float(found.error) / size
            finally:
                p[index] = before
        return None, 0.0


@contextmanager
def _forward_alone() -> Iterator[None]:
    """A formula that torch has no twin of is its ``forward``, which autograd differentiates."""
    token = recorder.set(lambda formula, arguments: formula.forward(*arguments))
    try:
        yield
    finally:
        recorder.reset(token)


def _copied(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    with torch.no_grad():
        copied = copy.deepcopy(module)
    return copied if dtype is None else copied.to(dtype)


def _fresh(value: Any) -> Any:
    """A copy that a model may write to."""
    return value.clone() if isinstance(value, Tensor) else value


def _or_inf(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value


def _gap(value: float | None) -> str:
    return "" if value is None else digits(value)
