"""Checkpoints: the best by validation, the last, and the check before one is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from manualbp.training.errors import UserError
from manualbp.training.runs import read_checkpoint


class Checkpoint(pl.callbacks.ModelCheckpoint):
    """Keeps one file, written at the end of an epoch: the best by `monitor`, or the last one."""

    def __init__(self, filename: str, monitor: str | None = None) -> None:
        super().__init__(
            filename=filename,
            monitor=monitor,
            mode="max",
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # A resumed run writes to a new folder, and still has to beat the best score so far.
        # Lightning would drop that score, with a warning, because the folder differs.
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


def check_checkpoint(path: str, model: pl.LightningModule, max_epochs: int | None) -> None:
    """Raise `UserError` unless a run of `model` can go on from this checkpoint."""
    if not Path(path).is_file():
        near = sorted(Path("runs").glob("*/version_*/checkpoints/last.ckpt"))
        found = "\n  ".join(["there are:", *map(str, near)]) if near else "there is none in runs/"
        raise UserError(f"--ckpt_path {path}: no such file; {found}")
    try:
        checkpoint = read_checkpoint(path)
    except UserError as error:
        raise UserError(f"--ckpt_path {error}") from None
    weights, epoch = checkpoint["state_dict"], checkpoint["epoch"]
    here = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    there = {name: tuple(t.shape) for name, t in weights.items()}
    if here != there:
        name = next(n for n in (*there, *here) if here.get(n) != there.get(n))
        raise UserError(
            f"--ckpt_path {path}: another network than the one configured: {name} is "
            f"{there.get(name, 'missing')} there and {here.get(name, 'missing')} here\n"
            "  mend: the configuration of that run, --config <its folder>/config.yaml"
        )
    if max_epochs is not None and 0 <= max_epochs < epoch:
        raise UserError(
            f"--ckpt_path {path}: has been trained for {epoch} epochs already; "
            f"--trainer.max_epochs is {max_epochs}"
        )
