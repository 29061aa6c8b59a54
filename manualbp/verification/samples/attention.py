"""Arguments of attention: heads that share keys, masks to add or to select, dropped keys."""

from __future__ import annotations

import math
from typing import Any

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]


@of(f.Attention)
def _attention(s: Source) -> Arguments:
    queries, keys, width, values = (s.size() for _ in range(4))
    batch = s.shape(0, 2)
    of_keys = batch
    grouped = s.boolean()
    if grouped:  # some heads of queries for each head of keys
        of_keys = (s.batch(), s.size(1, 2))
        batch = (of_keys[0], of_keys[1] * s.size(1, 3))
    scores = (*batch, queries, keys)
    mask = causal = None
    kind = s.choice("all", "causal", "added", "selected")
    if kind == "causal":
        causal = True
    elif kind == "added":
        mask = s.tensor(*scores[s.integer(0, len(batch)) :])
    elif kind == "selected":
        mask = s.mask(*scores[s.integer(0, len(batch)) :])
    p = s.choice(0.0, 0.0, 0.3, 1.0)
    kept = None if p == 0 else s.mask(*scores) if p < 1 else s.mask(*scores) & False
    return (
        s.tensor(*batch, queries, width),
        s.tensor(*of_keys, keys, width),
        s.tensor(*of_keys, keys, values),
        mask,
        kept,
        p,
        bool(causal),
        s.choice(1 / math.sqrt(width), 0.7),
        grouped,
    )
