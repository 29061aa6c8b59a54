"""Is it the derivative? At the inputs given, and wherever else the function has a value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from manualbp.verification.diagnosis import describe
from manualbp.verification.examination import BackwardRaised, Examination, first_line
from manualbp.verification.numbers import distance, upstream_like
from manualbp.verification.points import moved, of_batch
from manualbp.verification.subject import Point
from manualbp.verification.truth import Truth

#: how often a point is drawn anew near a kink
REDRAWN = 4


def at_the_inputs(ex: Examination) -> None:
    """The gradients at the inputs given, beside central differences.

    Sets ``ex.base``: a point where the function has a derivative, or None.
    """
    name = "central differences" if ex.surrogate is None else "the surrogate's gradient"
    point = ex.subject.given
    for number in range(REDRAWN + 1):
        there = moved(point, number, 0.02 * number) if number else point
        try:
            settled = ex.judge(there, name)
        except BackwardRaised as raised:
            ex.find(
                "raises", f"the backward pass raises {first_line(raised)}", _slot_in(ex, raised)
            )
            ex.stopped = True
            return
        except Exception:
            if number == 0:
                raise
            continue
        if settled:
            _unmarked(ex, there)
            ex.base = there
            if number:
                ex.find("kink", "no derivative at the inputs given; others were drawn near them")
            return
    ex.base = point
    if not ex.truth(point).finite:
        ex.skip(name, "the value is not finite at the inputs")
        ex.stopped = True
        return
    ex.skip(name, "no point with a derivative was found near the inputs")


def _unmarked(ex: Examination, point: Point) -> None:
    """Where no output that requires a gradient depends on anything, are the others wrongly cut?"""
    subject = ex.subject
    used, every = subject.positions, subject.floating
    if ex.failed or not used or len(used) == len(every):
        return
    slots = range(len(subject.slots))
    probes = [ex.truth(point).probe([i]) for i in slots]
    if any(p is None or bool(p.slopes.any()) for p in probes):
        return
    subject.positions = every
    wider = Truth(subject, point, ex.dtype)
    for i in slots:
        probe = wider.probe([i])
        if probe is not None and bool((probe.slopes.abs() > 1e-6 * probe.scale).any()):
            told = "no gradient arrives: the output that depends on it does not require one (is it "
            ex.find("wrong", told + "detached, or marked as not differentiable?)", i)
    subject.positions = used


def _slot_in(ex: Examination, raised: BackwardRaised) -> int | None:
    """The slot whose gradient the engine refused: it names it by its position."""
    found = re.search(r"gradient at index (\d+)", str(raised))
    indices = [slot.index for slot in ex.subject.slots]
    if found is None or ex.subject.module is not None or int(found[1]) not in indices:
        return None
    return indices.index(int(found[1]))


def at_other_points(ex: Examination) -> None:
    """The same at points that are derived from the inputs: a wrong rule may be right at some."""
    name = "other points"
    meant = ex.surrogate is not None and _as_surrogate(ex, ex.base)
    for point, note, kind in _points(ex):
        try:
            if meant and not _as_surrogate(ex, point):
                ex.skip(name, "where the surrogate has another value, as it has not at the inputs")
                continue
            ex.judge(point, name, f"{note}: " if note else "", entries=False, together=True)
        except BackwardRaised as raised:
            ex.note(kind, f"{note}: the backward pass raises {first_line(raised)}")
        except Exception:  # the function has no value there
            ex.skip(name, "where the function has no value")


def _as_surrogate(ex: Examination, point: Point) -> bool:
    """Whether the surrogate has the same value: then it differs in its derivative alone."""
    own = ex.subject.value(point, ex.dtype)
    theirs = ex.subject.value(point, ex.dtype, f=ex.surrogate)
    return all(distance(b, a) < 1e-8 for a, b in zip(own, theirs, strict=True))


def _points(ex: Examination) -> Iterator[tuple[Point, str, str]]:
    """Points, what is special about each, and what it means if the backward pass raises there."""
    base = ex.base
    yield moved(base, 7, 0.3), "", "unsupported"
    inputs = [i for i, slot in enumerate(ex.subject.slots) if slot.index is not None]
    groups = [inputs, *([i] for i in inputs if len(inputs) > 1)] if inputs else []
    if ex.truth(base).seconds > 2e-3 or not ex.thorough:
        groups = groups[:1]
    # In single precision the differences of large numbers are mostly rounding.
    for change, note in _CHANGES if ex.eps < 1e-12 else _CHANGES[:3]:
        # 0 to the power of 0 is no fault: zeros are tried in one input at a time.
        zero = change in (_some_zero, torch.zeros_like)
        for group in [[i] for i in inputs] if zero else groups:
            values = list(base.values)
            for i in group:
                if not values[i].is_complex():
                    values[i] = change(values[i].detach().double())
            yield replace(base, values=values), f"only {note}", "unsupported"
    if (other := of_batch(ex.subject, base, ex.dtype, 1)) is not None:
        yield other, "only for a batch of one", "raises"
    elif (other := of_batch(ex.subject, base, ex.dtype, None)) is not None:
        yield other, "only for a larger batch", "unsupported"
    if ex.subject.module is not None:
        mode = not base.training
        named = "training" if mode else "eval"
        yield replace(base, training=mode), f"only in {named} mode", "raises"


def _some_zero(x: Tensor) -> Tensor:
    flat = x.flatten().clone()
    flat[::3] = 0.0
    return flat.reshape(x.shape)


_CHANGES: tuple[tuple[Callable[[Tensor], Tensor], str], ...] = (
    (lambda x: -x.abs() - 0.01, "for negative inputs"),
    (lambda x: x.abs() + 0.01, "for positive inputs"),
    (lambda x: 6.0 * x, "for large inputs"),
    (lambda x: 40.0 * x, "for large inputs (40 times those given)"),
    (lambda x: 400.0 * x, "for large inputs (400 times those given)"),
    (lambda x: -40.0 * x, "for large inputs (40 times those given, negative)"),
    (lambda x: 0.01 * x, "for small inputs"),
    (_some_zero, "where inputs are 0"),
    (torch.zeros_like, "where all inputs are 0"),
)


def without_an_argument(ex: Examination) -> None:
    """Where an argument may be None, the gradients of the others are right too."""
    subject = ex.subject
    for i, slot in enumerate(subject.slots):
        if slot.index is None or len(subject.slots) < 2:
            continue
        others, kept = list(ex.base.others), [j for j in range(len(subject.slots)) if j != i]
        others[slot.index] = None
        reduced = subject.without(i)
        point = Point([ex.base.values[j] for j in kept], others, ex.base.training)
        inner = ex.like(reduced)
        try:
            inner.subject.choose_outputs(point, ex.dtype)
            inner.judge(point, "None for an argument", f"only where {slot.name} is None: ")
        except BackwardRaised as raised:
            ex.note("unsupported", f"{slot.name} = None: {first_line(raised)}")
        except Exception:
            continue
        finally:
            subject.choose_outputs(ex.base, ex.dtype)
        ex.adopt(inner)


# ------------------------------------------------------------------------------- what arrives


def of_any_layout(ex: Examination) -> None:
    """Gradients that arrive expanded, transposed, narrowed, zero, large."""
    name = "layouts of the gradient that arrives"
    raised_for: dict[str, list[str]] = {}
    wrong_for: dict[int, list[tuple[str, float, str]]] = {}
    for told, layout in _LAYOUTS:

        def arriving(
            outputs: Sequence[Tensor], layout: Callable[[Tensor], Tensor] = layout
        ) -> list[Tensor]:
            return [layout(g) for g in upstream_like(outputs, 1)]

        def alike(
            outputs: Sequence[Tensor], layout: Callable[[Tensor], Tensor] = layout
        ) -> list[Tensor]:
            return [
                layout(g).clone(memory_format=torch.contiguous_format)
                for g in upstream_like(outputs, 1)
            ]

        try:
            pulled = ex.pull(ex.base, arriving)
        except BackwardRaised as raised:
            raised_for.setdefault(first_line(raised), []).append(told)
            continue
        beside = ex.pull(ex.base, alike)
        for i, found in pulled.grads.items():
            error = distance(found, beside.grads[i])
            ex.check(name).saw(error)
            if i not in ex.accused and ex.differs(error, pulled, i):
                kind = "wrong" if found is None or bool(found.isfinite().all()) else "nan"
                wrong_for.setdefault(i, []).append((told, error, kind))
        if not ex.failed and not wrong_for:
            ex.judge(ex.base, name, f"only for {told}: ", upstream=alike)
    for line, layouts in raised_for.items():
        ex.find("raises", f"only for {', '.join(layouts)}: the backward pass raises {line}")
    for i, wrong in wrong_for.items():
        layouts = [told for told, _, _ in wrong]
        worst = max(error for _, error, _ in wrong)
        ex.find(wrong[0][2], f"is wrong only for {', '.join(layouts)}", i, worst)


def _narrowed(g: Tensor) -> Tensor:
    if not g.ndim:
        return g
    wide = torch.cat([g, 7 * g, g], -1)
    return wide.narrow(-1, g.shape[-1], g.shape[-1]).div_(7)


def _gaps(g: Tensor) -> Tensor:
    apart = g.new_full((*g.shape, 2), torch.nan)
    apart[..., 0] = g
    return apart[..., 0]


_LAYOUTS: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    (
        "an expanded gradient, as of sum()",
        lambda g: g.reshape(-1)[:1].reshape(()).expand(g.shape) if g.numel() else g,
    ),
    ("a gradient expanded over its first axis", lambda g: g[:1].expand(g.shape) if g.ndim else g),
    (
        "a transposed gradient",
        lambda g: g.transpose(0, -1).contiguous().transpose(0, -1) if g.ndim > 1 else g,
    ),
    ("a narrowed gradient, as of cat()", _narrowed),
    ("a strided gradient", _gaps),
    ("a gradient of zeros", torch.zeros_like),
    ("a large gradient", lambda g: 1e3 * g),
    ("a small gradient", lambda g: 1e-3 * g),
)


def of_one_input(ex: Examination) -> None:
    """Each input alone wants a gradient; all but one do."""
    count = len(ex.subject.slots)
    if count < 2:
        return
    together = ex.pull(ex.base)
    groups = [([i], "only when it alone requires a gradient") for i in range(count)]
    if 2 < count <= 6:
        groups += [
            ([j for j in range(count) if j != i], f"only when {slot.name} requires no gradient")
            for i, slot in enumerate(ex.subject.slots)
        ]
    for wanted, note in groups:
        try:
            pulled = ex.pull(ex.base, wanted=wanted)
        except BackwardRaised as raised:
            ex.find("raises", f"{note}: the backward pass raises {first_line(raised)}", wanted[0])
            continue
        for i, found in pulled.grads.items():
            error = distance(found, together.grads[i])
            ex.check("each input alone").saw(error)
            if ex.differs(error, together, i):
                how = describe(ex.wrong(ex.base, pulled, i, found, _known(together.grads[i])))
                ex.find("wrong", f"{note}: {how}", i, error)


def _known(grad: Tensor | None) -> Tensor:
    assert grad is not None
    return grad


def of_one_output(ex: Examination) -> None:
    """Each output alone is used, so the gradients of the others are undefined."""
    outputs = ex.pull(ex.base).run.outputs
    if len(outputs) < 2:
        return
    for k in range(len(outputs)):
        note = f"only where output {k} alone is used: "
        try:
            ex.judge(ex.base, "each output alone", note, outputs=[k])
        except BackwardRaised as raised:
            ex.find("raises", f"{note}the backward pass raises {first_line(raised)}")


def of_any_strides(ex: Examination) -> None:
    """Inputs of other strides give the same value and the same gradient."""
    base = ex.base
    if ex.random:
        ex.skip("inputs of other strides", "what is drawn may follow the strides")
        return
    values = [_restrided(v) for v in base.values]
    others = [_restrided(v) if isinstance(v, Tensor) else v for v in base.others]
    slots = [slot.index is not None for slot in ex.subject.slots]
    values = [s if own else v for s, own, v in zip(values, slots, base.values, strict=True)]
    point = replace(base, values=values, others=others)
    name = "inputs of other strides"
    expected = ex.pull(base)
    try:
        pulled = ex.pull(point)
    except BackwardRaised as raised:
        told = f"only for strided inputs: the backward pass raises {first_line(raised)}"
        ex.find("raises", told)
        return
    except Exception as raised:
        ex.find("unsupported", f"strided inputs: {first_line(raised)}")
        return
    for value, twin in zip(pulled.run.outputs, expected.run.outputs, strict=True):
        if distance(value, twin) > max(1e-8, ex.rounding):
            ex.find("wrong", "the value is another for strided inputs", None)
            return
    for i, found in pulled.grads.items():
        error = distance(found, expected.grads[i])
        ex.check(name).saw(error)
        if ex.differs(error, expected, i):
            ex.find("wrong", "is wrong only for strided inputs", i, error)


def _restrided(t: Tensor) -> Tensor:
    t = t.detach()
    if t.ndim > 1:
        return t.movedim(0, -1).contiguous().movedim(-1, 0)
    if t.ndim == 1 and t.numel():
        return torch.stack([t, t], -1)[:, 0]
    return t
