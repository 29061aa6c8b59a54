"""What is logged: a row an epoch in ``metrics.csv``, in a folder that no other run has."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from manualbp.training import stored
from manualbp.training.errors import UserError

#: of metrics.csv; where there would be more, every second one of the older half is left out
ROWS = 20_000
Row = dict[str, Any]


class Metrics(CSVLogger):
    """Lightning's logger, in a folder made for this run, whose rows a resumed run begins with.

    Args:
        folder: that of all runs.
        name: of the configuration; the run is in ``<folder>/<name>/version_<n>``.
        warn: prints a line of warning.
    """

    def __init__(self, folder: str, name: str, warn: Callable[[str], None]) -> None:
        inside = os.path.normpath(name)
        if not name.strip() or os.path.isabs(inside) or inside.split(os.sep)[0] in ("..", "."):
            raise UserError(f"--name {name!r}: expected the name of a folder in {folder}/")
        super().__init__(folder, inside, flush_logs_every_n_steps=1)
        self.warn = warn

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = Writer(self.log_dir, self.warn)
        assert isinstance(self._experiment, ExperimentWriter)
        return self._experiment

    def begin_with(self, file: Path, step: int) -> None:
        """Take over the rows of another run up to that number of updates."""
        self.experiment.begin_with(file, step)

    def _get_next_version(self) -> int:
        version = super()._get_next_version()
        if getattr(rank_zero_only, "rank", 0) != 0:
            return version
        folder = Path(self.root_dir)
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"version_{version}").mkdir()  # fails for one of two runs that start
            except FileExistsError:
                if not folder.is_dir():
                    raise UserError(f"{folder} is a file: no run can be kept in it") from None
                version += 1
            except OSError as error:
                raise UserError(
                    f"{folder}: {error.strerror}: no run can be kept there\n"
                    "  mend: --trainer.default_root_dir <a folder that may be written>"
                ) from None
            else:
                return version


class Writer(ExperimentWriter):
    """Writes the rows, and goes on without where they cannot be written."""

    def __init__(self, log_dir: str, warn: Callable[[str], None]) -> None:
        super().__init__(log_dir)
        self.warn = warn
        self.file = Path(self.metrics_file_path)
        self.rows = 0  # in the file

    def save(self) -> None:
        if not self.metrics:
            return
        keys = sorted({*self.metrics_keys}.union(*self.metrics))
        try:
            full = self.rows + len(self.metrics) > ROWS
            if keys != self.metrics_keys or full or not self.file.is_file():
                rows = [*(read(self.file) if self.rows else []), *self.metrics]
                self._write_all(keys, thinned(rows) if len(rows) > ROWS else rows)
            else:
                with self.file.open("a", encoding="utf-8", newline="") as file:
                    csv.DictWriter(file, keys).writerows(self.metrics)
                self.rows += len(self.metrics)
        except (OSError, stored.SaveError) as error:
            said = getattr(error, "strerror", None)
            said = f"{self.file}: {said}" if said else str(error)
            self.warn(f"{said}; the metrics wait for the next epoch, and training goes on")
            del self.metrics[:-ROWS]
            return
        self.metrics = []

    def begin_with(self, file: Path, step: int) -> None:
        rows = [row for row in read(file) if row["step"].isdigit() and int(row["step"]) < step]
        if rows:
            self._write_all(sorted(rows[0]), rows)

    def _write_all(self, keys: list[str], rows: list[Row]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, keys)
        writer.writeheader()
        writer.writerows(rows)
        stored.write_text(text.getvalue(), self.file)
        self.metrics_keys, self.rows = keys, len(rows)


def tested(file: Path) -> bool:
    """Whether the test set has been read, by the rows of a run."""
    return any(row.get("test_accuracy") for row in read(file))


def thinned(rows: list[Row]) -> list[Row]:
    """Every second row of the older half, and the newer half."""
    half = len(rows) // 2
    return [*rows[:half:2], *rows[half:]]


def read(file: Path) -> list[Row]:
    """The rows that are whole; none where there is no such file."""
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, ValueError, csv.Error):
        return []
    return [row for row in rows if None not in row and None not in row.values() and "step" in row]
