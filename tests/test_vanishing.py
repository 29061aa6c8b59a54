"""trace.vanishing: sizes of δ from the cost back, and what W and σ′ do to them."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
import torch
from networks import NETWORKS, network
from torch import Tensor, nn

import manualbp
from manualbp.see.vanishing import Vanishing


def of(model: nn.Module, features: int = 4, outputs: int = 3) -> Vanishing:
    torch.manual_seed(0)
    x, y = torch.rand(5, features).double(), torch.rand(5, outputs).double()
    return manualbp.trace(model.double(), x, y, cost=manualbp.nn.SquaredError()).vanishing()


def test_each_step_is_what_the_formulas_give() -> None:
    model, x, y, cost = network("document")
    found = manualbp.trace(model, x, y, cost=cost).vanishing()
    first, second, last = (model[i] for i in (1, 3, 5))
    with torch.no_grad():
        z1 = first(x.flatten(1))
        z2 = second(z1.sigmoid())
        a3 = last(z2.sigmoid()).sigmoid()
        y = torch.nn.functional.one_hot(y, 10)

        def slope(z: Tensor) -> Tensor:
            return z.sigmoid() * (1 - z.sigmoid())

        sizes = [2 * (a3 - y)]  # of one example, before and after each σ′
        sizes += [sizes[-1] * a3 * (1 - a3)]
        sizes += [sizes[-1] @ last.weight]
        sizes += [sizes[-1] * slope(z2)]
        sizes += [sizes[-1] @ second.weight]
        sizes += [sizes[-1] * slope(z1)]
    logs = [math.log10(s.square().sum(1).mean().sqrt()) for s in sizes]
    a3, z3, a2, z2, a1, z1 = logs
    assert math.log10(found.start) == pytest.approx(a3, abs=1e-12)
    assert [s.path for s in found.steps] == ["5", "3", "1"]
    assert [s.after for s in found.steps] == ["cost", "5", "3"]
    assert [s.activations for s in found.steps] == [("6",), ("4",), ("2",)]
    assert [s.log for s in found.steps] == pytest.approx([z3, z2, z1], abs=1e-12)
    assert [s.slope for s in found.steps] == pytest.approx([z3 - a3, z2 - a2, z1 - a1], abs=1e-12)
    assert [s.weights for s in found.steps] == pytest.approx([0, a2 - z3, a1 - z2], abs=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_parts_add_up_to_the_steps_and_the_steps_to_the_way(name: str) -> None:
    model, x, y, cost = network(name)
    found = manualbp.trace(model, x, y, cost=cost).vanishing()
    assert len(found.steps) > 1
    for step in found.steps:
        assert step.weights + step.slope == pytest.approx(step.change, abs=1e-14)
        assert bool(step.activations) == (step.slope != 0)
    assert found.way[0].after == "cost" and found.way[-1] is found.steps[-1]
    for after, step in pairwise(found.way):
        assert step.after == after.path
    expected = found.steps[-1].log - math.log10(found.start)
    assert found.change == pytest.approx(expected, abs=1e-12)
    numbers = json.loads(json.dumps(found.to_dict()))
    assert [numbers["steps"][i]["path"] for i in numbers["way"]] == [s.path for s in found.way]
    assert str(found).splitlines()[-1] == found.sentence == numbers["sentence"]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 6)
        with torch.no_grad():
            self.outer.weight.mul_(1e-3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h + self.outer(torch.tanh(self.inner(h))))


def test_where_paths_meet_the_step_is_from_the_one_that_sends_the_most_back() -> None:
    found = of(Residual())
    after = {step.path: step.after for step in found.steps}
    assert after == {"last": "cost", "outer": "last", "inner": "outer", "first": "last"}
    assert [step.path for step in found.way] == ["last", "first"]
    inner = next(step for step in found.steps if step.path == "inner")
    assert inner.activations == ("Tanh()",)
    assert inner.weights < -2  # W of outer


def chain(*widths: int, scale: float = 1.0, activation: type[nn.Module] = nn.Sigmoid) -> nn.Module:
    torch.manual_seed(1)
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
        with torch.no_grad():
            layers[-2].weight.mul_(scale)
    return nn.Sequential(*layers[:-1])


def test_the_sentence_names_the_layer_and_what_loses_it() -> None:
    model = chain(4, 8, 8, 8, 3)
    with torch.no_grad():
        model[2].bias.add_(9.0)
    found = of(model)
    assert "between layer 4 and layer 2" in found.sentence
    assert found.sentence.index("by σ′ of 3 (") < found.sentence.index("by W of layer 4")
    assert "saturated" in found.sentence
    model = chain(4, 8, 8, 8, 3)
    with torch.no_grad():
        model[4].weight.mul_(1e-4)
    found = of(model)
    assert "shrinks" in found.sentence and "between layer 4 and layer 2" in found.sentence
    assert found.sentence.index("by W of layer 4") < found.sentence.index("by σ′ of 3")
    found = of(chain(4, 8, 8, 8, 3, scale=100, activation=nn.Identity))
    assert "grows" in found.sentence
    found = of(chain(4, 8, 3, activation=nn.ReLU, scale=4))
    assert found.sentence.endswith("no layer loses it")


def test_dead_units_stop_the_gradient() -> None:
    model = chain(4, 8, 8, 3, activation=nn.ReLU)
    with torch.no_grad():
        model[2].bias.fill_(-50.0)
    found = of(model)
    assert found.sentence == "nothing arrives at layer 2: σ′ of 3 makes δ 0 there"
    dead = found.steps[1]
    assert (dead.delta, dead.dead, dead.saturated) == (0, 1, 1)
    assert dead.change == dead.slope == -math.inf and dead.weights == 0
    assert found.steps[2].change == 0  # nothing was left to lose
    assert "-inf" in str(found)
    with torch.no_grad():
        model[4].weight.zero_()
    assert of(model).sentence == "nothing arrives at layer 2: W of layer 4 makes δ 0 there"


def test_frozen_layers_are_steps_too() -> None:
    model = chain(4, 8, 8, 3)
    model[2].requires_grad_(False)
    assert [step.path for step in of(model).steps] == ["4", "2", "0"]
