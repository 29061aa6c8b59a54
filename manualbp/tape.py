"""The same formulas without autograd: noted as they run, walked backwards by their rules."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import Token
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules import module as torch_module

from manualbp.formula import Formula, as_in_forward, autocast_of, recorder
from manualbp.reading import table

_set_grad_enabled = torch._C._set_grad_enabled
_any_autocast = torch._C._is_any_autocast_enabled

#: where an argument came from: an output of an entry, known as (mark, entry, output); a leaf, as
#: (tensor,); or nowhere that wants a gradient
Source = tuple[object, int, int] | tuple[Tensor] | None


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

    A tape belongs to the thread and context that entered it. Tapes do not nest.

    Args:
        keep: keep every input, value and gradient for reading, and the tape for further calls of
            ``backprop``. Otherwise each value is let go as soon as it has been used.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        self._entries: list[Entry] = []
        #: what a value noted here is known by; not the tape itself, which would be a cycle
        self._mark = object()
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

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    def record(self, formula: type[Formula], arguments: tuple[Any, ...]) -> Any:
        """Run ``formula`` and note it; ``Formula.apply`` calls this inside the block."""
        derivation = formula.derivation
        assert derivation is not None
        sources: list[Source] = [None] * len(arguments)
        recorded = False
        for i in derivation.tensors:
            value = arguments[i]
            if value is not None and isinstance(value, Tensor) and value.requires_grad:
                recorded = True
                sources[i] = self._source(value, formula)
        _set_grad_enabled(False)
        try:
            output = formula.forward(*arguments)
        finally:
            _set_grad_enabled(True)
        if not recorded:
            return output
        several = len(derivation.asked) > 1
        outputs = output if several else (output,)
        # A source is true where there is one, which is all that ``keep`` asks of ``needs``.
        kept = derivation.keep(sources, *arguments, *outputs)
        entry = Entry(formula, sources, kept, outputs)
        entries = self._entries
        if several:
            for slot, differentiable in enumerate(derivation.asked):
                if differentiable:
                    outputs[slot].requires_grad_()
                    outputs[slot]._taped = (self._mark, len(entries), slot)
        else:
            output.requires_grad_()
            output._taped = (self._mark, len(entries), 0)
        entries.append(entry)
        if self._modules is not None:
            entry.path = self._modules.path()
            entry.inputs = dict(zip(derivation.arguments, arguments, strict=True))
            entry.outputs = outputs
        return output

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
            gradient = torch.ones_like(cost)
        elif gradient.shape != cost.shape:
            raise RuntimeError(
                f"gradient: expected the shape of cost, {tuple(cost.shape)}, "
                f"got {tuple(gradient.shape)}"
            )
        source = self._source(cost, None) if cost.requires_grad else None
        if source is None or len(source) == 1:
            raise RuntimeError(
                "cost: expected a value computed by formulas on this tape from something that "
                "requires a gradient; compute it inside the 'with' block"
            )
        enabled = torch.is_grad_enabled()
        _set_grad_enabled(False)
        try:
            self._walk(source[1], source[2], gradient)
        finally:
            _set_grad_enabled(enabled)

    def _walk(self, start: int, slot: int, gradient: Tensor) -> None:
        entries = self._entries
        #: for each entry, the gradient that has arrived for each of its outputs
        arriving: list[dict[int, Tensor] | None] = [None] * (start + 1)
        arriving[start] = {slot: gradient}
        #: for each leaf, the sum of its gradients, and whether nobody else holds that tensor
        leaves: dict[int, tuple[Tensor, Tensor, bool]] = {}
        handed: set[int] = set()
        for index in range(start, -1, -1):
            incoming = arriving[index]
            if incoming is None:
                continue
            arriving[index] = None
            entry = entries[index]
            given = entry.pull(incoming)
            if self.keep:
                entry.incoming, entry.given = incoming, given
            else:
                entry.kept = None
            for source, grad in zip(entry.sources, given):  # noqa: B905, a few µs a step
                if source is None or grad is None:
                    continue
                if len(source) == 3:
                    place, slot = source[1], source[2]
                    bucket = arriving[place]
                    if bucket is None:
                        arriving[place] = {slot: grad}
                    else:
                        # Never in place: a rule may have given the same tensor to somebody else.
                        bucket[slot] = bucket[slot] + grad if slot in bucket else grad
                else:
                    leaf = source[0]
                    before = leaves.get(id(leaf))
                    if before is None:
                        own = grad._base is None and id(grad) not in handed
                        handed.add(id(grad))
                        leaves[id(leaf)] = (leaf, grad, own and grad is not incoming.get(0))
                    else:
                        leaves[id(leaf)] = (leaf, before[1] + grad, True)
        if any(_wants_engine(leaf) for leaf, _, _ in leaves.values()):
            tensors, grads = [leaf for leaf, _, _ in leaves.values()], []
            for leaf, grad, _ in leaves.values():
                grads.append(grad.sum_to_size(leaf.shape).to(leaf.dtype))
            torch.autograd.backward(tensors, grads, retain_graph=self.keep)
        else:
            for leaf, grad, own in leaves.values():
                _accumulate(leaf, grad, own and not self.keep)

    def _source(self, value: Tensor, formula: type[Formula] | None) -> Source:
        """Where ``value``, which requires a gradient, came from."""
        if value.grad_fn is not None:
            return self._structural(value, formula)
        mark = getattr(value, "_taped", None)
        if mark is None:
            return (value,)
        if mark[0] is not self._mark:
            raise RuntimeError(
                f"{_reaching(formula)} was computed on another Tape: detach() it, or compute it on "
                f"this one"
            )
        return mark

    def _structural(self, value: Tensor, formula: type[Formula] | None) -> Source:
        """Note what torch's own operations have made of noted values."""
        graph = _Graph(value, self._mark)
        if not graph.touches:
            return (value,)  # with a history from before the tape: autograd goes on from here
        if graph.strangers:
            names = ", ".join(dict.fromkeys(graph.strangers))
            raise RuntimeError(
                f"{_reaching(formula)} has been through torch's own {names}, of which the tape has "
                f"no formula. Use manualbp.functional or manualbp.nn for it, write it as a "
                f"manualbp.Formula, detach() the value if nothing is to flow back, or call "
                f"cost.backward() without a tape"
            )
        sources = [self._source(leaf, formula) for leaf in graph.leaves]
        entry = Structural(value, graph.leaves, sources, graph.names)
        if self._modules is not None:
            entry.path = self._modules.path()
        self._entries.append(entry)
        return self._mark, len(self._entries) - 1, 0

    def __str__(self) -> str:
        return table(self._entries)


class Entry:
    """One formula as it ran.

    Attributes:
        formula: the formula's class.
        path: the path of the module that called it, in the network (tapes that keep).
        inputs: its arguments by name (tapes that keep).
        outputs: its values (tapes that keep).
        shapes: the shapes of its values.
        kept: what its rules need of inputs and outputs; None once it has been let go.
        incoming: the gradients that arrived from above (tapes that keep).
        given: the gradients that its rules gave, one an argument (tapes that keep).
    """

    __slots__ = (
        "autocast", "dtypes", "formula", "given", "incoming", "inputs", "kept", "outputs", "path",
        "shapes", "sources", "versions",
    )  # fmt: skip

    path: str
    inputs: dict[str, Any]
    outputs: tuple[Tensor, ...]
    incoming: dict[int, Tensor]
    given: tuple[Tensor | None, ...]

    def __init__(
        self,
        formula: Any,
        sources: list[Source],
        kept: tuple[Any, ...],
        outputs: tuple[Tensor, ...],
    ) -> None:
        self.formula = formula
        self.sources = sources
        self.kept: tuple[Any, ...] | None = kept
        self.versions = [v._version if isinstance(v, Tensor) else 0 for v in kept]
        self.shapes = [o.shape for o in outputs]
        self.dtypes = [o.dtype for o in outputs]
        self.autocast = autocast_of(outputs[0]) if _any_autocast() else None

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

    def pull(self, incoming: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
        """The gradients that the rules give for the gradients that arrived."""
        kept = self.check()
        for slot, g in incoming.items():
            # What autograd's engine does between two nodes.
            if g.dtype is not self.dtypes[slot] or g.shape != self.shapes[slot]:
                incoming[slot] = g.sum_to_size(self.shapes[slot]).to(self.dtypes[slot])
        derivation = self.formula.derivation
        arrived = [incoming.get(slot) for slot in range(len(self.shapes))]
        if len(arrived) > 1 and sum(derivation.asked) > 1:
            for slot, shape in enumerate(self.shapes):
                if arrived[slot] is None and derivation.asked[slot]:
                    arrived[slot] = g.new_zeros(shape, dtype=self.dtypes[slot])
        if self.autocast or _any_autocast():
            with as_in_forward(self.autocast, g):
                return derivation.gradients(self.sources, *arrived, *kept)
        return derivation.gradients(self.sources, *arrived, *kept)

    def check(self) -> tuple[Any, ...]:
        """What was kept, if it is still there and unchanged."""
        if self.kept is None:
            raise RuntimeError(
                f"the values that {self.name} kept have been let go by an earlier backprop: to "
                f"walk back over them again, record with Tape(keep=True)"
            )
        for value, version in zip(self.kept, self.versions):  # noqa: B905, a few µs a step
            if isinstance(value, Tensor) and value._version != version:
                raise RuntimeError(
                    f"a tensor of shape {tuple(value.shape)} that {self.name} keeps for the way "
                    f"back has been changed in place since: change a copy, or call backprop before"
                )
        return self.kept


class Structural(Entry):
    """Operations of torch's own between two formulas, as one entry."""

    __slots__ = ("leaves", "names")

    def __init__(
        self, value: Tensor, leaves: list[Tensor], sources: list[Source], names: list[str]
    ) -> None:
        super().__init__(None, sources, (value,), (value,))
        self.leaves = leaves
        self.names = names

    @property
    def name(self) -> str:
        return " ".join(self.names)

    @property
    def gradients(self) -> dict[str, Tensor]:
        return {str(i): g for i, g in enumerate(self.given) if g is not None}

    def pull(self, incoming: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
        (value,) = self.check()
        # Another entry may have been through part of the same graph.
        return torch.autograd.grad(value, self.leaves, incoming[0], retain_graph=True)


#: torch's operations that may stand between formulas, by the names of their nodes
STRUCTURAL = frozenset(
    "View UnsafeView Reshape ReshapeAlias Alias AsStrided Clone ToCopy T Transpose Permute Movedim "
    "Select Slice Narrow Index IndexSelect Gather Diagonal Unfold Split SplitWithSizes Unbind "
    "Expand Repeat Squeeze Unsqueeze Flip Roll Cat Stack ConstantPadNd MaskedFill Where CopySlices "
    "Add Sub Rsub Mul Div Neg Sum Mean".split()
)


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
                name = node.name().rstrip("0123456789").removesuffix("Backward")
                (self.names if name in STRUCTURAL else self.strangers).append(name)
        self._seen[node] = touches
        return touches


def _wants_engine(leaf: Tensor) -> bool:
    """Whether autograd has more to do with a gradient than to store it: a history, or hooks."""
    return bool(leaf.grad_fn or leaf._backward_hooks or leaf._post_accumulate_grad_hooks)


def _accumulate(leaf: Tensor, grad: Tensor, own: bool) -> None:
    """Add a gradient to ``.grad``, or make it that, as autograd's engine does."""
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
