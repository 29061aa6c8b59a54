"""How Lightning reads and writes checkpoints: whole files, of tensors, numbers and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import CheckpointIO

from manualbp.training import stored
from manualbp.training.runs import read_checkpoint


class WholeFiles(CheckpointIO):
    """Checkpoints by :mod:`manualbp.training.stored`.

    Attributes:
        error: why the last one could not be saved. It is kept and not raised, because only one
            process writes, and the others wait for it.
    """

    error: stored.SaveError | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        self.error = None
        try:
            stored.write(checkpoint, path)
        except stored.SaveError as error:
            self.error = error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)
