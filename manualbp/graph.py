"""What the nodes of autograd's graph are: formulas, structure, or torch's own derivatives."""

from __future__ import annotations

from typing import Any

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


def formula_of(node: Any) -> Any:
    """The formula (or anybody's Function) of which ``node`` is the backward pass, or None."""
    function = getattr(node, "_forward_cls", None)
    return getattr(function, "formula", function)


def is_structural(node: Any) -> bool:
    """Whether ``node`` only passes gradients on, from place to place."""
    return name_of(node) in STRUCTURAL
