"""Lines: ΔC along a nudge, and ‖δ‖ through training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from manualbp.see.naming import parameter_at
from manualbp.see.nudging import nudge as nudged
from manualbp.see.plots import style
from manualbp.see.tracing import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: at how many places on each side of a weight the cost is computed
SIDES = 8
#: of lines, so that each has a mark of its own
MARKS = "osD^vPX*<>ph"


class Trained(Protocol):
    """A run: ``manualbp.training.runs.load_run`` returns one."""

    @property
    def metrics(self) -> Mapping[str, Sequence[float]]:
        """The columns that it logged, by their names, a number for each epoch."""
        ...


def nudge(trace: Trace, name: str, *index: int, by: float = 0.1, ax: Axes | None = None) -> Axes:
    """ΔC where one weight moves by up to ±``by``: as its gradient predicts it, and as it is.

    The numbers are those of :func:`manualbp.nudge`, at 8 places on each side.

    ::

        plots.nudge(trace, "1.weight", 3, 407, by=0.5)

    Args:
        trace: of the model and the examples; it runs again, and is then as it was.
        name: of the parameter.
        index: of its entry.
        by: how far it moves to each side.
        ax: where to draw.

    Raises:
        KeyError: ``name`` is no parameter that C depends on.
        IndexError: the parameter has no such entry.
        ValueError: ``by`` is not positive.
        RuntimeError: the model has been trained since it was traced.
    """
    if not 0 < by < math.inf:
        raise ValueError(f"by: expected a positive number, got {by}")
    trace.check_unchanged()
    place = parameter_at(trace.parameters, name, index, trace.model)
    steps = [by * i / SIDES for i in range(-SIDES, SIDES + 1)]
    predicted, measured = (list[float](), list[float]())
    for step in steps:
        found = nudged(
            trace.model, trace.x, trace.y, place.name, *place.index, by=step, cost=trace.function
        )
        predicted.append(found.predicted)
        measured.append(found.measured)
    slope = predicted[-1] / by
    with style.drawing(ax, 4.2) as ax:
        ax.axhline(0, color=style.RULE, lw=0.8, zorder=0)
        ax.axvline(0, color=style.RULE, lw=0.8, zorder=0)
        ax.fill_between(steps, predicted, measured, color=style.COST, alpha=0.08, lw=0)
        ax.plot(steps, predicted, "--", color=style.INK, lw=1.4, label="predicted")
        ax.plot(steps, measured, "o-", color=style.COST, lw=1.8, ms=4, label="measured")
        ax.plot(0, 0, "o", color="white", mec=style.WEIGHT, mew=2, ms=7)
        ax.margins(x=0.02)
        ends = {
            "predicted\n∂C/∂w Δw": (predicted, style.INK),
            "measured\nC(w + Δw) − C(w)": (measured, style.COST),
        }
        _named_at_end(ax, ends, steps[-1])
        for axis, values, name, colour in (
            (ax.xaxis, steps, f"Δw of {place}", style.WEIGHT),
            (ax.yaxis, [*predicted, *measured], "ΔC", style.COST),
        ):
            _, exponent = style.column(values)
            style.share_power(axis, exponent)
            axis.set_label_text(style.headed(name, exponent), color=colour)
        style.title(
            ax,
            f"What a nudge to {place} does to C",
            f"∂C/∂w = {style.number(slope)} · at Δw = {style.number(by, '+')}: predicted "
            f"{style.number(predicted[-1], '+')}, measured {style.number(measured[-1], '+')}",
        )
    return ax


def deltas(run: Trained, *, ax: Axes | None = None) -> Axes:
    """‖δ‖ of each layer after every epoch of training.

    ::

        plots.deltas(load_run("runs/3b1b"))

    Args:
        run: whose ``metrics`` are drawn, those called ``delta/…``: ‖∂C₀/∂z‖, the mean over the
            first batch of validation.
        ax: where to draw.

    Raises:
        ValueError: it logged no δ.
    """
    metrics = run.metrics
    lines = {name.removeprefix("delta/"): v for name, v in metrics.items() if name[:6] == "delta/"}
    if not lines or not any(map(len, lines.values())):
        raise ValueError(f"run: it logged no δ; it has {', '.join(metrics) or 'no metrics'}")
    epochs = [e + 1 for e in metrics["epoch"]]
    with style.drawing(ax, 4.0) as ax:
        colours = _shades(len(lines))
        ends = {}
        for i, (name, values) in enumerate(lines.items()):
            mark = MARKS[i % len(MARKS)]
            ax.plot(epochs, values, f"{mark}-", color=colours[i], lw=1.6, ms=4.5, label=name)
            number = str(i + 1).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
            ends[f"δ{number} of layer {name}"] = (values, style.INK)
        ax.set_yscale("log")
        ax.margins(x=0.02)
        _named_at_end(ax, ends, epochs[-1])
        _log_ticks(ax)
        ax.set_xlabel("epoch")
        ax.grid(axis="y")
        style.title(
            ax,
            "δ of each layer through training",
            "‖δ‖ = ‖∂C₀/∂z‖ of one example, mean over a batch of validation",
        )
    return ax


# ------------------------------------------------------------------------------- lines


def _named_at_end(ax: Axes, lines: Mapping[str, tuple[Sequence[float], str]], x: float) -> None:
    """The name of each line where it ends, moved apart where they would overlap."""
    figure: Any = ax.get_figure(root=True)
    figure.draw_without_rendering()
    ends = {name: ax.transData.transform((x, values[-1]))[1] for name, (values, _) in lines.items()}
    apart = figure.dpi / 72 * 13 * max(1 + name.count("\n") for name in lines)
    order = sorted(ends, key=lambda name: ends[name])
    at = [ends[name] for name in order]
    for _ in range(50):
        for i in range(1, len(at)):
            overlap = apart - (at[i] - at[i - 1])
            if overlap > 0:
                at[i - 1] -= overlap / 2
                at[i] += overlap / 2
    for name, place in zip(order, at, strict=True):
        values, colour = lines[name]
        ax.annotate(
            name,
            (x, values[-1]),
            (10, (place - ends[name]) * 72 / figure.dpi),
            textcoords="offset points",
            color=colour,
            weight="bold",
            fontsize=9.5,
            va="center",
            annotation_clip=False,
        )


def _log_ticks(ax: Axes) -> None:
    """Ticks at 1, 2 and 5 times the powers of ten, in plain numbers where they are short."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def _shades(count: int) -> list[Any]:
    """From dark to light green, for as many lines."""
    from matplotlib.colors import LinearSegmentedColormap

    ramp = LinearSegmentedColormap.from_list("z", ["#12381a", style.SUM, "#7cba70"])
    return [ramp(i / max(1, count - 1)) for i in range(count)]
