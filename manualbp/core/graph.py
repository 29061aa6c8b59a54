"""What the nodes of autograd's graph are: formulas, structure, or torch's own derivatives."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

#: torch's operations that only rearrange values or pass them on, by the names of their nodes
STRUCTURAL = frozenset(
    "View UnsafeView Reshape ReshapeAlias ViewAsReal ViewAsComplex Alias AsStrided "
    "Clone ToCopy Copy CopyBackwards Lift LiftFresh T Transpose Permute Movedim Swapaxes "
    "Select Slice Narrow Diagonal Unfold Split SplitWithSizes UnsafeSplit UnsafeSplitWithSizes "
    "Unbind Expand Squeeze Unsqueeze Values AsStridedScatter CopySlices AccumulateGrad "
    "UnbindCopy PackPaddedSequence".split()
)


def name_of(node: Any) -> str:
    """``AddmmBackward0`` → ``Addmm``; of a registered operator, its namespace and name."""
    name = str(node.name()).rsplit("::", 1)[-1].rstrip("0123456789")
    name = name.removesuffix("Backward").rstrip("0123456789")
    return name.removeprefix("GeneratedBackwardFor_").removesuffix("_default")


def nodes(*ends: Any) -> Iterator[Any]:
    """Each node of the graph that ends in ``ends``, once; None among ``ends`` is skipped."""
    stack, seen = [*ends], {None, *ends}
    while stack:
        node = stack.pop()
        if node is None:
            continue
        yield node
        for before, _ in node.next_functions:
            if before not in seen:
                seen.add(before)
                stack.append(before)


def formula_of(node: Any) -> Any:
    """The formula (or anybody's Function) that made ``node``, or None."""
    function = getattr(node, "_forward_cls", None)
    return getattr(function, "formula", function)


def is_structural(node: Any) -> bool:
    """Whether ``node`` only passes gradients on, from place to place."""
    return name_of(node) in STRUCTURAL


class Structural:
    """The entry of a tape for one of torch's own operations, in place of a formula.

    Args:
        name: of the operation.
        inputs: how many values it took.
        outputs: how many values it gave.
    """

    def __init__(self, name: str, inputs: int, outputs: int) -> None:
        self.__name__ = name
        self.arguments = self.differentiable = tuple(map(str, range(inputs)))
        self.differentiable_outputs = (True,) * outputs

    @property
    def derivation(self) -> Any:
        return self

    @staticmethod
    def versions(_: Any) -> tuple[()]:
        """None: torch watches over what its node saved."""
        return ()

    @staticmethod
    def gradients(_: Any, *incoming: Any) -> tuple[Tensor | None, ...]:
        """What torch's own backward of the operation gives; its node comes last."""
        *gradients, node = incoming
        arrived = {GradientEdge(node, i): g for i, g in enumerate(gradients) if g is not None}
        if torch._C._current_graph_task_id() >= 0:  # the node reads there what is required
            return _by_engine(node, arrived)
        # Runs the hooks of the values: autograd does so for the gradient of a value with respect to
        # itself, and computes nothing else.
        hooked = torch.autograd.grad([*arrived], [*arrived], [*arrived.values()], retain_graph=True)
        for edge, g in zip(arrived, hooked, strict=True):
            gradients[edge.output_nr] = g
        given = node(*gradients)
        return given if isinstance(given, tuple) else (given,)


structural = lru_cache(maxsize=1024)(Structural)


def _by_engine(node: Any, arrived: dict[GradientEdge, Tensor]) -> tuple[Tensor | None, ...]:
    """The same inside a backward pass of autograd's own."""
    places = {i: GradientEdge(*e) for i, e in enumerate(node.next_functions) if e[0] is not None}
    given = torch.autograd.grad(
        [*arrived], [*places.values()], [*arrived.values()], retain_graph=True, allow_unused=True
    )
    at = dict(zip(places, given, strict=True))
    return tuple(at.get(i) for i in range(len(node.next_functions)))
