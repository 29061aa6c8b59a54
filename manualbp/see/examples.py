"""The backward pass over a tape in which every example keeps its own gradient.

Between formulas the examples do not meet, so one ordinary backward pass serves all of them. They
meet where a gradient enters a parameter, or what was computed from parameters alone. A plan lists
these places, and how the examples are told apart at each.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from manualbp.core.graph import Structural, nodes
from manualbp.see.batches import Pass
from manualbp.see.layout import SEVERAL, Layout, Scale, find
from manualbp.see.rules import ALL, Values, arguments, first_of, fits, rule, sum_to
from manualbp.tape import Tape
from manualbp.tape.backward import MAX_OUTPUTS, accumulate, match_metadata, run_rules
from manualbp.tape.backward import metadata as metadata_of_leaf

#: numbers of a tensor that are laid out at once, 8 MB in single precision
PART = 1 << 21

Incoming = list[Tensor | None]


@dataclass(frozen=True)
class Way:
    """How the gradients of the examples go from an entry into one of its arguments.

    "rule", by the formula's rule for examples; "sum", by what the ordinary rule gives before it is
    summed to the shape of a stretched argument; "placed", where each number that the ordinary rule
    gives is of one example; or else "apart", by the ordinary rule for the gradient of each example
    alone, zeros in the places of all others.
    """

    entry: int
    at: int
    argument: str
    #: the leaf, or the value computed from parameters alone, as a tape numbers them
    source: int
    kind: str
    #: of the first tensor that the rule asks for
    layout: Layout | None = None
    #: whose each number of the arriving gradients is, where they are told apart by zeros
    labels: tuple[Tensor | None, ...] = ()

    def gradients(self, values: Values, shape: torch.Size, count: int, part: slice) -> Tensor:
        """Those of the examples of ``part``: (m, \\*shape)."""
        if self.kind == "rule":
            assert self.layout is not None
            given = arguments(values.formula, "example", self.argument, values, self.layout, part)
            return getattr(values.formula, f"example_{self.argument}")(*given)
        if self.kind == "sum":
            assert self.layout is not None
            return sum_to(values.by_example(f"grad_{self.argument}", self.layout)[part], shape)
        which = torch.arange(count, device=values.device)[part]
        if self.kind == "placed":
            (label,) = self.labels
            assert label is not None
            return _apart(values(f"grad_{self.argument}"), label, which)
        apart = [
            g if g is None or label is None else _apart(g, label, which)
            for g, label in zip(values.incoming, self.labels, strict=True)
        ]
        needs = tuple(i == self.at for i in range(len(values.formula.derivation.arguments)))
        found = each(values, needs, apart)[self.at]
        return which.new_zeros((len(which), *shape)) if found is None else sum_to(found, shape)

    def parts(self, values: Values, count: int, shape: torch.Size | None = None) -> Iterator[slice]:
        """A few examples at a time, where all of them would take much memory.

        ``shape`` is that of the gradients, if all of them together count too.
        """
        if self.kind == "rule":
            assert self.layout is not None
            given = arguments(values.formula, "example", self.argument, values, self.layout, ALL)
            names = [t.numel() for t in given if isinstance(t, Tensor)]
            total = max(names)
        else:
            each_one = 1 if self.kind == "sum" else count
            total = each_one * sum(g.numel() for g in values.incoming if g is not None)
        size = total // count
        return parts(count, size if shape is None else max(size, shape.numel()))

    def squares(self, values: Values) -> Tensor | None:
        """The squares of their norms, where the formula states a rule for that."""
        square = None
        if self.kind == "rule" and self.layout is not None:
            square = rule(values.formula, "square", self.argument)
        if square is None or self.layout is None:
            return None
        return square(*arguments(values.formula, "square", self.argument, values, self.layout, ALL))


def _apart(g: Tensor, labels: Tensor, which: Tensor) -> Tensor:
    """``g`` once for each example, zero where it is another's."""
    mine = labels == which.reshape(-1, *[1] * g.dim())
    return torch.where(mine, g, 0)


def parts(count: int, size: int) -> Iterator[slice]:
    """The examples in parts, each of about PART numbers where one example has ``size``."""
    step = max(1, PART // max(size, 1))
    if step >= count:
        yield ALL
        return
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def each(values: Values, needs: Sequence[bool], gradients: Sequence[Tensor | None]) -> Incoming:
    """What the ordinary rules give for each of several gradients, stacked along axis 0."""
    there = [i for i, g in enumerate(gradients) if g is not None]
    given = [g for g in gradients if g is not None]
    places: list[int] = []

    def one(*arriving: Tensor) -> tuple[Tensor, ...]:
        incoming: Incoming = [None] * len(gradients)
        for i, g in zip(there, arriving, strict=True):
            incoming[i] = g
        found = values.pull(needs, incoming)
        places[:] = [i for i, g in enumerate(found) if g is not None and needs[i]]
        return tuple(found[i] for i in places)

    try:
        stacked = torch.func.vmap(one)(*given)
    except (RuntimeError, ValueError):  # torch has no rule for vmap of some operation
        alone = [one(*arriving) for arriving in zip(*given, strict=True)]
        stacked = tuple(map(torch.stack, zip(*alone, strict=True)))
    result: Incoming = [None] * len(needs)
    for i, g in zip(places, stacked, strict=True):
        result[i] = g
    return result


@dataclass
class Step:
    """What is done at one entry: go on by the ordinary rules, and into parameters by ``ways``."""

    entry: int
    edges: list[tuple[int, int]] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    needs: tuple[bool, ...] = ()


@dataclass
class Plan:
    """The backward pass of one structure."""

    #: of each output of the model, that of the examples
    axes: list[int]
    #: entries through which the examples go side by side, the last one first
    steps: list[Step]
    #: entries that take parameters alone, the last one first
    shared: list[Step]
    #: how many ways lead to each parameter, by its name
    uses: Counter[str]


# -------------------------------------------------------------------------------------- walking


def walk(
    found: Pass,
    plan: Plan,
    seeds: Sequence[Tensor | None],
    meet: Callable[[Way, Values], None],
    keep: bool,
) -> None:
    """Walk back from the model's outputs, and call ``meet`` wherever a gradient enters a parameter."""
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
    parameters = {id(p): p for p in found.model.parameters()}
    named = {name: parameters[i] for i, name in found.names.items()}
    for s in edges:
        edge, names = found.tape._leaves[-1 - s], names_behind(found, s)
        behind = [named[name] for name in names]

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


# ------------------------------------------------------------------------------------- the plan

_PLANS: WeakKeyDictionary[nn.Module, OrderedDict[Any, Plan]] = WeakKeyDictionary()
_REMEMBERED = 16


def plan_of(found: Pass) -> tuple[Plan, list[Tensor | None]]:
    """The plan, and ∂Cₙ/∂output; a plan is remembered where the structure alone determines it."""
    known = _PLANS.setdefault(found.model, OrderedDict())
    key = structure(found)
    plan = known.get(key) if key is not None else None
    with torch.no_grad():
        if plan is not None:
            return plan, found.gradients(plan.axes)
        axes = found.axes()
        seeds = found.gradients(axes)
        plan, certain = _Planner(found, axes, seeds).plan()
    if certain and key is not None:
        known[key] = plan
        if len(known) > _REMEMBERED:
            known.popitem(last=False)
    return plan, seeds


class _Planner:
    def __init__(self, found: Pass, axes: list[int], seeds: Sequence[Tensor | None]) -> None:
        self.found, self.tape, self.axes = found, found.tape, axes
        dtypes = [g.dtype for g in seeds if g is not None]
        dtypes += [d for entry in self.tape._dtypes for d in entry]
        half = torch.float16 in dtypes
        self.scale = Scale(found.count, torch.float16 if half else torch.float32)
        self.plain = _collect(found, seeds)
        self.weighed = [_collect(found, self._weigh(seeds, p)) for p in range(self.scale.passes)]
        self.labels = {
            i: tuple(
                g if g is None else self.scale.labels(g, [w[i][slot] for w in self.weighed])
                for slot, g in enumerate(incoming)
            )
            for i, incoming in self.plain.items()
        }
        #: entries to some of whose values several examples lead
        self.shared = {
            i
            for i, labels in self.labels.items()
            if any(label is not None and bool((label == SEVERAL).any()) for label in labels)
        }
        self.certain = True
        self.values: dict[int, tuple[Values, ...]] = {}

    def _weigh(self, seeds: Sequence[Tensor | None], index: int) -> list[Tensor | None]:
        found = []
        for g, axis in zip(seeds, self.axes, strict=True):
            if g is not None:
                weights = self.scale.weights(index, g)
                g = g * weights.reshape(-1, *[1] * (g.dim() - 1 - axis))
            found.append(g)
        return found

    def plan(self) -> tuple[Plan, bool]:
        tape = self.tape
        if self.shared:
            self._check_shared()
        steps, shared = [], []
        for i in sorted(self.plain, reverse=True):
            step = Step(i)
            formula, sources = tape._formulas[i], tape._sources[i]
            names, differentiable = formula.derivation.arguments, formula.derivation.differentiable
            for at, source in enumerate(sources):
                if source is None or names[at] not in differentiable:
                    continue
                if source >= 0 and (i in self.shared or source // MAX_OUTPUTS not in self.shared):
                    step.edges.append((at, source))
                elif source >= 0 or self._is_parameter(source):
                    if i in self.shared:
                        step.edges.append((at, source))
                    else:
                        step.ways.append(self._way(i, at, names[at], source))
            edges = {at for at, _ in step.edges}
            step.needs = tuple(at in edges for at in range(len(sources)))
            (shared if i in self.shared else steps).append(step)
            if i not in self.shared:
                self._be_certain(i)
        sources = [way.source for step in steps for way in step.ways]
        sources += [source for step in shared for _, source in step.edges]
        uses = Counter(name for s in sources if s < 0 for name in names_behind(self.found, s))
        return Plan(self.axes, steps, shared, uses), self.certain

    def _is_parameter(self, source: int) -> bool:
        return bool(names_behind(self.found, source))

    def _way(self, i: int, at: int, argument: str, source: int) -> Way:
        formula, labels = self.tape._formulas[i], self.labels[i]
        if hasattr(formula, f"grad_{argument}"):  # which none of any number of tensors has
            if rule(formula, "example", argument) is not None:
                layout = self._layout(i, first_of(formula, argument))
                values = self._values(i)[0]
                if layout is not None and fits(formula, argument, values, layout):
                    return Way(i, at, argument, source, "rule", layout)
            if formula.broadcasts:
                layout = self._layout(i, f"grad_{argument}")
                shape, _ = metadata(self.tape, source)
                if layout is not None:
                    raw = self._values(i)[0](f"grad_{argument}")
                    back = layout.axis - raw.dim()
                    if layout.axis < 0 or -back > len(shape) or shape[back] == 1:
                        return Way(i, at, argument, source, "sum", layout)
            elif (layout := self._layout(i, f"grad_{argument}")) is not None:
                if layout.axis >= 0 and layout.index is None:
                    shape, _ = metadata(self.tape, source)
                    label = layout.labels(shape, self._values(i)[0].device)
                    return Way(i, at, argument, source, "placed", layout, (label,))
        found: list[Tensor | None] = []
        for label in labels:
            layout, sure = (None, True) if label is None else find(label, self.found.count)
            regular = layout is not None and layout.index is None
            self.certain &= sure and (regular or label is None)
            found.append(
                layout.labels(label.shape, label.device)
                if layout is not None and regular and label is not None
                else label
            )
        return Way(i, at, argument, source, "apart", None, tuple(found))

    def _values(self, i: int) -> tuple[Values, ...]:
        if i not in self.values:
            runs = (self.plain, *self.weighed)
            self.values[i] = tuple(Values(self.tape, i, run[i]) for run in runs)
        return self.values[i]

    def _layout(self, i: int, name: str) -> Layout | None:
        """Where the examples are in what a rule asks for; None if they have been added up in it."""
        plain, *weighed = self._values(i)
        with plain.autocast():
            labels = self.scale.labels(plain(name), [w(name) for w in weighed])
        if bool((labels == SEVERAL).any()):
            return None
        layout, sure = find(labels, self.found.count)
        self.certain &= sure
        return layout

    def _be_certain(self, i: int) -> None:
        """Whether other numbers in the same structure would lie in the same way."""
        formula, count = self.tape._formulas[i], self.found.count
        if not _moves_by_shape(formula):
            self.certain = False
        if not self.certain or count == 1:
            return
        for label in self.labels[i]:
            if label is not None:
                layout, sure = find(label, count)
                several = (
                    label.max() != label[label >= 0].min() if bool((label >= 0).any()) else False
                )
                self.certain &= sure and bool(several)
                if layout is not None and not isinstance(formula, Structural):
                    self._check_contraction(i, formula, layout)

    def _check_contraction(self, i: int, formula: Any, layout: Layout) -> None:
        """A matrix that permutes examples moves them by its numbers."""
        if formula.__name__ in ("MatMul", "MatVec", "AddMatMul", "Linear"):
            dims = len(self.tape._shapes[i][0])
            rows = dims - 1 if formula.__name__ in ("Linear", "MatVec") else dims - 2
            sources = [s for s in self.tape._sources[i] if s is not None and s >= 0]
            inside = [s for s in sources if s // MAX_OUTPUTS not in self.shared]
            # Along the axes of a batch no product sums; along rows only its first factor has them.
            if layout.axis >= rows and len(inside) != 1:
                self.certain = False

    def _check_shared(self) -> None:
        """Raise where what several examples lead to depends on them."""
        found = self.found
        once = Pass(found.model, found.x, found.y, found.cost, keep=True)
        rolled = [_rolled(v) for v in (found.x, found.y)]
        other = Pass(found.model, *rolled, found.cost, keep=True)
        if other.tape._formulas != once.tape._formulas:
            raise ValueError(
                "model: expected the same steps for any order of the examples, so that those in "
                "which they meet can be told; they are others where the examples are exchanged"
            )
        depends: dict[int, bool] = {}
        for i in range(found.length):
            a, b = once.tape[i], other.tape[i]
            if isinstance(a.formula, Structural):
                before = [s for s in a.sources if s is not None and s >= 0]
                depends[i] = any(depends[s // MAX_OUTPUTS] for s in before)
            else:
                pairs = zip(a.outputs, b.outputs, strict=True)
                depends[i] = not all(_equal(s, t) for s, t in pairs)
        for i in sorted(self.plain, reverse=True):
            sources = [s // MAX_OUTPUTS for s in self.tape._sources[i] if s is not None and s >= 0]
            if any(s in self.shared and depends[s] for s in sources):
                entry = once.tape[i]
                where = f" in {entry.path!r}" if entry.path else ""
                raise ValueError(
                    f"model: {entry.name}{where} computes with several examples at once, so that "
                    f"no example has a gradient alone"
                )


def _collect(found: Pass, seeds: Sequence[Tensor | None]) -> dict[int, Incoming]:
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


# --------------------------------------------------------------------------- which plans to keep


def structure(found: Pass) -> Any:
    """What determines a plan, where data does not; None where it may."""
    tape, length = found.tape, found.length
    options = []
    for i in range(length):
        saved = tape._saved[i]
        assert saved is not None
        if isinstance(tape._formulas[i], Structural):
            options.append(_attributes(saved[0]))
        else:
            options.append(tuple(v for v in saved if not isinstance(v, Tensor)))
    key = (
        tuple(tape._formulas[:length]),
        tuple(tape._sources[:length]),
        tuple(tape._shapes[:length]),
        tuple(tape._dtypes[:length]),
        tuple(options),
        tuple(found.numbers),
        tuple(found.names.get(id(leaf)) for leaf in tape._leaves),
        found.count,
    )
    try:
        hash(key)
    except TypeError:
        return None
    return key


_NAMES: dict[type, tuple[str, ...]] = {}


def _attributes(node: Any) -> tuple[Any, ...]:
    """The options of one of torch's own operations."""
    names = _NAMES.get(type(node))
    if names is None:
        names = tuple(n for n in dir(node) if n.startswith("_saved_"))
        _NAMES[type(node)] = names
    found = []
    for name in names:
        value = getattr(node, name)
        if not isinstance(value, Tensor):
            found.append(tuple(value) if isinstance(value, list) else value)
    return tuple(found)


#: files of formulas in which shapes and options say where each number goes, and no numbers do
_BY_SHAPE = {
    f"manualbp.formulas.{name}"
    for name in "activation arithmetic attention conv distance dropout elementary linear loss "
    "matmul normalization padding pooling reduction rnn sparse vision".split()
}
_MOVES = set("Cat Stack Flip Roll Repeat Tril Triu DiagEmbed".split())
_VIEWS = set(
    "View UnsafeView Reshape ReshapeAlias Alias Clone ToCopy Copy T Transpose Permute Movedim "
    "Swapaxes Select Slice Narrow Diagonal Unfold Split SplitWithSizes UnsafeSplit "
    "UnsafeSplitWithSizes Unbind Expand Squeeze Unsqueeze Repeat Flip Roll Cat Stack ConstantPadNd "
    "Add Sub Rsub Mul Div Neg Sum Mean".split()
)


def _moves_by_shape(formula: Any) -> bool:
    if isinstance(formula, Structural):
        return formula.__name__ in _VIEWS
    if formula.__module__ == "manualbp.formulas.shape":
        return formula.__name__ in _MOVES
    return formula.__module__ in _BY_SHAPE


def _rolled(given: Any) -> Any:
    return tree_map(lambda t: t.roll(1, 0) if isinstance(t, Tensor) else t, given)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)
