"""What a backward pass may not do: write into what is not its own, keep what may change, draw."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from manualbp.core.graph import nodes
from manualbp.verification.examination import BackwardRaised, Examination, Pulled, first_line
from manualbp.verification.numbers import dense, distance, upstream_like
from manualbp.verification.points import moved
from manualbp.verification.subject import Run, seed


def deterministic(ex: Examination) -> None:
    """The same call gives the same value and gradient, whatever is drawn in between."""
    name = "repeated runs"
    truth = ex.truth(ex.base)
    if not truth.repeats():
        ex.find(
            "nondeterministic",
            "two runs from the same random state give two values: what is drawn does not come "
            "from torch's, NumPy's or Python's generators",
        )
        return
    first = ex.pull(ex.base)
    kept = {i: None if grad is None else grad.clone() for i, grad in first.grads.items()}
    ex.pull(ex.base, lambda outputs: upstream_like(outputs, 9))
    for i, grad in first.grads.items():
        if distance(grad, kept[i]) > 0:
            told = "the next backward pass writes into the gradient that this one returned"
            ex.find("mutates", told, i)
            return
    again = ex.pull(ex.base)
    other = ex.pull(ex.base, between=lambda _: seed(99))
    for i, grad in first.grads.items():
        error = distance(again.grads[i], grad)
        ex.check(name).saw(error)
        if ex.differs(error, first, i):
            ex.find("nondeterministic", "two runs give two gradients of one value", i, error)
        error = distance(other.grads[i], grad)
        ex.check(name).saw(error)
        if ex.differs(error, first, i):
            told = "depends on random numbers that the backward pass draws: keep what forward drew"
            ex.find("nondeterministic", told, i, error)


# ------------------------------------------------------------------------------- writes


def writes_nothing(ex: Examination) -> None:
    """Neither inputs nor parameters nor the gradients that arrive are written into."""
    name = "writes"
    subject = ex.subject
    before = [v.detach().clone() for v in ex.base.values]
    constants = [v.detach().clone() if isinstance(v, Tensor) else v for v in ex.base.others]
    seen: dict[str, Any] = {}

    def between(run: Run) -> None:
        seen["given"] = [t.detach().clone() for t in run.given]
        seen["others"] = [t.detach().clone() if isinstance(t, Tensor) else None for t in run.others]
        seen["watched"] = _watch(run)
        seen["tracked"] = [t.grad_fn is not None and t._version > 0 for t in run.given]

    def arriving(outputs: Any) -> list[Tensor]:
        seen["upstream"] = upstream_like(outputs, 2)
        return [g.clone() for g in seen["upstream"]]

    pulled = ex.pull(ex.base, arriving, between=between)
    run = pulled.run
    for i in range(len(subject.slots)):
        ex.check(name).saw(None)
        forward, backward = seen["given"][i], run.given[i].detach()
        changed = not _same(forward, before[i])
        if changed and not seen["tracked"][i] and _matters(ex, i):
            ex.find("mutates", "the forward pass writes into it", i)
        if not _same(backward, forward):
            ex.find("mutates", "the backward pass writes into it", i)
    slots = {slot.index for slot in subject.slots}
    for k, value in enumerate(seen["others"]):
        if value is None or k in slots:
            continue
        ex.check(name).saw(None)
        if not _same(run.others[k].detach(), value):
            how = f"the backward pass writes into the input {subject.names[k]}"
            ex.find("mutates", how)
        elif not _same(value, constants[k]) and not value.is_floating_point():
            ex.find("mutates", f"the forward pass writes into the input {subject.names[k]}")
    for g, was in zip(pulled.upstream, seen["upstream"], strict=True):
        ex.check(name).saw(None)
        if not _same(g, was):
            ex.find("mutates", "the backward pass writes into the gradient that arrives")
            return
    for function, arrived, was in seen["watched"]:
        if any(not _same(g, w) for g, w in zip(arrived, was, strict=True)):
            told = f"the backward pass of {function} writes into the gradient that arrives"
            ex.find("mutates", told)
            return
    _twice(ex, name)


def _same(a: Tensor, b: Tensor) -> bool:
    b = b.to(a.dtype)
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def _matters(ex: Examination, i: int) -> bool:
    """Whether the value depends on a slot: else it is a buffer, as running statistics are."""
    probe = ex.truth(ex.base).probe([i])
    return probe is None or bool((probe.slopes.abs() > 1e-9).any())


def _watch(run: Run) -> list[tuple[str, list[Tensor], list[Tensor]]]:
    """What arrives at each Function of the graph, noted when it does, with copies."""
    watched: list[tuple[str, list[Tensor], list[Tensor]]] = []
    for node in nodes(*(t.grad_fn for t in run.outputs)):
        function = getattr(node, "_forward_cls", None)
        if function is None:
            continue

        def before(gs: tuple[Any, ...], name: str = function.__name__) -> None:
            found = [g for g in gs if isinstance(g, Tensor)]
            watched.append((name, found, [g.detach().clone() for g in found]))

        node.register_prehook(before)
    return watched


def _twice(ex: Examination, name: str) -> None:
    """A second backward pass over the same graph gives the same gradients."""
    run = ex.subject.run(ex.base, ex.dtype)
    pairs = [
        (t, g)
        for t, g in zip(run.outputs, upstream_like(run.outputs), strict=True)
        if t.requires_grad
    ]
    if not pairs:
        return
    outputs, gs = zip(*pairs, strict=True)

    def pull() -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(outputs, run.leaves, gs, retain_graph=True, allow_unused=True)

    seed()
    first = [None if g is None else g.clone() for g in map(dense, pull())]
    try:
        seed()
        second = pull()
    except Exception as raised:
        ex.find("unsupported", f"a second backward pass (retain_graph): {first_line(raised)}")
        return
    for i, (one, two) in enumerate(zip(first, map(dense, second), strict=True)):
        error = distance(two, one)
        ex.check(name).saw(error)
        if error > ex.rounding:
            told = (
                "a second backward pass over the same graph gives another gradient: the first one"
            )
            ex.find("mutates", f"{told} writes into what was saved", i, error)


# ------------------------------------------------------------------------------- stale


def keeps_nothing_stale(ex: Examination) -> None:
    """What is changed between the two passes raises, or makes no difference."""
    subject = ex.subject
    expected = ex.pull(ex.base)
    for i, slot in enumerate(subject.slots):
        _changed(
            ex,
            expected,
            partial(_change_of, "given", i),
            f"{slot.name} is changed in place",
            "it is kept by ctx itself or as .data, where save_for_backward would raise",
            i,
        )
    slots = {slot.index for slot in subject.slots}
    for k, value in enumerate(ex.base.others):
        if isinstance(value, Tensor) and k not in slots:
            _changed(
                ex,
                expected,
                partial(_change_of, "others", k),
                f"the input {subject.names[k]} is changed in place",
                "it is kept by ctx itself, where save_for_backward would raise",
                None,
            )
    for k in range(len(expected.run.outputs)):
        _changed(
            ex,
            expected,
            partial(_change_of, "outputs", k),
            f"the value{f' {k}' if k else ''} is changed in place",
            "it is kept by ctx itself or as .data, where save_for_backward would raise",
            None,
        )
    _changed(
        ex,
        expected,
        lambda _: subject.again(moved(ex.base, 3, 0.5), ex.dtype),
        "the forward pass runs again",
        "it reads what the last call left: on a class, a module, or in a buffer",
        None,
    )
    for name in subject.buffers(ex.dtype):
        _changed(
            ex,
            expected,
            partial(_change_buffer, ex, name),
            f"the buffer {name} is changed",
            "save it by save_for_backward",
            None,
        )


def _change_of(kind: str, index: int, run: Run) -> None:
    _change(getattr(run, kind)[index])


def _change_buffer(ex: Examination, name: str, _: Run) -> None:
    _change(ex.subject.buffers(ex.dtype)[name])


def _change(t: Tensor) -> None:
    with torch.no_grad():
        if t.dtype is torch.bool:
            t.logical_not_()
        elif not (t.is_floating_point() or t.is_complex()):
            t.copy_(t.flip(0) if t.ndim else t)
        else:
            t.mul_(1.5).add_(0.25)


def _changed(
    ex: Examination,
    expected: Pulled,
    between: Callable[[Run], Any],
    when: str,
    why: str,
    slot: int | None,
) -> None:
    try:
        pulled = ex.pull(ex.base, lambda _: expected.upstream, between=between)
    except BackwardRaised:
        ex.check("changed between the passes").saw(None)
        return  # as it should
    except Exception:
        return  # it cannot be changed
    for i, grad in expected.grads.items():
        error = distance(pulled.grads[i], grad)
        ex.check("changed between the passes").saw(error)
        if error > ex.rounding and i not in ex.accused:
            argument = ex.subject.slots[i if slot is None else slot].name
            whose = ex.subject.slots[i].name
            how = f"the gradient of {whose} changes, without an error, when {when} before the "
            how += f"backward pass: {why}"
            ex.accused.add(i)
            ex.note("stale", how, argument, error)
            return
