"""Arguments of distances and similarities."""

from __future__ import annotations

import math
from typing import Any

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]

_NORMS = (2.0, 1.0, 3.0, math.inf, 1.5, 0.0)


@of(f.PairwiseDistance)
def _pairwise_distance(s: Source) -> Arguments:
    return s.tensor(*s.shape(0, 2), s.size()), s.choice(*_NORMS), s.choice(1e-6, 0.1), s.boolean()


@of(f.CDist)
def _cdist(s: Source) -> Arguments:
    first, second = s.broadcastable(2, 2)
    width = s.size()
    # From 26 rows on torch chooses another way, if it is left to it.
    rows = s.choice(s.size(), s.size(), s.size(), 26)
    mode = s.choice(
        "use_mm_for_euclid_dist_if_necessary",
        "use_mm_for_euclid_dist",
        "donot_use_mm_for_euclid_dist",
    )
    p = s.choice(2.0, *_NORMS)
    # By products a small distance is a difference of large numbers, with few digits left.
    far = s.nonzero(*second, s.size(), width, low=2.5, high=5.0)
    return s.tensor(*first, rows, width), far, p, mode


@of(f.PDist)
def _pdist(s: Source) -> Arguments:
    return s.tensor(*s.shape(2, 2)), s.choice(*_NORMS)


@of(f.CosineSimilarity)
def _cosine_similarity(s: Source) -> Arguments:
    shape = s.shape(1, 3)
    return s.nonzero(*shape), s.nonzero(*shape), s.axis(len(shape)), s.choice(1e-8, 1e-4)
