"""``plot``: a picture of what is inside a trained network's backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import manualbp
from manualbp import plots
from manualbp.commands import seeing
from manualbp.commands.console import say
from manualbp.commands.line import RIGHT, near
from manualbp.see.explanation import labels_of
from manualbp.see.plots.style import checked_suffix, pyplot
from manualbp.training.errors import UserError
from manualbp.training.runs import Run, load_run

#: what each picture is of, as it is typed
KINDS = {
    "neuron": "neuron 3",
    "paths": "paths 2 5",
    "vanishing": "vanishing",
    "nudge": "nudge 1.weight 3 407",
    "cosines": "cosines",
    "deltas": "deltas",
}


def plot(
    *words: str,
    output: str = "",
    examples: int = 200,
    split: str = "train",
    example: int | None = None,
    by: float = 0.1,
) -> int:
    """A picture of what is inside a run's backward pass.

    [RUN] KIND, the RUN as the command runs lists them, or the latest. The kinds:
      neuron 3               its weights, and where each class pulls them
      paths 2 5              over which paths activation 5 of layer 2 acts on C
      vanishing              what W and σ′ each do to δ on its way back
      nudge 1.weight 3 407   ΔC along a nudge, predicted and measured
      cosines                whose gradients agree
      deltas                 δ of each layer through training

    Args:
        output (FILE): .png, .svg or .pdf; without it KIND.png
        examples (N): how many: the first ones
        split (NAME): of which examples: train, val or test
        example (I): of paths: those of that example, from 0, not their mean
        by (STEP): of nudge: how far the weight moves to each side
    """
    name, kind, where = _parsed(words)
    try:
        file = checked_suffix(output or f"{kind}.png")
        pyplot().switch_backend("Agg")
    except ImportError as error:
        raise UserError(str(error)) from None
    except ValueError as error:
        raise UserError(f"--output {error}") from None
    run = load_run(name)
    draw = _Drawing(run, examples, split, example, by)
    try:
        axes = getattr(draw, kind)(*where)
        plots.save(axes, file)
    except (ValueError, IndexError, KeyError, RuntimeError) as error:
        raise UserError(f"{kind} of {run.path}: {error.args[0]}") from None
    except OSError as error:
        raise UserError(f"--output {file}: {error.strerror}") from None
    say(f"{file}  {' '.join([kind, *map(str, where)])} · {draw.title}")
    return RIGHT


def _parsed(words: Sequence[str]) -> tuple[str | None, str, list[Any]]:
    """The run, the kind, and what it is of: a name as it is, numbers as numbers."""
    listed = ", ".join(KINDS)
    if not words:
        raise UserError(f"which picture? {listed}; as in: plot neuron 3")
    name = None if words[0] in KINDS else words[0]
    kind, *where = words[name is not None :] or ("",)
    if not kind:
        meant = near(words[0], KINDS)
        hint = f"; near to it: {meant[0]}" if meant else ""
        raise UserError(f"which picture of {words[0]}? {listed}{hint}")
    if kind not in KINDS:
        meant = near(kind, KINDS)
        raise UserError(
            f"there is no picture {kind}; {f'near to it: {meant[0]}' if meant else listed}"
        )
    wanted = len(KINDS[kind].split()) - 1
    if (not where if wanted else where) or (kind != "nudge" and len(where) != wanted):
        raise UserError(f"{' '.join([kind, *where])}: expected it as in: plot {KINDS[kind]}")
    first: list[Any] = where[:1] if wanted > 1 else []
    try:
        return name, kind, first + [int(each) for each in where[len(first) :]]
    except ValueError:
        raise UserError(
            f"{' '.join([kind, *where])}: expected whole numbers, as in: plot {KINDS[kind]}"
        ) from None


class _Drawing:
    """The kinds of pictures of one run."""

    def __init__(self, run: Run, examples: int, split: str, example: int | None, by: float) -> None:
        self.run, self.example, self.by = run, example, by
        self.count, self.split = examples, split
        self.title = run.title

    def neuron(self, unit: int) -> Any:
        return plots.neuron(self._trace(), unit)

    def paths(self, layer: str, unit: int) -> Any:
        return plots.paths(self._trace().paths(layer, unit, example=self.example))

    def vanishing(self) -> Any:
        return plots.vanishing(self._trace().vanishing())

    def nudge(self, name: str, *index: int) -> Any:
        return plots.nudge(self._trace(), name, *index, by=self.by)

    def cosines(self) -> Any:
        net, x, y, cost = self._given()
        labels = labels_of(y, len(x))
        assert labels is not None  # the targets of a classifier are classes
        return plots.cosines(manualbp.per_example_grads(net, x, y, cost=cost), labels)

    def deltas(self) -> Any:
        return plots.deltas(self.run)

    def _trace(self) -> manualbp.see.Trace:
        net, x, y, cost = self._given()
        return manualbp.trace(net, x, y, cost=cost)

    def _given(self) -> seeing.Given:
        given = seeing.given(self.run, self.count, self.split)
        width, pixels = self.run.hparams["layers"][0], given[1][0].numel()
        if width != pixels:
            raise UserError(
                f"{self.run.path}: its network takes {width} inputs, and a digit has {pixels} "
                f"pixels; what can be drawn of it is: plot {self.run.path} deltas"
            )
        self.title = seeing.title(self.run, len(given[1]), self.split)
        return given
