"""What the commands that look into a run share: run, examples, what is named, what is printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from manualbp.commands.console import say
from manualbp.commands.line import program
from manualbp.see import Trace, trace
from manualbp.training.errors import UserError
from manualbp.training.network import targets
from manualbp.training.runs import RUNS, Run, load_run

#: what a run is asked for: its network, inputs, targets and cost
Given = tuple[nn.Module, Tensor, Tensor, nn.Module]


def run_of(words: Sequence[str]) -> tuple[Run, list[str]]:
    """The run that the first word names, or else the latest; and the words after it.

    Raises:
        UserError: there is no such run.
    """
    first = words[0] if words else ""
    there = bool(first) and (Path(first).exists() or (RUNS / first).exists())
    # A name comes before whole numbers, so of two names the first is that of a run.
    two_names = len(words) > 1 and not is_whole(words[1])
    if there or two_names or "/" in first:
        return load_run(first), list(words[1:])
    return load_run(None), list(words)


def run_alone(words: Sequence[str]) -> Run:
    """The run of a command that takes nothing else."""
    if len(words) > 1:
        raise UserError(f"one RUN, got {' '.join(words)}")
    return load_run(words[0] if words else None)


def named(words: Sequence[str], command: str) -> tuple[str, list[int]]:
    """A name and whole numbers: ``1.weight 3 407``."""
    if not words or not all(map(is_whole, words[1:])):
        got = f", got {' '.join(words)}" if words else ""
        raise UserError(
            f"expected a name and whole numbers, as in {program()} {command} 1.weight 3 407{got}"
        )
    return words[0], [int(word) for word in words[1:]]


def is_whole(word: str) -> bool:
    return word.removeprefix("-").isdecimal()


def given(run: Run, count: int, split: str, label: int | None = None) -> Given:
    """The network of a run, and its first examples: of all classes, or of one."""
    if count < 1:
        raise UserError(f"--examples is at least 1, got {count}")
    images, labels = run.examples(count if label is None else None, split)
    if label is not None:
        own = labels == label
        if not own.any():
            raise UserError(f"--class {label}: there are {sorted({*labels.tolist()})}")
        images, labels = images[own][:count], labels[own][:count]
    outputs = images.new_zeros(1, run.hparams["layers"][-1])
    return run.net, images, targets(labels, run.hparams["cost"], outputs), run.criterion


def traced(run: Run, count: int, split: str, label: int | None = None) -> Trace:
    """The trace of a run."""
    net, x, y, cost = given(run, count, split, label)
    return trace(net, x, y, cost=cost)


def show(title: str, answer: Any) -> None:
    """Print what was asked: on a terminal its first line is bold."""
    say(title, "dim")
    say("")
    first, *rest = str(answer).splitlines()
    say(first, "bold")
    say("\n".join(rest))


def title(run: Run, count: int, split: str, label: int | None = None) -> str:
    """Which run, after how much training, on which examples."""
    of = "" if label is None else f" of class {label}"
    return f"{run.title} · epoch {run.epochs} · {count} {split} examples{of}"


@contextmanager
def mistakes() -> Iterator[None]:
    """What a function says of its arguments, as what the user can mend."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(str(error.args[0]) if error.args else str(error)) from None
