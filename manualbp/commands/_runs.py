"""``runs``: what ``train.py`` has trained."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from manualbp.commands.console import say, table
from manualbp.commands.line import RIGHT
from manualbp.training.errors import UserError
from manualbp.training.runs import (
    RUNS,
    checkpoints,
    find_runs,
    modified,
    open_checkpoint,
    preferred,
)

HEAD = ("run", "network", "cost", "best epoch", "validation", "when")


def runs(*folders: str) -> int:
    """The runs of train.py, the latest first: network, cost, accuracy.

    FOLDER  where to look: runs, if none is named.
    A run's folder, or a checkpoint in it, is the RUN of the other commands. Without
    one they take the latest.
    """
    where = [Path(name) for name in folders] or [RUNS]
    if missing := [str(path) for path in where if folders and not path.exists()]:
        raise UserError(f"there is no folder {', '.join(missing)}")
    found = [folder for path in where for folder in find_runs(path)]
    if not found:
        say(f"no run in {', '.join(map(str, where))}: python train.py makes one")
        return RIGHT
    table(HEAD, [_row(folder) for folder in found])
    return RIGHT


def _row(folder: Path) -> list[str]:
    when = datetime.fromtimestamp(modified(checkpoints(folder)[0])).strftime("%Y-%m-%d %H:%M")
    file = preferred(folder)
    try:
        run = open_checkpoint(file)
        accuracy = "" if run.accuracy is None else f"{run.accuracy:.2%}"
        epochs = f"{run.epochs} of {run.snapshots[-1].epochs}"
        return [str(folder), run.architecture, run.hparams["cost"], epochs, accuracy, when]
    except UserError as error:
        return [str(folder), str(error).removeprefix(f"{file}: "), "", "", "", when]
