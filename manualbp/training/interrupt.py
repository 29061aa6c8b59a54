"""Ctrl-C: finish the step, save a checkpoint that can be resumed, and stop."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl


class SaveOnInterrupt(pl.Callback):
    """The first Ctrl-C saves `last.ckpt` at the end of the step; a second one stops at once."""

    def __init__(self) -> None:
        self.interrupted = False
        self.saved: Path | None = None
        self.before: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGINT, self._interrupt)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if self.interrupted:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.interrupted:
            self._stop(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._restore()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(number, signal.default_int_handler)

    def _stop(self, trainer: pl.Trainer) -> None:
        checkpoint = trainer.checkpoint_callback
        if isinstance(checkpoint, pl.callbacks.ModelCheckpoint) and checkpoint.dirpath:
            self.saved = Path(checkpoint.dirpath) / "last.ckpt"
            trainer.save_checkpoint(self.saved)
        raise KeyboardInterrupt

    def _restore(self) -> None:
        if self.before is not None:
            signal.signal(signal.SIGINT, self.before)
            self.before = None
