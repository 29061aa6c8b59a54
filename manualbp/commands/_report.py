"""``report``: a page that steps backwards through a trained network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from manualbp.commands.console import say
from manualbp.commands.line import RIGHT
from manualbp.see.page.html import page
from manualbp.training.errors import UserError
from manualbp.training.network import targets
from manualbp.training.runs import Run, load_run


def report(*runs: str, output: str = "report.html", digits: int = 50, split: str = "test") -> int:
    """A page that steps backwards through a trained network.

    RUN  a folder that train.py wrote, or a checkpoint in it, as the command runs
         lists them. None: the latest.
    The page is one file. It opens in any browser, without a server.

    Args:
        output (FILE): the file that is written
        digits (N): how many: of each class the hardest, and the first
        split (NAME): of which examples: train, val or test
    """
    if len(runs) > 1:
        raise UserError(f"one RUN, got {' '.join(runs)}")
    if digits < 1:
        raise UserError(f"--digits is at least 1, got {digits}")
    run = load_run(runs[0] if runs else None)
    file = Path(output)
    text = report_of(run, digits, split)
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output {file}: {error.strerror}") from None
    say(f"{file}  {len(text) / 2**20:.1f} MiB · {run.title} · {digits} digits")
    say(f"open it   {file.resolve().as_uri()}")
    return RIGHT


def report_of(run: Run, digits: int = 50, split: str = "test") -> str:
    """The page of a run.

    Raises:
        UserError: the run has a network that the page cannot show.
    """
    images, labels = chosen(run, digits, split)
    snapshots = {
        f"epoch {each.epochs}, step {each.steps:,}": each.weights for each in run.snapshots
    }
    accuracy = "" if run.accuracy is None else f" · {run.accuracy:.2%} on validation"
    plain = run.hparams["optimizer"] in ("sgd", "nesterov")
    try:
        return page(
            run.net,
            run.hparams["cost"],
            images,
            labels,
            snapshots=snapshots if len(snapshots) > 1 else None,
            title=f"Backwards through {run.path}",
            about=f"{run.path}: {run.architecture}, trained for {run.epochs} epochs{accuracy}",
            rate=run.hparams["lr"] if plain else 0.1,
        )
    except ValueError as error:
        raise UserError(f"{run.path}: {error}") from None


def chosen(run: Run, count: int, split: str) -> tuple[Tensor, Tensor]:
    """Of each class the hardest example, and the first: as many of each as there are others."""
    images, labels = run.examples(None, split)
    with torch.no_grad():
        output = run.net(images)
        y = targets(labels, run.hparams["cost"], output)
        costs = torch.stack([run.criterion(output[i : i + 1], y[i : i + 1]) for i in range(len(y))])
    classes = sorted({*labels.tolist()})
    taken: list[int] = []
    for at, label in enumerate(classes):
        share = count // len(classes) + (at < count % len(classes))
        own = (labels == label).nonzero().flatten()
        hard = int(own[costs[own].argmax()])
        first = [i for i in own.tolist() if i != hard][: max(share - 1, 0)]
        taken += [*first, hard][-share:] if share else []
    return images[taken], labels[taken]
