"""Bars that begin where the last one ended: sums over paths, and the way back of a gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from manualbp.see.pathways import Path, Paths, WeightPaths
from manualbp.see.plots import style
from manualbp.see.vanishing import Step, Vanishing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: how many paths have a bar of their own
MOST = 24


def paths(found: Paths | WeightPaths, *, ax: Axes | None = None) -> Axes:
    """Over which paths an activation acts on C: bars that begin where the last one ended.

    ::

        plots.paths(trace.paths("2", 5))             # the mean of the batch
        plots.paths(trace.paths("2", 5, example=3))  # one example

    Args:
        found: the paths of an activation. The 24 heaviest have a bar each, the others share one.
        ax: where to draw.

    Raises:
        TypeError: ``found`` are the paths of a weight, or none at all.
    """
    if not isinstance(found, Paths):
        raise TypeError(
            f"plots.paths: expected the paths of an activation, trace.paths(layer, unit), got "
            f"{type(found).__name__}"
        )
    rows = sorted(found.rows, key=lambda row: -abs(_of(found, row, "product")))
    products = [_of(found, row, "product") for row in rows]
    if len(rows) > MOST:
        products[MOST:] = [math.fsum(products[MOST:])]
    total = math.fsum(products)
    with style.drawing(ax, 1.75 + 0.25 * len(products)) as ax:
        ends = _waterfall(ax, products)
        left, above = _path_columns(ax, found, rows, products)
        power = _leave_room(ax, [0.0, *ends], len(products) + 1, left)
        n, unit, count = len(found.total), ", ".join(map(str, found.unit)), len(found.rows)
        of = f"means of {n} examples" if found.example is None else f"example {found.example}"
        style.title(
            ax,
            f"How activation {unit} of layer {found.path} acts on C: over {count} "
            f"path{'s' * (count != 1)}",
            f"∂C/∂aₖ = {style.number(total)}; {1 - found.cancellation:.0%} of the products cancel"
            f" · {of}",
            above,
        )
        ax.set_xlabel(f"running sum{power}: solid adds, hollow takes away", x=1, ha="right")
    return ax


def vanishing(found: Vanishing, *, ax: Axes | None = None) -> Axes:
    """‖δ‖ from the cost back to the first layer: what W and σ′ do to it in each step.

    ::

        plots.vanishing(trace.vanishing())

    Args:
        found: whose way is drawn, the steps that lead from the cost to the first layer.
        ax: where to draw.

    Raises:
        TypeError: ``found`` is not what ``trace.vanishing()`` returns.
        ValueError: no gradient comes back, or one that is not finite.
    """
    if not isinstance(found, Vanishing):
        raise TypeError(f"plots.vanishing: expected trace.vanishing(), got {type(found).__name__}")
    if not found.way or not found.start or not all(math.isfinite(s.delta) for s in found.way):
        raise ValueError(f"plots.vanishing: nothing to draw: {found.sentence}")
    with style.drawing(ax, 1.5 + 0.42 * (len(found.way) + 1)) as ax:
        levels = _steps(ax, found.way, math.log10(found.start))
        left = _step_columns(ax, found)
        _leave_room(ax, levels, len(found.way) + 1, left, powers=True)
        left_out = len(found.steps) - len(found.way)
        style.title(
            ax,
            f"How δ comes back from C to layer {found.way[-1].path}",
            f"‖δ‖ of one example: × {style.number(10**found.change)} in all"
            + (f" · {left_out} more layers beside this way" if left_out else ""),
            style.headroom(),
        )
        ax.set_xlabel("‖δ‖", x=1, ha="right")
    return ax


# ------------------------------------------------------------------------------- paths


def _of(found: Paths, row: Path, name: str) -> float:
    values = getattr(row, name)
    return float(values.mean() if found.example is None else values[found.example])


def _waterfall(ax: Axes, products: Sequence[float]) -> list[float]:
    """A bar for each product and one for their sum; where each ends."""
    ends = [math.fsum(products[: i + 1]) for i in range(len(products))]
    total = ends[-1] if ends else 0.0
    starts = [0.0, *ends[:-1], 0.0]
    for i, (start, width) in enumerate(zip(starts, [*products, total], strict=True)):
        face = style.COST if width >= 0 else "white"
        ax.barh(i, width, 0.6, left=start, color=face, edgecolor=style.COST, linewidth=1.2)
    for i, end in enumerate(ends):
        ax.plot([end] * 2, [i + 0.3, i + 0.7], color=style.MUTED, lw=0.8)
    ax.axhline(len(products) - 0.5, color=style.RULE, lw=0.8)
    ax.plot([0, 0], [-0.6, len(products) + 0.6], color=style.MUTED, lw=0.8, zorder=0)
    return ends


def _path_columns(
    ax: Axes, found: Paths, every: Sequence[Path], products: Sequence[float]
) -> tuple[float, float]:
    """The factors of each path; the share of the width that they take, and the points above."""
    rows = every[:MOST]
    names = [f"{r.layer}[{', '.join(map(str, r.unit))}]" if r.unit else "C" for r in rows]
    names += [f"{len(every) - MOST} more"] * (len(every) > MOST)
    cells, exponents = [[*names, "sum"]], [0]
    for name in ("weight", "responsive", "wrong"):
        column, exponent = style.column([_of(found, row, name) for row in rows])
        cells.append([*column, *[""] * (len(cells[0]) - len(rows))])
        exponents.append(exponent)
    column, exponent = style.column([*products, math.fsum(products)], "+")
    cells.append(column)
    exponents.append(exponent)
    heads = [("over", style.MUTED), ("wⱼₖ", style.WEIGHT), ("σ′(zⱼ)", style.SUM_INK)]
    heads += [("∂C/∂aⱼ", style.COST), ("product", style.INK)]
    return style.columns(ax, cells, heads, exponents), style.headroom(exponents)


# ------------------------------------------------------------------------------- vanishing


def _steps(ax: Axes, way: Sequence[Step], start: float) -> list[float]:
    """Two bars a step, by W and by σ′, and a mark where δ has arrived; all levels, as log₁₀."""
    levels = [start]
    ax.plot(start, 0, "D", color=style.COST, ms=5.5, zorder=3)
    for i, step in enumerate(way, 1):
        before = levels[-1]
        between = before + _finite(step.weights)
        after = between + _finite(step.slope)
        ax.plot([before] * 2, [i - (1 if i == 1 else 0.84), i - 0.34], color=style.MUTED, lw=0.8)
        ax.barh(i - 0.19, between - before, 0.3, left=before, color=style.WEIGHT)
        ax.barh(
            i + 0.16,
            after - between,
            0.3,
            left=between,
            color=style.SUM,
            edgecolor="white",
            linewidth=0,
            hatch="////",
        )
        ax.plot([between] * 2, [i - 0.34, i + 0.31], color=style.MUTED, lw=0.8)
        ax.plot(after, i + 0.16, "D", color=style.INK, ms=4.5, zorder=3)
        levels += [between, after]
    return levels


def _finite(change: float) -> float:
    """What ends at δ = 0, and so nowhere on this scale, goes on for two powers of ten."""
    return change if math.isfinite(change) else math.copysign(2.0, change)


def _step_columns(ax: Axes, found: Vanishing) -> float:
    way = found.way
    cells = [
        ["C", *(step.path for step in way)],
        ["", *style.sizes([10**s.weights if s.weights else None for s in way])],
        ["", *style.sizes([10**s.slope if s.activations else None for s in way])],
        ["", *("" if s.saturated is None else f"{s.saturated:.0%}" for s in way)],
        style.sizes([found.start, *(step.delta for step in way)]),
    ]
    heads = [("layer", style.MUTED), ("× by W", style.WEIGHT), ("× by σ′", style.SUM_INK)]
    heads += [("saturated", style.MUTED), ("‖δ‖", style.INK)]
    return style.columns(ax, cells, heads)


# ------------------------------------------------------------------------------- Axes


def _leave_room(
    ax: Axes, values: Sequence[float], rows: int, left: float, *, powers: bool = False
) -> str:
    """Limits and ticks of bars on the right of the numbers; the power that the ticks share.

    Args:
        ax: the Axes.
        values: where bars end.
        rows: how many there are.
        left: the share of the width that the numbers take.
        powers: the values are exponents of 10.
    """
    low, high = min(values), max(values)
    room = (high - low or 1.0) * 0.05
    low, high = low - room, high + room
    ticks, shown, shared = (_log_ticks if powers else _plain_ticks)(low, high)
    ax.set_xlim(high - (high - low) / max(1 - left, 0.3), high)
    ax.set_ylim(rows - 0.4, -0.6)
    ax.set_xticks(ticks, shown)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_bounds(low, high)
    ax.grid(axis="x")
    return f" / {style.power(shared)}" if shared else ""


def _plain_ticks(low: float, high: float) -> tuple[list[float], list[str], int]:
    """Ticks, their labels, and the exponent that these share."""
    from matplotlib.ticker import MaxNLocator

    ticks = [float(t) for t in MaxNLocator(4).tick_values(low, high) if low <= t <= high]
    cells, shared = style.column(ticks)
    zeros = min((len(c) - len(c.rstrip("0")) for c in cells if "." in c), default=0)
    return ticks, [c[: len(c) - zeros].rstrip(".") for c in cells], shared


def _log_ticks(low: float, high: float) -> tuple[list[float], list[str], int]:
    """The same for logarithms: at powers of ten, or also at 2 and 5 times these."""
    few = high - low < 2.5
    apart = max(1, round((high - low) / 5))
    found = [
        (math.log10(m) + e, f"{m * 10.0**e:g}" if few and -4 <= e <= 3 else style.power(e))
        for e in range(math.floor(low), math.ceil(high) + 1)
        for m in ((1, 2, 5) if few else (1,))
        if few or e % apart == 0
    ]
    inside = [(tick, name) for tick, name in found if low <= tick <= high]
    return [tick for tick, _ in inside], [name for _, name in inside], 0
