"""The same formulas without autograd: noted as they run, walked backwards by their rules."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Token
from functools import cache
from typing import Any

import torch
from torch import Size, Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.modules import module as torch_module

from manualbp.derivation import Derivation
from manualbp.formula import Formula, any_autocast, autocast_of, recorder
from manualbp.graph import STRUCTURAL as MOVES
from manualbp.graph import name_of
from manualbp.reading import table
from manualbp.walk import OUTPUTS, Node, versions

_set_grad_enabled = torch._C._set_grad_enabled

#: where every tape begins
START = Node(None, None, ())


class TapeError(RuntimeError):
    """A value that a tape cannot walk back from: no fault of the arguments of a function."""


class Tape:
    """Runs a network by formula and remembers it, so that the rules can be run in reverse.

    ::

        with manualbp.Tape() as tape:
            cost = criterion(net(x), y)
        tape.backprop(cost)  # fills and accumulates .grad, as cost.backward() would

    Inside the block every formula runs its ``forward`` and is noted; autograd records nothing of
    it. ``backprop`` calls the rules of the formulas noted, last one first, adds up what reaches a
    value on several paths, and gives each leaf that requires a gradient its ``.grad``.

    Between formulas a value may be rearranged and combined by torch's own structural operations
    (views, transposes, indexing, cat, stack, sums and the four operations of arithmetic), which
    torch then differentiates. Any other operation on a noted value that reaches a formula or the
    cost is an error that names it. Inside ``torch.no_grad()`` nothing is noted, as in autograd.

    A tape is read like a list, an :class:`Entry` for each formula in the order of the calls, and
    printed as a table. It belongs to the thread and context that entered it. Tapes do not nest.

    Args:
        keep: keep every input, value and gradient for reading, and the tape for further calls of
            ``backprop``. Otherwise each value is let go as soon as it has been used.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        #: what a value noted here is known by; not the tape itself, which would be a cycle
        self._mark = object()
        self._node = START
        self._leaves: list[Tensor] = []
        self._numbers: dict[int, int] = {}
        # For each entry: what its rules need, the versions of that, then of its outputs.
        self._kept: list[tuple[Any, ...] | None] = []
        self._versions: list[list[int]] = []
        self._dtypes: list[tuple[torch.dtype, ...]] = []
        self._shapes: list[tuple[Size, ...]] = []
        self._autocasts: list[torch.dtype | None] = []
        self._readings: dict[int, dict[str, Any]] = {}
        self._modules: _Modules | None = None
        self._token: Token[Any] | None = None
        self._grad_enabled = True

    def __enter__(self) -> Tape:
        if recorder.get() is not None:
            raise RuntimeError(
                "a Tape is being recorded in this context already: tapes do not nest"
            )
        # A stranger among the operations is known by the grad_fn that autograd gives its result.
        self._grad_enabled = torch.is_grad_enabled()
        _set_grad_enabled(True)
        self._token = recorder.set(self.record)
        if self.keep:
            self._modules = _Modules()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        recorder.reset(self._token)
        _set_grad_enabled(self._grad_enabled)
        if self._modules is not None:
            self._modules.remove()
            self._modules = None

    # -------------------------------------------------------------------------------- forwards

    def record(self, formula: type[Formula], arguments: tuple[Any, ...]) -> Any:
        """Run ``formula`` and note it; ``Formula.apply`` calls this inside the block."""
        derivation = formula.derivation
        assert derivation is not None
        codes: list[int | None] = [None] * len(arguments)
        wanted = False
        for i in derivation.tensors:
            value = arguments[i]
            if value is not None and isinstance(value, Tensor) and value.requires_grad:
                wanted = True
                codes[i] = self._number(value, formula)
        _set_grad_enabled(False)
        try:
            output = derivation.forward(*arguments)
        finally:
            _set_grad_enabled(True)
        if not wanted:
            return output
        node = self._node = self._node.then(formula, tuple(codes))
        if len(derivation.asked) == 1:
            kept = derivation.keep(node.needs, *arguments, output)
            self._shapes.append((output.shape,))
            self._dtypes.append((output.dtype,))
            output.requires_grad_()
            output._taped = (self._mark, node.index * OUTPUTS)
        else:
            kept = derivation.keep(node.needs, *arguments, *output)
            self._shapes.append(tuple(o.shape for o in output))
            self._dtypes.append(tuple(o.dtype for o in output))
            for slot, differentiable in enumerate(derivation.asked):
                if differentiable:
                    output[slot].requires_grad_()
                    output[slot]._taped = (self._mark, node.index * OUTPUTS + slot)
        self._kept.append(kept)
        self._versions.append(versions(kept))
        self._autocasts.append(
            autocast_of(output if isinstance(output, Tensor) else output[0])
            if any_autocast()
            else None
        )
        if self._modules is not None:
            self._readings[node.index] = {
                "path": self._modules.path(),
                "inputs": dict(zip(derivation.arguments, arguments, strict=True)),
                "outputs": (output,) if isinstance(output, Tensor) else output,
            }
        return output

    def _number(self, value: Tensor, formula: type[Formula] | None) -> int:
        """The number of ``value``, which requires a gradient, among values and leaves."""
        if value.grad_fn is not None:
            return self._structural(value, formula)
        mark = getattr(value, "_taped", None)
        if mark is None:
            return self._leaf(value)
        if mark[0] is not self._mark:
            raise TapeError(
                f"{_reaching(formula)} was computed on another Tape: detach() it, or compute it on "
                f"this one"
            )
        return int(mark[1])

    def _leaf(self, value: Tensor) -> int:
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = -1 - len(self._leaves)
            self._leaves.append(value)
        return number

    def _structural(self, value: Tensor, formula: type[Formula] | None) -> int:
        """Note what torch's own operations have made of noted values."""
        graph = _Graph(value, self._mark)
        if not graph.touches:
            return self._leaf(value)  # with a history from before: autograd goes on from here
        if graph.strangers:
            names = ", ".join(dict.fromkeys(graph.strangers))
            raise TapeError(
                f"{_reaching(formula)} has been through torch's own {names}, of which the tape has "
                f"no formula. Use manualbp.functional or manualbp.nn for it, write it as a "
                f"manualbp.Formula, detach() the value if nothing is to flow back, or call "
                f"cost.backward() without a tape"
            )
        codes = tuple(self._number(leaf, formula) for leaf in graph.leaves)
        structural = _structural_formula(" ".join(graph.names), len(codes))
        node = self._node = self._node.then(structural, codes)
        # Not the value itself, which may be written over before the way back.
        kept = (get_gradient_edge(value), *graph.leaves)
        self._kept.append(kept)
        self._versions.append(versions(kept))
        self._shapes.append((value.shape,))
        self._dtypes.append((value.dtype,))
        self._autocasts.append(None)
        if self._modules is not None:
            inputs = {str(i): leaf for i, leaf in enumerate(graph.leaves)}
            path = self._modules.path()
            self._readings[node.index] = {"path": path, "inputs": inputs, "outputs": (value,)}
        return node.index * OUTPUTS

    # ------------------------------------------------------------------------------- backwards

    def backprop(self, cost: Tensor, gradient: Tensor | None = None) -> None:
        """Walk back from ``cost``: each leaf that wants a gradient gets or adds to its ``.grad``.

        Args:
            cost: a value computed on this tape; a scalar, unless ``gradient`` is given.
            gradient: ∂C/∂cost, in the shape of ``cost``; 1 by default.

        Raises:
            RuntimeError: ``cost`` was not computed on this tape, is no scalar, or has been walked
                back from already on a tape that does not keep.
        """
        if gradient is None:
            if cost.numel() != 1:
                raise RuntimeError(
                    f"cost: expected a single number, got a tensor of shape {tuple(cost.shape)}; "
                    f"reduce it, or say what arrives from above by gradient="
                )
            gradient = torch.ones_like(cost, requires_grad=False)
        elif gradient.shape != cost.shape:
            raise RuntimeError(
                f"gradient: expected the shape of cost, {tuple(cost.shape)}, "
                f"got {tuple(gradient.shape)}"
            )
        enabled = torch.is_grad_enabled()
        _set_grad_enabled(False)
        try:
            self._deliver(self.pull(self.number(cost), gradient), gradient)
        finally:
            _set_grad_enabled(enabled)

    def number(self, value: Tensor) -> int:
        """What ``value``, computed on this tape, is known by.

        Raises:
            RuntimeError: it was not, or wants no gradient.
        """
        number = self._number(value, None) if value.requires_grad else -1
        if number < 0:
            raise RuntimeError(
                "cost: expected a value computed by formulas on this tape from something that "
                "requires a gradient; compute it inside the 'with' block"
            )
        return number

    def pull(self, start: int, gradient: Tensor) -> list[Tensor | None]:
        """The gradient of each leaf, given that of the value numbered ``start``."""
        walk = self._node.program(start, len(self._leaves), self.keep)
        return walk(
            self, gradient, self._kept, self._versions, self._dtypes, self._shapes, self._autocasts
        )

    def _deliver(self, gradients: list[Tensor | None], above: Tensor) -> None:
        """Add each leaf's gradient to its ``.grad``, or make it that."""
        pairs = [(t, g) for t, g in zip(self._leaves, gradients, strict=True) if g is not None]
        for leaf, _ in pairs:
            # Autograd has more to do than to store a gradient: a history, or hooks.
            if leaf.grad_fn or leaf._backward_hooks or leaf._post_accumulate_grad_hooks:
                fitted = [g.sum_to_size(t.shape).to(t.dtype) for t, g in pairs]
                torch.autograd.backward([t for t, _ in pairs], fitted, retain_graph=self.keep)
                return
        shared = {id(above)}
        for leaf, grad in pairs:
            own = not self.keep and grad._base is None and id(grad) not in shared
            shared.add(id(grad))
            _accumulate(leaf, grad, own)

    def freed(self, index: int) -> None:
        raise RuntimeError(
            f"the values that {self[index].name} kept have been let go by an earlier backprop: to "
            f"walk back over them again, record with Tape(keep=True)"
        )

    def changed(self, index: int) -> None:
        kept, before = self._kept[index] or (), iter(self._versions[index])
        tensors = (v for v in kept if isinstance(v, Tensor))
        shape = next(tuple(v.shape) for v in tensors if v._version != next(before))
        raise RuntimeError(
            f"a tensor of shape {shape} that {self[index].name} keeps for the way back has been "
            f"changed in place since: change a copy, or call backprop before"
        )

    def note(self, index: int, incoming: tuple[Any, ...], given: tuple[Any, ...]) -> None:
        self._readings[index] |= {"incoming": incoming, "given": given}

    # --------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Entry:
        index = range(len(self))[index]
        node = self._node
        while node.index > index:
            assert node.before is not None
            node = node.before
        return Entry(self, node)

    def __iter__(self) -> Iterator[Entry]:
        return (self[index] for index in range(len(self)))

    def __str__(self) -> str:
        return table(list(self))


class Entry:
    """One formula as it ran, or what torch's own operations did between two of them.

    What only a tape that keeps knows is empty on others.
    """

    def __init__(self, tape: Tape, node: Node) -> None:
        reading = tape._readings.get(node.index, {})
        self.formula: Any = node.formula
        #: where its arguments came from: see :data:`manualbp.walk.OUTPUTS`
        self.codes = node.codes
        #: the path of the module that called it, in the network (kept)
        self.path: str = reading.get("path", "")
        #: its arguments by name (kept)
        self.inputs: dict[str, Any] = reading.get("inputs", {})
        #: its values (kept)
        self.outputs: tuple[Tensor, ...] = reading.get("outputs", ())
        #: the shapes of its values
        self.shapes: tuple[Size, ...] = tape._shapes[node.index]
        #: what its rules need of inputs and outputs; None once it has been let go
        self.kept: tuple[Any, ...] | None = tape._kept[node.index]
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


#: torch's operations that may stand between formulas, by the names of their nodes
STRUCTURAL = MOVES | frozenset(
    "Index IndexSelect Gather Repeat Flip Roll Cat Stack ConstantPadNd MaskedFill Where "
    "Add Sub Rsub Mul Div Neg Sum Mean".split()
)


class Structural:
    """What stands in for a formula where torch's own operations have rearranged values."""

    derivation: Derivation

    def __init__(self, names: str, sources: int) -> None:
        self.__name__ = names
        arguments = tuple(map(str, range(sources)))

        def gradients(needs: Any, g: Tensor, edge: GradientEdge, *leaves: Tensor) -> Any:
            # Another entry may have been through part of the same graph.
            return torch.autograd.grad(edge, leaves, g, retain_graph=True)

        self.derivation = Derivation(
            arguments=arguments,
            wanted=arguments,
            asked=(True,),
            tensors=(),
            kept=1 + sources,
            split=1 + sources,
            keep=lambda *_: (),
            gradients=gradients,
            source="",
        )


_structural_formula = cache(Structural)


class _Graph:
    """The part of autograd's graph behind a value, down to its leaves."""

    def __init__(self, value: Tensor, mark: object) -> None:
        self.leaves: list[Tensor] = []
        self.names: list[str] = []
        self.strangers: list[str] = []
        self._mark = mark
        self._seen: dict[Any, bool] = {}
        self.touches = self._walk(value.grad_fn)

    def _walk(self, node: Any) -> bool:
        """Whether a noted value lies behind ``node``."""
        if node in self._seen:
            return self._seen[node]
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            self.leaves.append(leaf)
            touches = getattr(leaf, "_taped", (None,))[0] is self._mark
        else:
            touches = any([self._walk(before) for before, _ in node.next_functions if before])
            if touches:
                name = name_of(node)
                (self.names if name in STRUCTURAL else self.strangers).append(name)
        self._seen[node] = touches
        return touches


def _accumulate(leaf: Tensor, grad: Tensor, own: bool) -> None:
    """As autograd's engine does: a gradient that is nobody else's becomes ``.grad`` as it is."""
    if grad.dtype is not leaf.dtype or grad.shape != leaf.shape:
        grad, own = grad.sum_to_size(leaf.shape).to(leaf.dtype), True
    if leaf.grad is not None:
        leaf.grad.add_(grad)
    else:
        if not own or grad.stride() != leaf.stride():
            grad = torch.empty_like(leaf, requires_grad=False).copy_(grad)
        leaf.grad = grad


def overwrite(input: Tensor, output: Tensor) -> Tensor:
    """Let ``input`` hold the value of ``output`` and stand in its place, as after ``relu_``."""
    mark = getattr(output, "_taped", None)
    if mark is None or not hasattr(input, "_taped"):
        return input.copy_(output)
    with torch.no_grad():
        input.copy_(output)
    input._taped = mark
    return input


def _reaching(formula: type[Formula] | None) -> str:
    return "the cost" if formula is None else f"a value that reaches {formula.__name__}"


class _Modules:
    """Which module is running: a path of names below the outermost one."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._running: list[str] = []
        self._hooks = [
            torch_module.register_module_forward_pre_hook(self._enter),
            torch_module.register_module_forward_hook(self._leave, always_call=True),
        ]
        self._recorder = recorder.get()

    def _enter(self, module: torch.nn.Module, _: Any) -> None:
        if recorder.get() is self._recorder:
            if not self._running:
                self._names = {id(m): name for name, m in module.named_modules()}
            self._running.append(self._names.get(id(module), type(module).__name__))

    def _leave(self, module: torch.nn.Module, _: Any, __: Any) -> None:
        if recorder.get() is self._recorder and self._running:
            self._running.pop()

    def path(self) -> str:
        return self._running[-1] if self._running else ""

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
