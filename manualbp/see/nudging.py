"""A tiny nudge to a weight, carried forward to the cost, beside what it really does."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._pytree import tree_flatten, tree_map

from manualbp.conversion.interception import intercept
from manualbp.core.tables import table_lines
from manualbp.see.naming import parameter_at, parameter_named
from manualbp.see.running import Cost, as_found, cast, check, check_number, in_double, record
from manualbp.see.summary import digits

Values = list[tuple[str, str, list[Tensor]]]


@dataclass(frozen=True)
class Moved:
    """What a nudge does to the output of one layer.

    Attributes:
        path, name: of the layer; ``"cost"`` is the last one.
        predicted: how far its output moves by tangents, in the output's shape; Δz or Δa. A tuple
            where it returns several tensors.
        measured: how far it really moves.
    """

    path: str
    name: str
    predicted: Any
    measured: Any

    @property
    def size(self) -> float:
        """‖measured‖."""
        return _norm(self.measured)

    @property
    def difference(self) -> float:
        """‖measured − predicted‖."""
        pairs = zip(_listed(self.measured), _listed(self.predicted), strict=True)
        return _norm([m - p for m, p in pairs])

    @property
    def off(self) -> float:
        """The difference by the size of what was measured or predicted."""
        size = max(self.size, _norm(self.predicted))
        return self.difference / size if size else 0.0


@dataclass(frozen=True)
class Nudge:
    """A nudge and what comes of it; made by :func:`manualbp.nudge`.

    Attributes:
        what: what is moved, in words.
        layers: a pair for each innermost module that ran, in the order of the forward pass, and
            the cost.
        cost: C before the nudge.
        by: how far each parameter that moves is moved, by its name.
    """

    what: str
    layers: list[Moved]
    cost: float
    by: Mapping[str, Tensor]

    @property
    def predicted(self) -> float:
        """ΔC by tangents: Σ ∂C/∂w Δw."""
        return float(self.layers[-1].predicted)

    @property
    def measured(self) -> float:
        """C after the nudge less C before."""
        return float(self.layers[-1].measured)

    @property
    def parting(self) -> Moved:
        """The layer at which prediction and measurement part: ``off`` rises the most there."""
        before, found, rise = 0.0, self.layers[0], -1.0
        for layer in self.layers:
            if layer.off - before > rise:
                found, rise = layer, layer.off - before
            before = layer.off
        return found

    def to_dict(self) -> dict[str, Any]:
        """What is printed, as plain numbers."""
        return {
            "what": self.what,
            "cost": self.cost,
            "predicted": self.predicted,
            "measured": self.measured,
            "parting": self.parting.path,
            "layers": [
                {"path": layer.path, "name": layer.name, "predicted": _norm(layer.predicted)}
                | {"measured": layer.size, "difference": layer.difference, "off": layer.off}
                for layer in self.layers
            ],
        }

    def __str__(self) -> str:
        rows = []
        for layer in self.layers[:-1]:
            if layer.size or _norm(layer.predicted):
                sizes = (_norm(layer.predicted), layer.size, layer.difference)
                rows.append([layer.path, layer.name, *map(digits, sizes), _share(layer.off)])
        last = self.layers[-1]
        numbers = (self.predicted, self.measured, self.measured - self.predicted)
        rows.append(["C", last.name, *map(digits, numbers), _share(last.off)])
        head = ["layer", "", "predicted", "measured", "difference", ""]
        at = self.parting
        where = "the cost" if at is last else f"layer {at.path} ({at.name})"
        said = f"they part most at {where}, by {_share(at.off)}"
        lines = [f"{self.what}: C was {digits(self.cost)}", "", *table_lines(head, rows), ""]
        lines.append("of a layer ‖Δ output‖ over the batch, of C its change")
        return "\n".join([*lines, said if at.off else "they nowhere part"])

    def __repr__(self) -> str:
        return f"<Nudge of {self.what}: ΔC {digits(self.predicted)}, {digits(self.measured)}>"


def nudge(
    model: nn.Module,
    x: Any,
    y: Any,
    name: str | None = None,
    *index: int,
    by: float | Tensor | None = None,
    step: torch.optim.Optimizer | None = None,
    cost: Cost,
) -> Nudge:
    """Move a weight a little: what tangents predict for each layer and C, and what really happens.

    ::

        nudge = manualbp.nudge(model, x, y, "0.weight", 3, 407, by=0.01, cost=criterion)
        nudge.predicted, nudge.measured  # ΔC; half of by, a quarter of their difference

        manualbp.nudge(model, x, y, "0.weight", by=direction, cost=criterion)
        manualbp.nudge(model, x, y, step=optimizer, cost=criterion)

    Tangents are those of the formulas, carried forward through the network. The real change is that
    between two runs, without the nudge and with it. All runs are in double precision where the
    model allows it, with the same random numbers. The model, the optimizer and their values are not
    written to.

    Args:
        model: any module that ``convert`` and ``intercept`` cover.
        x: its input, of shape (n, …), or a tuple of its inputs.
        y: the target, for n examples.
        name: of a parameter, as in ``"0.weight"``.
        index: of one entry of it; none for the whole parameter.
        by: how far that entry is moved; of a whole parameter a tensor in its shape.
        step: in place of these an optimizer of the model: all its parameters move as its next step
            would move them, on the gradient of this cost.
        cost: a function of the model's output and ``y`` that gives one number.

    Raises:
        TypeError: ``model``, ``cost`` or ``step`` is of another kind, or what is to move is not
            said, or said twice.
        KeyError: ``name`` is no parameter; gives those near to it.
        IndexError: the parameter has no such entry; gives its shape.
        ValueError: x and y differ in length, the cost is no single number, ``by`` is in another
            shape, or ``step`` moves no parameter of the model.
        NotImplementedError: an operation in the model has no tangent.
    """
    model = check(model, x, y, cost)
    inputs = tuple(x) if isinstance(x, tuple) else (x,)
    parameters = _parameters(model, cost)
    if step is not None:
        if name is not None or by is not None:
            raise TypeError("nudge: expected a parameter and by=, or step=, and not both")
        moves = _step_of(step, model, x, y, cost, parameters)
        what = f"a step of {type(step).__name__}"
    else:
        what, moves = _move(parameters, name, index, by, model)
    run = _Run(model, inputs, y, cost, parameters)
    with torch.no_grad():
        layers, before = in_double(lambda dtype: run.beside(moves, dtype))
    return Nudge(what, layers, before, moves)


def _parameters(model: nn.Module, cost: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = dict(model.named_parameters())
    if isinstance(cost, nn.Module):
        found |= {f"cost.{name}": p for name, p in cost.named_parameters()}
    return found


# -------------------------------------------------------------------------- what is to move


def _move(
    parameters: Mapping[str, Tensor],
    name: str | None,
    index: tuple[int, ...],
    by: float | Tensor | None,
    model: nn.Module,
) -> tuple[str, dict[str, Tensor]]:
    if name is None or by is None:
        missing = "by=, how far" if name is not None else "the name of a parameter"
        raise TypeError(
            f"nudge: expected {missing}, as in nudge(model, x, y, '0.weight', 3, 407, by=0.01, "
            f"cost=criterion), or step=optimizer"
        )
    name = parameter_named(parameters, name, model)
    parameter = parameters[name]
    whole = isinstance(by, Tensor) and by.dim() > 0
    if whole and not index:
        assert isinstance(by, Tensor)
        if by.shape != parameter.shape:
            raise ValueError(
                f"by: expected the shape of {name}, {tuple(parameter.shape)}, got {tuple(by.shape)}"
            )
        return f"{name} + by", {name: by.detach().to(parameter.device)}
    if whole or isinstance(by, bool) or not isinstance(by, int | float | Tensor):
        got = f"shape {tuple(by.shape)}" if isinstance(by, Tensor) else repr(by)
        raise ValueError(f"by: expected a number for one entry of {name}, got {got}")
    place = parameter_at(parameters, name, index, model)
    moved = torch.zeros_like(parameter, dtype=torch.promote_types(parameter.dtype, torch.double))
    moved[place.index] = by
    return f"{place} {'+' if by >= 0 else '−'} {digits(abs(float(by)))}", {name: moved}


def _step_of(
    optimizer: Any,
    model: nn.Module,
    x: Any,
    y: Any,
    cost: Cost,
    parameters: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """How far the next step of an optimizer would move each parameter; a copy of it takes it."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        kind = type(optimizer).__name__
        raise TypeError(f"step: expected a torch.optim.Optimizer, got {kind}")
    grads = record(model, x, y, cost).grads
    names = {id(p): name for name, p in parameters.items()}
    copied = copy.deepcopy(optimizer)
    pairs = [
        (names[id(original)], original, moved)
        for group, others in zip(optimizer.param_groups, copied.param_groups, strict=True)
        for original, moved in zip(group["params"], others["params"], strict=True)
        if id(original) in names
    ]
    if not pairs:
        raise ValueError("step: the optimizer has no parameter of the model")
    for group in copied.param_groups:
        for p in group["params"]:
            p.grad = None
    for name, _, moved in pairs:
        moved.grad = grads[name].clone() if name in grads else None
    try:
        with torch.enable_grad():
            copied.step()
    except TypeError as error:
        kind = type(optimizer).__name__
        raise ValueError(
            f"step: {kind}.step() does not run by itself ({error}): its steps cannot be told ahead"
        ) from None
    wide = {n: torch.promote_types(p.dtype, torch.double) for n, p in parameters.items()}
    return {n: moved.detach().to(wide[n]) - p.detach().to(wide[n]) for n, p, moved in pairs}


# --------------------------------------------------------------------------------- the runs


class _Run:
    """Runs a model and its cost at other values of its parameters."""

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Any, ...],
        y: Any,
        cost: Cost,
        parameters: Mapping[str, Tensor],
    ) -> None:
        self.model, self.inputs, self.y, self.cost = model, inputs, y, cost
        self.parameters = parameters

    def beside(
        self, moves: Mapping[str, Tensor], dtype: torch.dtype | None
    ) -> tuple[list[Moved], float]:
        """Each layer's change as tangents have it and as it is, and C before."""
        here = {name: cast(p.detach(), dtype) for name, p in self.parameters.items()}
        along = {name: by.to(here[name].dtype) for name, by in moves.items()}
        there = {name: p + along[name] if name in along else p for name, p in here.items()}
        before = self._values(here, dtype)
        after = self._values(there, dtype)
        tangents = self._tangents(here, along, dtype)
        if not [v[:2] for v in before] == [v[:2] for v in after] == [v[:2] for v in tangents]:
            raise ValueError("nudge: with the nudge the model runs other layers than without it")
        moved = [
            Moved(path, name, _alone(told), _alone([b - a for a, b in zip(old, new, strict=True)]))
            for (path, name, old), (_, _, new), (_, _, told) in zip(
                before, after, tangents, strict=True
            )
        ]
        return moved, float(before[-1][2][0])

    def _values(self, parameters: Mapping[str, Tensor], dtype: torch.dtype | None) -> Values:
        return self._run(parameters, dtype, lambda t: t.detach().clone())

    def _tangents(
        self, here: Mapping[str, Tensor], along: Mapping[str, Tensor], dtype: torch.dtype | None
    ) -> Values:
        with forward_ad.dual_level(), warnings.catch_warnings():
            # torch writes its own tables of tangents with TorchScript, of which it warns.
            warnings.simplefilter("ignore", FutureWarning)
            make: Callable[..., Tensor] = forward_ad.make_dual
            dual = {n: make(p, along[n]) if n in along else p for n, p in here.items()}
            return self._run(dual, dtype, _tangent)

    def _run(
        self,
        parameters: Mapping[str, Tensor],
        dtype: torch.dtype | None,
        read: Callable[[Tensor], Tensor],
    ) -> Values:
        """What ``read`` takes from the outputs of each innermost module, and from C."""
        values: Values = []
        with ExitStack() as stack:
            stack.enter_context(as_found(self.model, self.cost))
            modules = [m for m in (self.model, self.cost) if isinstance(m, nn.Module)]
            for module in modules:
                stack.enter_context(_swapped(module, self.parameters, parameters, dtype))
            stack.enter_context(intercept())
            with _watched(self.model, values, read):
                output = self.model(*tree_map(lambda v: cast(v, dtype), self.inputs))
            value = self.cost(output, tree_map(lambda v: cast(v, dtype), self.y))
            check_number(value)
            name = getattr(self.cost, "__name__", type(self.cost).__name__)
            values.append(("cost", name, [read(value).reshape(())]))
        return values


@contextmanager
def _watched(model: nn.Module, values: Values, read: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Note what each innermost module returns, in the order in which they begin."""
    running: list[bool] = []
    hooks = []

    def enter(module: nn.Module, _: Any) -> None:
        if running:
            running[-1] = False
        running.append(True)

    def leave(path: str) -> Any:
        def note(module: nn.Module, _: Any, output: Any) -> None:
            if running.pop():
                tensors = [t for t in tree_flatten(output)[0] if _is_floating(t)]
                values.append((path, type(module).__name__, [read(t) for t in tensors]))

        return note

    for path, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(enter))
        hooks.append(module.register_forward_hook(leave(path)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _swapped(
    module: nn.Module,
    originals: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    dtype: torch.dtype | None,
) -> Iterator[None]:
    """The module with other tensors in the places of its parameters, and copies of its buffers."""
    other = {id(originals[name]): p for name, p in parameters.items()}
    before = []
    for part in module.modules():
        flat = vars(part).get("_flat_weights")  # the weights of an RNN, in a second place
        before.append((part, dict(part._parameters), dict(part._buffers), flat))
        for name, p in part._parameters.items():
            part._parameters[name] = None if p is None else other.get(id(p), p)  # type: ignore
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else cast(buffer, dtype)
        if flat is not None:
            part._flat_weights = [other.get(id(p), p) for p in flat]  # type: ignore[assignment]
    try:
        yield
    finally:
        for part, own, buffers, flat in before:
            part._parameters.clear()
            part._parameters.update(own)
            part._buffers.clear()
            part._buffers.update(buffers)
            if flat is not None:
                part._flat_weights = flat


def _tangent(value: Tensor) -> Tensor:
    primal, found = forward_ad.unpack_dual(value)  # type: ignore[no-untyped-call]
    return torch.zeros_like(primal) if found is None else found.detach().clone()


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())


# ------------------------------------------------------------------------------- numbers


def _alone(values: list[Tensor]) -> Any:
    return values[0] if len(values) == 1 else tuple(values)


def _listed(values: Any) -> list[Tensor]:
    return [values] if isinstance(values, Tensor) else list(values)


def _norm(values: Any) -> float:
    norms = [t.abs().double().norm() for t in _listed(values)]
    return float(torch.stack(norms).norm()) if norms else 0.0


def _share(off: float) -> str:
    return f"{digits(100 * off)} %" if off else ""
