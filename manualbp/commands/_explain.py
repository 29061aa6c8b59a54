"""``explain``: why one weight of a run should move."""

from __future__ import annotations

from manualbp.commands import seeing
from manualbp.commands.console import say
from manualbp.commands.line import RIGHT
from manualbp.training.errors import UserError


def explain(
    *words: str,
    class_: int | None = None,
    example: int | None = None,
    examples: int = 100,
    split: str = "train",
) -> int:
    """Why a weight should move: how wrong × how responsive × how active.

    WORD  [RUN] NAME INDEX ...  as in 3b1b 1.weight 3 407. Without RUN the latest.

    Args:
        class_ (K): examples of that class alone
        example (I): its equation is printed too; from 0
        examples (N): how many: the first ones
        split (NAME): of which examples: train, val or test
    """
    run, rest = seeing.run_of(words)
    name, index = seeing.named(rest, "explain")
    found = seeing.traced(run, examples, split, class_)
    with seeing.mistakes():
        answer = found.explain(name, *index)
    if example is not None and not 0 <= example < found.examples:
        raise UserError(f"--example {example}: there are 0 to {found.examples - 1}")
    seeing.show(seeing.title(run, found.examples, split, class_), answer)
    if example is not None:
        say("")
        say(answer.of_example(example))
    return RIGHT
