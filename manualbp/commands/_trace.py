"""``trace``: every layer of a run, its values and gradients."""

from __future__ import annotations

from manualbp.commands import seeing
from manualbp.commands.line import RIGHT


def trace(*runs: str, examples: int = 100, split: str = "train") -> int:
    """Sizes of values and gradients in a trained network, layer by layer.

    RUN  a folder that train.py wrote, or a checkpoint in it. None: the latest.

    Args:
        examples (N): how many: the first ones
        split (NAME): of which examples: train, val or test
    """
    run = seeing.run_alone(runs)
    found = seeing.traced(run, examples, split)
    seeing.show(seeing.title(run, found.examples, split), found)
    return RIGHT
