"""Which nodes of a backward graph run a formula, and which run torch's own derivative."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from manualbp.core.graph import formula_of, is_structural, name_of, nodes
from manualbp.core.module_paths import paths
from manualbp.core.tables import table_lines


@dataclass(frozen=True)
class GraphNode:
    """One node of the graph: its name, and the module it was made in."""

    name: str
    #: "explicit", "structural" or "foreign"
    kind: str
    #: known where the forward pass ran inside :func:`manualbp.intercept`
    path: str


@dataclass(frozen=True)
class ParameterUse:
    """A parameter, and the nodes that use it."""

    name: str
    shape: tuple[int, ...]
    explicit: tuple[str, ...]
    foreign: tuple[str, ...]


class Coverage:
    """The nodes of one backward graph, sorted by the derivative that they run.

    Attributes:
        steps: all nodes.
        explicit: nodes that run a formula of manualbp, or anybody's ``torch.autograd.Function``.
        structural: nodes that only pass gradients on: views, copies, the accumulation into
            ``.grad``.
        foreign: nodes that run torch's own derivative, or one that a library registered with its
            operators (torchvision's RoIAlign).
        parameters: for each leaf that gets a gradient, the nodes that use it.
    """

    def __init__(self, steps: list[GraphNode], parameters: list[ParameterUse]) -> None:
        self.steps = steps
        self.explicit = [s for s in steps if s.kind == "explicit"]
        self.structural = [s for s in steps if s.kind == "structural"]
        self.foreign = [s for s in steps if s.kind == "foreign"]
        self.parameters = parameters

    @property
    def fraction(self) -> float:
        """The share of explicit nodes among those that compute something; 1.0 is all of them."""
        counted = len(self.explicit) + len(self.foreign)
        return len(self.explicit) / counted if counted else 1.0

    @property
    def uses_explicit(self) -> bool:
        """Whether no parameter is used by a foreign node."""
        return not any(use.foreign for use in self.parameters)

    def __str__(self) -> str:
        counts = Counter((s.kind, s.name, s.path) for s in self.foreign)
        counts += Counter((s.kind, s.name, "") for s in self.explicit)
        rows = [[kind, name, str(n), path] for (kind, name, path), n in counts.items()]
        rows.append(["structural", "", str(len(self.structural)), ""])
        foreign = [f"{use.name} {use.shape}".strip() for use in self.parameters if use.foreign]
        lines = table_lines(["", "step", "times", "module"], sorted(rows, reverse=True))
        lines.append(
            f"{self.fraction:.1%} explicit: {len(self.explicit)} explicit, "
            f"{len(self.structural)} structural, {len(self.foreign)} foreign"
        )
        if foreign:
            more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
            lines.append(f"used by a foreign step: {', '.join(foreign[:5])}{more}")
        return "\n".join(lines)


def coverage(loss: Tensor, model: nn.Module | None = None) -> Coverage:
    """Walk the backward graph of ``loss``, and say of each node which derivative it runs.

    Nothing is computed and nothing freed: call it before ``loss.backward()``.

    Args:
        loss: a tensor with a history, of any shape.
        model: the module in which parameters are named by their paths.

    Raises:
        ValueError: ``loss`` has no history.
    """
    if not isinstance(loss, Tensor) or loss.grad_fn is None:
        what = "a tensor without one" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"loss: expected a tensor with a history (grad_fn), got {what}; compute it with "
            f"gradients enabled, outside torch.no_grad(), from something that requires them"
        )
    names = {id(p): name for name, p in model.named_parameters()} if model else {}
    path_of = paths()
    kinds: dict[Any, str] = {}
    steps: list[GraphNode] = []
    users: dict[Any, list[Any]] = defaultdict(list)
    for node in nodes(loss.grad_fn):
        kinds[node] = _kind(node)
        steps.append(GraphNode(name_of(node), kinds[node], path_of(node)))
        for before, _ in node.next_functions:
            if before is not None:
                users[before].append(node)
    parameters = []
    for leaf in (node for node in kinds if hasattr(node, "variable")):
        direct = list(_users(leaf, users, kinds))
        shape = tuple(leaf.variable.shape)
        parameters.append(
            ParameterUse(
                names.get(id(leaf.variable), ""),
                shape,
                tuple(name_of(n) for n in direct if kinds[n] == "explicit"),
                tuple(name_of(n) for n in direct if kinds[n] == "foreign"),
            )
        )
    return Coverage(steps, sorted(parameters, key=lambda use: use.name))


def _users(node: Any, users: dict[Any, list[Any]], kinds: dict[Any, str]) -> Any:
    """The nodes that use the value of ``node``, directly or through structural nodes."""
    queue, seen = list(users[node]), set()
    while queue:
        user = queue.pop()
        if user not in seen:
            seen.add(user)
            if kinds[user] == "structural":
                queue += users[user]
            else:
                yield user


#: modules whose Functions run torch's derivative: compiled graphs, recomputation, operators
_HIDING = (
    *("torch._functorch", "torch._dynamo", "torch._inductor", "torch._library"),
    "torch.utils.checkpoint",
)


def _kind(node: Any) -> str:
    if is_structural(node):
        return "structural"
    function = formula_of(node)
    if function is None or function.__module__.startswith(_HIDING):
        return "foreign"
    return "explicit"
