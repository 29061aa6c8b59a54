"""The backward pass over a tape in which every example keeps its own gradient.

Between formulas the examples do not meet, so one ordinary backward pass serves all of them. They
meet where a gradient enters a parameter, or what was computed from parameters alone. A plan lists
these places, and how the examples are told apart at each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from manualbp.core.graph import nodes
from manualbp.see.batches import Pass
from manualbp.see.rules import Values, sum_to
from manualbp.see.ways import Incoming, Plan, Way, each
from manualbp.tape import Tape
from manualbp.tape.backward import MAX_OUTPUTS, accumulate, match_metadata, run_rules
from manualbp.tape.backward import metadata as metadata_of_leaf


def walk(
    found: Pass,
    plan: Plan,
    seeds: Sequence[Tensor | None],
    meet: Callable[[Way, Values], None],
    keep: bool,
) -> None:
    """Walk back from the outputs; ``meet`` is called where a gradient enters a parameter."""
    tape = found.tape
    arrived: dict[int, Tensor | None] = {}
    for number, seed in zip(found.numbers, seeds, strict=True):
        arrived[number] = accumulate(arrived.get(number), seed)
    for step in plan.steps:
        i = step.entry
        incoming = _incoming(tape, i, arrived)
        if incoming is None:
            continue
        values = Values(tape, i, incoming)
        if step.ways:
            with values.autocast():
                for way in step.ways:
                    meet(way, values)
        if step.edges:
            given = values.pull(step.needs, incoming)
            for at, source in step.edges:
                arrived[source] = accumulate(arrived.get(source), given[at])
        if not keep:
            tape._saved[i] = None


def _incoming(tape: Tape, i: int, arrived: dict[int, Tensor | None]) -> Incoming | None:
    first = i * MAX_OUTPUTS
    dtypes = tape._dtypes[i]
    incoming = [arrived.pop(first + slot, None) for slot in range(len(dtypes))]
    if all(g is None for g in incoming):
        return None
    return [
        g if g is None or g.dtype is dtype else match_metadata(g, dtype, g.shape)
        for g, dtype in zip(incoming, dtypes, strict=True)
    ]


def collect(found: Pass, seeds: Sequence[Tensor | None]) -> dict[int, Incoming]:
    """The gradient of every value of the model, for each entry that one arrives at."""
    tape, collected = found.tape, {}
    arrived: dict[int, Tensor | None] = {}
    for number, seed in zip(found.numbers, seeds, strict=True):
        arrived[number] = accumulate(arrived.get(number), seed)
    for i in range(found.length - 1, -1, -1):
        incoming = _incoming(tape, i, arrived)
        if incoming is None:
            continue
        collected[i] = incoming
        _pull_back(tape, i, incoming, arrived, lambda source: source >= 0)
    return collected


def _pull_back(
    tape: Tape,
    i: int,
    incoming: Incoming,
    arrived: dict[int, Tensor | None],
    wanted: Callable[[int], bool],
) -> None:
    formula, sources = tape._formulas[i], tape._sources[i]
    needs = tuple(s is not None and wanted(s) for s in sources)
    if True not in needs:
        return
    saved = tape._saved[i]
    given = run_rules(formula, needs, incoming, saved, tape._autocasts[i])
    differentiable, names = formula.derivation.differentiable, formula.derivation.arguments
    for at, source in enumerate(sources):
        if source is not None and needs[at] and names[at] in differentiable:
            part = given[at]
            if part is not None:
                shape, dtype = metadata(tape, source)
                part = match_metadata(part, dtype, shape)
            arrived[source] = accumulate(arrived.get(source), part)


def total_gradients(
    found: Pass, plan: Plan, seeds: Sequence[Tensor | None], factor: Tensor
) -> dict[str, Tensor]:
    """Σₙ factorₙ ∂Cₙ/∂p for each parameter: an ordinary backward pass."""
    tape = found.tape
    arrived: dict[int, Tensor | None] = {}
    for number, axis, seed in zip(found.numbers, plan.axes, seeds, strict=True):
        if seed is not None:
            seed = seed * factor.to(seed.dtype).reshape(-1, *[1] * (seed.dim() - 1 - axis))
        arrived[number] = accumulate(arrived.get(number), seed)
    wanted = {-1 - k for k in range(len(tape._leaves)) if names_behind(found, -1 - k)}
    for i in range(found.length - 1, -1, -1):
        incoming = _incoming(tape, i, arrived)
        if incoming is not None:
            _pull_back(tape, i, incoming, arrived, lambda s: s >= 0 or s in wanted)
        tape._saved[i] = None
    there = {s: g for s, g in arrived.items() if g is not None}
    result = {name: g for s, g in there.items() if (name := name_of_leaf(found, s))}
    for name, g in beyond(found, there, batched=False):
        result[name] = result[name] + g if name in result else g
    return {name: result[name] for name in found.names.values() if name in result}


# ------------------------------------------------------------------------ what is behind a leaf


def metadata(tape: Tape, source: int) -> tuple[torch.Size, torch.dtype]:
    if source < 0:
        dtype, shape = metadata_of_leaf(tape._leaves[-1 - source])
        return shape, dtype
    entry, slot = divmod(source, MAX_OUTPUTS)
    return tape._shapes[entry][slot], tape._dtypes[entry][slot]


def name_of_leaf(found: Pass, source: int) -> str | None:
    """The name of the parameter that a leaf is; None of an edge to what was made of parameters."""
    return found.names.get(id(found.tape._leaves[-1 - source]))


def names_behind(found: Pass, source: int) -> list[str]:
    """The parameters behind a leaf: itself, or those that autograd leads on to."""
    leaf = found.tape._leaves[-1 - source]
    if isinstance(leaf, Tensor):
        name = found.names.get(id(leaf))
        return [] if name is None else [name]
    behind = (getattr(node, "variable", None) for node in nodes(leaf.node))
    return [found.names[id(p)] for p in behind if id(p) in found.names]


def beyond(found: Pass, arrived: dict[int, Tensor], batched: bool) -> Iterator[tuple[str, Tensor]]:
    """Carry on by autograd what arrives at views of parameters, and whatever was made of them."""
    edges = [s for s in arrived if s < 0 and name_of_leaf(found, s) is None]
    for s in edges:
        edge, names = found.tape._leaves[-1 - s], names_behind(found, s)
        behind = [found.parameters[name] for name in names]

        def one(
            g: Tensor, edge: Any = edge, behind: Any = behind, batched: bool = False
        ) -> tuple[Tensor, ...]:
            return torch.autograd.grad(
                [edge],
                behind,
                [g],
                retain_graph=True,
                is_grads_batched=batched,
                materialize_grads=True,
            )

        try:
            given = one(arrived[s], batched=batched)
        except (RuntimeError, ValueError):  # torch has no rule for vmap of some operation
            if not batched:
                raise
            given = tuple(map(torch.stack, zip(*map(one, arrived[s]), strict=True)))
        yield from zip(names, given, strict=True)


class Totals:
    """Gradients of some examples, added up over all ways, on their way to the parameters."""

    def __init__(self, found: Pass, plan: Plan) -> None:
        self.found, self.plan = found, plan
        self.of: dict[int, Tensor | None] = {}

    def add(self, source: int, gradient: Tensor | None) -> None:
        if gradient is not None:
            shape, dtype = metadata(self.found.tape, source)
            if gradient.shape[1:] != shape:
                gradient = sum_to(gradient, shape)
            self.of[source] = accumulate(self.of.get(source), gradient.to(dtype))

    def by_name(self) -> dict[str, Tensor]:
        """Carry them through what was computed from parameters alone, and to the parameters."""
        tape = self.found.tape
        for step in self.plan.shared:
            first = step.entry * MAX_OUTPUTS
            slots = range(first, first + len(tape._dtypes[step.entry]))
            gradients = [self.of.pop(number, None) for number in slots]
            if any(g is not None for g in gradients):
                values = Values(tape, step.entry, gradients)
                given = each(values, step.needs, gradients)
                for at, source in step.edges:
                    self.add(source, given[at])
        arrived = {source: g for source, g in self.of.items() if g is not None}
        result = {name: g for s, g in arrived.items() if (name := name_of_leaf(self.found, s))}
        for name, g in beyond(self.found, arrived, batched=True):
            result[name] = result[name] + g if name in result else g
        return result
