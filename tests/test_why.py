"""Why a weight should move: explain, paths and check on trained and on odd networks."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import NETWORKS, network
from torch import Tensor, nn
from torch.nn import functional as F

import manualbp
from manualbp.training import mnist

DATA = Path(__file__).parents[1] / "data"


def sigma(z: float) -> float:
    return 1 / (1 + torch.exp(torch.tensor(-z, dtype=torch.double)).item())


@cache
def weights() -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """What the document's network learns from 1,600 digits; and 24 that it has not seen."""
    model, *_, cost = network("document")
    images, labels = mnist.load(DATA, train=True)
    x, y = images.double(), labels
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(10):
        for at in torch.arange(1600).split(16):
            optimizer.zero_grad()
            cost(model(x[at]), y[at]).backward()
            optimizer.step()
    assert (model(x[2000:3000]).argmax(1) == y[2000:3000]).double().mean() > 0.5
    return model.state_dict(), x[1600:1624], y[1600:1624]


def trained() -> tuple[nn.Module, Tensor, Tensor, Any]:
    model, *_, cost = network("document")
    state, x, y = weights()
    model.load_state_dict(state)
    return model, x, y, cost


def test_the_factors_are_those_of_the_document_by_index_in_plain_loops() -> None:
    """∂C₀/∂wⱼₖ = aₖ σ′(zⱼ) ∂C₀/∂aⱼ, with ∂C₀/∂aⱼ = 2(aⱼ − yⱼ), or the sum over the next layer."""
    model, x, y, cost = trained()
    trace = manualbp.trace(model, x, y, cost=cost)
    hidden, last = model[3], model[5]
    j, k = 4, 9  # of the weights from the first hidden layer to the second
    found = trace.explain("3.weight", j, k)
    for n in range(4):
        pixels = x[n].flatten().tolist()
        a1 = [
            sigma(sum(w * p for w, p in zip(row, pixels, strict=True)) + b)
            for row, b in zip(model[1].weight.tolist(), model[1].bias.tolist(), strict=True)
        ]
        z2 = [
            sum(w * a for w, a in zip(row, a1, strict=True)) + b
            for row, b in zip(hidden.weight.tolist(), hidden.bias.tolist(), strict=True)
        ]
        a2 = [sigma(z) for z in z2]
        a3 = [
            sigma(sum(w * a for w, a in zip(row, a2, strict=True)) + b)
            for row, b in zip(last.weight.tolist(), last.bias.tolist(), strict=True)
        ]
        wrong = 0.0
        for i, a in enumerate(a3):  # a sum over paths, one for each output
            desired = 1.0 if i == y[n] else 0.0
            wrong += last.weight[i, j].item() * a * (1 - a) * 2 * (a - desired)
        assert found.wrong[n].item() == pytest.approx(wrong, rel=1e-12)
        assert found.responsive[n].item() == pytest.approx(a2[j] * (1 - a2[j]), rel=1e-12)
        assert found.active[n].item() == pytest.approx(a1[k], rel=1e-12)


@pytest.mark.parametrize("name", ["1", "3", "5"])
def test_the_mean_of_the_products_is_the_gradient(name: str) -> None:
    model, x, y, cost = trained()
    cost(model(x), y).backward()
    trace = manualbp.trace(model, x, y, cost=cost)
    weight = model[int(name)].weight
    draw = random.Random(0)
    for _ in range(50):
        j, k = draw.randrange(weight.shape[0]), draw.randrange(weight.shape[1])
        found = trace.explain(f"{name}.weight", j, k)
        product = (found.wrong * found.responsive * found.active).mean().item()
        assert product == pytest.approx(weight.grad[j, k].item(), rel=1e-12, abs=1e-15)
        assert found.value == weight.grad[j, k].item()
    for j in range(weight.shape[0]):
        found = trace.explain(f"{name}.bias", j)
        expected = model[int(name)].bias.grad[j].item()
        assert found.per_example.mean().item() == pytest.approx(expected, rel=1e-12)
        assert (found.active == 1).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_can_be_explained(name: str) -> None:
    """Beside a loop over the examples, of one entry of each parameter."""
    model, x, y, cost = network(name)
    if name == "resnet18":  # in training mode no example has a gradient of its own
        model.eval()
    trace = manualbp.trace(model, x, y, cost=cost)
    draw = random.Random(1)
    at = {n: tuple(draw.randrange(s) for s in p.shape) for n, p in model.named_parameters()}
    rows = []
    for i in range(len(x)):
        value = cost(model(x[i : i + 1]), y[i : i + 1])
        rows.append(torch.autograd.grad(value, list(model.parameters())))
    names = list(at)[:: 6 if name == "resnet18" else 1]
    for parameter in names:
        place = list(at).index(parameter)
        expected = torch.stack([row[place][at[parameter]] for row in rows])
        found = trace.explain(parameter, *at[parameter])
        torch.testing.assert_close(found.per_example, expected, rtol=1e-9, atol=1e-12)
        assert found.per_example.mean().item() == pytest.approx(found.value, rel=1e-9, abs=1e-13)


def test_batch_norm_in_training_mode_has_a_share_for_each_example() -> None:
    model, x, y, cost = network("resnet18")
    trace = manualbp.trace(model, x, y, cost=cost)
    for name, unit in (("bn1.weight", 5), ("bn1.bias", 7), ("layer2.0.bn2.weight", 3)):
        found = trace.explain(name, unit)
        assert found.per_example.shape == (len(x),) and found.wrong is None
        assert found.per_example.mean().item() == pytest.approx(found.value, rel=1e-9)
    z = trace["conv1"].output
    normal = (z - z.mean((0, 2, 3), keepdim=True)) / (
        z.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    expected = (trace["bn1"].grad_output * normal)[:, 5].sum((1, 2)) * len(x)
    found = trace.explain("bn1.weight", 5).per_example
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_the_tug_of_war() -> None:
    model, x, y, cost = trained()
    trace = manualbp.trace(model, x, y, cost=cost)
    found = trace.explain("5.weight", 3, 2)
    pulls = found.per_example.tolist()
    order = sorted(range(len(pulls)), key=lambda i: pulls[i])
    assert found.up == [i for i in order if pulls[i] < 0][:5]
    assert found.down == [i for i in reversed(order) if pulls[i] > 0][:5]
    assert found.cancellation == pytest.approx(abs(sum(pulls)) / sum(map(abs, pulls)))
    for label, mean in found.classes.items():
        of = [p for p, c in zip(pulls, y.tolist(), strict=True) if c == label]
        assert mean == pytest.approx(sum(of) / len(of))
    text = str(found)
    assert "how wrong" in text and "how responsive" in text and "how active" in text
    assert f"example {found.strongest} (class {int(y[found.strongest])})" in text


@pytest.mark.parametrize("layer, units", [("0", 784), ("2", 16), ("4", 16), ("6", 10), ("3", 16)])
def test_paths_add_up_to_the_gradient_of_an_activation(layer: str, units: int) -> None:
    model, x, y, cost = trained()
    trace = manualbp.trace(model, x, y, cost=cost)
    for unit in random.Random(2).sample(range(units), min(8, units)):
        found = trace.paths(layer, unit)
        expected = trace[layer].grad_output[:, unit] * len(x)
        torch.testing.assert_close(found.total, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(found.products.sum(0), expected, rtol=1e-12, atol=1e-15)
        for row in found.rows:
            torch.testing.assert_close(row.weight * row.responsive * row.wrong, row.product)
    assert len(trace.paths("2", 3).rows) == 16 and len(trace.paths("6", 3).rows) == 1


@pytest.mark.parametrize(
    "name, layer, unit",
    [
        ("lenet", "1", (2, 5, 7)),
        ("lenet", "2", (1, 3, 4)),
        ("lenet", "5", (3, 2, 1)),
        ("resnet18", "layer1.0.relu", None),
        ("transformer", "encoder.layers.0.norm1", (2, 3)),
        ("transformer", "encoder.layers.1.linear1", (1, 7)),
    ],
)
def test_paths_through_other_layers(name: str, layer: str, unit: Any) -> None:
    model, x, y, cost = network(name)
    if name == "resnet18":
        model.eval()
    trace = manualbp.trace(model, x, y, cost=cost)
    if unit is None:  # it runs twice
        with pytest.raises(ValueError, match="ran 2 times"):
            trace.paths(layer, 0)
        return
    found = trace.paths(layer, *unit, example=1)
    expected = trace[layer].grad_output[(slice(None), *unit)] * len(x)
    torch.testing.assert_close(found.products.sum(0), expected, rtol=1e-9, atol=1e-14)
    assert layer in str(found)


def test_whole_paths_add_up_to_the_gradient_of_a_weight() -> None:
    model, x, y, cost = trained()
    trace = manualbp.trace(model, x, y, cost=cost)
    every = trace.paths("1.weight", 3, 407, top=1000)
    assert every.count == len(every.units) == 16 * 10
    assert sum(every.products) == pytest.approx(trace.grads["1.weight"][3, 407].item(), rel=1e-10)
    assert every.carried == pytest.approx(1, rel=1e-10)
    few = trace.paths("1.weight", 3, 407, top=5)
    assert few.products == every.products[:5]
    assert abs(few.products[0]) == max(map(abs, every.products))
    a = {i: trace[i].output for i in "0246"}  # one path by hand, of one example
    n, (j, i, o) = 2, few.units[0]
    one = trace.paths("1.weight", 3, 407, top=160, example=n)
    slope = {i: (v * (1 - v)) for i, v in a.items()}
    by_hand = a["0"][n, 407] * slope["2"][n, j] * model[3].weight[i, j] * slope["4"][n, i]
    by_hand = by_hand * model[5].weight[o, i] * slope["6"][n, o]
    by_hand = by_hand * 2 * (a["6"][n, o] - (y[n] == o).double())
    assert one.products[one.units.index((j, i, o))] == pytest.approx(by_hand.item(), rel=1e-10)
    assert "1[3] → 3[" in str(few)


class Functional(nn.Module):
    """Functions between the layers, dropout among them, and an end that is no weighted sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.dropout(torch.tanh(self.first(x)), 0.4)
        return F.log_softmax(self.last(F.relu(self.second(h))), 1)


def test_whole_paths_through_functions_and_dropout() -> None:
    torch.manual_seed(3)
    model, x, y = Functional().double(), torch.randn(7, 5).double(), torch.randint(3, (7,))
    trace = manualbp.trace(model, x, y, cost=F.nll_loss)
    for j, k in ((0, 1), (4, 2), (5, 0)):
        found = trace.paths("first.weight", j, k, top=99)
        expected = trace.grads["first.weight"][j, k].item()
        assert found.count == 12 and found.layers == ["first", "second", "last"]
        assert sum(found.products) == pytest.approx(expected, rel=1e-10, abs=1e-15)
    found = trace.paths("first", 2)
    torch.testing.assert_close(found.products.sum(0), trace["first"].grad_output[:, 2] * 7)
    assert trace["Dropout()"].output.dtype is torch.double  # without the mask
    with pytest.raises(ValueError, match="a weight of a Linear layer"):
        trace.paths("first.bias", 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_chain_holds(name: str) -> None:
    model, x, y, cost = network(name)
    found = manualbp.trace(model, x, y, cost=cost).check()
    assert 0 <= found.error < 1e-9 and found.tried > 10
    assert str(found.tried) in str(found)


@pytest.mark.parametrize("factor", [1.001, -1.0])
def test_a_wrong_chain_is_told(factor: float) -> None:
    model, x, y, cost = network("document")
    trace = manualbp.trace(model, x, y, cost=cost)
    entry = next(entry for entry in trace.entries if entry.path == "3")
    of_input, *others = entry.grad_inputs
    entry.grad_inputs = (of_input * factor, *others)
    with pytest.raises(AssertionError, match=r"(sum over paths|∂C/∂input) of [23] is off by"):
        trace.check()


def test_errors_name_what_there_is() -> None:
    model, x, y, cost = network("document")
    trace = manualbp.trace(model, x, y, cost=cost)
    with pytest.raises(KeyError, match=r"near to it: .*1\.weight"):
        trace.explain("0.weight", 3, 4)
    with pytest.raises(IndexError, match=r"1\.weight is of shape \(16, 784\): index 16"):
        trace.explain("1.weight", 16, 4)
    with pytest.raises(IndexError, match="expected an index, got 2"):
        trace.explain("1.bias", 1, 2)
    with pytest.raises(KeyError, match="is no layer"):
        trace.paths("hidden", 3)
    with pytest.raises(IndexError, match=r"2\[16\].*\(16,\)"):
        trace.paths("2", 16)
    with pytest.raises(IndexError, match="example: expected 0 to 5, got 6"):
        trace.paths("2", 3, example=6)
