"""Over which paths a value acts on the cost, and how much each carries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from manualbp.core.graph import Structural
from manualbp.core.tables import table_lines
from manualbp.formulas import Linear
from manualbp.see.flow import Use, moved_to, of_each, tangent
from manualbp.see.naming import parameter_at
from manualbp.see.slopes import slope
from manualbp.see.summary import digits
from manualbp.tape.backward import MAX_OUTPUTS

if TYPE_CHECKING:
    from manualbp.see.tracing import Trace

Unit = tuple[int, ...]

#: products of whole paths that are computed at once
AT_ONCE = 30_000_000


@dataclass(frozen=True)
class Path:
    """One way on which a value acts on the cost: over unit j of the next weighted sum.

    Attributes:
        layer: what the value goes to: the path of the module, or the formula.
        unit: j; empty where the cost itself comes next.
        weight: wⱼₖ, ∂zⱼ/∂aₖ: (n,).
        responsive: σ′(zⱼ); 1 where no activation follows: (n,).
        wrong: ∂Cₙ/∂aⱼ: (n,).
        product: what this path adds to ∂Cₙ/∂aₖ: (n,).
    """

    layer: str
    unit: Unit
    weight: Tensor
    responsive: Tensor
    wrong: Tensor
    product: Tensor


@dataclass(frozen=True)
class Paths:
    """All paths of one activation.

    Attributes:
        path, unit: the layer, and the place of the activation in its output.
        rows: one for each unit of the next weighted sum, the heaviest first.
        total: ∂Cₙ/∂aₖ, which the products add up to: (n,).
        example: the example whose numbers are printed; None for the mean of the batch.
    """

    path: str
    unit: Unit
    rows: list[Path]
    total: Tensor
    example: int | None = None

    @property
    def products(self) -> Tensor:
        """(paths, n)"""
        return torch.stack([row.product for row in self.rows])

    @property
    def shares(self) -> list[float]:
        """What each path is of Σ|·|, with its sign."""
        products = torch.stack([self._number(row.product) for row in self.rows])
        whole = products.abs().sum()
        return [float(p / whole) if whole else 0.0 for p in products]

    @property
    def cancellation(self) -> float:
        """|Σ| / Σ|·| over the paths: 1 where all act one way, or none acts; 0 where they cancel."""
        return abs(sum(self.shares)) if any(self.shares) else 1.0

    def _number(self, values: Tensor) -> Tensor:
        return values.mean() if self.example is None else values[self.example]

    def to_dict(self) -> dict[str, Any]:
        """The numbers that are printed."""
        names = ("weight", "responsive", "wrong", "product")
        return {
            "path": self.path,
            "unit": list(self.unit),
            "total": float(self._number(self.total)),
            "cancellation": self.cancellation,
            "rows": [
                {"layer": row.layer, "unit": list(row.unit), "share": share}
                | {name: float(self._number(getattr(row, name))) for name in names}
                for row, share in zip(self.rows, self.shares, strict=True)
            ],
        }

    def __str__(self) -> str:
        of = "the mean of the batch" if self.example is None else f"example {self.example}"
        head = ["to", "j", "wⱼₖ", "σ′(zⱼ)", "∂C/∂aⱼ", "product", "share"]
        rows = []
        for row, share in zip(self.rows[:20], self.shares, strict=False):
            values = (row.weight, row.responsive, row.wrong, row.product)
            cells = [digits(float(self._number(v))) for v in values]
            rows.append([row.layer, _listed(row.unit), *cells, f"{share:+.1%}"])
        total = digits(float(self._number(self.total)))
        lines = [
            f"∂C/∂a of {self.path}[{_listed(self.unit)}] = {total}, "
            f"over {len(self.rows)} paths, {of}",
            "",
            *table_lines(head, rows),
        ]
        if len(self.rows) > 20:
            lines.append(f"and {len(self.rows) - 20} more")
        lines += ["", f"{1 - self.cancellation:.0%} of it cancels"]
        if self.example is None:
            lines.append("each column is a mean of its own; the product is the mean of products")
        return "\n".join(lines)


@dataclass(frozen=True)
class WeightPaths:
    """The heaviest whole paths from a weight to the cost.

    Attributes:
        name, index: the weight.
        units: of each path, the unit that it passes in each weighted sum, from the weight's own.
        layers: the layers of these sums.
        products: what each path adds to ∂C/∂w.
        value: ∂C/∂w, of the example or as the mean of the batch.
        count: how many paths there are in all.
    """

    name: str
    index: Unit
    layers: list[str]
    units: list[Unit]
    products: list[float]
    value: float
    count: int
    example: int | None = None

    @property
    def carried(self) -> float:
        """What these paths add up to, as a share of ∂C/∂w."""
        return sum(self.products) / self.value if self.value else math.nan

    def to_dict(self) -> dict[str, Any]:
        """The numbers that are printed."""
        return {
            "name": self.name,
            "index": list(self.index),
            "layers": self.layers,
            "units": [list(units) for units in self.units],
            "products": self.products,
            "value": self.value,
            "carried": self.carried,
            "count": self.count,
        }

    def __str__(self) -> str:
        of = "the mean of the batch" if self.example is None else f"example {self.example}"
        inside = _listed(self.index)
        rows = [
            [_route(self.layers, units), digits(product)]
            for units, product in zip(self.units, self.products, strict=True)
        ]
        return "\n".join(
            [
                f"∂C/∂{self.name}[{inside}] = {digits(self.value)} over {self.count:,} paths, {of}",
                "",
                *table_lines(["path", "product"], rows),
                "",
                f"these {len(self.units)} carry {digits(sum(self.products))}"
                + (f", {self.carried:.0%} of the gradient" if self.value else ""),
            ]
        )


# ------------------------------------------------------------------------- of an activation


def paths_of_activation(trace: Trace, path: str, unit: Sequence[int], example: int | None) -> Paths:
    """See :meth:`manualbp.see.Trace.paths`."""
    layer = trace[path]
    if isinstance(layer, tuple):
        raise ValueError(f"{path} ran {len(layer)} times, and its paths are those of one call")
    n, number, grad = trace.examples, layer.number, layer.grad_output
    if number is None or not isinstance(grad, Tensor):
        raise ValueError(f"{path}: C does not depend on its output, or it returns several tensors")
    at = _unit_at(path, grad, unit, n)
    _check_example(example, n)
    rows: list[Path] = []
    _follow(trace, number, at, grad.new_ones(n), rows)
    order = torch.stack([_size(row.product, example) for row in rows]).argsort(descending=True)
    total = grad[of_each(at)] * n
    return Paths(path, at, [rows[int(i)] for i in order], total.detach(), example)


def _follow(trace: Trace, number: int, unit: Unit, factor: Tensor, rows: list[Path]) -> None:
    """Add a row for each unit of what comes next after one unit of a value.

    Args:
        factor: what the unit has been multiplied by since the activation, in each example.
    """
    for use in trace.flow.uses(number):
        entry = trace.entries[use.entry]
        next_number = use.entry * MAX_OUTPUTS
        if isinstance(entry.formula, Structural):
            at = moved_to(entry, use.position, unit) if len(entry.shapes) == 1 else None
            if at is not None:
                _follow(trace, next_number, at, factor, rows)
                continue
        elif (found := slope(entry, named=False)) is not None and use.position == 0:
            here = found[of_each(unit)]
            _follow(trace, next_number, unit, factor * here, rows)
            continue
        rows += _rows_of(trace, use, unit, factor)


def _rows_of(trace: Trace, use: Use, unit: Unit, factor: Tensor) -> list[Path]:
    entry, n = trace.entries[use.entry], trace.examples
    name = entry.path or entry.name
    given = entry.grad_inputs[use.position]
    assert given is not None
    after = None
    if not isinstance(entry.formula, Structural) and len(entry.grad_outputs) == 1:
        after = trace.flow.activated(use.entry * MAX_OUTPUTS)
    if after is None or not entry.shapes[0] or entry.shapes[0][0] != n:
        wrong = given[of_each(unit)] * n
        one = torch.ones_like(wrong)
        return [Path(name, (), factor, one, wrong, factor * wrong)]
    direction = torch.zeros_like(given)
    direction[of_each(unit)] = 1
    weights = tangent(entry, use.position, direction)
    products = weights * after.slope * after.grad * n
    rows = []
    for j in (weights.abs().sum(0) != 0).nonzero().tolist():
        at = (slice(None), *j)
        rows.append(
            Path(
                name,
                tuple(j),
                weights[at] * factor,
                after.slope[at],
                after.grad[at] * n,
                products[at] * factor,
            )
        )
    return rows


# ------------------------------------------------------------------------- of a weight


def paths_of_weight(
    trace: Trace, name: str, index: Sequence[int], top: int, example: int | None
) -> WeightPaths:
    """See :meth:`manualbp.see.Trace.paths`."""
    at = parameter_at(trace.parameters, name, index, trace.model).index
    _check_example(example, trace.examples)
    explanation = trace.explain(name, *at)
    chain = _chain(trace, name)
    if chain is None or explanation.active is None or len(at) != 2:
        raise ValueError(
            f"{name}: whole paths are followed from a weight of a Linear layer, one row for each "
            f"example, that is used once; trace.paths(layer, unit) says where one activation goes"
        )
    layers, matrices, slopes, last = chain
    rows = slice(None) if example is None else slice(example, example + 1)
    # Of the weight itself: σ′(zⱼ) aₖ; then for each further sum w σ′; at the end ∂C/∂a.
    carried = (slopes[0][rows, at[0]] * explanation.active[rows]).unsqueeze(1)  # (n, paths)
    units = torch.full((1, 1), at[0], device=carried.device)
    count = math.prod(len(m) for m in matrices)
    for weight, found in zip(matrices, slopes[1:], strict=True):
        here = weight.T[units[:, -1]]  # (paths, next)
        step = carried.unsqueeze(2) * here * found[rows].unsqueeze(1)
        carried = step.flatten(1)
        nexts = torch.arange(here.shape[1], device=units.device).repeat(len(units)).unsqueeze(1)
        units = torch.cat([units.repeat_interleave(here.shape[1], 0), nexts], 1)
        if carried.numel() > AT_ONCE // 64:
            keep = carried.abs().mean(0).topk(AT_ONCE // 64 // len(carried)).indices
            carried, units = carried[:, keep], units[keep]
    products = (carried * last[rows][:, units[:, -1]]).mean(0)
    heaviest = products.abs().topk(min(top, len(products))).indices
    return WeightPaths(
        name,
        at,
        layers,
        [tuple(u) for u in units[heaviest].tolist()],
        products[heaviest].tolist(),
        float(explanation.per_example[rows].mean()),
        count,
        example,
    )


def _chain(trace: Trace, name: str) -> Any:
    """The weighted sums from that of a weight on: layers, matrices, slopes, and ∂C/∂a at the end.

    The end is where no weighted sum takes all that the last one gave. None where the weight is in
    no such sum itself.
    """
    parameter, n = trace.parameters[name], trace.examples
    number = next((-1 - i for i, p in enumerate(trace.tape.leaves) if p is parameter), None)
    uses = [] if number is None else trace.flow.uses(number)
    if len(uses) != 1 or not _is_linear(trace, uses[0]):
        return None
    layers: list[str] = []
    matrices: list[Tensor] = []
    slopes: list[Tensor] = []
    use = uses[0]
    while True:
        entry = trace.entries[use.entry]
        if layers:
            matrices.append(entry.inputs["weight"].detach())
        layers.append(entry.path or entry.name)
        after = trace.flow.activated(use.entry * MAX_OUTPUTS)
        if after is None:
            return None
        factor, grad, number = after.slope, after.grad, after.number
        following = trace.flow.uses(number)
        while len(following) == 1 and following[0].entry < trace.end:  # dropout, for one
            found = slope(trace.entries[following[0].entry], named=False)
            above = trace.flow.gradient(following[0].entry * MAX_OUTPUTS)
            if found is None or above is None or following[0].position:
                break
            factor, grad, number = factor * found, above, following[0].entry * MAX_OUTPUTS
            following = trace.flow.uses(number)
        slopes.append(factor)
        if len(following) != 1 or following[0].position or not _is_linear(trace, following[0]):
            return layers, matrices, slopes, grad * n
        use = following[0]


def _is_linear(trace: Trace, use: Use) -> bool:
    entry = trace.entries[use.entry]
    return issubclass(entry.formula, Linear) and len(entry.shapes[0]) == 2


# ------------------------------------------------------------------------- arguments


def _unit_at(path: str, values: Tensor, unit: Sequence[int], examples: int) -> Unit:
    shape = tuple(values.shape[1:])
    if values.shape[0] != examples:
        raise ValueError(f"{path}: the examples do not come along the first axis of its output")
    fits = len(unit) == len(shape) and all(-s <= u < s for u, s in zip(unit, shape, strict=True))
    if not fits:
        raise IndexError(
            f"{path}[{_listed(unit)}]: expected {len(shape)} numbers within the shape {shape} that "
            f"its output has for each example"
        )
    return tuple(u % s for u, s in zip(unit, shape, strict=True))


def _check_example(example: int | None, examples: int) -> None:
    if example is not None and not 0 <= example < examples:
        raise IndexError(f"example: expected 0 to {examples - 1}, got {example}")


def _size(product: Tensor, example: int | None) -> Tensor:
    return product.abs().mean() if example is None else product[example].abs()


def _route(layers: Sequence[str], units: Unit) -> str:
    return " → ".join(f"{layer}[{unit}]" for layer, unit in zip(layers, units, strict=True))


def _listed(unit: Sequence[int]) -> str:
    return ", ".join(map(str, unit))
