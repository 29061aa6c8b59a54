"""A pass of a model over a batch, on a tape; and the gradient of each example's own cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from manualbp.conversion.interception import intercept
from manualbp.conversion.modules import convert, revert
from manualbp.conversion.report import coverage
from manualbp.core.graph import formula_of, name_of, nodes
from manualbp.functional._override import by_formula
from manualbp.tape import Tape
from manualbp.tape.backward import run_rules
from manualbp.tape.tape import TapeError, may_stand_between

Cost = Callable[..., Tensor]


class Pass:
    """A forward pass of a model over a batch, on a tape, and of the cost.

    Attributes:
        count: the number of examples.
        tape: of the model, and behind it of the cost.
        length: how many of its entries are the model's.
        outputs: the tensors of the model's output that depend on a parameter.
        names: of the parameters, by their ``id``.
    """

    def __init__(self, model: nn.Module, x: Any, y: Any, cost: Cost, *, keep: bool = False) -> None:
        self.count = check(model, x, y, cost)
        self.model, self.x, self.y, self.cost = model, x, y, cost
        modules = [*model.named_modules()]
        _check_normalization(modules)
        self.modules = [m for _, m in modules]
        self.parameters: dict[str, nn.Parameter] = {}
        self.names: dict[int, str] = {}
        for path, module in modules:  # named_parameters() takes twice as long
            for name, p in module._parameters.items():
                if p is not None and id(p) not in self.names:
                    self.names[id(p)] = name = f"{path}.{name}" if path else name
                    self.parameters[name] = p
        # Not intercept, whose hooks on all modules take as long as small layers do.
        with self.as_before():
            try:
                with Tape(keep=keep) as self.tape:
                    self._run()
            except TapeError as error:
                raise self._foreign(error) from error
        if not all(isinstance(leaf, Tensor) for leaf in self.tape._leaves):
            self._check_history()
        if not isinstance(self.value, Tensor):
            raise TypeError(
                f"cost: expected it to return a tensor, got {type(self.value).__name__}"
            )
        if self.value.numel() != 1:
            raise ValueError(
                f"cost: expected it to return a single number, got a tensor of shape "
                f"{tuple(self.value.shape)}: let it return a mean or a sum"
            )

    def _run(self) -> None:
        given = _given(self.x)
        with by_formula():
            output = self.model(*given)
        self._leaves: list[Any]
        self._leaves, self._spec = (
            ([output], _ONE) if isinstance(output, Tensor) else tree_flatten(output)
        )
        self.places = [
            i for i, t in enumerate(self._leaves) if isinstance(t, Tensor) and t.requires_grad
        ]
        self.outputs: list[Tensor] = [self._leaves[i] for i in self.places]
        self.numbers = [self.tape.number(t) for t in self.outputs]
        self.length = len(self.tape)
        with by_formula():
            self.value = self.cost(output, self.y)
        if isinstance(self.value, Tensor) and self.value.requires_grad:
            self.tape.number(self.value)

    def _check_history(self) -> None:
        """Raise where a value has been through torch's own derivative before it met a formula.

        What is computed from parameters alone, such as a parametrization, may be torch's own: all
        that it takes has a history.
        """
        edges = [leaf.node for leaf in self.tape._leaves if not isinstance(leaf, Tensor)]
        foreign = []
        for node in nodes(*edges):
            own = (
                hasattr(node, "variable") or formula_of(node) is not None or may_stand_between(node)
            )
            if not own and any(before is None for before, _ in node.next_functions):
                foreign.append(name_of(node))
        if foreign:
            raise _no_formula_of(foreign)
        if any(number < 0 for number in self.numbers):
            raise ValueError("model: expected an output that a formula has computed from x")

    def _foreign(self, error: TapeError) -> TapeError:
        """The error of a tape at one step, as one that names all steps without a formula."""
        with torch.enable_grad(), intercept():
            found = coverage(self.cost(self.model(*_given(self.x)), self.y), self.model).foreign
        if not found:
            return error
        return _no_formula_of([f"{s.name} in {s.path}" if s.path else s.name for s in found])

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """What a forward pass changes is afterwards as it was: buffers, and random numbers.

        Inside, modules have copies of their buffers, because a value put back is another version;
        and recurrent layers, which interception alone does not reach, are converted.
        """
        buffers = [(m._buffers, {**m._buffers}) for m in self.modules if m._buffers]
        for own, before in buffers:
            own.update({name: None if b is None else b.clone() for name, b in before.items()})
        scaled = []
        converted: list[nn.Module] = []
        for m in self.modules:
            if isinstance(m, _EMBEDDINGS) and m.max_norm is not None:
                scaled.append((m.weight, m.weight.detach().clone()))
            elif isinstance(m, nn.RNNBase) and convert(m).converted:
                converted.append(m)
        random = torch.get_rng_state()
        devices = {p.device for p in self.parameters.values() if p.is_cuda}
        on_devices = {d: torch.cuda.get_rng_state(d) for d in devices}
        try:
            yield
        finally:
            torch.set_rng_state(random)
            for device, state in on_devices.items():
                torch.cuda.set_rng_state(state, device)
            for own, before in buffers:
                own.update(before)
            for weight, was in scaled:
                weight.data.copy_(was)
            for m in converted:
                revert(m)

    # ------------------------------------------------------------ where the examples lie

    def axes(self) -> list[int]:
        """The axis of the examples in each output, whose length changes with their number."""
        if self.count == 1:
            return [0] * len(self.outputs)
        with self.as_before(), torch.enable_grad(), by_formula():
            # Two, where there are more: of one alone BatchNorm has no variance, and raises.
            few = 2 if self.count > 2 else 1
            alone = tree_flatten(self.model(*_given(_part(self.x, slice(0, few)))))[0]
        found = []
        for place, output in zip(self.places, self.outputs, strict=True):
            one = alone[place].shape if place < len(alone) else ()
            differ = [a for a, (n, m) in enumerate(zip(output.shape, one, strict=False)) if n != m]
            if (
                len(one) != output.dim()
                or len(differ) != 1
                or (output.shape[differ[0]], one[differ[0]]) != (self.count, few)
            ):
                raise ValueError(
                    f"model: expected an output with an axis for the examples, got the shape "
                    f"{tuple(output.shape)} for {self.count} of them and {tuple(one)} for {few}: "
                    f"let the cost reshape it"
                )
            found += differ
        return found

    # -------------------------------------------------- the cost of each example alone

    def gradients(self, axes: Sequence[int]) -> list[Tensor | None]:
        """∂Cₙ/∂output for each output, Cₙ being the cost of example n alone.

        A cost that is a mean divides by the number of examples; that of an example alone does not.
        So the cost is computed anew for each, all at once, but where it is a single formula whose
        mean has equal shares.
        """
        scale = self._share(axes)
        if scale is not None:
            entry = self.length
            gradient = torch.full_like(self.value, scale, requires_grad=False)
            tape = self.tape
            saved = tape._saved[entry]
            needs = tuple(s == self.numbers[0] for s in tape._sources[entry])
            formula, autocast = tape._formulas[entry], tape._autocasts[entry]
            given = run_rules(formula, needs, [gradient], saved, autocast)
            return [next(g for g, need in zip(given, needs, strict=True) if need)]
        values = [t.detach() for t in self.outputs]
        others, spec = tree_flatten(self.y)
        along = [i for i, t in enumerate(others) if isinstance(t, Tensor)]

        def own(given: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
            each = [t.unsqueeze(a) for t, a in zip(given, axes, strict=True)]
            y = list(others)
            for i, t in zip(along, targets, strict=True):
                y[i] = t.unsqueeze(0)
            value = self.cost(self._as_output(each), tree_unflatten(y, spec))
            return value.reshape(())

        targets = [others[i] for i in along]
        with by_formula():
            try:
                vmap: Any = torch.func.vmap
                own_gradient = torch.func.grad(own)
                each = vmap(own_gradient, ([*axes], 0), [*axes], randomness="different")
                return list(each(values, targets))
            except (RuntimeError, ValueError, TypeError):  # it looks at numbers, say
                return self._one_by_one(own, values, targets, axes)

    def _one_by_one(
        self,
        own: Callable[..., Tensor],
        values: Sequence[Tensor],
        targets: Sequence[Tensor],
        axes: Sequence[int],
    ) -> list[Tensor | None]:
        found = []
        for n in range(self.count):
            each = [
                t.select(a, n).detach().requires_grad_() for t, a in zip(values, axes, strict=True)
            ]
            with torch.enable_grad():
                value = own(each, [t[n] for t in targets])
            found.append(torch.autograd.grad(value, each, materialize_grads=True))
        return [torch.stack(g, a) for g, a in zip(zip(*found, strict=True), axes, strict=True)]

    def _as_output(self, each: Sequence[Tensor]) -> Any:
        """The model's output with other tensors in it, of one example."""
        leaves = [
            t.detach()[:1] if isinstance(t, Tensor) and t.dim() and len(t) == self.count else t
            for t in self._leaves
        ]
        for place, t in zip(self.places, each, strict=True):
            leaves[place] = t
        return tree_unflatten(leaves, self._spec)

    def _share(self, axes: Sequence[int]) -> float | None:
        """By what the gradient of the batch's cost becomes that of their own; None for unknown.

        Known of a single formula that compares the output with y and states its ``reduction``.
        """
        tape, entry = self.tape, self.length
        if len(tape) != entry + 1 or len(self.outputs) != 1 or axes[0] != 0:
            return None
        formula, (output,) = tape._formulas[entry], self.outputs
        if formula.__module__ != "manualbp.formulas.loss" or output.dim() < 2:
            return None
        derivation, saved = formula.derivation, tape._saved[entry]
        assert saved is not None
        values = dict(zip(derivation.saved, saved, strict=False))
        target, reduction = values.get("target"), values.get("reduction")
        if tape._sources[entry][0] != self.numbers[0] or not isinstance(self.y, Tensor):
            return None
        if values.get("weight") is not None or values.get("pos_weight") is not None:
            return None
        if not isinstance(target, Tensor) or not _same(target, self.y):
            return None
        ignored = values.get("ignore_index")
        if ignored is not None and not target.is_floating_point():
            if bool((target == ignored).any()):
                return None
        if reduction == "sum":
            return 1.0
        return float(self.count) if reduction in ("mean", "batchmean") else None


_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
#: how torch notes a tensor that stands in no container
_ONE = tree_flatten(0)[1]


def _no_formula_of(steps: Sequence[str]) -> TapeError:
    return TapeError(
        f"model: manualbp has no formula of {', '.join(dict.fromkeys(steps))}: use a function that "
        f"manualbp.functional has, or write it as a manualbp.Formula"
    )


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (
        a.shape == b.shape and a.stride() == b.stride() and a.data_ptr() == b.data_ptr()
    )


def _given(x: Any) -> tuple[Any, ...]:
    """The arguments of the model."""
    if isinstance(x, Tensor):
        return (x.detach(),)
    given = tree_map(lambda t: t.detach() if isinstance(t, Tensor) else t, x)
    return given if isinstance(x, tuple) else (given,)


def _part(x: Any, part: slice | Tensor) -> Any:
    return tree_map(lambda t: t[part] if isinstance(t, Tensor) else t, x)


# ------------------------------------------------------------------------------- what is given


def check(model: Any, x: Any, y: Any, cost: Any) -> int:
    """The number of examples.

    Raises:
        TypeError: ``model`` is no module, ``cost`` cannot be called, or ``x`` holds no tensor.
        ValueError: the tensors of ``x`` and ``y`` are not of one length, or of none; BatchNorm is
            in training mode.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if not callable(cost):
        raise TypeError(
            f"cost: expected a function of the model's output and y, such as "
            f"torch.nn.CrossEntropyLoss(), got {type(cost).__name__}"
        )
    if isinstance(x, Tensor) and isinstance(y, Tensor) and x.dim() and y.dim():
        if len(x) == len(y) != 0:
            return len(x)
    of_x, of_y = ([t for t in tree_flatten(v)[0] if isinstance(t, Tensor)] for v in (x, y))
    if not of_x:
        raise TypeError(f"x: expected a tensor, got {type(x).__name__}")
    lengths = {t.shape[0] if t.dim() else 0 for t in (*of_x, *of_y)}
    if len(lengths) != 1:
        shapes = [", ".join(str(tuple(t.shape)) for t in given) for given in (of_x, of_y)]
        raise ValueError(
            f"x and y: expected the examples along axis 0 of both, as many in x as in y, got x of "
            f"{shapes[0]} and y of {shapes[1]}"
        )
    (count,) = lengths
    if not count:
        raise ValueError("x: expected one example or more along axis 0, got none")
    return count


def _check_normalization(modules: Sequence[tuple[str, nn.Module]]) -> None:
    for name, module in modules:
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            kind = type(module).__name__
            raise ValueError(
                f"model: {kind} {name!r} normalises by the mean and variance of the whole batch, "
                f"so no example has a gradient alone: call model.eval(), which takes the running "
                f"ones, or use GroupNorm"
            )
