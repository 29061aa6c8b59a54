"""The identities of the chain, held against the numbers of a trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from manualbp.core.graph import Structural
from manualbp.tape import Entry
from manualbp.tape.backward import MAX_OUTPUTS

if TYPE_CHECKING:
    from manualbp.see.tracing import Trace


@dataclass(frozen=True)
class Checked:
    """What :meth:`manualbp.see.Trace.check` found.

    Attributes:
        error: the largest relative error.
        layer: the path of the layer where it is.
        what: the identity.
        tried: how many identities were compared.
        skipped: what could not be, and why.
    """

    error: float
    layer: str
    what: str
    tried: int
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.tried} identities hold; the largest error is {self.error:.1e}"]
        lines[0] += f", in {self.what} of {self.layer}" if self.layer else ""
        return "\n".join([*lines, *(f"not compared: {why}" for why in self.skipped)])


def check(trace: Trace, rtol: float | None) -> Checked:
    """See :meth:`manualbp.see.Trace.check`."""
    found: list[tuple[float, str, str]] = []
    skipped: list[str] = []
    for index, entry in enumerate(trace.entries):
        where = entry.path or entry.name
        if any(g is not None for g in entry.grad_outputs):
            _sum_over_paths(trace, index, where, found)
            if not isinstance(entry.formula, Structural):
                _passed_back(entry, where, found, skipped)
    _parameters(trace, found)
    error, layer, what = max(found, key=lambda f: f[0], default=(0.0, "", ""))
    dtypes = [g.dtype for g in trace.grads.values()]
    limit = rtol if rtol is not None else 1e4 * max(torch.finfo(d).eps for d in dtypes)
    assert error <= limit, (
        f"{what} of {layer} is off by {error:.1e}, relative to its size; "
        f"expected {limit:.0e} at most"
    )
    return Checked(error, layer, what, len(found), skipped)


def _sum_over_paths(trace: Trace, index: int, where: str, found: list[Any]) -> None:
    """∂C/∂ a value is the sum of what everything that uses it passes back."""
    for slot, arrived in enumerate(trace.entries[index].grad_outputs):
        uses = trace.flow.uses(index * MAX_OUTPUTS + slot)
        if arrived is None or not uses:  # C itself is used by nothing
            continue
        parts = [trace.entries[u.entry].grad_inputs[u.position] for u in uses]
        total = sum(p.sum_to_size(arrived.shape) for p in parts if p is not None)
        found.append((_off(total, arrived), where, "the sum over paths"))


def _passed_back(entry: Entry, where: str, found: list[Any], skipped: list[str]) -> None:
    """What a rule passes back is what torch's derivative of the formula's value is."""
    from manualbp.verification.samples import surrogate

    function = surrogate(entry.formula) or entry.formula.forward
    wanted = [i for i, source in enumerate(entry.sources) if source is not None]
    try:
        expected = _by_autograd(function, entry, wanted)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        skipped.append(f"{entry.name} of {where}: {str(error).splitlines()[0]}")
        return
    if expected is None:
        skipped.append(f"{entry.name} of {where}: its value is drawn anew each time")
        return
    names = entry.formula.derivation.arguments
    for i, theirs in zip(wanted, expected, strict=True):
        ours = entry.grad_inputs[i]
        if ours is None or theirs is None:
            continue
        found.append((_off(ours, theirs), where, f"∂C/∂{names[i]}"))


def _by_autograd(function: Any, entry: Entry, wanted: list[int]) -> Any:
    """The gradients by torch; None where the value is not the one that was recorded."""
    leaves = [
        v.detach().requires_grad_() if i in wanted else v
        for i, v in enumerate(entry.inputs.values())
    ]
    with torch.enable_grad():
        # Not the leaves themselves, because a forward may return its argument or write to it.
        given = [v.clone() if i in wanted else v for i, v in enumerate(leaves)]
        values = function(*given)
    values = values if isinstance(values, tuple) else (values,)
    pairs = [
        (v, g)
        for v, g in zip(values, entry.grad_outputs, strict=False)
        if g is not None and isinstance(v, Tensor) and v.requires_grad
    ]
    if function is entry.formula.forward:
        for value, recorded in zip(values, entry.outputs, strict=False):
            if isinstance(value, Tensor) and not torch.allclose(
                value.detach().double(), recorded.detach().double(), equal_nan=True
            ):
                return None
    outputs, grads = zip(*pairs, strict=True)
    return torch.autograd.grad(
        outputs, [leaves[i] for i in wanted], grads, allow_unused=True, retain_graph=False
    )


def _parameters(trace: Trace, found: list[Any]) -> None:
    """∂C/∂p is the sum over the layers that use it, and the mean over the examples."""
    sums: dict[int, Tensor] = {}
    for layer in [*trace.layers, trace.criterion]:
        for name, grad in layer.grads.items():
            # Detached parameters share their memory with the original.
            key = layer.parameters[name].data_ptr()
            sums[key] = sums[key] + grad if key in sums else grad
    for name, grad in trace.grads.items():
        key = trace.parameters[name].data_ptr()
        if key in sums and grad.numel():
            found.append((_off(sums[key], grad), name, "the sum over layers"))
            at = tuple(int(i) for i in _heaviest(grad))
            if trace.has_factors(name):
                mean = trace.explain(name, *at).per_example.mean()
                found.append((_off(mean, grad[at]), name, "the mean over examples"))


def _heaviest(grad: Tensor) -> list[int]:
    place, at = int(grad.abs().argmax()), list[int]()
    for size in reversed(grad.shape):
        place, i = divmod(place, size)
        at.insert(0, i)
    return at


def _off(ours: Any, theirs: Tensor) -> float:
    if not theirs.numel():
        return 0.0
    size = theirs.detach().double().norm()
    off = (ours.detach().double() - theirs.detach().double()).norm()
    return float(off / size) if size else float(off)
