"""One entry of a tape, as it is read."""

from __future__ import annotations

from typing import Any

from torch import Size, Tensor


class Entry:
    """One formula as it ran, or what torch's own operations did between two of them.

    What only a tape that keeps knows is empty on others.
    """

    def __init__(self, tape: Any, index: int) -> None:
        reading = tape._readings.get(index, {})
        self.formula: Any = tape._formulas[index]
        #: where its arguments came from: see :data:`manualbp.tape.backward.OUTPUTS`
        self.codes = tape._codes[index]
        #: the path of the module that called it, in the network (kept)
        self.path: str = reading.get("path", "")
        #: its arguments by name (kept; of torch's own operations not)
        self.inputs: dict[str, Any] = reading.get("inputs", {})
        #: its values (kept; of torch's own operations the last one's)
        self.outputs: tuple[Tensor, ...] = reading.get("outputs", ())
        #: the shapes of its values
        self.shapes: tuple[Size, ...] = tape._shapes[index]
        #: what its rules need of inputs and outputs; None once it has been let go
        self.kept: tuple[Any, ...] | None = tape._kept[index]
        #: the gradients that arrived from above, one an output (kept, after backprop)
        self.incoming: tuple[Tensor | None, ...] = reading.get("incoming", ())
        #: the gradients that its rules gave, one an argument (kept, after backprop)
        self.given: tuple[Tensor | None, ...] = reading.get("given", ())

    @property
    def name(self) -> str:
        return str(self.formula.__name__)

    @property
    def gradients(self) -> dict[str, Tensor]:
        """What the rules gave, by argument."""
        pairs = zip(self.formula.derivation.arguments, self.given, strict=False)
        return {name: gradient for name, gradient in pairs if gradient is not None}

    @property
    def bytes(self) -> int:
        """What it keeps for the way back, in bytes."""
        return sum({id(v): v.nbytes for v in self.kept or () if isinstance(v, Tensor)}.values())

    def __repr__(self) -> str:
        return f"<{self.name} {self.path or ''}→ {', '.join(str(tuple(s)) for s in self.shapes)}>"
