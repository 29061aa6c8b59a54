"""Where the examples meet in the backward pass of a model, and how they are told apart there."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from manualbp.core.graph import Structural
from manualbp.see.batches import Pass
from manualbp.see.layout import SEVERAL, Layout, Scale, find
from manualbp.see.rules import Values, first_of, fits, rule
from manualbp.see.walking import collect, metadata, names_behind
from manualbp.see.ways import Plan, Step, Way
from manualbp.tape.backward import MAX_OUTPUTS

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
        self.plain = collect(found, seeds)
        self.weighed = [collect(found, self._weigh(seeds, p)) for p in range(self.scale.passes)]
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
        weighed: list[Tensor | None] = []
        for g, axis in zip(seeds, self.axes, strict=True):
            if g is None:
                weighed.append(None)
            else:
                weights = self.scale.weights(index, g)
                weighed.append(g * weights.reshape(-1, *[1] * (g.dim() - 1 - axis)))
        return weighed

    def plan(self) -> tuple[Plan, bool]:
        tape = self.tape
        if self.shared:
            self._check_shared()
        steps: list[Step] = []
        shared: list[Step] = []
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
        ends = [way.source for step in steps for way in step.ways]
        ends += [source for step in shared for _, source in step.edges]
        uses = Counter(name for s in ends if s < 0 for name in names_behind(self.found, s))
        return Plan(self.axes, steps, shared, uses), self.certain

    def _is_parameter(self, source: int) -> bool:
        return bool(names_behind(self.found, source))

    def _way(self, i: int, at: int, argument: str, source: int) -> Way:
        formula, labels = self.tape._formulas[i], self.labels[i]
        if hasattr(formula, f"grad_{argument}"):  # which none of any number of tensors has
            example = rule(formula, "example", argument)
            if example is not None:
                layout = self._layout(i, first_of(formula, argument))
                values = self._values(i)[0]
                if layout is not None and fits(formula, argument, values, layout):
                    square = rule(formula, "square", argument)
                    return Way(i, at, argument, source, "rule", layout, (), example, square)
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
                    whose = layout.labels(shape, self._values(i)[0].device)
                    return Way(i, at, argument, source, "placed", layout, (whose,))
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
        x, y = _rolled(found.x), _rolled(found.y)
        other = Pass(found.model, x, y, found.cost, keep=True)
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
