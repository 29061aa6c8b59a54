"""The layers of a network, and the formula of each one's backward pass."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from manualbp.core import graph
from manualbp.core.docstrings import read_docstring
from manualbp.training.monitor import Cost, recording


class Row(NamedTuple):
    """One line of the table of layers."""

    name: str
    kind: str
    shape: str
    value: str
    backward: str
    parameters: int


def describe(net: nn.Module, cost: Cost, images: Tensor, labels: Tensor) -> list[Row]:
    """A row for each innermost module, in the order in which they run, and one for the cost.

    The formulas are read from each output's `grad_fn`, so they are those that ran.
    """
    net = copy.deepcopy(net).cpu().train()
    images = images.cpu().clone().requires_grad_()
    with torch.enable_grad(), torch.random.fork_rng(devices=[]), recording(net) as record:
        value = cost(net(images), labels.cpu())
    rows = []
    for name, module, before, after in record:
        shapes = ["×".join(map(str, t.shape[1:])) or "1" for t in (before, after)]
        shape = shapes[0] if shapes[0] == shapes[1] else " → ".join(shapes)
        parameters = sum(p.numel() for p in module.parameters())
        rows.append(Row(name, type(module).__name__, shape, *formula_of(after), parameters))
    text, backward = formula_of(value)
    # The other rules of a cost are for its targets and weights, which are not trained.
    rows.append(Row("C", "cost", "1", text, backward.split("   ")[0], 0))
    return rows


def formula_of(output: Tensor) -> tuple[str, str]:
    """The line of the value and the ∂ lines of the formula that made a tensor."""
    formula = graph.formula_of(output.grad_fn)
    if graph.is_structural(output.grad_fn):
        return "a = z, elsewhere", "∂C/∂z = g, in the shape of z"
    if formula is None:
        return "", f"autograd's own ({type(output.grad_fn).__name__})"
    if getattr(formula, "derivation", None) is None:
        return "", f"{formula.__name__}, a backward pass written by hand"
    lines = read_docstring(formula)
    return lines["output"], "   ".join(lines["rules"].values()) or f"{formula.__name__}'s rules"
