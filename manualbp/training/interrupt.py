"""Ctrl-C and SIGTERM: finish the step, save a checkpoint that can be resumed, and stop."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl

from manualbp.training import stored

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt(pl.Callback):
    """The first signal stops training at the end of the step; a second one ends the process.

    Outside of training the first one raises `KeyboardInterrupt` at once, as Ctrl-C does.
    :class:`~manualbp.training.checkpoint.Checkpoints` saves before the stop.

    Attributes:
        signal: the number of the signal that came, if one did.
        training: whether there is a step to be finished.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.training = False

    @property
    def status(self) -> int:
        """What a shell reports for a program that the signal ended: 130 for Ctrl-C."""
        return 128 + (self.signal or signal.SIGINT)

    def listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._receive)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.listen()  # because Lightning has put handlers of its own
        self.training = True

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.checkpoint_callback is None:  # which would save, and then stop
            self.stop()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.training = False

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self.training = False

    def stop(self) -> None:
        """Raise `KeyboardInterrupt` if a signal has come."""
        if self.signal is not None:
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            stored.abandon()
            os._exit(128 + number)
        self.signal = number
        if not self.training:
            raise KeyboardInterrupt
