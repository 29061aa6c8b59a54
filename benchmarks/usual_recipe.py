"""The recipe that most would write: torch.nn, Lightning, a DataLoader with ToTensor.

python benchmarks/usual_recipe.py    784-128-10, batch 64, and the seconds of each epoch
"""

from __future__ import annotations

import logging
import time
import warnings

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST

from manualbp.training.mnist import REPOSITORY_DATA


class Usual(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.Linear(784, 128),
            torch.nn.ReLU(),
            torch.nn.Linear(128, 10),
        )
        self.criterion = torch.nn.CrossEntropyLoss()

    def training_step(self, batch, _):
        x, y = batch
        loss = self.criterion(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def on_train_epoch_start(self):
        self.started = time.perf_counter()

    def on_train_epoch_end(self):
        print(f"epoch {time.perf_counter() - self.started:.2f} s", flush=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    data = MNIST(REPOSITORY_DATA, train=True, transform=transforms.ToTensor(), download=True)
    part = torch.utils.data.Subset(data, range(55_000))
    trainer = pl.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Usual(), DataLoader(part, batch_size=64, shuffle=True))
