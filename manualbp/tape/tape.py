"""The same formulas without autograd: recorded as they run, and run backwards by their rules."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextvars import Token
from typing import Any, NoReturn

import torch
from torch import Size, Tensor, distributed
from torch.autograd.graph import GradientEdge

from manualbp.core.formula import Formula
from manualbp.core.graph import STRUCTURAL, name_of, structural
from manualbp.core.modes import any_autocast, autocast_of, is_grad_enabled
from manualbp.core.module_paths import RunningModules
from manualbp.core.recording import recorder
from manualbp.core.running import detached_if_input, without_base
from manualbp.tape.backward import (
    MAX_OUTPUTS,
    PROGRAMS,
    match_metadata,
    metadata,
    run_backward,
)
from manualbp.tape.entry import Entry
from manualbp.tape.table import table

_set_grad_enabled = torch._C._set_grad_enabled


class TapeError(RuntimeError):
    """What a tape cannot do with a value: no fault of the arguments of a function."""


class _NoHistory(OrderedDict[int, Any]):
    """The hooks of a value on a tape: none can be added, and autograd finds one that raises."""

    def __init__(self) -> None:
        super().__init__()
        super().__setitem__(0, _raise_no_history)

    def __setitem__(self, *_: Any) -> NoReturn:
        raise TapeError(
            "register_hook: autograd does not pass by a value computed on a manualbp.Tape. Record "
            "with Tape(keep=True) and read its gradient from the tape's entry, state another rule "
            "in a subclass of the formula, or compute it without a tape"
        )


def _raise_no_history(_: Tensor) -> NoReturn:
    raise TapeError(
        "a value computed on a manualbp.Tape has no history in autograd: call tape.backprop(cost), "
        "or compute it without a tape"
    )


def _raise_no_retained(*_: Any, **__: Any) -> NoReturn:
    raise TapeError(
        "retain_grad: autograd does not pass by a value computed on a manualbp.Tape. Record with "
        "Tape(keep=True) and read its gradient from the tape's entry, or compute it without a tape"
    )


NO_HISTORY = _NoHistory()

#: replaces the version, and never equals one: torch wrote another value into the tensor
REPLACED = -1


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
            ``backprop``. Otherwise each value is freed as soon as it has been used.
    """

    def __init__(self, *, keep: bool = False) -> None:
        self.keep = keep
        #: what a value noted here is known by; not the tape itself, which would be a cycle
        self._identity = object()
        #: what gets a gradient in the end: leaves, and edges to a history from before
        self._leaves: list[Tensor | GradientEdge] = []
        #: whether one of them is an edge
        self._has_edges = False
        #: leaves that say that they want a gradient, and to which autograd has no way
        self._edgeless: set[Tensor] = set()
        #: the number of a leaf by its id, of an edge, and of what torch's own operations made by
        #: their nodes in the graph of autograd: that of the first output
        self._numbers: dict[Any, int] = {}
        #: whether torch's own operations stand between formulas
        self._between = False
        #: nodes whose history leads to no value of this tape
        self._foreign: set[Any] = set()
        # One item an entry: the formula, the number of each argument that wants a gradient, what
        # the rules need, the versions of that, and what the outputs are.
        self._formulas: list[Any] = []
        self._sources: list[tuple[int | None, ...]] = []
        self._saved: list[tuple[Any, ...] | None] = []
        self._versions: list[tuple[Any, ...]] = []
        self._dtypes: list[tuple[torch.dtype, ...]] = []
        self._shapes: list[tuple[Size, ...]] = []
        self._autocasts: list[torch.dtype | None] = []
        self._records: dict[int, dict[str, Any]] = {}
        self._modules: RunningModules | None = None
        self._token: Token[Any] | None = None
        self._grad_enabled = True

    def __enter__(self) -> Tape:
        if recorder.get() is not None:
            raise RuntimeError(
                "a Tape is being recorded in this context already: tapes do not nest"
            )
        # An operation that is no formula is found by the grad_fn of its result.
        self._grad_enabled = is_grad_enabled()
        _set_grad_enabled(True)
        self._token = recorder.set(self.record)
        if self.keep:
            self._modules = RunningModules()
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
        derivation: Any = formula.derivation
        identity = self._identity
        sources: list[int | None] = [None] * len(arguments)
        needs = [False] * len(arguments)
        for i in derivation.tensor_positions:
            value = arguments[i]
            # Asking whether a Parameter is a Tensor takes longer than asking it for an attribute.
            if value is not None and getattr(value, "requires_grad", False):
                taped = getattr(value, "_taped", None)
                # Asking autograd for the history of a value takes longer than all else here.
                if taped and taped[0] is identity and taped[2] == value._version:
                    sources[i] = taped[1]
                else:
                    sources[i] = self._number(value, formula)
                needs[i] = True
        _set_grad_enabled(False)
        try:
            output = derivation.forward(*arguments)
        finally:
            _set_grad_enabled(True)
        if True not in needs:
            return detached_if_input(output, arguments)
        number = len(self._formulas) * MAX_OUTPUTS
        proved = derivation.proved
        if len(derivation.differentiable_outputs) == 1:
            output = self._as_value(output, proved, arguments, number)
            outputs: tuple[Tensor, ...] = (output,)
            self._shapes.append((output.shape,))
            self._dtypes.append((output.dtype,))
        else:
            output = outputs = tuple(
                self._as_value(o, proved, arguments, number + slot) if differentiable else o
                for slot, (o, differentiable) in enumerate(
                    zip(output, derivation.differentiable_outputs, strict=True)
                )
            )
            self._shapes.append(tuple(o.shape for o in outputs))
            self._dtypes.append(tuple(o.dtype for o in outputs))
        saved = derivation.keep(needs, *arguments, *outputs)
        self._formulas.append(formula)
        self._sources.append(tuple(sources))
        self._saved.append(saved)
        self._versions.append(derivation.versions(saved))
        self._autocasts.append(autocast_of(outputs[0]) if any_autocast() else None)
        if self.keep:
            inputs = dict(zip(derivation.arguments, arguments, strict=True))
            self._record_values(inputs, outputs)
        return output

    def _as_value(self, output: Tensor, proved: bool, arguments: Any, number: int) -> Tensor:
        """``output`` as the value of that number: a tensor of its own, never one of a user's."""
        shared = same = False
        for argument in arguments:
            if argument is output:
                same = True
        view = output._is_view()
        # Comparing storages takes a microsecond an argument, so of ours only views are compared.
        if same or view or not proved:
            shared = any(isinstance(a, Tensor) and _is_alias_of(a, output) for a in arguments)
            if view and not shared:
                output = without_base(output, arguments)
        if same or output.requires_grad:
            # The tensor has a history of its own elsewhere, so it gets no other.
            output = output.detach()
        if output.dtype not in _WITHOUT_GRADIENT:
            output.requires_grad = True
            taped = (self._identity, number, output._version, shared)
            output._taped = taped  # type: ignore[attr-defined]
            output._backward_hooks = NO_HISTORY
            output.retain_grad = _raise_no_retained  # type: ignore[method-assign]
        return output

    def _number(self, value: Tensor, formula: type[Formula] | None) -> int:
        """The number of ``value``, which requires a gradient, among values and leaves."""
        try:
            node = value.grad_fn
        except RuntimeError as error:  # a view that a formula returned, as torch sees it
            raise _written(_described(formula), "a formula") from error
        if node is None:
            return self._leaf(value, formula)
        if node not in self._numbers:
            before = len(self._formulas)
            if not self._record_structural(node, formula):
                return self._external(node, value.output_nr)
            if self.keep and len(self._formulas) > before:
                self._records[len(self._formulas) - 1]["outputs"] = (value,)
        number = int(self._numbers[node]) + value.output_nr
        self._check_shape(value, number, formula)
        return number

    def _leaf(self, value: Tensor, formula: type[Formula] | None) -> int:
        taped = getattr(value, "_taped", None)
        if taped is None:
            number = self._numbers.get(id(value))
            if number is None:
                number = self._numbers[id(value)] = -1 - len(self._leaves)
                self._leaves.append(value)
                if value._base is not None and not _has_edge(value):
                    self._edgeless.add(value)
            return number
        identity, number, version, _ = taped
        if identity is not self._identity:
            raise TapeError(
                f"{_described(formula)} was computed on another Tape: detach() it, or compute it "
                f"on this one"
            )
        if value._version != version:
            self._check_written(value, formula)
        return int(number)

    def _check_written(self, value: Any, formula: type[Formula] | None) -> None:
        """Raise where a value of this tape is no longer what the tape takes it for."""
        _, number, version, shared = value._taped
        if version == REPLACED:
            # Views made before still lead here; but as a leaf it is another value.
            if value.is_leaf and value.requires_grad:
                raise TapeError(
                    f"{_described(formula)} was detached in place and then asked for a gradient, "
                    f"and the tape cannot tell the one value from the other: write "
                    f"value = value.detach().requires_grad_()"
                )
        elif shared:
            raise _written(_described(formula), self._formulas[number // MAX_OUTPUTS].__name__)
        else:
            self._check_shape(value, number, formula)

    def _check_shape(self, value: Tensor, number: int, formula: type[Formula] | None) -> None:
        entry, slot = divmod(number, MAX_OUTPUTS)
        before = self._shapes[entry][slot]
        if value.shape != before:
            raise TapeError(
                f"{_described(formula)} was of shape {tuple(before)} and has been given the shape "
                f"{tuple(value.shape)} in place, where nothing is recorded: write "
                f"value = value.unsqueeze(…), or whatever it was, instead"
            )

    def _external(self, node: Any, slot: int) -> int:
        """The number of a value with a history from before: autograd goes on from here."""
        edge = GradientEdge(node, slot)
        number = self._numbers.get(edge)
        if number is None:
            number = self._numbers[edge] = -1 - len(self._leaves)
            self._leaves.append(edge)
            self._has_edges = True
        return number

    def _record_structural(self, place: Any, formula: type[Formula] | None) -> bool:
        """Note what torch's own operations made of values of this tape, up to ``place``.

        Returns:
            False if no value of this tape is behind ``place``.
        """
        known, foreign = self._numbers, self._foreign
        found: dict[Any, str] = {}  # each operation after those that it needs
        stack = [place]
        while stack:
            node = stack[-1]
            before = [n for n, _ in node.next_functions if n is not None]
            new = [
                n
                for n in before
                if not (n in known or n in foreign or n in found or type(n) is _AccumulateGrad)
            ]
            if new:
                stack += new
                continue
            stack.pop()
            if node in known or node in foreign or node in found:
                continue
            if any(n in known or n in found or _is_taped(n) for n in before):
                found[node] = name_of(node)
            else:
                foreign.add(node)
        if place in foreign:
            return False
        unsupported = [name for node, name in found.items() if not may_stand_between(node)]
        if unsupported:
            raise TapeError(
                f"{_described(formula)} has been through torch's own "
                f"{', '.join(dict.fromkeys(unsupported))}, and the tape has no formula of it. Use "
                f"manualbp.functional or manualbp.nn for it, write it as a manualbp.Formula, "
                f"detach() the value if nothing is to flow back, or call cost.backward() without a "
                f"tape"
            )
        for node, name in found.items():
            sources = tuple(
                self._number_of_input(n, slot, formula) for n, slot in node.next_functions
            )
            forms = [metadata(GradientEdge(node, i)) for i in range(len(node._input_metadata))]
            known[node] = len(self._formulas) * MAX_OUTPUTS
            self._between = True
            self._formulas.append(structural(name, len(sources), len(forms)))
            self._sources.append(sources)
            self._saved.append((node,))
            self._versions.append(())
            self._dtypes.append(tuple(dtype for dtype, _ in forms))
            self._shapes.append(tuple(shape for _, shape in forms))
            self._autocasts.append(None)
            if self.keep:
                self._record_values({}, ())
        return True

    def _number_of_input(self, node: Any, slot: int, formula: type[Formula] | None) -> int | None:
        """The number of a value that one of torch's own operations took."""
        if node is None:
            return None
        if type(node) is _AccumulateGrad:
            return self._leaf(node.variable, formula)
        number = self._numbers.get(node)
        return self._external(node, slot) if number is None else number + slot

    def keep_value(self, tensor: Tensor) -> None:
        """Keep a copy of what ``tensor`` holds, because it is about to be written to."""
        copies: dict[int, Tensor] = {}

        def kept(value: Any) -> Any:
            if not isinstance(value, Tensor) or not _is_alias_of(value, tensor):
                return value
            if id(value) not in copies:
                copies[id(value)] = value.detach().clone()
            return copies[id(value)]

        for record in self._records.values():
            record["inputs"] = {name: kept(value) for name, value in record["inputs"].items()}
            record["outputs"] = tuple(map(kept, record["outputs"]))

    def _record_values(self, inputs: dict[str, Any], outputs: tuple[Tensor, ...]) -> None:
        path = self._modules.path() if self._modules else ""
        self._records[len(self._formulas) - 1] = {
            "path": path,
            "inputs": inputs,
            "outputs": outputs,
        }

    # ------------------------------------------------------------------------------- backwards

    def backprop(self, cost: Tensor, gradient: Tensor | None = None) -> None:
        """Walk back from ``cost``: each leaf that wants a gradient gets or adds to its ``.grad``.

        Args:
            cost: a value computed on this tape; a scalar, unless ``gradient`` is given.
            gradient: ∂C/∂cost, in the shape of ``cost``; 1 by default.

        Raises:
            RuntimeError: ``cost`` was computed on another tape, requires no gradient, is no scalar,
                or has been passed to ``backprop`` before, on a tape without ``keep=True``.
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
        enabled = is_grad_enabled()
        _set_grad_enabled(False)
        try:
            self._accumulate_grads(self.leaf_gradients(self.number(cost), gradient), gradient)
        finally:
            _set_grad_enabled(enabled)

    @property
    def leaves(self) -> list[Tensor | GradientEdge]:
        """What gets a gradient in the end: leaves, and edges to a history from before."""
        return self._leaves

    def number(self, value: Tensor) -> int:
        """What ``value`` is known by; autograd goes on from one with a history from before.

        Raises:
            RuntimeError: it wants no gradient.
        """
        if not value.requires_grad:
            raise RuntimeError(
                "cost: expected a value computed by formulas on this tape from something that "
                "requires a gradient; compute it inside the 'with' block"
            )
        return self._number(value, None)

    def leaf_gradients(self, start: int, gradient: Tensor) -> list[Tensor | None]:
        """The gradient of each leaf, given that of the value numbered ``start``."""
        if self.keep or start < 0:
            return run_backward(self, start, gradient)
        program = PROGRAMS.program(self, start)
        if self._between:
            # What torch's own operations saved is freed with the entry: nothing else may hold it.
            self._numbers = {key: number for key, number in self._numbers.items() if number < 0}
        return run_backward(self, start, gradient) if program is None else program(self, gradient)

    def _accumulate_grads(self, gradients: list[Tensor | None], above: Tensor) -> None:
        """Add each leaf's gradient to its ``.grad``, or make it that."""
        pairs: list[tuple[Any, Tensor]]
        pairs = [(t, g) for t, g in zip(self._leaves, gradients, strict=True) if g is not None]
        if self._edgeless:
            pairs = [(t, g) for t, g in pairs if t not in self._edgeless]
        # Autograd has more to do than to store a gradient where there is a history, or are hooks,
        # which those of torch.distributed cannot be seen to be.
        plain = not (self._has_edges or _distributed())
        for t, _ in pairs if plain else ():
            if t._backward_hooks or t._post_accumulate_grad_hooks:
                plain = False
        if not plain:
            places: list[Any] = [t for t, _ in pairs]
            matched = [match_metadata(g, *metadata(t)) for t, g in pairs]
            torch.autograd.backward(places, matched, retain_graph=self.keep)
            return
        shared = {id(above)}
        for leaf, grad in pairs:
            own = not self.keep and grad._base is None and id(grad) not in shared
            shared.add(id(grad))
            _accumulate(leaf, grad, own)

    def _raise_freed(self, index: int) -> None:
        raise TapeError(
            f"the values that {self[index].name} kept have been freed by an earlier backprop: to "
            f"walk back over them again, record with Tape(keep=True)"
        )

    def _raise_modified(self, index: int) -> None:
        pairs = zip(self._saved[index] or (), self._versions[index], strict=False)
        shape = next(tuple(v.shape) for v, n in pairs if isinstance(v, Tensor) and v._version != n)
        raise TapeError(
            f"a tensor of shape {shape} that {self[index].name} saves for the backward pass has "
            f"been changed in place since: change a copy, or call backprop before"
        )

    def _record_grads(
        self, index: int, grad_outputs: tuple[Any, ...], grad_inputs: tuple[Any, ...]
    ) -> None:
        self._records[index] |= {"grad_outputs": grad_outputs, "grad_inputs": grad_inputs}

    # --------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        return len(self._formulas)

    def __getitem__(self, index: int) -> Entry:
        return Entry(self, range(len(self))[index])

    def __iter__(self) -> Iterator[Entry]:
        return (self[index] for index in range(len(self)))

    def __str__(self) -> str:
        return table(list(self))


#: torch's operations that may stand between formulas, by the names of their nodes
BETWEEN_FORMULAS = STRUCTURAL | frozenset(
    "Index IndexSelect IndexPut IndexAdd IndexCopy IndexFill Gather Scatter ScatterAdd "
    "MaskedSelect MaskedScatter SelectScatter SliceScatter DiagonalScatter Repeat Flip Roll Cat "
    "Stack Tril Triu ConstantPadNd MaskedFill Where Zero Fill Add Sub Rsub Mul Div Neg Sum "
    "Mean".split()
)


def may_stand_between(node: Any) -> bool:
    """Whether ``node`` may stand between formulas, and what it did to a view, if it did."""
    inner = getattr(node, "_wrapped_node", None)
    return name_of(node) in BETWEEN_FORMULAS and (inner is None or may_stand_between(inner))


_WITHOUT_GRADIENT = frozenset(
    dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype) and not (dtype.is_floating_point or dtype.is_complex)
)
_distributed = distributed.is_initialized if distributed.is_available() else bool
_AccumulateGrad = torch._C._functions.AccumulateGrad
_is_alias_of: Callable[[Tensor, Tensor], bool] = torch._C._is_alias_of  # type: ignore[attr-defined]


def _is_taped(node: Any) -> bool:
    """Whether a value of some tape is here, which to autograd is a leaf."""
    return type(node) is _AccumulateGrad and hasattr(node.variable, "_taped")


def _has_edge(leaf: Tensor) -> bool:
    """Whether autograd has a way to ``leaf``: a view of a leaf made under no_grad has none."""
    with torch.enable_grad():
        return leaf.view_as(leaf).grad_fn.next_functions[0][0] is not None  # type: ignore[union-attr]


def _accumulate(leaf: Tensor, grad: Tensor, own: bool) -> None:
    """As autograd's engine: a gradient that nothing else holds becomes ``.grad`` without a copy."""
    before = leaf.grad
    if before is None and own and grad.stride() == leaf.stride():
        # The setter compares dtype and shape anyhow, and comparing them here takes twice as long.
        try:
            leaf.grad = grad
            return
        except RuntimeError:
            pass
    if grad.dtype is not leaf.dtype or grad.shape != leaf.shape:
        grad, own = grad.sum_to_size(leaf.shape).to(leaf.dtype), True
    if before is not None:
        leaf.grad = grad + before if before.is_sparse else before.add_(grad)
    else:
        if not own or grad.stride() != leaf.stride():
            grad = torch.empty_like(leaf, requires_grad=False).copy_(grad)
        leaf.grad = grad


def _written(value: str, name: str) -> TapeError:
    return TapeError(
        f"{value} shares its memory with an argument of {name}, which returned it, and has been "
        f"changed in place since: change a copy"
    )


def _described(formula: type[Formula] | None) -> str:
    return "the cost" if formula is None else f"a value that reaches {formula.__name__}"
