"""manualbp.nudge: what tangents predict, what really happens, and that nothing is written to."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from networks import NETWORKS, network
from torch import Tensor, nn
from torch.nn import functional as F

import manualbp

SMOOTH = sorted(set(NETWORKS) - {"resnet18", "transformer"})  # those two have ReLU


def first_weight(model: nn.Module) -> tuple[str, tuple[int, ...]]:
    name, parameter = next(iter(model.named_parameters()))
    return name, tuple(size // 2 for size in parameter.shape)


@pytest.mark.parametrize("name", SMOOTH)
def test_half_a_nudge_leaves_a_quarter_of_the_difference(name: str) -> None:
    model, x, y, cost = network(name)
    weight, index = first_weight(model)

    def differences(by: float) -> dict[str, float]:
        found = manualbp.nudge(model, x, y, weight, *index, by=by, cost=cost)
        assert found.predicted != 0
        layers = {layer.path: layer.difference for layer in found.layers[:-1]}
        return layers | {"cost": found.measured - found.predicted}

    whole, half = differences(0.004), differences(0.002)
    compared = 0
    for path, difference in whole.items():
        if abs(difference) > 1e-13:
            assert difference / half[path] == pytest.approx(4, rel=0.1), path
            compared += 1
    assert compared >= 2


@pytest.mark.parametrize("name", NETWORKS)
def test_predictions_are_gradients_and_tangents_of_torch(name: str) -> None:
    model, x, y, cost = network(name)
    weight, index = first_weight(model)
    found = manualbp.nudge(model, x, y, weight, *index, by=0.01, cost=cost)
    expected = torch.autograd.grad(cost(model(x), y), dict(model.named_parameters())[weight])[0]
    assert found.predicted == pytest.approx(0.01 * float(expected[index]), rel=1e-9)
    with torch.no_grad():
        moved = copy.deepcopy(model)
        before = cost(copy.deepcopy(model)(x), y)
        dict(moved.named_parameters())[weight][index] += 0.01
        assert found.measured == pytest.approx(float(cost(moved(x), y) - before), rel=1e-7)
    assert found.cost == pytest.approx(float(before))
    assert found.layers[-1].path == "cost" and len(found.layers) > 2


def test_each_layer_by_hand() -> None:
    model, x, y, cost = network("document")
    w = model[1].weight.detach()
    found = manualbp.nudge(model, x, y, "1.weight", 3, 407, by=0.5, cost=cost)
    layers = {layer.path: layer for layer in found.layers}
    a = x.flatten(1)
    dz = torch.zeros(len(x), 16, dtype=torch.double)
    dz[:, 3] = 0.5 * a[:, 407]
    torch.testing.assert_close(layers["1"].predicted, dz)
    torch.testing.assert_close(layers["1"].measured, dz)
    s = torch.sigmoid(F.linear(a, w, model[1].bias)).detach()
    torch.testing.assert_close(layers["2"].predicted, s * (1 - s) * dz)
    moved = torch.sigmoid(F.linear(a, w, model[1].bias) + dz).detach()
    torch.testing.assert_close(layers["2"].measured, moved - s)
    torch.testing.assert_close(
        layers["3"].predicted, layers["2"].predicted @ model[3].weight.detach().mT
    )
    assert not layers["0"].size and layers["1"].off < 1e-12 < layers["2"].off


def test_single_precision_runs_in_double() -> None:
    model, x, y, cost = network("document", dtype=torch.float32)
    found = manualbp.nudge(model, x, y, "1.weight", 3, 407, by=1e-3, cost=cost)
    double = copy.deepcopy(model).double()
    exact = manualbp.nudge(double, x.double(), y, "1.weight", 3, 407, by=1e-3, cost=cost)
    assert found.measured == pytest.approx(exact.measured, rel=1e-9)
    assert found.predicted == pytest.approx(exact.predicted, rel=1e-12)


class Single(nn.Module):
    """Makes a constant in single precision, which matmul does not mix with double."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() @ torch.ones(4, 4)) @ self.weight


def test_a_model_that_insists_on_its_precision_keeps_it() -> None:
    torch.manual_seed(0)
    model, x, y = Single(), torch.rand(5, 4), torch.rand(5, 3)
    found = manualbp.nudge(model, x, y, "weight", 1, 2, by=0.1, cost=F.mse_loss)
    assert found.layers[0].predicted.dtype is torch.float32
    assert found.predicted == pytest.approx(found.measured, rel=0.2)


def test_a_whole_parameter() -> None:
    model, x, y, cost = network("lenet")
    along = torch.randn_like(model[0].weight) * 1e-3
    found = manualbp.nudge(model, x, y, "0.weight", by=along, cost=cost)
    grad = torch.autograd.grad(cost(model(x), y), model[0].weight)[0]
    assert found.predicted == pytest.approx(float((grad * along).sum()), rel=1e-9)
    assert found.measured == pytest.approx(found.predicted, rel=0.05)


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "foreach": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-4),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_step_of_an_optimizer_that_has_run_before(kind: str) -> None:
    model, x, y, cost = network("document")
    optimizer = OPTIMIZERS[kind](model.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        cost(model(x), y).backward()
        optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    before = {n: (p, p.detach().clone(), p._version, p.grad.clone()) for n, p in parameters(model)}
    found = manualbp.nudge(model, x, y, step=optimizer, cost=cost)
    torch.testing.assert_close(optimizer.state_dict(), state)
    for name, (p, value, version, grad) in before.items():
        assert torch.equal(p, value) and p._version == version and torch.equal(p.grad, grad)
        assert dict(parameters(model))[name] is p
    old = cost(model(x), y)
    optimizer.zero_grad()
    old.backward()
    optimizer.step()
    for name, p in parameters(model):
        torch.testing.assert_close(found.by[name], p.detach() - before[name][1])
    with torch.no_grad():
        assert found.measured == pytest.approx(float(cost(model(x), y) - old), rel=1e-9)
    assert found.what == f"a step of {type(optimizer).__name__}"


def parameters(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return list(model.named_parameters())


@pytest.mark.parametrize("name", ["document", "lstm", "resnet18"])
def test_the_model_stays_as_it_was(name: str) -> None:
    model, x, y, cost = network(name, dtype=torch.float32)
    model.append(nn.Dropout(0.5)) if isinstance(model, nn.Sequential) else None
    weight, index = first_weight(model)
    state = {k: (v, v.clone(), v._version) for k, v in model.state_dict(keep_vars=True).items()}
    flat = [list(m._flat_weights) for m in model.modules() if isinstance(m, nn.LSTM)]
    kinds = [(m, type(m), set(vars(m)), len(m._forward_hooks)) for m in model.modules()]
    generator = torch.get_rng_state()
    found = manualbp.nudge(model, x, y, weight, *index, by=0.01, cost=cost)
    assert found.measured == pytest.approx(found.predicted, abs=0.02)  # the same units dropped
    assert torch.equal(torch.get_rng_state(), generator) and model.training
    after = model.state_dict(keep_vars=True)
    for key, (tensor, value, version) in state.items():
        assert after[key] is tensor and torch.equal(tensor, value) and tensor._version == version
        assert tensor.dtype == value.dtype and getattr(tensor, "grad", None) is None
    assert [(m, type(m), set(vars(m)), len(m._forward_hooks)) for m in model.modules()] == kinds
    rnns = [m for m in model.modules() if isinstance(m, nn.LSTM)]
    for before, rnn in zip(flat, rnns, strict=True):
        assert all(a is b for a, b in zip(before, rnn._flat_weights, strict=True))


def test_frozen_and_shared_parameters_and_those_of_the_cost() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    model[2].weight = model[0].weight
    model.requires_grad_(False)
    x, y = torch.rand(4, 3).double(), torch.rand(4, 3).double()
    found = manualbp.nudge(model, x, y, "2.weight", 0, 1, by=1e-4, cost=nn.MSELoss())
    assert found.what.startswith("0.weight[0, 1]") and found.layers[0].size > 0
    assert found.measured == pytest.approx(found.predicted, rel=1e-3)

    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3).double())

        def forward(self, output: Tensor, y: Tensor) -> Tensor:
            return (self.scale * (output - y).square()).sum(1).mean()

    found = manualbp.nudge(model, x, y, "cost.scale", 1, by=0.5, cost=Weighted())
    assert found.measured == pytest.approx(found.predicted, rel=1e-9)
    assert [layer.size for layer in found.layers[:-1]] == [0, 0, 0]


def test_it_prints_the_layers_from_the_nudged_one_on() -> None:
    model, x, y, cost = network("document")
    found = manualbp.nudge(model, x, y, "3.weight", 2, 5, by=-0.1, cost=cost)
    lines = str(found).splitlines()
    assert lines[0].startswith("3.weight[2, 5] − 0.100: C was ")
    assert [line.split()[0] for line in lines[3:8]] == ["3", "4", "5", "6", "C"]
    assert lines[-1].startswith("they part most at ")
    numbers = json.loads(json.dumps(found.to_dict()))
    assert numbers["predicted"] == found.predicted
    assert numbers["parting"] in {"4", "5", "6", "cost"}


NET, X, Y = nn.Linear(4, 2), torch.rand(3, 4), torch.rand(3, 2)


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        (("wieght", 0, 0), {"by": 1.0}, KeyError, "near to it: weight"),
        (("weight", 2, 0), {"by": 1.0}, IndexError, r"\(2, 4\): index 2 is out of range of axis 0"),
        (("weight",), {"by": 1.0}, IndexError, r"\(2, 4\): expected 2 indices, got 0"),
        (("weight",), {"by": torch.ones(2)}, ValueError, r"by: expected the shape .*\(2, 4\)"),
        (("weight", 0, 0), {"by": torch.ones(2)}, ValueError, "by: expected a number"),
        (("weight", 0, 0), {"by": "much"}, ValueError, "by: expected a number .* got 'much'"),
        (("weight", 0, 0), {}, TypeError, "expected by=, how far"),
        ((), {"by": 1.0}, TypeError, "expected the name of a parameter"),
        (("weight",), {"step": torch.optim.SGD(NET.parameters())}, TypeError, "not both"),
        ((), {"step": "sgd"}, TypeError, "step: expected a torch.optim.Optimizer, got str"),
        ((), {"step": torch.optim.SGD([X.clone()])}, ValueError, "no parameter of the model"),
        ((), {"step": torch.optim.LBFGS(NET.parameters())}, ValueError, "LBFGS.*does not run"),
    ],
)
def test_mistakes(arguments: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        manualbp.nudge(NET, X, Y, *arguments, **options, cost=F.mse_loss)


def test_a_cost_that_is_no_number() -> None:
    with pytest.raises(ValueError, match="single number"):
        manualbp.nudge(NET, X, Y, "bias", 0, by=0.1, cost=nn.MSELoss(reduction="none"))
