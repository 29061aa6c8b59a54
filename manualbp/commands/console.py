"""What commands print: answers on stdout, which pipe well, and progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from manualbp.core.tables import table_lines


def say(text: str, style: str = "") -> None:
    """Print lines, in colour on a terminal; whoever reads them wraps them."""
    if (console := _console()).is_terminal:
        console.print(Text(text, style), soft_wrap=True)
    else:
        print(text)


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] | None = None
) -> None:
    """Print a table: as wide as the terminal, or one line a row where it is none.

    Args:
        head: the names of the columns.
        rows: of cells.
        styles: of each row.
    """
    if not (console := _console()).is_terminal:
        print("\n".join(table_lines(head, rows)))
        return
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        made.add_column(name, overflow="fold")
    for i, row in enumerate(rows):
        made.add_row(*map(Text, row), style=styles[i] if styles else None)
    console.print(made)


class Advance(Protocol):
    """Moves a bar on by one, and says what was done."""

    def __call__(self, done: str, /) -> None: ...


@contextmanager
def progress(total: int) -> Iterator[Advance]:
    """A bar on stderr while something is done ``total`` times, if that is a terminal."""
    console = Console(file=sys.stderr)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    shown = console.is_terminal and total > 1
    with Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, advance=1, description=done)


def _console() -> Console:
    return Console(file=sys.stdout, highlight=False, markup=False)
