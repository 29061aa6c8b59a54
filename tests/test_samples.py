"""The arguments drawn for each formula: they run, they differ, their gradients can be checked."""

from __future__ import annotations

import math
from inspect import Parameter, signature
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import Tensor

from manualbp import Formula, formulas
from manualbp.verification import samples
from manualbp.verification.samples import Seeded

NAMES = list(samples.formulas())
EACH = pytest.mark.parametrize("name", NAMES)


def outputs(formula: Any, arguments: tuple[Any, ...]) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    found = formula.apply(*arguments) if isinstance(formula, type) else formula(*arguments)
    return found if isinstance(found, tuple) else (found,)


def slopes(formula: type[Formula], arguments: tuple[Any, ...]) -> tuple[float, float, float]:
    """Along a random direction: by the rules, by central differences, and how much these differ."""
    places = samples.differentiable(formula, arguments)
    leaves = {i: arguments[i].detach().clone().requires_grad_() for i in places}
    given = tuple(leaves.get(i, a) for i, a in enumerate(arguments))
    found = outputs(formula, given)
    wanted = [i for i, a in enumerate(found) if a.requires_grad]
    if not wanted:
        return 0.0, 0.0, 0.0
    generator = torch.Generator().manual_seed(1)

    def random_like(t: Tensor) -> Tensor:
        return torch.randn(t.shape, generator=generator, dtype=t.dtype)

    above = [random_like(found[i]) for i in wanted]
    pulled = torch.autograd.grad([found[i] for i in wanted], list(leaves.values()), above)
    along = {i: random_like(leaf) for i, leaf in leaves.items()}
    by_rule = sum((p * v).sum().item() for p, v in zip(pulled, along.values(), strict=True))
    function = samples.surrogate(formula) or formula

    def at(step: float) -> float:
        moved = (leaves[i].detach() + step * along[i] if i in along else a
                 for i, a in enumerate(arguments))  # fmt: skip
        found = outputs(function, tuple(moved))
        return sum((found[i] * g).sum().item() for i, g in zip(wanted, above, strict=True))

    def central(h: float) -> float:
        return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)

    once, again = central(1e-4), central(3e-5)
    return by_rule, again, abs(once - again)


@EACH
def test_gradients_along_a_direction_are_those_of_central_differences(name: str) -> None:
    formula, kinks = samples.formulas()[name], 0
    for seed in range(20):
        arguments = samples.draw(formula, Seeded(seed))
        by_rule, by_differences, uncertainty = slopes(formula, arguments)
        scale = max(abs(by_rule), abs(by_differences), 1e-3)
        if uncertainty > 1e-5 * scale:  # a kink lies between the points
            kinks += 1
            continue
        assert math.isfinite(by_rule)
        assert abs(by_rule - by_differences) < 1e-5 * scale, (seed, arguments)
    assert kinks <= 2


def kinds(hint: Any) -> set[str]:
    """What an argument has to be in some call, as its annotation says."""
    parts = set(get_args(hint)) or {hint}
    found = {"True", "False"} if bool in parts else set()
    return (
        found
        | ({"None", "not None"} if type(None) in parts else set())
        | ({"Tensor", "number"} if {Tensor, float} <= parts else set())
        | ({"one word", "another"} if hint is str else set())
    )


def kinds_of(values: list[Any]) -> set[str]:
    words = {v for v in values if isinstance(v, str)}
    return (
        {str(v) for v in values if v is True or v is False or v is None}
        | {"not None" for v in values if v is not None}
        | {"Tensor" for v in values if isinstance(v, Tensor)}
        | {"number" for v in values if isinstance(v, int | float)}
        | ({"one word"} if words else set())
        | ({"another"} if len(words) > 1 else set())
    )


#: what no call of ours passes
NEVER = {
    ("RoundedDiv", "rounding_mode"): {"None"},
    ("AdaptiveAvgPool", "output_size"): {"None"},
    ("AdaptiveMaxPool", "output_size"): {"None"},
}


@EACH
def test_within_fifty_seeds_every_option_is_met(name: str) -> None:
    """None and not None, True and False, tensor and number, more than one word."""
    formula = samples.formulas()[name]
    hints = get_type_hints(formula.forward)
    parameters = list(signature(formula.forward).parameters)
    drawn = [samples.draw(formula, Seeded(seed)) for seed in range(50)]
    for place, parameter in enumerate(parameters):
        if signature(formula.forward).parameters[parameter].kind is Parameter.VAR_POSITIONAL:
            assert len({len(arguments) for arguments in drawn}) > 1
            continue
        found = kinds_of([arguments[place] for arguments in drawn])
        missing = kinds(hints[parameter]) - found - NEVER.get((name, parameter), set())
        assert not missing, (parameter, missing)


@EACH
def test_shapes_and_strides_differ(name: str) -> None:
    formula = samples.formulas()[name]
    drawn = [samples.draw(formula, Seeded(seed)) for seed in range(20)]
    places = samples.differentiable(formula, drawn[0])
    assert places
    tensors = [a for arguments in drawn for a in arguments if isinstance(a, Tensor)]
    assert not any(t.requires_grad for t in tensors)
    real = [t for t in tensors if t.is_floating_point()]
    assert {t.dtype for t in real} == {torch.float64}
    assert len({t.shape for t in real}) > 3
    assert not all(t.is_contiguous() for t in tensors)
    assert max(t.numel() for t in tensors) < 1000


def test_a_call_is_known_by_its_seed() -> None:
    def written(seed: int) -> str:
        return repr(samples.draw("CrossEntropy", Seeded(seed)))

    assert written(1) == written(1) != written(2)


def test_dtype_and_empty_batches_are_asked_for() -> None:
    drawn = [samples.draw("Linear", Seeded(i, torch.float32, empty=True)) for i in range(30)]
    assert {a.dtype for arguments in drawn for a in arguments[:2]} == {torch.float32}
    assert any(arguments[0].shape[0] == 0 for arguments in drawn)


def test_a_formula_that_is_not_known_is_an_error_that_names_those_near() -> None:
    with pytest.raises(ValueError, match="no formula is called 'Sigmod'; near to it: Sigmoid"):
        samples.formulas("Tanh", "Sigmod")
    with pytest.raises(ValueError, match="no formula is called 'cross_entropy'; near to it: Cross"):
        samples.draw("cross_entropy", Seeded())

    class Mine(Formula):
        @staticmethod
        def forward(input: Tensor) -> Tensor:
            return input

    with pytest.raises(LookupError, match="Mine"):
        samples.draw(Mine, Seeded())


def test_a_subclass_is_drawn_as_what_it_changes() -> None:
    class Mine(formulas.Linear):
        @staticmethod
        def grad_bias(delta: Tensor) -> Tensor:
            return delta

    assert len(samples.draw(Mine, Seeded())) == 3
