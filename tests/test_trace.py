"""manualbp.trace: the numbers are those of autograd, and the model stays as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from networks import NETWORKS, network
from torch import Tensor, nn
from torch.nn import functional as F

import manualbp
from manualbp.tape import TapeError


def gradients_of_torch(model: nn.Module, x: Any, y: Any, cost: Any) -> dict[str, Tensor]:
    value = cost(model(x), y)
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(value, parameters), strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_autograd(name: str) -> None:
    model, x, y, cost = network(name)
    trace = manualbp.trace(model, x, y, cost=cost)
    expected = gradients_of_torch(model, x, y, cost)
    assert trace.grads.keys() == expected.keys()
    torch.testing.assert_close(trace.grads, expected, rtol=1e-9, atol=1e-12)
    found: dict[str, Tensor] = {}
    for layer in trace:
        for short, grad in layer.grads.items():
            full = f"{layer.path}.{short}" if f"{layer.path}.{short}" in expected else short
            found[full] = found.get(full, 0) + grad
    torch.testing.assert_close(found, dict(expected), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Full backward hook")  # an Embedding's input has no gradient
@pytest.mark.parametrize(
    "name", sorted(set(NETWORKS) - {"resnet18"})
)  # it adds in place to hooked values
def test_inputs_outputs_and_their_gradients_are_those_that_hooks_see(name: str) -> None:
    model, x, y, cost = network(name)
    trace = manualbp.trace(model, x, y, cost=cost)

    def hook(path: str) -> Any:
        def forward(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                values.append((path, args[0].detach(), output.detach()))

        def backward(module: nn.Module, grad_input: Any, grad_output: Any) -> None:
            gradients.setdefault(path, []).append((grad_input[0], grad_output[0]))

        return forward, backward

    values: list[tuple[str, Tensor, Tensor]] = []
    gradients: dict[str, list[Any]] = {}
    inner = {path: m for path, m in model.named_modules() if not any(m.children())}
    for path, module in inner.items():
        forward, backward = hook(path)
        module.register_forward_hook(forward)
        module.register_full_backward_hook(backward)
    cost(model(x.clone().requires_grad_() if x.is_floating_point() else x), y).backward()
    compared = 0
    for path in dict.fromkeys(path for path, *_ in values):
        found = trace[path] if isinstance(trace[path], tuple) else (trace[path],)
        calls = [v for v in values if v[0] == path]
        assert len(found) == len(calls)
        for layer, (_, given, output), (g_in, g_out) in zip(
            found, calls, reversed(gradients[path]), strict=True
        ):
            torch.testing.assert_close(layer.input, given)
            torch.testing.assert_close(layer.output, output)
            torch.testing.assert_close(layer.grad_output, g_out)
            if g_in is not None:
                torch.testing.assert_close(layer.grad_input, g_in)
            compared += 1
    assert compared


def test_layers_are_in_the_order_of_the_forward_pass() -> None:
    model, x, y, cost = network("document")
    trace = manualbp.trace(model, x, y, cost=cost)
    assert [layer.path for layer in trace] == list("0123456")
    assert [layer.name for layer in trace][:3] == ["Flatten", "Linear", "Sigmoid"]
    assert trace["1"] is trace.layers[1]
    assert trace["1"].formula == "z = a Wᵀ + b\n∂C/∂a = δ W\n∂C/∂W = δᵀ a\n∂C/∂b = Σₙ δₙ"
    assert trace.criterion.name == "SquaredError"
    torch.testing.assert_close(trace.criterion.grad_input, trace["6"].grad_output)
    assert trace[""].output is not None


class Functional(nn.Module):
    """Functions between layers, one layer twice, an in-place write, a slice of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(4, 6), nn.Linear(6, 6)
        self.scale = nn.Parameter(torch.rand(12))

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        h = torch.tanh(self.first(x))
        h = h + F.relu(self.again(h), inplace=True)
        h = self.again(h) * self.scale[:6]
        h += 1
        return h.sigmoid()


def test_functions_between_layers_and_layers_that_run_twice() -> None:
    torch.manual_seed(0)
    model, x, y = Functional().double(), torch.rand(3, 4).double(), torch.rand(3, 6).double()
    trace = manualbp.trace(model, x.clone(), y, cost=F.mse_loss)
    assert [layer.path for layer in trace][:4] == ["Sub()", "first", "Tanh()", "again"]
    first, second = trace["again"]
    torch.testing.assert_close(
        first.grads["weight"] + second.grads["weight"], trace.grads["again.weight"]
    )
    torch.testing.assert_close(second.input, trace["Add()"][0].output)
    assert trace["Mul()"].grads["scale"].shape == (12,)
    expected = gradients_of_torch(model, x.clone(), y, F.mse_loss)
    torch.testing.assert_close(trace.grads, expected)
    # What was written over later is there as it was.
    torch.testing.assert_close(trace["first"].input, x - 0.5)
    torch.testing.assert_close(
        first.output, F.linear(first.input, model.again.weight, model.again.bias)
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_stays_as_it_was(name: str) -> None:
    model, x, y, cost = network(name)
    model.append(nn.Dropout(0.5)) if isinstance(model, nn.Sequential) else None
    for p in model.parameters():
        p.grad = torch.full_like(p, 2.0)
    state = {k: (v, v.clone(), v._version) for k, v in model.state_dict(keep_vars=True).items()}
    kinds = [(m, type(m), set(vars(m)), len(m._forward_hooks)) for m in model.modules()]
    generator, given = torch.get_rng_state(), x.clone()
    manualbp.trace(model, x, y, cost=cost)
    assert torch.equal(torch.get_rng_state(), generator) and torch.equal(x, given)
    assert not x.requires_grad and model.training
    assert all((p.grad == 2).all() for p in model.parameters())
    after = model.state_dict(keep_vars=True)
    for key, (tensor, value, version) in state.items():
        assert after[key] is tensor and torch.equal(tensor, value) and tensor._version == version
    assert [(m, type(m), set(vars(m)), len(m._forward_hooks)) for m in model.modules()] == kinds


def test_it_runs_where_gradients_are_off() -> None:
    model, x, y, cost = network("document")
    expected = manualbp.trace(model, x, y, cost=cost).grads
    with torch.inference_mode():
        found = manualbp.trace(model, x, y, cost=cost).grads
    torch.testing.assert_close(found, expected)
    manualbp.convert(model, keep_types=True)
    torch.testing.assert_close(manualbp.trace(model, x, y, cost=cost).grads, expected)
    assert "forward" in vars(model[1])


def test_it_prints_a_row_for_each_layer() -> None:
    model, x, y, cost = network("document")
    trace = manualbp.trace(model, x, y, cost=cost)
    lines = str(trace).splitlines()
    assert lines[0].split()[:3] == ["layer", "shape", "‖a‖"]
    assert lines[2].split()[:3] == ["1", "Linear", f"{len(x)}×16"]
    numbers = json.loads(trace.to_json())
    assert numbers["cost"] == pytest.approx(float(trace.cost))
    row = numbers["layers"][2]
    z = trace["2"].input
    assert row["slope"] == pytest.approx(float((torch.sigmoid(z) * (1 - torch.sigmoid(z))).mean()))
    delta = trace["1"].grad_output * len(x)
    assert numbers["layers"][1]["delta"] == pytest.approx(
        float(delta.square().sum(1).mean().sqrt())
    )
    weight = dict(model.named_parameters())["1.weight"]
    assert numbers["layers"][1]["ratios"]["weight"] == pytest.approx(
        float(trace.grads["1.weight"].norm() / weight.detach().norm())
    )


def test_saturated_and_dead_units() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3), nn.Sigmoid())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
        model[2].weight.zero_()
        model[2].bias.copy_(torch.tensor([0.0, 9.0, -9.0]))
    trace = manualbp.trace(model, torch.rand(5, 2), torch.rand(5, 3), cost=nn.MSELoss())
    rows = trace.to_dict()["layers"]
    assert rows[1]["dead"] == 0.25 and rows[1]["saturated"] == 0.25
    assert rows[3]["dead"] == 0 and rows[3]["saturated"] == pytest.approx(2 / 3)


class Foreign(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.special.i1(torch.fft.rfft(self.mix(x), n=6).real))


def test_what_has_no_formula_is_named() -> None:
    with pytest.raises(TapeError, match=r"no formula of .*(FftR2C|i1).*"):
        manualbp.trace(Foreign(), torch.rand(3, 4), torch.rand(3, 2), cost=nn.MSELoss())


@pytest.mark.parametrize(
    "arguments, cost, error, message",
    [
        ((F.relu, torch.rand(3, 4), torch.rand(3, 2)), nn.MSELoss(), TypeError, "model: expected"),
        ((nn.Linear(4, 2), torch.rand(3, 4), torch.rand(3, 2)), "mse", TypeError, "cost: expected"),
        (
            (nn.Linear(4, 2), torch.rand(3, 4), torch.rand(2, 2)),
            nn.MSELoss(),
            ValueError,
            "3 and 2",
        ),
        (
            (nn.Linear(4, 2), torch.rand(3, 4), torch.rand(3, 2)),
            nn.MSELoss(reduction="none"),
            ValueError,
            r"single number, got shape \(3, 2\)",
        ),
        (
            (nn.Embedding(4, 2).requires_grad_(False), torch.arange(3), torch.rand(3, 2)),
            nn.MSELoss(),
            ValueError,
            "requires a gradient",
        ),
    ],
)
def test_bad_input(arguments: Any, cost: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        manualbp.trace(*arguments, cost=cost)


def test_a_path_that_does_not_exist() -> None:
    model, x, y, cost = network("transformer")
    trace = manualbp.trace(model, x, y, cost=cost)
    assert trace["encoder.layers.0.self_attn"].name == "MultiheadAttention"
    with pytest.raises(KeyError, match=r"near to it: .*encoder.layers.0.linear1"):
        trace["encoder.layers.0.linear"]
