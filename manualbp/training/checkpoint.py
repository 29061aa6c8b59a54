"""Checkpoints: the best by validation, and the last, at each epoch's end and between."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from manualbp.training import stored
from manualbp.training.checkpoint_io import WholeFiles
from manualbp.training.errors import UserError
from manualbp.training.interrupt import Interrupt
from manualbp.training.metrics import Metrics

UNITS = {"s": 1, "m": 60, "h": 3600}


class Checkpoints(pl.callbacks.Checkpoint):
    """Writes ``best.ckpt`` and ``last.ckpt`` into the folder of the run.

    Where a validation follows a step, the checkpoint waits for its end. A resumed run would
    otherwise leave that validation out.

    Args:
        interrupt: what tells that training is to stop.
        warn: prints a line of warning.
        every_n_steps: updates from one ``last.ckpt`` to the next, within an epoch; 0: any number.
        every_seconds: seconds likewise.
        monitor: the metric whose highest value is the best.

    Attributes:
        dirpath: the folder of the two.
        best_model_score: the highest value so far.
        best_step: after how many updates it was.
        saved: ``last.ckpt``, once this run has written it.
        complete: whether the latest checkpoint could be written.
    """

    def __init__(
        self,
        interrupt: Interrupt,
        warn: Callable[[str], None],
        every_n_steps: int = 0,
        every_seconds: float = 600.0,
        monitor: str = "val_accuracy",
    ) -> None:
        self.interrupt, self.warn, self.monitor = interrupt, warn, monitor
        self.every_n_steps, self.every_seconds = every_n_steps, every_seconds
        self.dirpath: str | None = None
        self.best_model_score: float | None = None
        self.best_step: int | None = None
        self.saved: Path | None = None
        self.complete = True
        self.waits = False
        self.time, self.step = time.monotonic(), 0  # of the last attempt
        self.kept = 0  # the step of the one that is there

    @property
    def state_key(self) -> str:
        return self._generate_state_key(monitor=self.monitor)

    @property
    def best_model_path(self) -> str:
        """In this run's own folder, wherever that has been moved to."""
        if self.best_step is None or self.dirpath is None:
            return ""
        return os.path.join(self.dirpath, "best.ckpt")

    def steps_left(self, done: int) -> int | None:
        """The number of updates up to the next checkpoint; None: no number is set."""
        return self.every_n_steps - done % self.every_n_steps if self.every_n_steps else None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self.dirpath = os.path.join(trainer.log_dir or "", "checkpoints")

    def state_dict(self) -> dict[str, Any]:
        # No path, because the folder may be moved.
        return {"best_model_score": self.best_model_score, "best_step": self.best_step}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if trainer.state.fn != TrainerFn.FITTING or self.dirpath is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        state = checkpoint["callbacks"].get(self.state_key, {})
        self.best_model_score, self.best_step = (
            state.get("best_model_score"),
            state.get("best_step"),
        )
        self.step = self.kept = checkpoint["global_step"]
        missing = None
        if trainer.is_global_zero:
            missing = self._carry_over(trainer, checkpoint["global_step"])
        if trainer.strategy.broadcast(missing):
            self.warn(str(missing))
            self.best_model_score = self.best_step = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.time = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not self._due(trainer):
            return
        loop = trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        if loop._num_ready_batches_reached() or loop._should_check_val_fx(fetcher):  # type: ignore[arg-type]
            self.waits = True
        else:
            self._save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        loop = trainer.fit_loop.epoch_loop
        if fitting and self.waits and not loop._num_ready_batches_reached():
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        before = self.best_model_score, self.best_step
        score = trainer.callback_metrics.get(self.monitor)
        value = float("nan") if score is None else float(score)
        best = value > (float("-inf") if before[0] is None else before[0])
        if best:
            self.best_model_score, self.best_step = value, trainer.global_step
        if not self._save(trainer, best) and best:
            self.best_model_score, self.best_step = before

    def _due(self, trainer: pl.Trainer) -> bool:
        if self.interrupt.signal is not None:
            return True
        since = trainer.global_step - self.step
        if self.every_n_steps and since and trainer.global_step % self.every_n_steps == 0:
            return True
        # Several processes have to agree on it, which takes longer than a step.
        if (
            not since
            or not self.every_seconds
            or (trainer.world_size > 1 and trainer.global_step % 64)
        ):
            return False
        late = time.monotonic() - self.time >= self.every_seconds
        return bool(trainer.strategy.broadcast(late))

    def _save(self, trainer: pl.Trainer, best: bool = False) -> bool:
        """Write ``last.ckpt``, and the same as ``best.ckpt``; stop if a signal has come."""
        self.waits = False
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.complete = self._write(trainer, best)
            self.time, self.step = time.monotonic(), trainer.global_step
        self.interrupt.stop()
        return self.complete

    def _write(self, trainer: pl.Trainer, best: bool) -> bool:
        assert self.dirpath is not None
        last = Path(self.dirpath) / "last.ckpt"
        # The best first: if the process ends between the two, the resumed run makes both again.
        first = last.with_name("best.ckpt") if best else last
        trainer.save_checkpoint(first)
        files = trainer.strategy.checkpoint_io
        error = files.error if isinstance(files, WholeFiles) else None
        if best and error is None and trainer.is_global_zero:
            try:
                stored.link(first, last)
            except stored.SaveError as failed:
                error = failed
        if error is not None:
            kept = f"that of step {self.kept} is kept" if self.saved else "none was saved before"
            self.warn(f"{error}; {kept}, and training goes on")
        if trainer.strategy.broadcast(error is not None):
            return False
        self.saved, self.kept = last, trainer.global_step
        return True

    def _carry_over(self, trainer: pl.Trainer, step: int) -> str | None:
        """Give the new folder the checkpoint that it goes on from, the best one, and the metrics.

        Returns:
            A warning if the best one is not there.
        """
        assert self.dirpath is not None
        source, folder = Path(str(trainer.ckpt_path)), Path(self.dirpath)
        stored.clean(source.parent)
        stored.link(source, folder / "last.ckpt")
        self.saved = folder / "last.ckpt"
        if isinstance(trainer.logger, Metrics):
            trainer.logger.begin_with(source.parent.parent / "metrics.csv", step)
        if self.best_step is None:
            return None
        best = source if step == self.best_step else source.with_name("best.ckpt")
        try:
            found = stored.read(best)["global_step"]
        except FileNotFoundError:
            reason = "is missing"
        except Exception as error:
            reason = f"cannot be read ({str(error).splitlines()[0] if str(error) else error!r})"
        else:
            if found == self.best_step:
                stored.link(best, folder / "best.ckpt")
                return None
            reason = f"is of step {found}, and not of {self.best_step}"
        return f"{best} {reason}: the best of the epochs from here on counts"


def seconds(text: str) -> float:
    """A time such as 10m, 90s or 1.5h; 0 is never.

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)([smh]?)", str(text).strip())
    if not found or (not found[2] and float(found[1])):
        raise UserError(f"--save_every {text}: expected a time: 10m, 90s, 1.5h; 0 is never")
    return float(found[1]) * UNITS.get(found[2], 1)
