"""``vanishing``: which layer of a run loses the gradient, and by what."""

from __future__ import annotations

from manualbp.commands import seeing
from manualbp.commands.line import RIGHT


def vanishing(*runs: str, examples: int = 100, split: str = "train") -> int:
    """Which layer loses the gradient on its way back, and by what.

    RUN  a folder that train.py wrote, or a checkpoint in it. None: the latest.

    Args:
        examples (N): how many: the first ones
        split (NAME): of which examples: train, val or test
    """
    run = seeing.run_alone(runs)
    found = seeing.traced(run, examples, split)
    seeing.show(seeing.title(run, found.examples, split), found.vanishing())
    return RIGHT
