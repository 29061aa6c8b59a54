"""Arguments of linear functions and products of matrices."""

from __future__ import annotations

from typing import Any

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]


@of(f.Linear)
def _linear(s: Source) -> Arguments:
    *batch, inputs = s.shape(1, 4)
    outputs = s.size()
    return (
        s.tensor(*batch, inputs),
        s.tensor(outputs, inputs),
        s.maybe(lambda: s.tensor(outputs)),
    )


@of(f.Bilinear)
def _bilinear(s: Source) -> Arguments:
    batch, first, second, outputs = s.shape(0, 2), s.size(), s.size(), s.size()
    return (
        s.tensor(*batch, first),
        s.tensor(*batch, second),
        s.tensor(outputs, first, second),
        s.maybe(lambda: s.tensor(outputs)),
    )


@of(f.MatMul)
def _matmul(s: Source) -> Arguments:
    rows, middle, columns = s.batch(), s.size(), s.size()
    kind = s.choice("matrices", "batches", "vector first", "vector last", "vectors")
    first, last = s.broadcastable(2, 2) if kind != "matrices" else ((), ())
    left = (*first, rows, middle) if kind not in ("vector first", "vectors") else (middle,)
    right = (*last, middle, columns) if kind not in ("vector last", "vectors") else (middle,)
    return s.tensor(*left), s.tensor(*right)


@of(f.MatVec)
def _matvec(s: Source) -> Arguments:
    *rows, columns = s.shape(1, 2)
    return s.tensor(*rows, columns), s.tensor(columns)


@of(f.AddMatMul)
def _add_matmul(s: Source) -> Arguments:
    rows, middle, columns = s.batch(), s.size(), s.size()
    kind = s.choice("addmm", "addmv", "baddbmm", "addbmm")
    batch = (s.size(),) if kind in ("baddbmm", "addbmm") else ()
    right = () if kind == "addmv" else (columns,)
    whole = (*(batch if kind == "baddbmm" else ()), rows, *right)
    added = tuple(s.choice(n, n, 1) for n in whole[s.integer(0, len(whole)) :])
    added = added if rows else whole  # of no rows torch mistakes what broadcasts
    return (
        s.tensor(*added),
        s.tensor(*batch, rows, middle),
        s.tensor(*batch, middle, *right),
        s.choice(1, 0.5, -2, 0),
        s.choice(1, 2, -0.5),
        kind == "addbmm",
    )
