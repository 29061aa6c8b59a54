"""``paths``: over which paths an activation or a weight of a run acts on the cost."""

from __future__ import annotations

from manualbp.commands import seeing
from manualbp.commands.line import RIGHT


def paths(
    *words: str,
    example: int | None = None,
    top: int = 10,
    examples: int = 100,
    split: str = "train",
) -> int:
    """Over which paths an activation, or a weight, acts on the cost.

    WORD  [RUN] LAYER UNIT         as in 3b1b 2 5: activation 5 of layer 2
          [RUN] NAME INDEX ...     as in 3b1b 1.weight 3 407
    Without RUN the latest.

    Args:
        example (I): the paths of that example, from 0, not their mean
        top (N): how many whole paths of a weight
        examples (N): how many: the first ones
        split (NAME): of which examples: train, val or test
    """
    run, rest = seeing.run_of(words)
    name, index = seeing.named(rest, "paths")
    found = seeing.traced(run, examples, split)
    with seeing.mistakes():
        answer = found.paths(name, *index, top=top, example=example)
    seeing.show(seeing.title(run, found.examples, split), answer)
    return RIGHT
