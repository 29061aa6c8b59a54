"""A network and its cost from plain strings and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from manualbp import nn

Activation = Literal[
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "softplus",
    "softmax",
    "log_softmax",
    "identity",
]
Cost = Literal["squared_error", "mse", "cross_entropy", "nll", "bce_with_logits"]
Init = Literal[
    "torch",
    "nielsen",
    "lecun_normal",
    "xavier_uniform",
    "xavier_normal",
    "kaiming_uniform",
    "kaiming_normal",
]

ACTIVATIONS: dict[str, Callable[[], torch.nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "softmax": lambda: nn.Softmax(dim=1),
    "log_softmax": lambda: nn.LogSoftmax(dim=1),
    "identity": nn.Identity,
}
COSTS: dict[str, Callable[[], torch.nn.Module]] = {
    "squared_error": nn.SquaredError,
    "mse": nn.MSELoss,
    "cross_entropy": nn.CrossEntropyLoss,
    "nll": nn.NLLLoss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
}
ONE_HOT_COSTS = {"mse", "bce_with_logits"}  # the others take class indices


def build(
    layers: Sequence[int],
    activation: str,
    output_activation: str,
    input_dropout: float,
    dropout: float,
    init: str,
) -> nn.Sequential:
    """Flatten, then for each pair of widths a Linear layer and its activation."""
    modules: list[torch.nn.Module] = [nn.Flatten()]
    if input_dropout:
        modules.append(nn.Dropout(input_dropout))
    for index, (width_in, width_out) in enumerate(pairwise(layers)):
        last = index == len(layers) - 2
        linear = nn.Linear(width_in, width_out)
        initialise(linear, init)
        modules += [linear, ACTIVATIONS[output_activation if last else activation]()]
        if dropout and not last:
            modules.append(nn.Dropout(dropout))
    # Without Identity, which would be one more line in the printed network.
    return nn.Sequential(*(m for m in modules if not isinstance(m, nn.Identity)))


def initialise(linear: torch.nn.Linear, init: str) -> None:
    """Fill weights and bias by the scheme ``init``; the bias starts at 0 in most schemes."""
    if init == "torch":
        return
    weight, bias = linear.weight, linear.bias
    torch.nn.init.zeros_(bias)
    if init in ("nielsen", "lecun_normal"):  # standard deviation 1/√n_in
        torch.nn.init.normal_(weight, std=1 / math.sqrt(linear.in_features))
        if init == "nielsen":
            torch.nn.init.normal_(bias)
    else:
        getattr(torch.nn.init, f"{init}_")(weight)


def targets(labels: Tensor, cost: str, output: Tensor) -> Tensor:
    """The labels as the cost takes them: one-hot in the dtype of ``output``, or classes."""
    if cost not in ONE_HOT_COSTS:
        return labels
    # One dtype, because torch computes the cross-entropy of two dtypes in the less precise one.
    return torch.nn.functional.one_hot(labels, output.shape[1]).to(output.dtype)
