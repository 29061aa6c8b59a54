"""Names and indices of parameters, as ``explain``, ``paths`` and ``nudge`` take them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from manualbp.see.naming import parameter_at

NET = nn.Sequential(nn.Linear(7, 5), nn.Sigmoid(), nn.Conv2d(2, 3, 2))
PARAMETERS = dict(NET.named_parameters())


@pytest.mark.parametrize(
    "name, index",
    [("0.weight", (3, 6)), ("0.weight", (-1, -7)), ("0.bias", (4,)), ("2.weight", (2, 1, 0, 1))],
)
def test_the_entry_is_that_of_torch(name: str, index: tuple[int, ...]) -> None:
    place = parameter_at(PARAMETERS, name, index)
    expected = PARAMETERS[name][index]
    assert place.parameter is PARAMETERS[name]
    assert place.parameter.flatten()[place.flat] == expected == place.of(PARAMETERS[name])
    assert all(i >= 0 for i in place.index)


def test_it_is_printed_with_its_index() -> None:
    assert str(parameter_at(PARAMETERS, "0.weight", [-2, 4])) == "0.weight[3, 4]"
    assert parameter_at({"scale": torch.ones(())}, "scale", ()).flat == 0
    assert parameter_at(PARAMETERS, "0.bias", [torch.tensor(3)]).flat == 3


def test_a_shared_parameter_has_all_its_names() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert parameter_at(dict(net.named_parameters()), "1.weight", (0, 2), net).name == "0.weight"


@pytest.mark.parametrize(
    "name, index, error, message",
    [
        ("0.wieght", (0, 0), KeyError, "'0.wieght' is no parameter; near to it: 0.weight"),
        ("zzz", (0,), KeyError, "there are 0.bias, 0.weight, 2.bias, 2.weight"),
        ("0.weight", (5, 0), IndexError, r"of shape \(5, 7\): index 5 .* axis 0.* from 0 to 4"),
        ("0.weight", (0, -8), IndexError, r"\(5, 7\): index -8 is out of range of axis 1"),
        ("0.weight", (3,), IndexError, r"\(5, 7\): expected 2 indices, got 1 \(3\)"),
        ("0.bias", (), IndexError, r"\(5,\): expected an index, got 0"),
        ("0.bias", (1.5,), TypeError, r"index of 0.bias: expected whole numbers.*got 1.5"),
        ("0.bias", (True,), TypeError, "whole numbers"),
    ],
)
def test_mistakes(name: str, index: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parameter_at(PARAMETERS, name, index)


def test_a_parameter_without_a_gradient_says_so() -> None:
    net = nn.Linear(3, 2)
    net.bias.requires_grad_(False)
    with pytest.raises(ValueError, match="bias requires no gradient"):
        parameter_at({"weight": net.weight}, "bias", (0,), net)
    net.bias.requires_grad_()
    with pytest.raises(ValueError, match="bias has no effect on the cost"):
        parameter_at({"weight": net.weight}, "bias", (0,), net)
