"""Arguments of recurrent layers: sequences of different lengths, in a packed sequence's order."""

from __future__ import annotations

from typing import Any

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]


def _batch_sizes(s: Source) -> tuple[int, ...]:
    """How many sequences are under way at each step: never more than before."""
    alike = s.boolean()
    sizes = [s.size(1, 3)]
    for _ in range(s.integer(0, 3)):
        sizes.append(sizes[-1] if alike else s.integer(1, sizes[-1]))
    return tuple(sizes)


def _biases(s: Source, rows: int) -> Arguments:
    return (s.tensor(rows), s.tensor(rows)) if s.boolean() else (None, None)


@of(f.RNN)
def _rnn(s: Source) -> Arguments:
    steps, inputs, width = _batch_sizes(s), s.size(1, 3), s.size(1, 3)
    return (
        s.tensor(sum(steps), inputs),
        s.tensor(steps[0], width),
        s.tensor(width, inputs),
        s.tensor(width, width),
        *_biases(s, width),
        steps,
        s.boolean(),
        s.choice("tanh", "relu"),
    )


@of(f.LSTM)
def _lstm(s: Source) -> Arguments:
    steps, inputs, width = _batch_sizes(s), s.size(1, 3), s.size(1, 3)
    projected = s.maybe(lambda: s.integer(1, width))
    seen = projected or width
    return (
        s.tensor(sum(steps), inputs),
        s.tensor(steps[0], seen),
        s.tensor(steps[0], width),
        s.tensor(4 * width, inputs),
        s.tensor(4 * width, seen),
        *_biases(s, 4 * width),
        None if projected is None else s.tensor(projected, width),
        steps,
        s.boolean(),
    )


@of(f.GRU)
def _gru(s: Source) -> Arguments:
    steps, inputs, width = _batch_sizes(s), s.size(1, 3), s.size(1, 3)
    return (
        s.tensor(sum(steps), inputs),
        s.tensor(steps[0], width),
        s.tensor(3 * width, inputs),
        s.tensor(3 * width, width),
        *_biases(s, 3 * width),
        steps,
        s.boolean(),
    )
