"""Arguments of padding: margins of the last axes, the last one first."""

from __future__ import annotations

from typing import Any

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]


@of(f.Pad)
def _pad(s: Source) -> Arguments:
    shape = s.shape(1, 4)
    margins: list[int] = []
    for n in reversed(shape[s.integer(0, len(shape) - 1) :]):
        margins += [s.integer(-((n - 1) // 2), 2) for _ in range(2)]
    return s.tensor(*shape), tuple(margins), s.choice(0.0, 0.5)


@of(f.PadFromWithin)
def _pad_from_within(s: Source) -> Arguments:
    mode = s.choice("reflect", "replicate", "circular")
    axes = s.integer(1, 3)
    sizes = [s.size() for _ in range(axes)]
    margins: list[int] = []
    for n in reversed(sizes):
        # What is mirrored or continued is no longer than what is there.
        most = {"reflect": n - 1, "replicate": 2, "circular": n}[mode]
        margins += [s.integer(0, min(most, 2)) for _ in range(2)]
    batch = () if s.boolean() else (s.batch(),)
    return s.tensor(*batch, s.size(1, 2), *sizes), tuple(margins), mode
