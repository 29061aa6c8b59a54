"""``nudge``: what moving one weight of a run does to each layer and to the cost."""

from __future__ import annotations

import manualbp
from manualbp.commands import seeing
from manualbp.commands.line import RIGHT


def nudge(*words: str, by: float = 0.01, examples: int = 100, split: str = "train") -> int:
    """Move a weight a little: what tangents predict, what really happens.

    WORD  [RUN] NAME INDEX ...  as in 3b1b 1.weight 3 407. Without RUN the latest.

    Args:
        by (X): how far the weight is moved; of a negative number write --by=-0.01
        examples (N): how many: the first ones
        split (NAME): of which examples: train, val or test
    """
    run, rest = seeing.run_of(words)
    name, index = seeing.named(rest, "nudge")
    net, x, y, cost = seeing.given(run, examples, split)
    with seeing.mistakes():
        answer = manualbp.nudge(net, x, y, name, *index, by=by, cost=cost)
    seeing.show(seeing.title(run, len(x), split), answer)
    return RIGHT
