"""What a wrong gradient looks like, in a line that tells where to look in the code."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

#: two tensors are alike up to this, by the largest entry
ALIKE = 1e-5


@dataclass
class Wrong:
    """A gradient that is not right, and what is known around it.

    Attributes:
        found: the gradient, or None.
        expected: what it should be, of the same shape.
        value: the slot at which it was found.
        upstream: the gradients that arrived, one for each output.
        outputs: the values.
        expected_for: the right gradient for other gradients from above.
        expected_at: the right gradient where some slots, by name, have other values.
        argument: the name of the slot.
        values: of all slots, by name.
        others: the right gradients of other slots, by name.
        shapes: of all inputs: the sizes that a mean could be over.
        indices: the inputs that are whole numbers, by name.
    """

    found: Tensor | None
    expected: Tensor
    value: Tensor
    upstream: list[Tensor]
    outputs: list[Tensor]
    expected_for: Callable[[list[Tensor]], Tensor | None]
    expected_at: Callable[[dict[str, Tensor]], Tensor | None]
    argument: str = ""
    values: Mapping[str, Tensor] = field(default_factory=dict)
    others: Mapping[str, Tensor] = field(default_factory=dict)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    indices: Mapping[str, Tensor] = field(default_factory=dict)


def describe(wrong: Wrong) -> str:
    """The first explanation that fits; else by how much the gradient is off, and where most."""
    if wrong.found is None:
        return "no gradient is returned (None), though the value depends on it"
    # What is nearly right is not explained by what is right of another form.
    near = alike(wrong.found, wrong.expected, 10 * ALIKE)
    for explanation in (_factor,) if near else EXPLANATIONS:
        told = explanation(wrong)
        if told:
            return told
    return _by_how_much(wrong.found, wrong.expected)


def alike(a: Tensor, b: Tensor, tolerance: float = ALIKE) -> bool:
    """Whether two tensors of one shape hold the same numbers, and not only zeros."""
    if a.shape != b.shape or not b.numel():
        return False
    scale = float(b.abs().max())
    return scale > 0 and float((a - b).abs().max()) <= tolerance * scale


# ------------------------------------------------------------------------------- explanations


def _zero(w: Wrong) -> str | None:
    if not bool(w.found.any()):  # type: ignore[union-attr]
        return "is zero, though the value depends on it"
    return None


def _vanishes(w: Wrong) -> str | None:
    """The right one is zero: what is it that should not be there?"""
    scale = float(w.found.abs().max())  # type: ignore[union-attr]
    if float(w.expected.abs().max()) > 1e-9 * scale:
        return None
    return f"is not zero (up to {scale:.3g}), though the value does not depend on it"


def _factor(w: Wrong) -> str | None:
    factor = _ratio(w.found, w.expected)  # type: ignore[arg-type]
    if factor is None:
        return None
    if abs(factor + 1) < 1e-6:
        return "has the wrong sign"
    sign = "has the wrong sign and " if factor < 0 else ""
    size = abs(factor)
    for n, name in _counts(w):
        if n > 2 and abs(size / n - 1) < 1e-6:
            return f"{sign}is {n} × the derivative: 1/n missing, n = {n}{name}"
        if n > 2 and abs(size * n - 1) < 1e-6:
            return f"{sign}is 1/{n} of the derivative: 1/n too often, n = {n}{name}"
    return f"{sign}is {size:.{_digits(size)}f} × the derivative"


def _digits(size: float) -> int:
    return max(3, math.ceil(-math.log10(max(abs(size - 1), 1e-9))) + 1) if size != 1 else 3


def _ratio(a: Tensor, b: Tensor, tolerance: float = ALIKE) -> float | None:
    """c where a = c b."""
    square = float((b * b).sum())
    if square == 0:
        return None
    factor = float((a * b).sum()) / square
    off = float((a - factor * b).abs().max())
    limit = min(tolerance, 0.01 * abs(factor - 1))
    return factor if off <= limit * float(a.abs().max()) else None


def _counts(w: Wrong) -> Iterator[tuple[int, str]]:
    """The numbers that a mean could be over, with a word for each."""
    seen: set[int] = set()
    shapes = [*(tuple(t.shape) for t in w.outputs), *w.shapes]
    named = [(s[0], " (examples)") for s in shapes if s]
    named += [(n, "") for s in shapes for n in s]
    named += [(math.prod(s), " (all entries)") for s in shapes]
    named += [(math.prod(s[1:]), "") for s in shapes] + [(math.prod(s[2:]), "") for s in shapes]
    for n, name in named:
        if n not in seen:
            seen.add(n)
            yield n, name


def _transposed(w: Wrong) -> str | None:
    for a, b in itertools.combinations(range(w.expected.ndim), 2):
        if w.expected.shape[a] == w.expected.shape[b]:
            swapped = w.expected.transpose(a, b)
            if not alike(swapped, w.expected) and alike(w.found, swapped):  # type: ignore[arg-type]
                axes = "" if w.expected.ndim == 2 else f" in axes {a} and {b}"
                return f"is transposed{axes}"
    return None


def _another(w: Wrong) -> str | None:
    for name, gradient in w.others.items():
        if gradient.shape == w.found.shape and alike(w.found, gradient):  # type: ignore
            return f"is that of {name}: the gradients are returned in another order"
    return None


def _permuted(w: Wrong) -> str | None:
    found, expected = w.found, w.expected
    for axis in range(expected.ndim):
        n = expected.shape[axis]
        if not 2 <= n <= 64:
            continue
        f, e = found.movedim(axis, 0).reshape(n, -1), expected.movedim(axis, 0).reshape(n, -1)  # type: ignore
        scale = float(e.abs().max())
        distances = torch.cdist(f, e, p=float("inf"))
        nearest = distances.argmin(1)
        if float(distances.min(1).values.max()) > ALIKE * scale:
            continue
        what = _axis(axis, expected.ndim)
        if len(set(nearest.tolist())) == 1:
            first = ", the first" if int(nearest[0]) == 0 else ""
            return f"is equal for every {what}: that of {what} {int(nearest[0])}{first}"
        if sorted(nearest.tolist()) == list(range(n)):
            pairs = [f"{i} gets that of {j}" for i, j in enumerate(nearest.tolist()) if i != j]
            return f"has its {what}s swapped along axis {axis}: {pairs[0]}"
        if float(e.abs().min(1).values.max()) > 0:
            return f"has the wrong {what}s along axis {axis}: {nearest.tolist()}"
    return None


def _axis(axis: int, ndim: int) -> str:
    if ndim == 1:
        return "entry"
    return ("row" if axis == 0 else "column") if ndim == 2 else f"slice along axis {axis}"


def _one_row(w: Wrong) -> str | None:
    """Only some rows along an axis are right, and the others are zero, or hold too much."""
    found, expected = w.found, w.expected
    for axis in range(expected.ndim):
        n = expected.shape[axis]
        if n < 2:
            continue
        f, e = found.movedim(axis, 0).reshape(n, -1), expected.movedim(axis, 0).reshape(n, -1)  # type: ignore
        scale = float(e.abs().max())
        right = (f - e).abs().max(1).values <= ALIKE * scale
        zero = (f.abs().max(1).values == 0) & ~right
        what = _axis(axis, expected.ndim)
        if bool(zero.any()):
            rest = ~zero & ~right
            if not bool(rest.any()):
                return f"is zero for {_numbers(zero, what)}, right for {_numbers(right, what)}"
            if int(rest.sum()) == 1 and alike(f[rest][0], e.sum(0)):
                return f"has the sum over axis {axis} in {_numbers(rest, what)}, zero elsewhere"
            if not bool(right.any()) and int(rest.sum()) == 1:
                last = f[rest][0]
                for i in range(n):
                    if alike(last, e[i]):
                        return (
                            f"has that of {what} {i} in {_numbers(rest, what)}, zero elsewhere: "
                            "every one is written to the same place"
                        )
                return f"is zero but for {_numbers(rest, what)}"
        elif 0 < int((~right).sum()) <= n // 2 and n > 2 and int((~right).sum()) <= 8:
            part = _ratio(f[~right], e[~right])
            told = f"is {part:.3f} × the derivative" if part is not None else "is wrong"
            told = "has the wrong sign" if part is not None and abs(part + 1) < 1e-6 else told
            return f"{told} for {_numbers(~right, what)} alone"
    return None


def _numbers(mask: Tensor, what: str) -> str:
    which = mask.nonzero().reshape(-1).tolist()
    plural = what.replace("entry", "entries") if what == "entry" else f"{what}s"
    plural = (
        plural.replace("slice along axis", "slices along axis").rstrip("s")
        if "slice" in what
        else plural
    )
    shown = ", ".join(map(str, which[:4])) + (", …" if len(which) > 4 else "")
    if len(which) == 1:
        return f"{what} {shown}" if "slice" not in what else f"index {shown} of {what[6:]}"
    return f"{plural} {shown}" if "slice" not in what else f"indices {shown} of {what[6:]}"


def _not_summed(w: Wrong) -> str | None:
    """It is the gradient for a part of what arrives: one example of a batch, say."""
    for k, g in enumerate(w.upstream):
        for axis in range(g.ndim):
            n = g.shape[axis]
            if not 2 <= n <= 16:
                continue
            for i in (0, n - 1):
                one = torch.zeros_like(g)
                one.select(axis, i).copy_(g.select(axis, i))
                part = w.expected_for([*w.upstream[:k], one, *w.upstream[k + 1 :]])
                if part is None or alike(part, w.expected):
                    continue
                if alike(w.found, part):  # type: ignore[arg-type]
                    return (
                        f"is that of index {i} alone{', the first' if i == 0 else ''}: it is not "
                        f"summed over axis {axis} of the output"
                    )
    return None


def _some_outputs(w: Wrong) -> str | None:
    for k in range(len(w.upstream)):
        if len(w.upstream) < 2:
            return None
        without = [torch.zeros_like(g) if i == k else g for i, g in enumerate(w.upstream)]
        part = w.expected_for(without)
        if part is None or alike(part, w.expected):
            continue
        if alike(w.found, part):  # type: ignore[arg-type]
            return f"misses what arrives for output {k}"
        only = [g if i == k else torch.zeros_like(g) for i, g in enumerate(w.upstream)]
        part = w.expected_for(only)
        if part is not None and alike(w.found, part):  # type: ignore[arg-type]
            return f"counts what arrives for output {k} alone"
    return None


def _upstream_replaced(w: Wrong) -> str | None:
    """It is right for another gradient from above: ones, a mean, one in another order."""
    candidates: list[tuple[str, list[Tensor]]] = [
        ("takes the gradient that arrives for ones", [torch.ones_like(g) for g in w.upstream]),
        ("takes the mean of the gradient that arrives for all of it",
         [g.mean().expand_as(g).clone() for g in w.upstream]),
        ("uses the absolute value of the gradient that arrives", [g.abs() for g in w.upstream]),
        ("uses the sign of the gradient that arrives alone", [g.sign() for g in w.upstream]),
        ("uses the square of the gradient that arrives", [g * g for g in w.upstream]),
    ]  # fmt: skip
    for axis in range(2):
        if all(g.ndim > axis and g.shape[axis] > 1 for g in w.upstream):
            first = [g.narrow(axis, 0, 1).expand_as(g).clone() for g in w.upstream]
            what = f"takes that of index 0 of axis {axis} of the gradient that arrives for all"
            candidates.append((what, first))
            flipped = [g.flip(axis) for g in w.upstream]
            candidates.append(
                (f"reads the gradient that arrives backwards in axis {axis}", flipped)
            )
    if all(g.ndim == 2 for g in w.upstream):
        mixed = [g.mT.reshape(g.shape) for g in w.upstream]
        candidates.append(("reads the gradient that arrives in another memory order", mixed))
    for told, gs in candidates:
        for factor in (1.0, -1.0):
            part = w.expected_for(gs)
            if part is not None and alike(w.found, factor * part):  # type: ignore[arg-type]
                return told + ("" if factor > 0 else ", with the wrong sign")
    return None


def _another_order(w: Wrong) -> str | None:
    """The right numbers at other places."""
    found, expected = w.found.flatten(), w.expected.flatten()  # type: ignore[union-attr]
    if alike(found.sort().values, expected.sort().values):
        return "holds the right numbers in another order: were axes permuted, or split, wrongly?"
    zero, none = found == 0, expected == 0
    if bool((zero != none).all()):
        return "is zero where the derivative is not, and not where it is: it goes to the others"
    return None


def _slope_elsewhere(w: Wrong) -> str | None:
    """σ′ was taken at a where z was kept, or without being multiplied by what arrives."""
    if len(w.upstream) != 1 or w.upstream[0].shape != w.found.shape:  # type: ignore[union-attr]
        return None
    g = w.upstream[0]
    if alike(w.found, g):  # type: ignore[arg-type]
        return "is the gradient that arrives itself: the derivative is not multiplied by it"
    return None


def _taken_elsewhere(w: Wrong) -> str | None:
    """It is right at another point: an input is left out, transposed, replaced by the value."""
    for name, value in w.values.items():
        if value.is_complex() or value.numel() > 4096:
            continue
        own = name == w.argument
        candidates: list[tuple[str, Tensor]] = []
        for k, output in enumerate(w.outputs):
            if own and output.shape == value.shape:
                which = "the value" if len(w.outputs) == 1 else f"output {k}"
                candidates.append((f"is the derivative at {which}, not at the input", output))
        if value.ndim > 1 and value.shape[-1] == value.shape[-2]:
            candidates.append((f"uses {name} transposed, or not transposed", value.mT.contiguous()))
        if not own:
            candidates += [
                (f"the term that is missing is that of {name}", torch.zeros_like(value)),
                (f"lacks the factor {name}", torch.ones_like(value)),
                (f"uses {name} with the wrong sign", -value),
            ]
        if value.ndim > 1 and value.shape[0] > 1:
            candidates.append((f"uses the rows of {name} in another order", value.flip(0)))
        for told, other in candidates:
            part = w.expected_at({name: other})
            if part is None or alike(part, w.expected):
                continue
            if alike(w.found, part):  # type: ignore[arg-type]
                return told
    return None


def _missing_term(w: Wrong) -> str | None:
    """What is missing is a term of a simple form."""
    missing = w.expected - w.found  # type: ignore[operator]
    scale = float(w.expected.abs().max())
    for k, g in enumerate(w.upstream):
        if g.shape == missing.shape:
            factor = _ratio_of(missing, g)
            if factor is not None and abs(factor) * float(g.abs().max()) > 1e-7 * scale:
                sign = "missing" if factor > 0 else "too much"
                part = f"{abs(factor):.3g} × " if abs(abs(factor) - 1) > 1e-6 else ""
                which = "" if len(w.upstream) == 1 else f" for output {k}"
                return f"the term {part}g{which} (the path straight through) is {sign}"
    for axes in _axes(missing.ndim):
        mean = missing.mean(axes, keepdim=True)
        if missing.numel() > mean.numel() and alike(mean.expand_as(missing), missing):
            return (
                f"the term that is missing is the same along {_along(axes)}: that of a sum or a "
                "mean over it"
            )
    x = w.value
    if x.shape == missing.shape:
        for axes in _axes(missing.ndim):
            for centred in (True, False):
                base = x - x.mean(axes, keepdim=True) if centred else x
                square = (base * base).sum(axes, keepdim=True)
                multiple = (
                    (missing * base).sum(axes, keepdim=True) / square.clamp(min=1e-300) * base
                )
                if square.numel() < missing.numel() and alike(multiple, missing):
                    what = "x minus its mean" if centred else "x"
                    return (
                        f"the term that is missing is a multiple of {what} along {_along(axes)}: "
                        "that of a variance or a norm"
                    )
        factor = _ratio_of(missing, x)
        if factor is not None:
            return f"a term of {abs(factor):.3g} × x is {'missing' if factor > 0 else 'too much'}"
    for name, gradient in w.others.items():
        if gradient.shape == missing.shape and alike(-missing, gradient):
            return f"the gradient of {name} is added to it"
        if gradient.shape == missing.shape and alike(missing, gradient):
            return f"the term that is missing is the gradient of {name}"
    return None


def _ratio_of(a: Tensor, b: Tensor) -> float | None:
    """c where a = c b, whatever c."""
    square = float((b * b).sum())
    if square == 0:
        return None
    factor = float((a * b).sum()) / square
    off = float((a - factor * b).abs().max())
    return factor if factor != 0 and off <= ALIKE * float(a.abs().max()) else None


def _axes(ndim: int) -> Iterator[tuple[int, ...]]:
    """The axes that a layer may normalise over: each alone, the last ones, all but the second."""
    found: list[tuple[int, ...]] = [(axis,) for axis in reversed(range(ndim))]
    found += [tuple(range(start, ndim)) for start in reversed(range(ndim - 1))]
    found += [tuple(a for a in range(ndim) if a != 1)] if ndim > 2 else []
    yield from dict.fromkeys(found)


def _along(axes: tuple[int, ...]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else f"axes {', '.join(map(str, axes))}"


def _where_wrong(w: Wrong) -> tuple[Tensor, str] | None:
    """The entries that are wrong, where others are right, and what is wrong with them."""
    scale = float(w.expected.abs().max())
    wrong = (w.found - w.expected).abs() > ALIKE * max(scale, 1e-300)  # type: ignore[operator]
    if not 0 < int(wrong.sum()) < wrong.numel():
        return None
    part = _ratio_of(w.found[wrong], w.expected[wrong])  # type: ignore[index]
    if not bool(w.found[wrong].any()):  # type: ignore[index]
        return wrong, "is zero"
    if not bool(w.expected[wrong].any()):
        return wrong, "is not zero as it should be"
    if part is not None and int(wrong.sum()) > 1:
        return wrong, "has the wrong sign" if abs(
            part + 1
        ) < 1e-6 else f"is {part:.3f} × the derivative"
    return wrong, "is wrong"


def _by_value(w: Wrong) -> str | None:
    """It is wrong where the input is negative, large, small …, and right elsewhere."""
    found = _where_wrong(w)
    if found is None or w.value.shape != w.expected.shape or w.value.numel() < 4:
        return None
    wrong, told = found
    bad, good = w.value[wrong], w.value[~wrong]
    low, high = float(good.min()), float(good.max())
    where = None
    if float(bad.max()) < low:
        where = (
            "for negative inputs" if float(bad.max()) < 0 <= low else f"for inputs below {low:.3g}"
        )
    elif float(bad.min()) > high:
        where = (
            "for positive inputs"
            if high <= 0 < float(bad.min())
            else f"for inputs above {high:.3g}"
        )
    elif bool(((bad < low) | (bad > high)).all()):
        where = f"for inputs outside [{low:.3g}, {high:.3g}]"
    elif float(bad.abs().max()) < float(good.abs().min()):
        where = f"for inputs smaller than {float(good.abs().min()):.3g}"
    elif bool(((good < bad.min()) | (good > bad.max())).all()):
        where = f"for inputs from {float(bad.min()):.3g} to {float(bad.max()):.3g}"
        where = where if len(bad) > 1 else f"for an input of {float(bad[0]):.3g}"
    return where and f"{told} {where}, right elsewhere"


def _repeated(w: Wrong) -> str | None:
    """It is wrong in the rows whose index occurs more than once."""
    scale = float(w.expected.abs().max())
    wrong = (w.found - w.expected).abs() > ALIKE * max(scale, 1e-300)  # type: ignore[operator]
    for name, index in w.indices.items():
        if index.dtype is torch.bool:
            continue
        numbers, counts = torch.unique(index, return_counts=True)
        often = {int(n) for n, c in zip(numbers, counts, strict=True) if int(c) > 1}
        for axis in range(wrong.ndim):
            rows = wrong.movedim(axis, 0).reshape(wrong.shape[axis], -1).any(1)
            if often and set(rows.nonzero().reshape(-1).tolist()) <= often:
                return (
                    f"is wrong where an index occurs more than once in {name}: the repeats "
                    "overwrite each other (index_add_ adds them up)"
                )
    return None


def _scattered(w: Wrong) -> str | None:
    found = _where_wrong(w)
    if found is None:
        return None
    wrong, told = found
    count, n = int(wrong.sum()), wrong.numel()
    if told == "is wrong" and count > n // 2:
        return None
    places = ", ".join(str(tuple(p)) for p in wrong.nonzero()[:3].tolist())
    return (
        f"{told} at {count} of {n} entries ({places}{', …' if count > 3 else ''}), right elsewhere"
    )


EXPLANATIONS: tuple[Callable[[Any], str | None], ...] = (
    _vanishes,
    _zero,
    _factor,
    _transposed,
    _another,
    _permuted,
    _upstream_replaced,
    _not_summed,
    _some_outputs,
    _another_order,
    _by_value,
    _repeated,
    _one_row,
    _slope_elsewhere,
    _missing_term,
    _taken_elsewhere,
    _scattered,
)


def _by_how_much(found: Tensor, expected: Tensor) -> str:
    off = (found - expected).abs()
    scale = float(expected.abs().max())
    worst = int(off.argmax())
    place = tuple(int(i) for i in torch.unravel_index(torch.tensor(worst), expected.shape))
    cosine = float((found * expected).sum() / (found.norm() * expected.norm()).clamp(min=1e-300))
    where = f"[{', '.join(map(str, place))}]" if place else "it"
    return (
        f"is off by {100 * float(off.max()) / (scale or 1.0):.3g} %: most at {where}, "
        f"{float(found.reshape(-1)[worst]):.6g} for {float(expected.reshape(-1)[worst]):.6g} "
        f"(cosine {cosine:.4f})"
    )
