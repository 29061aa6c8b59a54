"""How a gradient shrinks or grows on its way back, layer by layer, and by what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._pytree import tree_flatten

from manualbp.core.tables import table_lines
from manualbp.see import summary
from manualbp.see.layers import Layer
from manualbp.tape import Entry
from manualbp.tape.backward import MAX_OUTPUTS

if TYPE_CHECKING:
    from manualbp.see.tracing import Trace

#: a change of log₁₀‖δ‖ that is worth a word: a factor of 10
LARGE = 1.0


@dataclass(frozen=True)
class Step:
    """How δ of one layer came about from that of the layer after it.

    Sizes are those of one example's gradient: the root mean square over the examples. They, and
    the shares, are plain numbers; the three changes are of log₁₀.

    Attributes:
        path: of the layer.
        name: its class.
        after: the path of the layer after it with parameters, or ``"cost"``.
        delta: ‖δ‖, the norm of ∂Cₙ/∂output.
        log: log₁₀‖δ‖.
        change: log₁₀‖δ‖ − log₁₀‖δ after‖ = ``weights`` + ``slope``.
        weights: the change by all that is no activation.
        slope: the change by the activations' σ′.
        activations: their paths.
        mean_slope: the mean of their σ′.
        saturated: the share of their slopes below 5 % of the steepest.
        dead: the share of their units with σ′ = 0 for all examples. Of several activations in one
            step it is the largest share. These three are None without activations.
    """

    path: str
    name: str
    after: str
    delta: float
    log: float
    change: float
    weights: float
    slope: float
    activations: tuple[str, ...] = ()
    mean_slope: float | None = None
    saturated: float | None = None
    dead: float | None = None


@dataclass(frozen=True)
class Vanishing:
    """‖δ‖ of each layer, from the cost back to the first; made by ``trace.vanishing()``.

    Attributes:
        steps: one for each layer with parameters, the last layer first.
        start: ‖∂Cₙ/∂output‖ of the whole network, with which the way begins.
        way: those steps that lead from the cost to the first layer, one after the other.
        cost: the name of the cost.
    """

    steps: list[Step]
    start: float
    way: list[Step]
    cost: str = "cost"

    @property
    def change(self) -> float:
        """The change of log₁₀‖δ‖ over the whole way: the sum of its steps' changes."""
        return math.fsum(step.change for step in self.way) if self.way else 0.0

    @property
    def sentence(self) -> str:
        """Which layer loses the gradient, and by what."""
        return _sentence(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain numbers and names."""
        return {
            "cost": self.cost,
            "start": self.start,
            "change": self.change,
            "steps": [asdict(step) for step in self.steps],
            "way": [self.steps.index(step) for step in self.way],
            "sentence": self.sentence,
        }

    def __str__(self) -> str:
        return _table(self)

    def __repr__(self) -> str:
        return f"<Vanishing: {len(self.steps)} layers, log₁₀‖δ‖ changes by {self.change:+.2f}>"


def vanishing(trace: Trace) -> Vanishing:
    """The steps of ``trace``; see :meth:`manualbp.see.Trace.vanishing`."""
    graph = _Graph(trace)
    start = _log(_size(trace.criterion.grad_input, trace.examples))
    steps: dict[int, Step] = {}
    follows: dict[int, int | None] = {}
    for i in reversed(range(len(trace.layers))):
        layer = trace.layers[i]
        if not _is_step(layer):
            continue
        passed, after = graph.way_from(i)
        delta = _size(layer.grad_output, trace.examples)
        # A layer whose gradient arrives by none of them, such as one that the cost reads itself.
        before = start if after is None else steps[after].log
        slope, told = _by_activations([trace.layers[p] for p in passed], trace.examples)
        change = _change(before, _log(delta))
        slope = slope if math.isfinite(slope) or change == slope else change
        weights = 0.0 if slope == change else change - slope
        name = "cost" if after is None else steps[after].path
        steps[i] = Step(
            layer.path, layer.name, name, delta, _log(delta), change, weights, slope, **told
        )
        follows[i] = after
    return Vanishing(
        list(steps.values()),
        10**start if start > -math.inf else 0.0,
        [steps[i] for i in _way_to_first(follows)],
        trace.criterion.name,
    )


def _way_to_first(follows: dict[int, int | None]) -> list[int]:
    way: list[int] = []
    at = min(follows, default=None)
    while at is not None:
        way.append(at)
        at = follows[at]
    return way[::-1]


def _is_step(layer: Layer) -> bool:
    """Whether it has parameters, and a gradient arrives at what it returns."""
    own = layer.module is not None and any(True for _ in layer.module.parameters())
    return (bool(layer.grads) or own) and bool(_tensors(layer.grad_output))


class _Graph:
    """Which layer takes what another one returns."""

    def __init__(self, trace: Trace) -> None:
        self.layers = trace.layers
        places = {id(entry): i for i, entry in enumerate(trace.entries)}
        #: of each entry its layer, the cost's −1; what stands between layers has none
        self.owner: dict[int, int] = {}
        for number, layer in [*enumerate(trace.layers), (-1, trace.criterion)]:
            self.owner |= {places[id(entry)]: number for entry in layer.entries}
        self.own: dict[int, list[int]] = {}
        for place, number in self.owner.items():
            self.own.setdefault(number, []).append(place)
        self.takers: dict[int, list[tuple[int, Tensor]]] = {}
        for i, entry in enumerate(trace.entries):
            for source, grad in _taken(entry):
                self.takers.setdefault(source, []).append((i, grad))

    def way_from(self, layer: int) -> tuple[list[int], int | None]:
        """The layers without parameters up to the next one with some, which is None at the cost.

        Where several layers take a value, the way is by the one that sends the most back.
        """
        passed: list[int] = []
        at = self.own.get(layer, [])
        while True:
            outside = [
                (taker, grad)
                for place in at
                for taker, grad in self.takers.get(place, ())
                if taker not in at
            ]
            if not outside:
                return passed, None
            taker = outside[0][0]
            if len(outside) > 1:
                taker = max(outside, key=lambda pair: float(pair[1].detach().norm()))[0]
            owner = self.owner.get(taker)
            if owner is None:
                at = [taker]
                continue
            if owner == -1:
                return passed, None
            if _is_step(self.layers[owner]):
                return passed, owner
            passed.append(owner)
            at = self.own[owner]


def _taken(entry: Entry) -> list[tuple[int, Tensor]]:
    pairs = zip(entry.sources, entry.grad_inputs, strict=False)
    return [(s // MAX_OUTPUTS, g) for s, g in pairs if s is not None and s >= 0 and g is not None]


def _by_activations(passed: Sequence[Layer], examples: int) -> tuple[float, dict[str, Any]]:
    """What the σ′ of those that are activations change, and what is said of them."""
    found = [(layer, acts) for layer in passed if (acts := summary.activity(layer))]
    if not found:
        return 0.0, {}
    changes = [
        _change(_log(_size(layer.grad_output, examples)), _log(_size(layer.grad_input, examples)))
        for layer, _ in found
    ]
    count = len(found)
    return sum(changes), {
        "activations": tuple(layer.path for layer, _ in found),
        "mean_slope": sum(acts["slope"] for _, acts in found) / count,
        "saturated": max(acts["saturated"] for _, acts in found),
        "dead": max(acts["dead"] for _, acts in found),
    }


# ------------------------------------------------------------------------------- numbers


def _tensors(values: Any) -> list[Tensor]:
    return [t for t in tree_flatten(values)[0] if isinstance(t, Tensor)]


def _size(gradient: Any, examples: int) -> float:
    """Of one example's gradient: the root mean square over the examples."""
    return summary.norm(_tensors(gradient), math.sqrt(examples)) or 0.0


def _log(size: float) -> float:
    return math.log10(size) if size > 0 else -math.inf if size == 0 else math.nan


def _change(before: float, after: float) -> float:
    """From one log₁₀ to another; where nothing arrives, nothing is lost."""
    return 0.0 if before == after == -math.inf else after - before


# --------------------------------------------------------------------------------- words


def _sentence(found: Vanishing) -> str:
    way = found.way
    if not way:
        return "no layer has parameters that the cost depends on"
    first, change = way[-1], found.change
    if odd := next((s for s in way if not math.isfinite(s.delta)), None):
        return f"δ of layer {odd.path} is not finite: {odd.delta}"
    if not found.start:
        return "the cost sends no gradient back: ∂C/∂output is 0"
    if lost := next((s for s in way if not s.delta), None):
        return f"nothing arrives at layer {lost.path}: {_by(lost)} makes δ 0 there"
    whole = f"from the cost back to layer {first.path} ‖δ‖ {_times(change)}"
    if abs(change) < LARGE:
        worst = min(way, key=lambda s: s.change)
        if worst.change > -LARGE:
            return f"{whole}; no layer loses it"
        return f"{whole}, though it {_times(worst.change)} {_where(worst)}: {_parts(worst)}"
    most = min(way, key=lambda s: s.change) if change < 0 else max(way, key=lambda s: s.change)
    return f"{whole}, most of it {_where(most)}: it {_times(most.change)} there, {_parts(most)}"


def _where(step: Step) -> str:
    return f"between {_layer(step.after)} and layer {step.path}"


def _layer(path: str) -> str:
    return "the cost" if path == "cost" else f"layer {path}"


def _times(change: float) -> str:
    """A change of log₁₀ in words."""
    factor = 10 ** abs(change)
    if factor < 1.05:
        return "keeps its size"
    return f"{'shrinks' if change < 0 else 'grows'} {summary.digits(factor)}-fold"


def _by(step: Step) -> str:
    """What did the most of a step."""
    slopes = f"σ′ of {', '.join(step.activations)}"
    return slopes if abs(step.slope) > abs(step.weights) else _weights(step)


def _weights(step: Step) -> str:
    return "the cost" if step.after == "cost" else f"W of layer {step.after}"


def _parts(step: Step) -> str:
    parts = []
    if step.activations:
        shares = [f"{step.saturated:.0%} saturated"] if step.saturated else []
        shares += [f"{step.dead:.0%} of units dead"] if step.dead else []
        beside = f" (on average {summary.digits(step.mean_slope)}{_listed(shares)})"
        names = f"σ′ of {', '.join(step.activations)}{beside}"
        parts.append((step.slope, f"{_factor(step.slope)} by {names}"))
    if step.weights or not parts:
        parts.append((step.weights, f"{_factor(step.weights)} by {_weights(step)}"))
    parts.sort(key=lambda part: part[0] if step.change < 0 else -part[0])
    return ", ".join(text for _, text in parts)


def _listed(shares: Sequence[str]) -> str:
    return "".join(f", {share}" for share in shares)


def _factor(change: float) -> str:
    return f"×{summary.digits(10**change)}"


HEAD = ["layer", "", "after", "‖δ‖", "log₁₀‖δ‖", "step", "by W", "by σ′", "σ′", "saturated", "dead"]


def _table(found: Vanishing) -> str:
    rows = [["C", found.cost, "", summary.digits(found.start), _signed(_log(found.start))]]
    rows[0] += [""] * (len(HEAD) - len(rows[0]))
    before = "cost"
    for step in found.steps:
        row = [step.path, step.name, "" if step.after == before else step.after]
        row += [summary.digits(step.delta), _signed(step.log), _signed(step.change)]
        row += [_signed(step.weights), _signed(step.slope) if step.activations else ""]
        row += [summary.digits(step.mean_slope)]
        rows.append([*row, summary.share(step.saturated), summary.share(step.dead)])
        before = step.path
    used = [i for i in range(len(HEAD)) if i < 2 or any(row[i] for row in rows)]
    lines = table_lines([HEAD[i] for i in used], [[row[i] for i in used] for row in rows])
    return "\n".join([*lines, "", found.sentence])


def _signed(value: float) -> str:
    """To two places, the signs below one another."""
    return f"{value:+.2f}".replace("-", "−") if math.isfinite(value) else f"{value}"
