"""The arguments drawn for each formula: they run, they differ, their gradients can be checked."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from manualbp import Formula
from manualbp.verification import samples
from manualbp.verification.samples import Seeded

NAMES = [formula.__name__ for formula in samples.table.TABLE]
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
