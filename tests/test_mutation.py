"""The engine of mutation: each operator does what it says, and there are mutants enough."""

import random

import mutation
import pytest
import torch
from mutation import Mutant, mutants
from torch import Tensor

import manualbp
from manualbp import Formula, formulas
from manualbp.core.derivation import KERNELS
from manualbp.verification import samples


def rule(g: Tensor, input: Tensor, other: Tensor, alpha: float, beta: float, dim: int) -> Tensor:
    """A rule of everything."""
    if alpha > 0:
        g = g + 2 * input
    share = g / other if dim is None else -g
    t = torch.where(input > alpha, share, 0).sum(dim, keepdim=True)
    return torch.cat([t, helper(share, beta)], dim) @ other.mT


def helper(share: Tensor, beta: float) -> Tensor:
    return share.masked_fill(share <= beta, 0)


CHANGES = {
    "sign": "g + 2 * input → g - 2 * input",
    "drop a term": "g + 2 * input → 2 * input",
    "operator": "g / other → g * other",
    "drop a factor": "2 * input → input",
    "swap": "g / other → other / g",
    "constant": "2 * input → 2.002 * input",
    "comparison": "input > alpha → input < alpha",
    "branch": "g / other if dim is None else -g → -g if dim is None else g / other",
    "mask": "torch.where(input > alpha, share, 0) → share",
    "reduction": (
        "torch.where(input > alpha, share, 0).sum(dim, keepdim=True) → "
        "torch.where(input > alpha, share, 0).mean(dim, keepdim=True)"
    ),
    "drop a call": (
        "torch.where(input > alpha, share, 0).sum(dim, keepdim=True) → "
        "torch.where(input > alpha, share, 0)"
    ),
    "transpose": (
        "torch.cat([t, helper(share, beta)], dim) @ other.mT → "
        "torch.cat([t, helper(share, beta)], dim) @ other"
    ),
    "axis": (
        "torch.where(input > alpha, share, 0).sum(dim, keepdim=True) → "
        "torch.where(input > alpha, share, 0).sum(dim - 1, keepdim=True)"
    ),
    "another argument": "2 * input → 2 * other",
    "drop a step": "g = g + 2 * input → nothing",
    "zeros": (
        "return torch.cat([t, helper(share, beta)], dim) @ other.mT → "
        "return torch.zeros_like(torch.cat([t, helper(share, beta)], dim) @ other.mT)"
    ),
}


def changes() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for edit in mutation.edits(mutation.syntax(rule)):
        found.setdefault(edit.kind, []).append(Mutant(rule, edit, ()).change)
    return found


@pytest.mark.parametrize("kind", CHANGES)
def test_an_operator_changes_what_it_says(kind: str) -> None:
    assert CHANGES[kind] in changes()[kind]


def test_a_mutant_is_the_function_with_one_edit() -> None:
    before = mutation.ast.unparse(mutation.syntax(rule)).splitlines()
    for edit in mutation.edits(mutation.syntax(rule)):
        source = Mutant(rule, edit, ()).source.splitlines()
        assert "A rule of everything" in source[1]
        assert sum(line not in before for line in source) <= 1, source
    assert mutation.ast.unparse(mutation.syntax(rule)).splitlines() == before


def test_a_function_that_rules_call_is_changed_for_rules_alone() -> None:
    """The value of a margin's cost and its rule call the same function."""
    options = torch.tensor([0, 2]), 1, 1.0, None, "mean"
    mutant = next(m for m in mutants([formulas.MultiMargin]) if m.change.startswith("margin - r"))
    assert mutant.where == "margin._excess"
    costs, found = [], []
    for formula in (mutant.build(formulas.MultiMargin), formulas.MultiMargin):
        input = torch.tensor([[1.0, 3.0, 2.0], [4.0, 0.5, 1.0]], requires_grad=True)
        costs.append(formula.apply(input, *options))
        found += torch.autograd.grad(costs[-1], input)
    assert costs[0] == costs[1]
    assert not torch.allclose(*found)


def test_every_rule_of_a_formula_can_be_stated_anew_and_then_no_kernel_hides_it() -> None:
    import manualbp.kernels  # noqa: F401

    for formula in mutation.all_formulas():
        again = mutation.restated(formula)
        assert not set(mutation.methods(again).values()) & set(KERNELS)
        assert mutation.methods(again).keys() == mutation.methods(formula).keys()


def test_names_are_read_and_told_apart() -> None:
    found = mutants([formulas.Linear])
    weight = next(m for m in found if m.where == "Linear.grad_weight" and m.kind == "swap")
    line = mutation.methods(formulas.Linear)["grad_weight"].__code__.co_firstlineno + 2
    change = "_rows(delta).mT @ _rows(input) → _rows(input) @ _rows(delta).mT"
    assert str(weight) == f"Linear.grad_weight: {change} (line {line})"
    assert len({m.name for m in found}) == len(found)
    again = mutation._mutants.__wrapped__(weight.function, weight.formulas)
    assert [m.name for m in again] == [m.name for m in found if m.where == weight.where]


@pytest.mark.slow
def test_there_are_a_thousand_mutants_of_every_file_together() -> None:
    found = mutants()
    assert len(found) > 5000
    assert {m.file for m in found} == {f.__module__.split(".")[-1] for f in mutation.all_formulas()}
    kinds = {m.kind for m in found}
    assert {*CHANGES} <= kinds
    for mutant in random.Random(0).sample(found, 200):  # all can be built; it takes seconds
        assert issubclass(mutant.build(), Formula)


KILLED = (
    "Sigmoid.grad_input: 1 - output → output - 1",
    "Tanh.grad_input: 1 - output * output → 1.001 - output * output",
    "Softmax.grad_input: ga.sum(dim, keepdim=True) → ga.mean(dim, keepdim=True)",
    "Hardtanh.grad_input: (input <= min_val) | (input >= max_val) → input <= min_val",
    "Linear.grad_weight: _rows(delta).mT @ _rows(input) → _rows(delta) @ _rows(input)",
    "normalization._grad_of_input: gw - _mean(gw, r) → gw",
)


@pytest.mark.parametrize("key", KILLED)
def test_verify_kills_a_mutant_of_each_kind(key: str) -> None:
    mutant = next(m for m in mutants() if m.key == key)
    formula = mutant.formulas[0]
    arguments = samples.draw(formula, samples.Seeded(1))
    places = samples.differentiable(formula, arguments)
    given = [a.requires_grad_() if i in places else a for i, a in enumerate(arguments)]
    report = manualbp.verify(mutant.build(), *given)
    assert not report.ok
    assert report.findings[0].kind in ("wrong", "raises")
