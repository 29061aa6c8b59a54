"""The gradients beside autograd's: of the forward pass itself, of torch's layers, of a reference.

Where two disagree, central differences along the difference of the two decide which is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from manualbp.conversion.modules import reverted
from manualbp.verification.diagnosis import describe
from manualbp.verification.differences import slope
from manualbp.verification.examination import Examination, Pulled, first_line
from manualbp.verification.numbers import distance, inner
from manualbp.verification.subject import function_of, takes_ctx

#: what two implementations may differ by
SHARP = 1e-9


class _Context:
    """Stands in for ``ctx`` where a forward pass runs with autograd's own derivative."""

    def __init__(self, count: int) -> None:
        self.needs_input_grad = (True,) * count

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors

    def _ignore(self, *_: Any) -> None: ...

    save_for_forward = mark_dirty = mark_non_differentiable = _ignore
    set_materialize_grads = mark_shared_storage = _ignore


def by_the_forward(ex: Examination) -> None:
    """autograd's own derivative of what a Function's forward pass computes."""
    name = "autograd of the forward pass"
    function = function_of(ex.subject.f)
    if function is None or ex.surrogate is not None:
        ex.skip(name, "it is no Function by itself" if function is None else "there is a surrogate")
        return

    def forward(*inputs: Any) -> Any:
        if takes_ctx(function):
            return function.forward(_Context(len(inputs)), *inputs)
        return function.forward(*inputs)

    _compare(ex, forward, name)


def by_torchs_twin(ex: Examination) -> None:
    """autograd's derivative of torch's own layers, where those of a module are manualbp's."""
    if ex.subject.module is None or ex.surrogate is not None:
        return
    module = ex.subject.copy_in(ex.dtype)

    def twin(*inputs: Any, **keywords: Any) -> Any:
        with reverted(module):
            return module(*inputs, **keywords)

    with reverted(module) as has_twin:
        pass
    if has_twin:
        _compare(ex, twin, "autograd of torch's twin")


def reference(ex: Examination, other: Callable[..., Any]) -> None:
    """Value and gradients of another implementation: in float32 where it takes that alone."""
    other = other.apply if isinstance(other, type) and issubclass(other, Function) else other
    dtype = ex.dtype
    try:
        theirs = _value_of_reference(ex, other)
        if theirs is not None:
            _beside_reference(ex, other, theirs)
    finally:
        ex.dtype = dtype


def _value_of_reference(ex: Examination, other: Callable[..., Any]) -> list[Tensor] | None:
    """Its value, after which the examination runs in the dtype of it; None where it raises."""
    why = ""
    for dtype in (ex.dtype, *([torch.float] if ex.eps < 1e-12 else [])):
        ex.dtype = dtype
        try:
            theirs = ex.subject.value(ex.base, dtype, f=other)
        except Exception as raised:
            why = why or first_line(raised)
            continue
        if why:
            ex.skip("the reference", f"in float64: {why}; so in float32")
        return theirs
    ex.skip("the reference", why)
    return None


def _beside_reference(ex: Examination, other: Callable[..., Any], theirs: Sequence[Tensor]) -> None:
    own = ex.subject.value(ex.base, ex.dtype)
    if len(own) != len(theirs):
        ex.note("wrong", f"gives {len(own)} values, the reference {len(theirs)}")
        return
    for k, (one, two) in enumerate(zip(own, theirs, strict=True)):
        error = distance(one, two)
        ex.check("the reference").saw(error)
        if error > max(1e-8, ex.rounding):
            which = f" {k}" if len(own) > 1 else ""
            shapes = f": shape {tuple(one.shape)}, not {tuple(two.shape)}"
            told = shapes if one.shape != two.shape else f" by {100 * error:.3g} %"
            ex.note("wrong", f"value{which} differs from the reference's{told}", "", error)
            return
    _compare(ex, other, "the reference")


def _compare(ex: Examination, other: Callable[..., Any], name: str) -> None:
    """The gradients beside autograd's of ``other``; differences decide between the two."""
    try:
        own = ex.pull(ex.base)
        twin = ex.pull(ex.base, lambda _: own.upstream, f=other)
    except Exception as raised:
        ex.skip(name, first_line(raised))
        return
    values = zip(own.run.outputs, twin.run.outputs, strict=False)
    same, sharp = (1e-6, SHARP) if ex.eps < 1e-12 else (ex.rounding, ex.rounding)
    if any(a.shape != b.shape or distance(b, a) > same for a, b in values):
        ex.skip(name, "it gives another value")
        return
    for i, found in own.grads.items():
        expected = twin.grads[i]
        error = distance(found, expected)
        if not math.isfinite(error) and expected is None:
            continue
        if error > sharp and not (ex.differs(error, own, i) and _is_right(ex, own, i, expected)):
            ex.skip(name, "it has another derivative, which is not that of the value")
            continue
        ex.check(name).saw(error)
        if error <= sharp or i in ex.accused or expected is None:
            continue
        told = describe(ex.wrong(ex.base, own, i, found, expected, other))
        ex.find("wrong", f"{told}, beside {name}", i, error)


def _is_right(ex: Examination, own: Pulled, i: int, expected: Tensor | None) -> bool:
    """Whether differences along the difference of two gradients are for ``expected``."""
    value = ex.base.values[i]
    if value.is_complex():
        return False
    found = own.grads[i]
    one = torch.zeros_like(value).double() if found is None else found.detach().double()
    two = torch.zeros_like(one) if expected is None else expected.detach().double()
    if not bool(one.isfinite().all()) or not bool(two.isfinite().all()):
        return False
    v = two - one
    v = v * float(value.double().abs().max() or 1.0) / float(v.abs().max())
    x = value.detach().double()

    def along(t: float) -> Tensor:
        outputs = ex.subject.value(ex.base.at(i, x + t * v), ex.dtype)
        return inner(outputs, own.upstream)

    measured = slope(along, along(0.0), ex.eps)
    if measured.kink or not measured.finite:
        return False
    ours, theirs = (float((t * v).sum()) for t in (one, two))
    at = float(measured.value)
    return abs(at - theirs) + 5 * float(measured.error) < abs(at - ours)
