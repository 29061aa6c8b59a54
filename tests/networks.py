"""Networks whose backward pass the tests look into, each with an input, a target and a cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import manualbp

EXAMPLES = 6


class LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 12, num_layers=2, batch_first=True)
        self.last = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.lstm(x)[0][:, -1])


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
        self.embedding = nn.Embedding(20, 16)
        self.positions = nn.Parameter(torch.randn(7, 16))
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.last = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.encoder(self.embedding(x) + self.positions[: x.shape[1]]).mean(1))


def document() -> nn.Module:
    layers = [nn.Linear(784, 16), nn.Sigmoid(), nn.Linear(16, 16), nn.Sigmoid(), nn.Linear(16, 10)]
    return nn.Sequential(nn.Flatten(), *layers, nn.Sigmoid())


def lenet() -> nn.Module:
    features = [nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2)]
    features += [nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*features, nn.Linear(400, 84), nn.Sigmoid(), nn.Linear(84, 10))


def resnet18() -> nn.Module:
    from torchvision import models

    return models.resnet18(num_classes=10)


def images(n: int) -> Tensor:
    return torch.rand(n, 1, 28, 28)


#: a network, what makes n inputs of it, and its cost
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor], Any]] = {
    "document": (document, images, manualbp.nn.SquaredError()),
    "lenet": (lenet, images, nn.CrossEntropyLoss()),
    "resnet18": (resnet18, lambda n: torch.rand(n, 3, 32, 32), nn.CrossEntropyLoss()),
    "transformer": (Transformer, lambda n: torch.randint(20, (n, 5)), nn.CrossEntropyLoss()),
    "lstm": (LSTM, lambda n: torch.randn(n, 5, 8), nn.CrossEntropyLoss()),
}


def network(
    name: str, *, dtype: torch.dtype = torch.float64
) -> tuple[nn.Module, Tensor, Tensor, Any]:
    """A network, its input, its target and its cost, from a seed."""
    torch.manual_seed(0)
    build, inputs, cost = NETWORKS[name]
    x = inputs(EXAMPLES)
    x = x.to(dtype) if x.is_floating_point() else x
    return build().to(dtype), x, torch.randint(10, (EXAMPLES,)), cost
