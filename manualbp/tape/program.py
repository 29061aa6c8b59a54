"""A traced program: its inputs, the indices that they may hold, and how it runs on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manualbp.core.modes import has_storage

Program = Callable[..., Tensor]

aten = torch.ops.aten


def repeated(program: Program) -> Program:
    """The program of one step, run on several batches, one after the other."""

    def run(*flat: Tensor) -> Tensor:
        *tensors, rates, xs, ys = flat
        batches = zip(rates.unsqueeze(1).unbind(0), xs.unbind(0), ys.unbind(0), strict=True)
        return torch.stack([program(*tensors, rate, x, y) for rate, x, y in batches])

    return run


class Replay:
    """A program captured as a CUDA graph, replayed on copies of its inputs."""

    def __init__(
        self, program: Program, tensors: list[Tensor], rates: Tensor, xs: Tensor, ys: Tensor
    ) -> None:
        self._inputs = [t.to(xs.device, copy=True) for t in (rates, xs, ys)]
        before = [t.clone() for t in tensors]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(3):  # torch advises it, so that libraries allocate before the capture
                program(*tensors, *self._inputs)
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph), torch.no_grad():
            self._costs = program(*tensors, *self._inputs)

    def __call__(self, *flat: Tensor) -> Tensor:
        for own, given in zip(self._inputs, flat[-3:], strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._costs.clone()


class IndexBound(NamedTuple):
    """The bound of an input that is used as indices: 0 ≤ index < ``size``, or ``ignored``."""

    name: str
    size: int
    ignored: int | None

    def check(self, xs: Tensor, ys: Tensor) -> None:
        """Raise before anything is computed, because a compiled loop would end the process."""
        indices = xs if self.name == "x" else ys
        if not indices.numel():
            return
        low, high = torch.aminmax(indices)
        if low.item() >= 0 and high.item() < self.size:
            return
        outside = (indices < 0) | (indices >= self.size)
        if self.ignored is not None:
            outside &= indices != self.ignored
        if outside.any():
            raise IndexError(
                f"{self.name}: expected numbers from 0 to {self.size - 1}"
                f"{'' if self.ignored is None else f', or {self.ignored}'}; got "
                f"{indices[outside][0].item()}"
            )


def prune(graph: torch.fx.GraphModule, tensors: int) -> list[int]:
    """Erase those of the first ``tensors`` inputs that nothing uses; the indices of the rest."""
    graph.graph.eliminate_dead_code()
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for node in inputs[:tensors]:
        if not node.users:
            graph.graph.erase_node(node)
    graph.recompile()
    return [i for i, node in enumerate(inputs[:tensors]) if node.users]


#: operators that take indices: the positions of the tensor indexed, of the axis, of the indices
_INDEXING = {
    aten.embedding.default: (0, None, 1),
    aten.gather.default: (0, 1, 2),
    aten.index_select.default: (0, 1, 2),
}
_LOSSES = (aten.nll_loss_forward.default, aten.nll_loss2d_forward.default)
#: operators that only move the numbers of an input before they are used as indices
_MOVES = (
    "alias detach unsqueeze squeeze view _unsafe_view reshape select unbind getitem clone expand "
    "t transpose permute _to_copy slice"
).split()


def bounds_of(graph: torch.fx.GraphModule) -> list[IndexBound]:
    """The bounds of the inputs that are used as indices without a change of their numbers."""
    nodes = graph.graph.nodes
    *_, x, y = (node for node in nodes if node.op == "placeholder")
    found = []
    for node in nodes:
        ignored = None
        if node.target in _LOSSES:
            scores, indices, ignored = node.args[0], node.args[1], node.args[4]
            size = scores.meta["val"].shape[min(1, scores.meta["val"].dim() - 1)]
        elif node.target in _INDEXING:
            of, axis, at = _INDEXING[node.target]
            indexed, indices = node.args[of].meta["val"], node.args[at]
            size = indexed.shape[0 if axis is None else node.args[axis]]
        else:
            continue
        while indices not in (x, y) and _name(indices) in _MOVES:
            indices = indices.args[0]
        if indices in (x, y):
            found.append(IndexBound("x" if indices is x else "y", size, ignored))
    return list(dict.fromkeys(found))


def _name(node: torch.fx.Node) -> str:
    return getattr(node.target, "__name__", "").partition(".")[0]


def memory_of(tensor: Tensor) -> int:
    """The address at which the memory of a tensor begins; 0 if it has none."""
    return tensor.untyped_storage().data_ptr() if has_storage(tensor) else 0


def layout(tensors: Iterable[Tensor]) -> list[Any]:
    """Shapes, strides, dtypes and devices of tensors, and which of them share memory."""
    first: dict[int, int] = {}
    return [
        (
            t.shape,
            t.stride() if t.layout is torch.strided else None,
            t.dtype,
            t.device,
            first.setdefault(memory_of(t), place) == place or t.storage_offset(),
            first[memory_of(t)],
        )
        for place, t in enumerate(tensors)
    ]


def copies(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Copies that share memory where the tensors do."""
    memories: dict[int, Any] = {}
    copies = []
    for t in tensors:
        if at := memory_of(t):
            if at not in memories:
                memories[at] = t.untyped_storage().clone()  # type: ignore[no-untyped-call]
            copy = torch.empty(0, dtype=t.dtype, device=t.device)
            copies.append(copy.set_(memories[at], t.storage_offset(), t.shape, t.stride()))
        else:
            copies.append(t.clone())
    return copies


def raise_explained(error: Exception) -> None:
    """Explain the errors of torch's tracer about values, which a program does not have."""
    kind, said = type(error).__name__, str(error)
    if kind.startswith(("DataDependent", "DynamicOutputShape", "GuardOnDataDependent")):
        raise RuntimeError(
            f"a compiled step cannot depend in Python, or in its shapes, on the values of tensors, "
            f"as this one does ({said.splitlines()[0][:80] if said else kind}): express it in "
            f"tensors, or train on a manualbp.Tape"
        ) from error
    if "FakeTensor" in said and ("convert all Tensors" in said or "Mixing fake" in said):
        raise RuntimeError(
            "a compiled step uses a tensor that it cannot find: make it a buffer of the network or "
            "of the criterion"
        ) from error
