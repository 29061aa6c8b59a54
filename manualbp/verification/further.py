"""Beyond the first derivative: second order, forward mode, vmap, torch.compile, empty batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.autograd import forward_ad

from manualbp.verification.differences import sizes_of, slope
from manualbp.verification.examination import Examination, first_line
from manualbp.verification.numbers import distance, upstream_like
from manualbp.verification.points import moved, of_batch
from manualbp.verification.subject import Point, custom_functions, seed

#: what a second derivative by differences may be off
SECOND = 1e-6


# ------------------------------------------------------------------------------- second order


def second_order(ex: Examination) -> None:
    """The gradient of ⟨w, gradient⟩, beside central differences of the gradient."""
    name = "second order"
    for number in range(3):
        point = moved(ex.base, 20 + number, 0.02) if number else ex.base
        settled = _second_order(ex, point)
        if settled is not False:
            return
    ex.skip(name, "no point with a second derivative was found near the inputs")


def _second_order(ex: Examination, point: Point) -> bool | None:
    """True where it was settled, False at a kink, None where it is not offered."""
    run = ex.subject.run(point, ex.dtype)
    us = [g.requires_grad_() for g in upstream_like(run.outputs)]
    used = [k for k, t in enumerate(run.outputs) if t.requires_grad]
    if not used:
        return None
    ends, arriving = [run.outputs[k] for k in used], [us[k] for k in used]
    try:
        grads = torch.autograd.grad(
            ends, run.leaves, arriving, create_graph=True, allow_unused=True
        )
        drawn = iter(upstream_like([g for g in grads if g is not None], 3))
        ws = [None if g is None else next(drawn) for g in grads]
        along = [_inner(w, g) for w, g in zip(ws, grads, strict=True) if _recorded(g)]
        if not along:
            ex.find("unsupported", "second order: the gradient is cut from the graph")
            return None
        # Into .grad: torch.autograd.grad would not visit the node that once_differentiable adds.
        torch.autograd.backward(torch.stack(along).sum())
        again = [leaf.grad for leaf in run.leaves]
        for leaf in run.leaves:
            leaf.grad = None
    except Exception as raised:
        ex.find("unsupported", f"second order: {first_line(raised)}")
        return None

    def value(there: Point, gs: Sequence[Tensor]) -> Tensor:
        pulled = ex.pull(there, lambda _: [*gs], outputs=used)
        found = [
            _inner(w.detach(), g)
            for w, g in zip(ws, pulled.grads.values(), strict=True)
            if w is not None and g is not None
        ]
        return torch.stack([f.double() for f in found]).sum().reshape(1)

    gs = [u.detach() for u in us]
    largest = max((float(gs[k].abs().max()) for k in used if gs[k].numel()), default=0.0)
    settled = True
    for i, found in enumerate(again):
        if i not in ex.accused and not point.values[i].is_complex():
            settled &= _beside_differences(ex, point, i, found, partial(value, gs=gs), largest)
    return settled


def _beside_differences(
    ex: Examination,
    point: Point,
    i: int,
    found: Tensor | None,
    value: Callable[[Point], Tensor],
    largest: float,
) -> bool:
    """The second derivative by one slot beside differences; False at a kink.

    Args:
        ex, point, i: where, and of which slot.
        found: the second derivative.
        value: ⟨w, gradient⟩ at a point.
        largest: of the gradients that arrive.
    """
    x, middle = point.values[i].detach().double(), value(point)
    for number in range(2):
        # A direction of its own for each: of x − y two equal ones see nothing.
        noise = upstream_like([x], 40 + 2 * i + number)[0] * sizes_of(x)

        def there(t: float, v: Tensor = noise) -> Tensor:
            return value(point.at(i, x + t * v))

        measured = slope(there, middle, ex.eps)
        if measured.kink or not measured.finite:
            return False
        products = torch.zeros(1) if found is None else found.detach().double() * noise
        told = float(products.sum())
        expected, doubt = float(measured.value), float(measured.error)
        size = max(abs(expected), float(products.norm()), 1e-9 * float(middle.abs()))
        off = abs(told - expected)
        ex.check("second order").saw(off / size if size else 0.0)
        # Where all of it cancels, rounding is all there is to a second derivative.
        grain = 1e-12 * float(noise.norm()) * largest
        if off > max(SECOND, ex.rounding) * size + 20 * doubt + grain:
            _tell_second(ex, i, told, expected, off / size, found)
            break
    return True


def _recorded(g: Tensor | None) -> bool:
    return g is not None and g.requires_grad


def _inner(w: Tensor | None, g: Tensor | None) -> Tensor:
    assert w is not None and g is not None
    return (w * g).real.sum() if g.is_complex() else (w * g).sum()


def _tell_second(
    ex: Examination, i: int, told: float, expected: float, error: float, found: Tensor | None
) -> None:
    how = "wrong in the second order alone: "
    if found is None or not bool(found.any()):
        how += (
            "the second derivative is zero: what backward uses is cut from the graph (an "
            "intermediate that was saved, .detach() or .data)"
        )
    elif expected and abs(told / expected + 1) < 1e-6:
        how += "it has the wrong sign"
    elif expected and abs(told / expected) < 1e3:
        how += (
            f"along one direction {told:.6g}, by differences {expected:.6g}: was an intermediate "
            "saved, or detached?"
        )
    else:
        how += f"along one direction {told:.6g}, by differences {expected:.6g}"
    ex.find("wrong", how, i, error)


# ------------------------------------------------------------------------------- forward mode


def forward_mode(ex: Examination) -> None:
    """⟨u, J v⟩ = ⟨Jᵀ u, v⟩, where the subject has tangents."""
    name = "forward mode: ⟨u, J v⟩ = ⟨Jᵀ u, v⟩"
    subject, base = ex.subject, ex.base
    if subject.module is not None or ex.dtype is None or ex.surrogate is not None:
        ex.skip(name, "for functions of float64 alone, and their own derivative")
        return
    pulled = ex.pull(base)
    for i in pulled.grads:
        if i in ex.accused or base.values[i].is_complex():
            continue
        v = upstream_like([base.values[i].double()], 5)[0]
        try:
            with forward_ad.dual_level():
                outputs = subject.with_tangent(base, ex.dtype, i, v)
                tangents = [
                    forward_ad.unpack_dual(t).tangent  # type: ignore[no-untyped-call]
                    for t in outputs
                ]
        except Exception as raised:
            ex.find("unsupported", f"forward mode: {first_line(raised)}")
            return
        pushed = [
            (g.double() * t.double()).sum()
            for g, t in zip(pulled.upstream, tangents, strict=True)
            if t is not None
        ]
        found = float(torch.stack(pushed).sum()) if pushed else 0.0
        grad = pulled.grads[i]
        products = torch.zeros(1) if grad is None else grad.detach().double() * v
        size = max(float(products.norm()), abs(found))
        error = abs(found - float(products.sum())) / size if size else 0.0
        ex.check(name).saw(error)
        if ex.differs(error, pulled, i):
            told = "the tangent is missing" if not pushed else f"⟨u, J v⟩ = {found:.6g}, and"
            how = (
                f"wrong in forward mode (jvp) alone: {told} ⟨Jᵀ u, v⟩ = {float(products.sum()):.6g}"
            )
            ex.find("wrong", how, i, error)


# ------------------------------------------------------------------------------- vmap, compile


def mapped(ex: Examination) -> None:
    """vmap over the function, and over the backward pass alone: each example as by itself."""
    name = "vmap"
    subject, base = ex.subject, ex.base
    if subject.module is not None or ex.dtype is None:
        ex.skip(name, "for functions of float64 alone")
        return
    if ex.random:
        ex.skip(name, "what is drawn may follow the values")
        return
    inputs = list(range(len(subject.slots)))
    groups = [inputs, *([i] for i in inputs if len(inputs) > 1)]
    for group in groups:
        if not _mapped(ex, name, group):
            return
    _batched_gradients(ex, base)


def _mapped(ex: Examination, name: str, group: Sequence[int]) -> bool:
    base, subject = ex.base, ex.subject
    points = [base]
    for number in (31, 32):
        near = moved(base, number, 0.05)
        values = [near.values[i] if i in group else v for i, v in enumerate(base.values)]
        points.append(replace(base, values=values))
    try:
        each = [ex.pull(point, partial(upstream_like, number=n)) for n, point in enumerate(points)]
    except Exception:
        return True
    stacked = [torch.stack([p.values[i].double() for p in points]).requires_grad_() for i in group]

    def one(*leaves: Tensor) -> tuple[Tensor, ...]:
        values = [v.detach().double() for v in base.values]
        for i, leaf in zip(group, leaves, strict=True):
            values[i] = leaf
        return tuple(subject.called_with(base, values, ex.dtype))

    try:
        seed()
        outputs = torch.func.vmap(one, randomness="same")(*stacked)
        upstream = [torch.stack(gs) for gs in zip(*(p.upstream for p in each), strict=True)]
        pairs = [(t, g) for t, g in zip(outputs, upstream, strict=True) if t.requires_grad]
        if not pairs:
            return True
        ends, arriving = zip(*pairs, strict=True)
        grads = torch.autograd.grad(ends, stacked, arriving, allow_unused=True)
    except Exception as raised:
        ex.find("unsupported", f"vmap: {first_line(raised)}")
        return False
    values = [torch.stack(ts) for ts in zip(*(p.run.outputs for p in each), strict=True)]
    for found, expected in zip(outputs, values, strict=True):
        error = distance(found, expected)
        ex.check(name).saw(error)
        if error > 1e-8:
            ex.find("wrong", "the value is another under vmap", None, error)
            return False
    for i, found in zip(group, grads, strict=True):
        alone = [p.grads[i] for p in each]
        if any(grad is None for grad in alone):
            continue
        error = distance(found, torch.stack(alone))  # type: ignore[arg-type]
        ex.check(name).saw(error)
        if error > 1e-8 and ex.differs(error, each[0], i):
            ex.find("wrong", "is wrong only under vmap", i, error)
    return True


def _batched_gradients(ex: Examination, base: Point) -> None:
    run = ex.subject.run(base, ex.dtype)
    used = [t for t in run.outputs if t.requires_grad]
    several = [upstream_like(used, number) for number in (50, 51, 52)]
    each = []
    try:
        for gs in several:
            each.append(
                torch.autograd.grad(used, run.leaves, gs, retain_graph=True, allow_unused=True)
            )
        stacked = [torch.stack(gs) for gs in zip(*several, strict=True)]
        together = torch.autograd.grad(
            used, run.leaves, stacked, allow_unused=True, is_grads_batched=True
        )
    except Exception as raised:
        ex.find("unsupported", f"vmap over the backward pass: {first_line(raised)}")
        return
    for i, found in enumerate(together):
        if any(grads[i] is None for grads in each):
            continue
        error = distance(found, torch.stack([grads[i] for grads in each]))
        ex.check("vmap").saw(error)
        if error > 1e-8:
            ex.find("wrong", "is wrong only where vmap maps the backward pass", i, error)


def compiled(ex: Examination) -> None:
    """torch.compile traces it, and changes nothing."""
    name = "torch.compile"
    subject, base = ex.subject, ex.base
    if subject.needs_copies:
        ex.skip(name, "it works in place")
        return
    expected = ex.pull(base)
    torch._dynamo.reset()
    logger = logging.getLogger("torch._dynamo")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    callee = subject.function if subject.module is None else subject.copy_in(ex.dtype)
    function = torch.compile(callee, backend="aot_eager")
    try:
        found = ex.pull(base, lambda _: expected.upstream, f=function)
    except Exception as raised:
        ex.find("unsupported", f"torch.compile: {first_line(raised)}")
        return
    finally:
        logger.setLevel(level)
        torch._dynamo.reset()
    for one, two in zip(found.run.outputs, expected.run.outputs, strict=False):
        ex.check(name).saw(distance(one, two))
    for i, grad in found.grads.items():
        error = distance(grad, expected.grads[i])
        ex.check(name).saw(error)
        if error > 1e-8 and ex.differs(error, expected, i):
            if custom_functions(expected.run.outputs):
                ex.find("wrong", "is wrong only under torch.compile", i, error)
            else:  # no rule of the subject's own is in it
                ex.note("unsupported", "torch.compile gives another gradient")


def empty_batch(ex: Examination) -> None:
    """A batch of no examples runs, and gives gradients of zero."""
    point = of_batch(ex.subject, ex.base, ex.dtype, 0)
    if point is None:
        ex.skip("an empty batch", "no input has a batch axis")
        return
    try:
        pulled = ex.pull(point)
    except Exception as raised:
        ex.find("unsupported", f"an empty batch: {first_line(raised)}")
        return
    ex.check("an empty batch").saw(None)
    for i, grad in pulled.grads.items():
        if grad is None or not grad.numel() or not pulled.run.outputs[0].isfinite().all():
            continue
        if not pulled.run.outputs[0].numel() and bool(grad.nan_to_num().any()):
            ex.find("wrong", "is not zero for a batch of no examples", i)


CHECKS: tuple[Callable[[Examination], None], ...] = (
    second_order,
    forward_mode,
    mapped,
    empty_batch,
    compiled,
)
