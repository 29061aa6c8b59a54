"""The catalogue is what it says: its right ones are right, its wrong ones wrong, without verify."""

import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function

from manualbp.verification.catalogue import RIGHT, WRONG, Specimen

KINDS = {"wrong", "imprecise", "nan", "mutates", "nondeterministic", "stale", "raises"}


def name(specimen: Specimen) -> str:
    return specimen.name


def title(specimen: Specimen) -> str:
    """What its class or function is called."""
    subject = specimen.subject()
    return type(subject).__name__ if isinstance(subject, nn.Module) else subject.__name__


# --------------------------------------------------------------------------------- a call to test


def called(subject) -> Callable:
    is_function = isinstance(subject, type) and issubclass(subject, Function)
    return subject.apply if is_function else subject


def floating(values) -> list[Tensor]:
    """Those whose gradient is looked at."""
    found = [x for x in values if isinstance(x, Tensor) and x.is_floating_point()]
    return [x for x in found if x.requires_grad] or found


class Call:
    """A specimen with its arguments, and its parameters among the leaves."""

    def __init__(self, specimen: Specimen, double: bool = False) -> None:
        self.subject = specimen.subject()
        self.options = specimen.options
        given = specimen.inputs()
        if double:
            given = tuple(widened(x) for x in given)
            if isinstance(self.subject, nn.Module):
                self.subject.double()
        wanted = {id(x) for x in floating(given)}
        self.arguments = [
            x.detach().requires_grad_(id(x) in wanted) if isinstance(x, Tensor) else x
            for x in given
        ]
        self.leaves = [x for x in self.arguments if isinstance(x, Tensor) and x.requires_grad]
        if isinstance(self.subject, nn.Module):
            self.leaves += [p for p in self.subject.parameters() if p.requires_grad]

    def __call__(self, function: Callable | None = None) -> list[Tensor]:
        """The outputs that a gradient may arrive at; the same random numbers each time."""
        torch.manual_seed(0)
        with kept_buffers(self.subject):
            if "cost" in self.options:
                *inputs, target = self.arguments
                output = self.options["cost"](self.subject(*inputs), target)
            else:
                output = (function or called(self.subject))(*self.arguments)
        outputs = [output] if isinstance(output, Tensor) else list(output)
        return [x for x in outputs if isinstance(x, Tensor) and x.is_floating_point()]


def widened(x):
    if isinstance(x, Tensor) and x.is_floating_point():
        return x.detach().double().requires_grad_(x.requires_grad)
    return x


@contextmanager
def kept_buffers(subject):
    """Running statistics as they were."""
    buffers = list(subject.buffers()) if isinstance(subject, nn.Module) else []
    before = [b.clone() for b in buffers]
    yield
    for buffer, old in zip(buffers, before, strict=True):
        buffer.copy_(old)


def random_like(x: Tensor, seed: int) -> Tensor:
    made = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return made.to(x.dtype)


def backward(call: Call, outputs: list[Tensor], seed: int = 1) -> list[Tensor]:
    """The gradients of ⟨g, outputs⟩ by the backward pass, g random."""
    alive = [x for x in outputs if x.requires_grad]
    upstream = [random_like(x, seed + i) for i, x in enumerate(outputs) if x.requires_grad]
    found = torch.autograd.grad(alive, call.leaves, upstream, allow_unused=True)
    return [
        torch.zeros_like(x) if g is None else g for x, g in zip(call.leaves, found, strict=True)
    ]


def slope(call: Call, function: Callable | None, leaf: Tensor, direction: Tensor, seed: int):
    """The derivative of ⟨g, outputs⟩ along a direction: central differences, extrapolated."""

    def value(step: float) -> Tensor:
        at = leaf.detach().clone()
        with torch.no_grad():
            leaf.add_(step * direction)
            outputs = call(function)
            leaf.copy_(at)
        return sum((random_like(x, seed + i) * x).sum() for i, x in enumerate(outputs))

    def central(step: float) -> Tensor:
        return (value(step) - value(-step)) / (2 * step)

    step = 1e-4 * max(1e-3, min(1.0, leaf.detach().abs().max().item()))
    return ((4 * central(step / 2) - central(step)) / 3).item()


def errors(specimen: Specimen, seed: int = 1) -> list[float]:
    """How far the gradient of each leaf is from the central difference, in float64."""
    call = Call(specimen, double=True)
    surrogate = specimen.options.get("surrogate")
    gradients = backward(call, call(), seed)
    found = []
    for leaf, gradient in zip(call.leaves, gradients, strict=True):
        direction = random_like(leaf, seed + 100)
        expected = slope(call, surrogate, leaf, direction, seed)
        size = max(gradient.norm().item() * direction.norm().item(), abs(expected), 1e-12)
        found.append(abs((gradient * direction).sum().item() - expected) / size)
    return found


# ---------------------------------------------------------------------------------------- the list


def test_there_are_enough_and_each_has_a_name_of_its_own():
    assert len(WRONG) >= 45 and len(RIGHT) >= 20
    names = [s.name for s in (*WRONG, *RIGHT)]
    assert all(names) and len(set(names)) == len(names)


@pytest.mark.parametrize("specimen", [*WRONG, *RIGHT], ids=name)
def test_a_specimen_says_what_it_must(specimen):
    re.compile(specimen.says)
    assert specimen.met and len(specimen.name) < 100
    assert specimen.kinds <= KINDS
    assert bool(specimen.kinds) == (specimen in WRONG)
    first, second = specimen.inputs(), specimen.inputs()
    for a, b in zip(first, second, strict=True):
        assert not isinstance(a, Tensor) or (a is not b and torch.equal(a, b))


@pytest.mark.parametrize("specimen", [*WRONG, *RIGHT], ids=name)
def test_its_forward_runs(specimen):
    outputs = Call(specimen)()
    assert outputs and all(x.isfinite().all() for x in outputs)


# --------------------------------------------------------------------------------------- right ones

ONLY_SINGLE = {s.name for s in RIGHT if "float32" in s.name}


@pytest.mark.parametrize("specimen", RIGHT, ids=name)
def test_a_right_one_runs_backward_and_changes_nothing(specimen):
    call = Call(specimen)
    before = [x.detach().clone() for x in call.leaves]
    outputs = call()
    first = backward(call, outputs)
    second = backward(call, call())
    for x, old, one, two in zip(call.leaves, before, first, second, strict=True):
        assert one.shape == x.shape and one.isfinite().all()
        assert torch.equal(x, old) and torch.equal(one, two)


@pytest.mark.parametrize("specimen", [s for s in RIGHT if s.name not in ONLY_SINGLE], ids=name)
def test_a_right_one_agrees_with_central_differences(specimen):
    for seed in range(3):
        assert max(errors(specimen, seed)) < 1e-7, errors(specimen, seed)


# --------------------------------------------------------------------------------------- wrong ones


def differs(specimen: Specimen, sharp: float = 1e-7) -> bool:
    """Whether a backward pass raises, or gives something else than central differences do."""
    try:
        return max(errors(specimen)) > sharp
    except (RuntimeError, TypeError, ValueError, NameError) as error:
        assert "raises" in specimen.kinds, error
        return True


def at(change: Callable) -> Callable[[Specimen], bool]:
    """It differs with its first argument changed."""

    def seen(specimen: Specimen) -> bool:
        def inputs():
            first, *others = specimen.inputs()
            return (change(first), *others)

        return differs(replace(specimen, inputs=inputs))

    return seen


def alone(*wanted: int) -> Callable[[Specimen], bool]:
    """It differs where these arguments alone require a gradient."""

    def seen(specimen: Specimen) -> bool:
        def inputs():
            given = specimen.inputs()
            return tuple(x.requires_grad_() if i in wanted else x for i, x in enumerate(given))

        return differs(replace(specimen, inputs=inputs))

    return seen


#: where a wrong one does not differ from central differences at its own arguments: what shows it
SEEN = {
    "ELUNegative": at(torch.neg),
    "HardswishBeyond": at(lambda x: x + 4),
    "LinearGradientsShift": alone(1),
    "LinearFrozenWeight": alone(0, 2),
}


@pytest.mark.parametrize("specimen", WRONG, ids=name)
def test_a_wrong_one_is_wrong(specimen):
    seen = SEEN.get(title(specimen), differs)
    assert seen(specimen)


@pytest.mark.parametrize("specimen", [s for s in WRONG if title(s) in SEEN], ids=name)
def test_it_is_hidden_at_its_own_arguments(specimen):
    assert not differs(specimen)


def test_each_way_to_see_belongs_to_a_specimen():
    assert {*SEEN} <= {title(s) for s in WRONG}
