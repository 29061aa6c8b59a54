"""trace.receipt: formula, autograd and central difference side by side."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from networks import network
from torch import Tensor, nn

import manualbp


@pytest.mark.parametrize("name", ["document", "transformer", "lstm"])
def test_all_three_agree(name: str) -> None:
    model, x, y, cost = network(name, dtype=torch.float32)
    state = {k: (v.clone(), v._version) for k, v in model.state_dict(keep_vars=True).items()}
    generator = torch.get_rng_state()
    found = manualbp.trace(model, x, y, cost=cost).receipt()
    assert found.ok and found.dtype is torch.float64
    assert [line.name for line in found.lines] == [n for n, _ in model.named_parameters()]
    measured = [line for line in found.lines if line.difference is not None]
    assert len(measured) > len(found.lines) / 2
    for line in measured:
        assert line.difference == pytest.approx(line.formula, rel=1e-4, abs=1e-9)
    double = model.double()
    x = x.double() if x.is_floating_point() else x
    parameters = [*double.parameters()]
    grads = torch.autograd.grad(cost(double(x), y), parameters)
    for line, grad in zip(found.lines, grads, strict=True):
        assert line.autograd == pytest.approx(float(grad[line.index]), rel=1e-9, abs=1e-14)
    assert torch.equal(torch.get_rng_state(), generator)
    model.float()
    for key, tensor in model.state_dict(keep_vars=True).items():
        assert torch.equal(tensor, state[key][0])


class Wrong(manualbp.formulas.Sigmoid):
    """a = σ(z)

    ∂C/∂z = g ⊙ a ⊙ (1 − a) · 1.001
    """

    @staticmethod
    def grad_input(g: Tensor, output: Tensor) -> Tensor:
        return g * output * (1 - output) * 1.001


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(Wrong.apply(self.first(x)))


def of(model: nn.Module, **options: Any) -> Any:
    torch.manual_seed(0)
    x, y = torch.rand(6, 4), torch.rand(6, 3)
    return manualbp.trace(model, x, y, cost=manualbp.nn.SquaredError()).receipt()


def test_a_wrong_rule_is_seen_by_both() -> None:
    found = of(Net())
    assert not found.ok
    off = {line.name: line for line in found.lines}
    for name in ("first.weight", "first.bias"):
        assert off[name].beside_autograd == pytest.approx(1e-3, rel=0.01)
        assert off[name].beside_difference == pytest.approx(1e-3, rel=0.1)
    assert off["last.weight"].beside_autograd < 1e-12
    beside_autograd, beside_difference = found.worst
    assert beside_autograd.name.startswith("first.")
    assert beside_difference is not None and beside_difference.name.startswith("first.")
    assert "do NOT agree; furthest from autograd: first." in str(found)


def test_random_units_are_dropped_alike() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    found = of(model)
    assert found.ok and model.training
    assert torch.equal(model[1].running_mean, torch.zeros(8))


def test_it_prints_a_line_for_each_parameter() -> None:
    found = of(manualbp.nn.Linear(4, 3))
    lines = str(found).splitlines()
    assert lines[0].split()[:5] == ["parameter", "entry", "formula", "autograd", "difference"]
    assert [line.split()[0] for line in lines[1:3]] == ["weight", "bias"]
    assert lines[-1].startswith("all agree")
    numbers = json.loads(json.dumps(found.to_dict()))
    assert numbers["ok"] and numbers["dtype"] == "float64" and len(numbers["lines"]) == 2


def test_a_kink_is_called_one() -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Hardtanh(0.0, 9.0))
    with torch.no_grad():
        model[0].weight.fill_(0.0)
    x, y = torch.ones(1, 1), torch.ones(1, 1)
    found = manualbp.trace(model, x, y, cost=nn.MSELoss()).receipt()
    assert found.lines[0].difference is None and "a kink" in str(found)


def test_a_model_that_has_been_trained_since() -> None:
    model = nn.Linear(2, 1)
    trace = manualbp.trace(model, torch.rand(3, 2), torch.rand(3, 1), cost=nn.MSELoss())
    with torch.no_grad():
        model.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="have changed since"):
        trace.receipt()
