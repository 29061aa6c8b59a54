"""Runs as train.py writes them, without training."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from manualbp.training import network

SETTINGS = {
    "layers": [784, 6, 10],
    "activation": "tanh",
    "output_activation": "sigmoid",
    "input_dropout": 0.0,
    "dropout": 0.2,
    "init": "torch",
    "cost": "mse",
    "optimizer": "sgd",
    "lr": 1.0,
}


def stored(epoch: int = 0, accuracy: float = 0.5, **settings: object) -> dict[str, object]:
    """What Lightning stores of such a network."""
    hparams = SETTINGS | settings
    net = network.build(**{name: hparams[name] for name in [*SETTINGS][:6]})
    weights = {f"net.{name}": w for name, w in net.state_dict().items()}
    best = {"monitor": "val_accuracy", "best_model_score": torch.tensor(accuracy)}
    return {
        "epoch": epoch,
        "global_step": 100 * (epoch + 1),
        "state_dict": weights,
        "hyper_parameters": hparams,
        "callbacks": {"Checkpoint{'monitor': 'val_accuracy'}": best},
    }


def save(file: Path, content: object, when: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)
    os.utime(file, (when, when))
    return file
