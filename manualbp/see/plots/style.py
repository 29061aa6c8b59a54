"""What all pictures share: colours, sizes, columns of numbers, and the file they are written to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: of the symbols: each darker or lighter than the others in grey, too
COST, WEIGHT, BIAS, SUM, TARGET = "#c9302c", "#174f93", "#d97fb5", "#4f9d45", "#e3b22e"
#: of a word, where a symbol's own colour is too light to be read
SUM_INK = "#2f7a2a"
INK, MUTED, RULE = "#1f2328", "#59636e", "#d1d9e0"

#: inches; at 100 dots an inch as wide as a README
WIDTH = 8.3
#: of a file: twice that, for sharp screens
DPI = 200
SUFFIXES = (".png", ".svg", ".pdf")

RC = {
    "figure.facecolor": "white",
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.1,
    "axes.facecolor": "white",
    "font.family": "DejaVu Sans",  # has σ, ∂, ‖ and ₙ, and digits of one width
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 1.1,
    "lines.solid_capstyle": "round",
}


class MissingMatplotlib(ImportError):
    """matplotlib is not installed."""

    def __init__(self) -> None:
        super().__init__("plots need matplotlib: pip install 'manualbp[viz]'")


@contextmanager
def drawing(ax: Axes | None, height: float) -> Iterator[Axes]:
    """The Axes to draw into: ``ax``, or those of a new figure.

    Args:
        ax: where to draw.
        height: of the new figure, in inches.

    Raises:
        ImportError: matplotlib is not installed; says what to install.
    """
    plt = pyplot()
    with plt.rc_context(RC):
        if ax is None:
            _, ax = plt.subplots(figsize=(WIDTH, height), layout="constrained")
        yield ax


def pyplot() -> Any:
    """``matplotlib.pyplot``, imported only now because that takes half a second."""
    try:
        from matplotlib import pyplot
    except ImportError:
        raise MissingMatplotlib from None
    return pyplot


def save(axes: Any, file: str | Path) -> Path:
    """Write the figure of ``axes`` as PNG, SVG or PDF, and close it.

    Args:
        axes: what a function of this module returned.
        file: its suffix says which of them; its folder is made if need be.

    Raises:
        ValueError: the suffix is another one.
    """
    file = checked_suffix(file)
    figure = figure_of(axes)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Without the time and the version, so that the same picture is the same file.
    dates = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with pyplot().rc_context({**RC, "svg.hashsalt": "manualbp"}):
        figure.savefig(file, dpi=DPI, metadata=dates[file.suffix.lower()])
    pyplot().close(figure)
    return file


def checked_suffix(file: str | Path) -> Path:
    """The path, where its suffix is one that a picture can have."""
    file = Path(file)
    if file.suffix.lower() not in SUFFIXES:
        had = f"got {file.suffix}" if file.suffix else "there is none"
        raise ValueError(f"{file}: expected a name that ends in {', '.join(SUFFIXES)}; {had}")
    return file


def figure_of(axes: Any) -> Any:
    """The figure that one or several Axes are in."""
    first = axes.flat[0] if hasattr(axes, "flat") else axes
    return first.get_figure(root=True)


# ------------------------------------------------------------------------------- words


def title(ax: Axes, text: str, beneath: str, above: float = 0.0) -> None:
    """A heading, and a line beneath it that says what is drawn.

    Args:
        ax: the Axes.
        text: of the heading.
        beneath: the line.
        above: how far above the Axes, in points; there stand the heads of columns.
    """
    ax.set_title(text, pad=22 + above)
    ax.annotate(
        beneath,
        (0, 1),
        (0, 8 + above),
        xycoords="axes fraction",
        textcoords="offset points",
        color=MUTED,
        fontsize=9.5,
    ).set_in_layout(False)  # otherwise a long line would narrow what is drawn


def signed(text: str) -> str:
    """With the minus of mathematics, which is as wide as a plus."""
    return text.replace("-", "−")


def number(value: float, sign: str = "") -> str:
    """Three digits, as a person writes them: ``−0.0123``, ``4.56 × 10⁻⁷``."""
    if not math.isfinite(value) or value == 0:
        return signed(f"{value:g}")
    exponent = math.floor(math.log10(abs(value)))
    if -4 <= exponent <= 4:
        return signed(f"{value:{sign}.{max(0, 2 - exponent)}f}")
    return signed(f"{value / 10**exponent:{sign}.2f}") + f" × {power(exponent)}"


def power(exponent: int) -> str:
    """10⁻³"""
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def column(values: Sequence[float | None], sign: str = "") -> tuple[list[str], int]:
    """Numbers with as many decimals each, and the exponent of the power of ten they share."""
    finite = [abs(v) for v in values if v is not None and math.isfinite(v)]
    largest = max(finite, default=0.0)
    exponent = math.floor(math.log10(largest)) if largest else 0
    shared = exponent if not -1 <= exponent <= 4 else 0
    decimals = max(0, 2 - (exponent - shared))
    cells = ["" if v is None else f"{v / 10**shared:{sign}.{decimals}f}" for v in values]
    zero = f"{0:.{decimals}f}"
    return [zero if c[1:] == zero else signed(c) for c in cells], shared


def headed(name: str, exponent: int) -> str:
    """The name of numbers that share a power of ten."""
    return f"{name} / {power(exponent)}" if exponent else name


def share_power(axis: Any, exponent: int) -> None:
    """Ticks of an axis as they are over a power of ten, which its label names."""
    from matplotlib.ticker import FuncFormatter

    def text(value: float, _: int) -> str:
        return signed(f"{value / 10**exponent:.6g}")

    axis.set_major_formatter(FuncFormatter(text))


def sizes(values: Sequence[float | None]) -> list[str]:
    """Positive numbers of different size, three digits each: plain if that is short for all."""
    positive = [v for v in values if v]
    plain = not positive or (min(positive) >= 1e-3 and max(positive) < 1e3)
    if plain:
        return ["" if v is None else number(v) for v in values]
    return ["" if v is None else _scientific(v) if v else "0" for v in values]


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{signed(mantissa)} × {power(int(exponent))}"


def columns(
    ax: Axes,
    cells: Sequence[Sequence[str]],
    heads: Sequence[tuple[str, str]],
    exponents: Sequence[int] | None = None,
) -> float:
    """Print columns on the left of what is drawn: names, and right-aligned numbers.

    Args:
        ax: the Axes, whose vertical axis is upside down: rows are at 0, 1, ….
        cells: of each column, its texts.
        heads: of each column, its name and colour.
        exponents: of each column, the power of ten that its numbers share.

    Returns:
        the share of the width of ``ax`` that they take.
    """
    exponents = exponents or [0] * len(cells)
    lines = 2 if any(exponents) else 1
    at, across = 0.0, ax.get_yaxis_transform()
    for i, (texts, (name, colour), exponent) in enumerate(
        zip(cells, heads, exponents, strict=True)
    ):
        power_line = f"×{power(exponent)}" if exponent else ""
        longest = max(len(text) for text in (*texts, f"{name} ", power_line))
        at += (longest + 1.8 * bool(i)) * _letter(ax)
        x, side = (at, "right") if i else (0.0, "left")
        ax.annotate(
            "\n".join([name, power_line][:lines]),
            (x, 1),
            (0, 4),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            weight="bold",
            fontsize=9.5,
            ha=side,
            va="bottom",
        )
        for y, text in enumerate(texts):
            ax.text(x, y, text, transform=across, ha=side, va="center", fontsize=9.5)
    return at + 2 * _letter(ax)


def headroom(exponents: Sequence[int] = ()) -> float:
    """How many points the heads of columns take."""
    return 28.0 if any(exponents) else 15.0


def _letter(ax: Axes) -> float:
    """The width of a digit, as a share of the width of ``ax``."""
    inches: float = figure_of(ax).get_figwidth() * ax.get_position(original=True).width
    return 5.8 / 72 / max(inches, 1.0)


# ------------------------------------------------------------------------------- colours


def sign_map() -> Any:
    """From vermilion over white to blue, which people tell apart whatever colours they see."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = ["#7f2704", "#c4501b", "#f0a070", "#ffffff", "#8ab4dc", "#2f72b4", "#0b2f63"]
    return LinearSegmentedColormap.from_list("sign", stops)


def painted(values: torch.Tensor, limit: float, marks: int = 10) -> Any:
    """An image (h · marks, w · marks, 4) of a matrix, where what is negative bears a minus.

    Args:
        values: (h, w).
        limit: the size that has the full colour.
        marks: how many dots of the image a number is wide; below 5 there is no minus.
    """
    shares = (values.detach().double() / limit if limit else values.double() * 0).clamp(-1, 1)
    colours = torch.from_numpy(sign_map()((shares.cpu().numpy() + 1) / 2))
    if marks < 5:
        return colours.numpy()
    image = colours.repeat_interleave(marks, 0).repeat_interleave(marks, 1)
    minus = torch.zeros(marks, marks, dtype=torch.bool)
    minus[marks // 2 - marks // 10 : marks // 2 + marks // 10, marks // 5 : -(marks // 5)] = True
    where = (shares < 0).cpu().repeat_interleave(marks, 0).repeat_interleave(marks, 1)
    image[where & minus.repeat(*values.shape)] = 1.0
    return image.numpy()
