"""Arguments of dropout; the mask is drawn by torch's generator when the formula runs."""

from __future__ import annotations

from typing import Any

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]


@of(f.Dropout)
def _dropout(s: Source) -> Arguments:
    return s.tensor(*s.shape()), s.choice(0.5, 0.2, 0.0, 1.0)


@of(f.FeatureDropout)
def _feature_dropout(s: Source) -> Arguments:
    shape = s.shape(2, 4)
    return s.tensor(*shape), s.choice(0.5, 0.2, 0.0), s.integer(1, 2)


@of(f.AlphaDropout)
def _alpha_dropout(s: Source) -> Arguments:
    shape = s.shape(2, 4)
    return s.tensor(*shape), s.choice(0.5, 0.2, 0.0), s.choice(None, 2)
