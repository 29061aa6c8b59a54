"""Arguments of reductions: over one axis, several, or all."""

from __future__ import annotations

import math
from typing import Any

from manualbp import formulas as f
from manualbp.verification.samples.source import Source
from manualbp.verification.samples.table import of

Arguments = tuple[Any, ...]


def _dim(s: Source, axes: int) -> int | tuple[int, ...] | None:
    """One axis, several, or None for all."""
    kind = s.choice("all", "one", "some")
    if kind == "all" or not axes:
        return None
    return s.axis(axes) if kind == "one" else s.axes(axes, 1)


@of(f.Sum, f.Mean)
def _sum(s: Source) -> Arguments:
    x = s.tensor(*s.shape())
    return x, _dim(s, x.dim()), s.boolean(), x.shape


@of(f.NanSum)
def _nansum(s: Source) -> Arguments:
    x = s.tensor(*s.shape())
    return x, _dim(s, x.dim()), s.boolean()


# Of none there is no largest, and no norm in which it counts: no axis is empty.


@of(f.Amax, f.Amin)
def _amax(s: Source) -> Arguments:
    x = s.tensor(*s.sizes(0, 3))
    return x, _dim(s, x.dim()), s.boolean()


@of(f.LogSumExp)
def _logsumexp(s: Source) -> Arguments:
    x = s.tensor(*s.shape(1))
    dim = s.axis(x.dim()) if s.boolean() else s.axes(x.dim(), 1)
    return x, dim, s.boolean()


@of(f.Cumsum, f.Cumprod)
def _cumsum(s: Source) -> Arguments:
    x = s.tensor(*s.shape())
    return x, s.axis(x.dim())


@of(f.Prod)
def _prod(s: Source) -> Arguments:
    x = s.tensor(*s.shape())
    return x, s.axis(x.dim()) if s.boolean() else None, s.boolean()


@of(f.Var, f.Std)
def _var(s: Source) -> Arguments:
    # Of a single number there is no variance, or it is 0, where its root has no derivative.
    x = s.tensor(*(s.size(2) for _ in range(s.integer(1, 3))))
    return x, _dim(s, x.dim()), s.choice(1, 0, 0.5), s.boolean()


_NORMS = (2.0, 1.0, 3.0, math.inf, 0.0, 0.5, -math.inf, -1.0)


@of(f.Norm)
def _norm(s: Source) -> Arguments:
    x = s.nonzero(*s.sizes(0, 3))
    return x, s.choice(*_NORMS), _dim(s, x.dim()), s.boolean()


@of(f.Dist)
def _dist(s: Source) -> Arguments:
    first, second = (tuple(max(n, 1) for n in shape) for shape in s.broadcastable(2))
    # No difference is near to 0, of which some norms have no derivative.
    return s.nonzero(*first, low=1.0), s.tensor(*second, low=-0.7, high=0.7), s.choice(*_NORMS)


@of(f.PickOne)
def _pick_one(s: Source) -> Arguments:
    return s.tensor(*s.sizes(0, 3)), s.choice("max", "min", "median", "nanmedian")


@of(f.PickAlong)
def _pick_along(s: Source) -> Arguments:
    x = s.tensor(*s.sizes(1, 3))
    dim, keepdim = s.axis(x.dim()), s.boolean()
    which = s.choice("max", "min", "median", "nanmedian", "kthvalue", "topk", "sort")
    options: dict[str, Any] = {}
    if which in ("kthvalue", "topk"):
        options["k"] = s.integer(1, x.shape[dim])
    if which == "topk":
        options |= {"largest": not s.boolean(), "sorted": not s.boolean()}
    elif which == "sort":
        options |= {"descending": s.boolean(), "stable": s.boolean()}
    else:
        options["keepdim"] = keepdim
    return x, which, dim, options.get("keepdim", True), options, x.shape
