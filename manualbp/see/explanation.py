"""Why a weight should move: how wrong × how responsive × how active, over the examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from manualbp.core.graph import Structural
from manualbp.core.tables import table_lines
from manualbp.formulas import Conv, Linear
from manualbp.see.flow import Use, of_each, tangent
from manualbp.see.naming import parameter_at
from manualbp.see.per_example import per_example_grads
from manualbp.see.summary import digits
from manualbp.tape.backward import MAX_OUTPUTS

if TYPE_CHECKING:
    from manualbp.see.tracing import Trace

#: how many examples are named that pull each way
NAMED = 5


@dataclass(frozen=True)
class Explanation:
    """The gradient of one entry of a parameter, as a mean over examples of products.

    Cₙ is the cost as far as it comes from example n, so that C is the mean of the Cₙ: n times the
    example's share of C. Batch statistics count as given, where BatchNorm is in training mode. In a
    convolution, or a layer applied to a sequence, a factor has an axis
    of places behind that of the examples, and the products are summed over them.

    Attributes:
        name: of the parameter.
        index: of the entry.
        value: ∂C/∂w, the mean of ``per_example``; what ``.grad`` is there.
        per_example: ∂Cₙ/∂w: (n,).
        wrong: ∂Cₙ/∂aⱼ, how wrong the output is: (n,) or (n, places). None, as the next two, where
            the parameter is in no weighted sum.
        responsive: σ′(zⱼ), how responsive the neuron is; 1 where no activation follows.
        active: aₖ, how active the input was; 1 for a bias.
        labels: the class of each example, where y are classes, else None.
    """

    name: str
    index: tuple[int, ...]
    value: float
    per_example: Tensor
    wrong: Tensor | None = None
    responsive: Tensor | None = None
    active: Tensor | None = None
    labels: Tensor | None = None

    @property
    def up(self) -> list[int]:
        """The examples that pull the weight up, the hardest first: their ∂Cₙ/∂w is negative."""
        order = self.per_example.argsort()
        return [int(i) for i in order if self.per_example[i] < 0][:NAMED]

    @property
    def down(self) -> list[int]:
        """The examples that pull the weight down, the hardest first."""
        order = self.per_example.argsort(descending=True)
        return [int(i) for i in order if self.per_example[i] > 0][:NAMED]

    @property
    def classes(self) -> dict[int, float]:
        """The mean of ∂Cₙ/∂w over the examples of each class; empty where y are no classes."""
        if self.labels is None:
            return {}
        return {
            int(label): float(self.per_example[self.labels == label].mean())
            for label in sorted(set(self.labels.tolist()))
        }

    @property
    def cancellation(self) -> float:
        """|Σ| / Σ|·| over the examples: 1 where all pull one way, or none; 0 where they cancel."""
        total = self.per_example.abs().sum()
        return float(self.per_example.sum().abs() / total) if total else 1.0

    @property
    def strongest(self) -> int:
        """The example that matters most."""
        return int(self.per_example.abs().argmax())

    def to_dict(self) -> dict[str, Any]:
        """The numbers that are printed."""
        return {
            "name": self.name,
            "index": list(self.index),
            "value": self.value,
            "cancellation": self.cancellation,
            "up": {i: float(self.per_example[i]) for i in self.up},
            "down": {i: float(self.per_example[i]) for i in self.down},
            "classes": self.classes,
        }

    def of_example(self, example: int) -> str:
        """The equation with the numbers of one example."""
        of = f"example {example}{self._class_of(example)}"
        product = digits(float(self.per_example[example]))
        if self.wrong is None or self.responsive is None or self.active is None:
            return f"{of}: ∂Cₙ/∂{_symbol(self)} = {product}"
        symbols, words = ["∂Cₙ/∂aⱼ", "σ′(zⱼ)"], ["how wrong", "how responsive"]
        factors = [self.wrong, self.responsive]
        if self.name.rpartition(".")[2] != "bias":
            symbols.append("aₖ")
            words.append("how active")
            factors.append(self.active)
        alone = self.wrong.dim() == 1
        last = f"∂Cₙ/∂{_symbol(self)}"
        rows = [[*_interleaved(words, "×"), "", of], [*_interleaved(symbols, "×"), "=", last]]
        if alone:
            numbers = [digits(float(factor[example])) for factor in factors]
            rows.append([*_interleaved(numbers, "×"), "=", product])
        lines = table_lines(rows[0], rows[1:])
        if not alone:
            lines.append(
                f"{product} is the sum of these products over {self.wrong.shape[1]} places"
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        n = len(self.per_example)
        lines = [
            f"∂C/∂{_symbol(self)} = {digits(self.value)}, the mean of {n} examples: "
            f"gradient descent moves it {_way(self.value)}",
            "",
            self.of_example(self.strongest),
            "",
            f"tug of war: {1 - self.cancellation:.0%} of the pull cancels",
        ]
        for word, found in (("up", self.up), ("down", self.down)):
            named = [f"{i}{self._class_of(i)} {digits(float(self.per_example[i]))}" for i in found]
            lines.append(f"  {word:4}  {', '.join(named) or 'none'}")
        if self.classes:
            named = [
                f"{label} {_arrow(mean)} {digits(mean)}" for label, mean in self.classes.items()
            ]
            lines.append(f"  by class  {', '.join(named)}")
        return "\n".join(lines)

    def _class_of(self, example: int) -> str:
        return "" if self.labels is None else f" (class {int(self.labels[example])})"


def explain(trace: Trace, name: str, index: Sequence[int]) -> Explanation:
    """See :meth:`manualbp.see.Trace.explain`."""
    at = parameter_at(trace.parameters, name, index, trace.model).index
    value = float(trace.grads[name][at])
    factors = _factors(trace, name, at)
    labels = labels_of(trace.y, trace.examples)
    if factors is None:
        per_example = _shares(trace, name, at)
        if per_example is None:
            per_example = _per_example(trace, name, at)
        return Explanation(name, at, value, per_example, labels=labels)
    wrong, responsive, active = factors
    products = wrong * responsive * active
    if products.shape[1] == 1:
        wrong, responsive, active = wrong[:, 0], responsive[:, 0], active[:, 0]
    return Explanation(name, at, value, products.sum(1), wrong, responsive, active, labels)


def labels_of(y: Any, examples: int) -> Tensor | None:
    """The class of each example, where ``y`` are classes or one-hot rows."""
    if not isinstance(y, Tensor) or not y.dim() or len(y) != examples:
        return None
    if y.dim() == 1 and not y.is_floating_point():
        return y
    if (
        y.dim() == 2
        and y.shape[1] > 1
        and bool(((y == 0) | (y == 1)).all() & (y.sum(1) == 1).all())
    ):
        return y.argmax(1)
    return None


def has_factors(trace: Trace, name: str) -> bool:
    """Whether a parameter is in weighted sums alone."""
    uses = _uses(trace, name)
    return bool(uses) and all(_is_sum(trace, use) for use in uses)


def _uses(trace: Trace, name: str) -> list[Use]:
    """What takes a parameter; nothing where a part of it is used through a view."""
    leaves, parameter = trace.tape.leaves, trace.parameters[name]
    number = next((-1 - i for i, leaf in enumerate(leaves) if leaf is parameter), None)
    uses = [] if number is None else trace.flow.uses(number)
    grads = [trace.entries[use.entry].grad_inputs[use.position] for use in uses]
    total: Any = sum(g for g in grads if g is not None)
    whole = uses and torch.allclose(total, trace.grads[name], rtol=1e-4, atol=0)
    return uses if whole else []


def _is_sum(trace: Trace, use: Use) -> bool:
    entry, n = trace.entries[use.entry], trace.examples
    shape = entry.shapes[0]
    # Where another axis is as long, the examples might lie along that one.
    axes = shape[1:-1] if issubclass(entry.formula, Linear) else shape[2:2]
    return issubclass(entry.formula, (Linear, Conv)) and shape[0] == n and n not in axes


def _factors(trace: Trace, name: str, at: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor] | None:
    """The three factors, (n, places) each; None where the parameter is in no weighted sum."""
    if not has_factors(trace, name):
        return None
    found = [_factors_of_use(trace, use, at) for use in _uses(trace, name)]
    wrong, responsive, active = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
    return wrong, responsive, active


def _shares(trace: Trace, name: str, at: tuple[int, ...]) -> Tensor | None:
    """∂Cₙ/∂w from the rows of δ, where each use of a parameter has a row for each example."""
    n, uses = trace.examples, _uses(trace, name)
    if not uses or not all(_has_rows(trace, use) for use in uses):
        return None
    parts = []
    for use in uses:
        entry = trace.entries[use.entry]
        moved = tangent(entry, use.position, _direction(trace, use, at))
        delta = entry.grad_outputs[0]
        assert delta is not None  # a gradient comes back from it
        parts.append((delta * moved).reshape(n, -1).sum(1) * n)
    return torch.stack(parts).sum(0)


def _has_rows(trace: Trace, use: Use) -> bool:
    entry, n = trace.entries[use.entry], trace.examples
    shape = entry.shapes[0]
    known = type(entry.formula) is not Structural and sum(g is not None for g in entry.grad_outputs)
    return known == 1 and shape[:1] == (n,) and n not in shape[1:]


def _direction(trace: Trace, use: Use, at: tuple[int, ...]) -> Tensor:
    """The unit vector of one entry, in the parameter's shape."""
    given = [*trace.entries[use.entry].inputs.values()][use.position]
    direction = torch.zeros_like(given.detach())
    direction[at] = 1
    return direction


def _factors_of_use(trace: Trace, use: Use, at: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    entry, n = trace.entries[use.entry], trace.examples
    after = trace.flow.activated(use.entry * MAX_OUTPUTS)
    assert after is not None  # a gradient comes back from it
    axis = 1 if issubclass(entry.formula, Conv) else -1
    active = tangent(entry, use.position, _direction(trace, use, at))
    parts = (after.grad * n, after.slope, active)
    wrong, responsive, active = (p.detach().select(axis, at[0]).reshape(n, -1) for p in parts)
    return wrong, responsive, active


def _per_example(trace: Trace, name: str, at: tuple[int, ...]) -> Tensor:
    """∂Cₙ/∂w by running the model again, scaled so that the mean is ∂C/∂w."""
    trace.check_unchanged()
    grads = per_example_grads(trace.model, trace.x, trace.y, cost=trace.function)[name]
    total = grads.sum(0)
    # A cost that is a mean has the factor 1, one that is a sum the factor n.
    size = total.square().sum()
    factor = (trace.grads[name] * total).sum() / size * len(grads) if size else 1.0
    return (grads[of_each(at)] * factor).detach()


def _symbol(explanation: Explanation) -> str:
    inside = ", ".join(map(str, explanation.index))
    return f"{explanation.name}[{inside}]"


def _interleaved(parts: Sequence[str], sign: str) -> list[str]:
    found: list[str] = []
    for part in parts:
        found += [part, sign]
    return found[:-1]


def _way(value: float) -> str:
    return "up" if value < 0 else "down" if value > 0 else "nowhere"


def _arrow(value: float) -> str:
    return "↑" if value < 0 else "↓"
