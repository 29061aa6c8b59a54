"""Whether two functions agree: in value, gradient and second order, or in how they refuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map


class Outcome(NamedTuple):
    """What a call gave; of three lists those up to the first error, and that error."""

    values: tuple[Tensor, ...] = ()
    differentiable: tuple[bool, ...] = ()
    gradients: tuple[Tensor | None, ...] = ()
    second: tuple[Tensor | None, ...] = ()
    error: tuple[str, Exception] | None = None


def outcome(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    more: Sequence[Tensor] = (),
    order: int = 2,
    rounded: torch.dtype | None = None,
) -> Outcome:
    """The values of ``function`` and the gradients of its arguments and of ``more``.

    The gradients that arrive from above are random, the same for every function, and rounded to
    the dtype ``rounded``, by default that of the value.
    """
    generator = torch.Generator().manual_seed(1)

    def random(like: Tensor) -> Tensor:
        dtype = torch.cdouble if like.is_complex() else torch.double
        drawn = torch.randn(like.shape, generator=generator, dtype=dtype)
        return drawn.to(rounded or like.dtype).to(like.dtype)

    leaves = wanting((args, kwargs, *more))
    torch.manual_seed(0)
    result = Outcome()
    try:
        found = function(*args, **kwargs)
    except Exception as error:
        return result._replace(error=("value", error))
    values = tensors(found if isinstance(found, (tuple, list, dict, Tensor)) else [*found])
    result = result._replace(
        values=tuple(v.detach() for v in values),
        differentiable=tuple(v.requires_grad for v in values),
    )
    given = [v for v in values if v.requires_grad]
    if not (given and leaves and order):
        return result
    g = [random(v).requires_grad_(order > 1) for v in given]
    try:
        gradients = torch.autograd.grad(given, leaves, g, allow_unused=True, create_graph=order > 1)
    except Exception as error:
        return result._replace(error=("gradient", error))
    result = result._replace(gradients=tuple(x if x is None else x.detach() for x in gradients))
    given = [x for x in gradients if x is not None and x.requires_grad]
    if not given or order == 1:
        return result
    try:
        again = torch.autograd.grad(given, [*leaves, *g], [*map(random, given)], allow_unused=True)
    except Exception as error:
        return result._replace(error=("second order", error))
    return result._replace(second=again)


def tensors(values: Any) -> list[Tensor]:
    """The tensors in a tree, each once."""
    found = (t for t in tree_leaves(values) if isinstance(t, Tensor))
    return [*{id(t): t for t in found}.values()]


def wanting(values: Any) -> list[Tensor]:
    return [t for t in tensors(values) if t.requires_grad]


def refused_alike(ours: Outcome, theirs: Outcome) -> str | None:
    """How one refuses and the other does not, or by another type; torch's second order may fail."""
    mine, its = ours.error, theirs.error
    if its is None or (mine is None and its[0] == "second order"):
        return mine and f"{mine[0]}: ours raises {mine[1]!r:.200}; torch does not"
    if mine is None:
        return f"{its[0]}: torch raises {its[1]!r:.200}; ours does not"
    if mine[0] != its[0] or not isinstance(mine[1], type(its[1])):
        return f"ours raises {mine[1]!r:.150} ({mine[0]}); torch {its[1]!r:.150} ({its[0]})"
    return None


def disagreement(
    ours: Outcome,
    theirs: Outcome,
    *,
    rtol: float = 1e-9,
    atol: float = 1e-11,
    at_nan: bool = True,
) -> str | None:
    """Where two outcomes differ first; gradients may by 10 times as much, second order by 100.

    Without ``at_nan`` derivatives are not compared in the places where torch's are nan.
    """
    found = refused_alike(ours, theirs) or _unlike(ours, theirs)
    if found:
        return found
    kinds = ("values", "gradients", "second")[: 2 if theirs.error else 3]
    for factor, kind in enumerate(kinds):
        pairs = _pairs(getattr(ours, kind), getattr(theirs, kind))
        for i, (mine, its) in enumerate(pairs):
            if not at_nan and factor:
                mine = torch.where(its.isnan(), its, mine)
            try:
                scale = 10**factor
                torch.testing.assert_close(
                    mine, its, rtol=rtol * scale, atol=atol * scale, equal_nan=True
                )
            except AssertionError as error:
                return f"{kind}[{i}]: {' '.join(str(error).split())}"
    return None


def imprecision(
    ours: Outcome, theirs: Outcome, exact: Outcome, coarsest: torch.dtype | None = None
) -> str | None:
    """Where ours is further from the exact outcome than twice torch's own and a few roundings.

    Of entries that torch's own makes infinite or nan nothing is asked.
    """
    found = refused_alike(ours, theirs) or _unlike(ours, theirs)
    if found:
        return found
    for kind in ("values", "gradients"):
        mine, its = getattr(ours, kind), getattr(theirs, kind)
        right = (*getattr(exact, kind), *(None for _ in its))
        for i, (a, b) in enumerate(_pairs(mine, its)):
            if (a.dtype, a.shape) != (b.dtype, b.shape):
                return f"{kind}[{i}]: {a.dtype} {a.shape}; torch's {b.dtype} {b.shape}"
            if not a.dtype.is_floating_point:
                if not torch.equal(a, b):
                    return f"{kind}[{i}]: {a}; torch's {b}"
                continue
            c = right[i] if right[i] is not None and right[i].shape == b.shape else b
            eps = max(torch.finfo(d).eps for d in (b.dtype, coarsest or b.dtype))
            usual = b.isfinite() & c.isfinite()
            a, b, c = a.double()[usual], b.double()[usual], c.double()[usual]
            if not a.numel():
                continue
            error, its_error = (a - c).abs().max(), (b - c).abs().max()
            # Where terms of size 1 cancel, what is left is their rounding.
            if not error <= 2 * its_error + 4 * eps * (1 + c.abs().max()):
                return f"{kind}[{i}]: off by {error:.2g}; torch's own by {its_error:.2g}"
    return None


def _unlike(ours: Outcome, theirs: Outcome) -> str | None:
    if len(ours.values) != len(theirs.values):
        return f"{len(ours.values)} values; torch has {len(theirs.values)}"
    if ours.differentiable != theirs.differentiable:
        return f"requires_grad is {ours.differentiable}; torch's {theirs.differentiable}"
    return None


def _pairs(ours: Sequence[Any], theirs: Sequence[Any]) -> list[tuple[Tensor, Tensor]]:
    """No gradient, and a gradient of zeros, are one."""
    length = max(len(ours), len(theirs))
    ours, theirs = ((*x, *(None for _ in range(length - len(x)))) for x in (ours, theirs))
    pairs = []
    for mine, its in zip(ours, theirs, strict=True):
        if mine is not None or its is not None:
            mine = torch.zeros_like(its) if mine is None else mine
            pairs.append((mine, torch.zeros_like(mine) if its is None else its))
    return pairs


def coarse(values: Any) -> bool:
    """Whether a tensor is of less than double precision."""
    return any(
        (t.is_floating_point() or t.is_complex()) and torch.finfo(t.dtype).bits < 64
        for t in tensors(values)
    )


def doubled(values: Any) -> Any:
    """The same values in float64."""

    def double(value: Any) -> Any:
        if isinstance(value, torch.dtype):
            return torch.double if value.is_floating_point else value
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.detach().double().requires_grad_(value.requires_grad)
        return value

    return tree_map(double, values)
