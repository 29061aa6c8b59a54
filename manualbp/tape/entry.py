"""One entry of a tape, as it is read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Size, Tensor

from manualbp.tape.backward import run_rules


class Entry:
    """One formula as it ran, or what torch's own operations did between two of them.

    Attributes marked (kept) are empty unless the tape was made with ``keep=True``.
    """

    def __init__(self, tape: Any, index: int) -> None:
        record = tape._records.get(index, {})
        self.formula: Any = tape._formulas[index]
        #: where its arguments came from: see :data:`manualbp.tape.backward.MAX_OUTPUTS`
        self.sources = tape._sources[index]
        #: the path of the module that called it, in the network (kept)
        self.path: str = record.get("path", "")
        #: its arguments by name (kept; of torch's own operations not)
        self.inputs: dict[str, Any] = record.get("inputs", {})
        #: its values (kept; of torch's own operations the last one's)
        self.outputs: tuple[Tensor, ...] = record.get("outputs", ())
        #: the shapes of its values
        self.shapes: tuple[Size, ...] = tape._shapes[index]
        #: what its rules need of inputs and outputs; None once it has been freed
        self.saved: tuple[Any, ...] | None = tape._saved[index]
        #: ∂C/∂output for each output (kept, after backprop)
        self.grad_outputs: tuple[Tensor | None, ...] = record.get("grad_outputs", ())
        #: ∂C/∂argument for each argument, as the rules returned it (kept, after backprop)
        self.grad_inputs: tuple[Tensor | None, ...] = record.get("grad_inputs", ())
        self._autocast = tape._autocasts[index]

    @property
    def name(self) -> str:
        return str(self.formula.__name__)

    @property
    def gradients(self) -> dict[str, Tensor]:
        """What the rules returned, by argument."""
        pairs = zip(self.formula.derivation.arguments, self.grad_inputs, strict=False)
        return {name: gradient for name, gradient in pairs if gradient is not None}

    def pull_back(self, *grad_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        """What the rules return for other gradients of its values, as ``grad_inputs`` (kept).

        Args:
            grad_outputs: one for each of its values, in its shape, or None; the last may be left
                out.
        """
        missing = len(self.shapes) - len(grad_outputs)
        needs = tuple(source is not None for source in self.sources)
        incoming = [*grad_outputs, *[None] * missing]
        with torch.no_grad():
            return run_rules(self.formula, needs, incoming, self.saved, self._autocast)

    @property
    def bytes(self) -> int:
        """What it saves for the backward pass, in bytes."""
        return sum({id(v): v.nbytes for v in self.saved or () if isinstance(v, Tensor)}.values())

    def __repr__(self) -> str:
        return f"<{self.name} {self.path or ''}→ {', '.join(str(tuple(s)) for s in self.shapes)}>"
