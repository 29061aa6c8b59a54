"""What TraceCallback takes of an epoch's time, at its defaults: the configurations of train.py.

python benchmarks/callback.py
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from typing import Any

import pytorch_lightning as pl
import torch
from measure import machine, table
from pytorch_lightning.loggers import CSVLogger

from manualbp.training import TraceCallback
from manualbp.training.classifier import LitClassifier
from manualbp.training.cli import quieten
from manualbp.training.data import MNISTDataModule

EPOCHS = 5
#: a network, batch and engine of each of train.py's configurations
ROWS: dict[str, tuple[dict[str, Any], int]] = {
    "784-16-16-10, tape": ({"layers": [784, 16, 16, 10], "engine": "tape"}, 32),
    "784-30-10, tape": ({"layers": [784, 30, 10], "engine": "tape"}, 10),
    "784-16-16-10, autograd": ({"layers": [784, 16, 16, 10]}, 32),
}


class Timed(TraceCallback):
    """Notes how long it takes, and how long the whole epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.own: list[float] = []
        self.whole: list[float] = []

    def on_train_epoch_start(self, *_: Any) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_end(self, *arguments: Any) -> None:
        start = time.perf_counter()
        super().on_train_epoch_end(*arguments)
        now = time.perf_counter()
        self.own.append(now - start)
        self.whole.append(now - self.started)


def measured(settings: dict[str, Any], batch_size: int) -> tuple[float, float]:
    """The median seconds of the callback and of the epoch, the first one left out."""
    torch.manual_seed(0)
    callback = Timed()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=EPOCHS,
            logger=CSVLogger(folder),
            callbacks=[callback],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=0,
        )
        trainer.fit(LitClassifier(**settings), datamodule=MNISTDataModule(batch_size=batch_size))
    return statistics.median(callback.own[1:]), statistics.median(callback.whole[1:])


def report(rows: dict[str, tuple[dict[str, Any], int]]) -> str:
    """The table, as Markdown."""
    torch.set_num_threads(1)
    cells = []
    for name, (settings, batch_size) in rows.items():
        own, whole = measured(settings, batch_size)
        cells.append([name, f"{batch_size}", f"{1e3 * own:.1f} ms", f"{whole:.2f} s"])
        cells[-1].append(f"{own / whole:.1%}")
    return table(["network, engine", "batch", "callback", "epoch", "share"], cells)


if __name__ == "__main__":
    quieten()
    wanted = {name: row for name, row in ROWS.items() if not sys.argv[1:] or sys.argv[1] in name}
    print(machine(), report(wanted), sep="\n\n")
