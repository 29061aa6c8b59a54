"""A whole training step, forward, backward and update, as one program."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from manualbp.products import choose
from manualbp.tape import Tape

Program = Callable[..., Tensor]


def compile_step(
    net: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    compiler: bool = True,
) -> Step:
    """One training step as one compiled program: ``cost = step(x, y)``.

    The step is run once on a :class:`~manualbp.Tape` with tensors that only have a shape. That
    gives one flat list of operations, the formulas', their rules' and the optimizer's, without a
    Python call between them, which Inductor compiles; on CUDA the result is captured as a graph
    and replayed. A program belongs to the shapes, the mode (training or not), the autocast and
    the options of the optimizer under which it was made; under others another one is made. The
    learning rate may change from step to step.

    Args:
        net: a network of manualbp's layers; hooks run while it is traced, not afterwards.
        criterion: cost of its output and the targets, a single number.
        optimizer: ``SGD``, ``Adam`` or ``AdamW`` of :mod:`torch.optim`. Its state is its own, as
            after ``optimizer.step()``: save it, load it, go on without the compiled step.
        compiler: False runs the flat program without Inductor.

    Raises:
        TypeError: another optimizer, or an option of it that a program cannot have.
    """
    return Step(net, criterion, optimizer, compiler=compiler)


class Step:
    """See :func:`compile_step`."""

    def __init__(
        self,
        net: nn.Module,
        criterion: Callable[[Tensor, Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        *,
        compiler: bool = True,
    ) -> None:
        self._update = _update_of(optimizer)
        self._optimizer = optimizer
        self._cost = _Cost(net, criterion)
        self._compiler = compiler
        self._programs: dict[Any, tuple[_State, Program]] = {}
        #: why programs run uncompiled: the compiler's own words, or None where they do not
        self.uncompiled: str | None = None

    @property
    def made(self) -> bool:
        """Whether there is a program yet: the first step makes it, or the optimizer's state."""
        return bool(self._programs)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Train on one batch: its cost before the update, detached."""
        if not self._update.ready(self._optimizer):
            return self._first(x, y)
        return self._run(x, y, None)

    def many(self, xs: Tensor, ys: Tensor) -> Tensor:
        """Train on several batches of one size in one call, one after the other.

        Args:
            xs: (steps, n, \\*), the batches.
            ys: (steps, n, \\*), their targets.

        Returns:
            (steps,): the cost of each batch before its update, detached.
        """
        if len(xs) != len(ys) or not len(xs):
            raise ValueError(
                f"xs, ys: expected as many batches of inputs as of targets along the first axis, "
                f"and one at least; got {len(xs)} and {len(ys)}"
            )
        if not self._update.ready(self._optimizer):
            first = self._first(xs[0], ys[0]).reshape(1)
            return first if len(xs) == 1 else torch.cat([first, self.many(xs[1:], ys[1:])])
        return self._run(xs, ys, len(xs))

    def trace(self, x: Tensor, y: Tensor) -> torch.fx.GraphModule:
        """The flat program of one step, to be read: ``print(step.trace(x, y).code)``."""
        state = _State(self._cost, self._optimizer)
        rates = self._update.rates(self._optimizer, 1).to(x.device)
        return self._trace(state, rates, x, y, None)

    def _run(self, xs: Tensor, ys: Tensor, steps: int | None) -> Tensor:
        """One batch, or ``steps`` of them along a first axis."""
        device = xs.device.type
        key = (
            steps,
            xs.shape,
            xs.stride(),
            xs.dtype,
            xs.device,
            ys.shape,
            ys.stride(),
            ys.dtype,
            self._cost.modes(),
            torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
            self._update.options(self._optimizer),
        )
        rates = self._update.rates(self._optimizer, steps or 1)
        state, program = self._programs.get(key, (None, None))
        if state is None or program is None or state.moved():
            # Tensors that have been replaced, by .to() or load_state_dict(), are not the program's.
            state = _State(self._cost, self._optimizer)
            program = self._build(state, rates, xs, ys, steps)
            self._programs[key] = (state, program)
        enabled = torch.is_grad_enabled()
        torch._C._set_grad_enabled(False)
        try:
            costs = program(rates, xs, ys)
        finally:
            torch._C._set_grad_enabled(enabled)
        self._update.count(self._optimizer, steps or 1)
        self._optimizer._opt_called = True  # type: ignore[attr-defined] # as schedulers ask
        return costs

    def _first(self, x: Tensor, y: Tensor) -> Tensor:
        """A step without a program, in which torch itself makes the state of its optimizer."""
        self._optimizer.zero_grad()
        with Tape() as tape:
            cost = self._cost(x, y)
        tape.backprop(cost)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return cost.detach()

    def _trace(
        self, state: _State, rates: Tensor, xs: Tensor, ys: Tensor, steps: int | None
    ) -> torch.fx.GraphModule:
        update, groups = self._update, self._optimizer.param_groups

        def whole(*flat: Tensor) -> Tensor:
            *tensors, rates, xs, ys = flat
            costs = []
            batches = [(xs, ys)] if steps is None else zip(xs.unbind(0), ys.unbind(0), strict=True)
            for rate, (x, y) in zip(rates.unbind(0), batches, strict=True):
                leaves = [
                    t.detach().requires_grad_() if wanted else t
                    for t, wanted in zip(tensors, state.wanted, strict=True)
                ]
                named = {name: leaves[i] for name, i in state.names.items()}
                with Tape() as tape:
                    cost = functional_call(self._cost, named, (x, y))
                tape.backprop(cost)
                with torch.no_grad():
                    for index, group, buffers in state.updates:
                        if leaves[index].grad is not None:
                            settings = groups[group]
                            own = {name: tensors[i] for name, i in buffers.items()}
                            update.apply(
                                tensors[index], leaves[index].grad, own, rate[group], settings
                            )
                costs.append(cost.detach())
            return costs[0] if steps is None else torch.stack(costs)

        from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

        # Fake tensors: nothing is computed, so nothing is updated either.
        return make_fx(whole, tracing_mode="fake")(*state.tensors, rates, xs, ys)

    def _build(
        self, state: _State, rates: Tensor, xs: Tensor, ys: Tensor, steps: int | None
    ) -> Program:
        rates = rates.to(xs.device)  # where a replay copies them to
        graph = self._trace(state, rates, xs, ys, steps)
        tensors = state.tensors
        program: Program = graph
        if self._compiler:
            try:
                from torch._inductor import config  # slow to import

                choose(graph)
                # Or Inductor tries out each instruction set that the processor names, for seconds.
                with torch.no_grad(), config.patch({"cpp.vec_isa_ok": True}):
                    program = torch._inductor.compile(graph, [*tensors, rates, xs, ys])
                    # Compiling is put off to the first call; a copy takes its effects.
                    program(*(t.clone() for t in (*tensors, rates, xs, ys)))
            except Exception as error:
                self.uncompiled = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
                warnings.warn(
                    f"compile_step found no working compiler ({self.uncompiled}): the step runs as "
                    f"a flat program, uncompiled",
                    stacklevel=4,
                )
                program = graph
        if xs.device.type == "cuda":
            return _Replay(program, tensors, rates, xs, ys)
        return lambda rates, xs, ys: program(*tensors, rates, xs, ys)


class _Cost(nn.Module):
    """Network and criterion as one module, so that one call takes all their tensors as inputs."""

    def __init__(self, net: nn.Module, criterion: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net
        self.criterion = criterion
        self._all, self._wanted = list(self.modules()), list(self.parameters())

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.criterion(self.net(x), y)

    def modes(self) -> tuple[bool, ...]:
        """What a program takes for granted of the modules."""
        return (*[m.training for m in self._all], *[p.requires_grad for p in self._wanted])


class _State:
    """All tensors that a step reads or writes: parameters, buffers, the optimizer's state."""

    def __init__(self, cost: _Cost, optimizer: torch.optim.Optimizer) -> None:
        self.tensors: list[Tensor] = []
        self.wanted: list[bool] = []
        self._places: dict[int, int] = {}
        #: where each tensor of network and criterion is, by its name
        self.names: dict[str, int] = {}
        #: parameter, group and state of each update
        self.updates: list[tuple[int, int, dict[str, int]]] = []
        self._owners: list[tuple[Tensor, int]] = []
        self._optimizer, self._states = optimizer, list[tuple[Tensor, Any]]()
        for name, tensor in (
            *cost.named_parameters(remove_duplicate=False),
            *cost.named_buffers(remove_duplicate=False),
        ):
            self.names[name] = self._place(tensor)
        for number, group in enumerate(optimizer.param_groups):
            for parameter in group["params"]:
                if not parameter.requires_grad or id(parameter) not in self._places:
                    continue
                state = optimizer.state.get(parameter, {})
                if state:
                    self._states.append((parameter, state))
                buffers = {
                    name: self._place(value)
                    for name, value in state.items()
                    if isinstance(value, Tensor)
                    and value.dim() == parameter.dim()
                    and name != "step"
                }
                place = self._place(parameter)
                self.wanted[place] = True
                self.updates.append((place, number, buffers))

    def _place(self, tensor: Tensor) -> int:
        if id(tensor) not in self._places:
            self._places[id(tensor)] = len(self.tensors)
            self.tensors.append(tensor.detach())
            self._owners.append((tensor, tensor.data_ptr()))
            self.wanted.append(False)
        return self._places[id(tensor)]

    def moved(self) -> bool:
        """Whether a tensor now lies elsewhere than when it was gathered."""
        states = self._optimizer.state
        return any([t.data_ptr() != place for t, place in self._owners]) or any(
            [states.get(parameter) is not state for parameter, state in self._states]
        )


class _Replay:
    """A program captured as a CUDA graph, replayed on copies of its inputs."""

    def __init__(
        self, program: Program, tensors: list[Tensor], rates: Tensor, xs: Tensor, ys: Tensor
    ) -> None:
        self._inputs = [t.to(xs.device, copy=True) for t in (rates, xs, ys)]
        before = [t.clone() for t in tensors]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.no_grad():
            for _ in range(3):  # as torch advises, so that libraries allocate before the capture
                program(*tensors, *self._inputs)
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph), torch.no_grad():
            self._costs = program(*tensors, *self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._costs.clone()


# ------------------------------------------------------------------------------------- updates


class _SGD:
    """w ← w − η v,  v ← μ v + (1 − τ) ∂C/∂w   (torch.optim.SGD)"""

    def __init__(self) -> None:
        self._last: tuple[Any, Tensor] | None = None

    def ready(self, optimizer: torch.optim.Optimizer) -> bool:
        return all(
            "momentum_buffer" in optimizer.state.get(p, {})
            for group in optimizer.param_groups
            if group["momentum"]
            for p in group["params"]
            if p.requires_grad
        )

    def options(self, optimizer: torch.optim.Optimizer) -> Any:
        names = ("momentum", "dampening", "weight_decay", "nesterov", "maximize")
        return tuple(tuple(group[n] for n in names) for group in optimizer.param_groups)

    def rates(self, optimizer: torch.optim.Optimizer, steps: int) -> Tensor:
        """(steps, groups, 1): η."""
        row = [[float(group["lr"])] for group in optimizer.param_groups]
        if self._last is None or self._last[0] != (row, steps):
            self._last = (row, steps), torch.tensor([row] * steps)
        return self._last[1]

    def count(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        pass

    def apply(self, w: Tensor, g: Tensor, state: dict[str, Tensor], rate: Tensor, o: Any) -> None:
        if o["maximize"]:
            g = -g
        if o["weight_decay"]:
            g = g + o["weight_decay"] * w
        if o["momentum"]:
            v = state["momentum_buffer"]
            v.copy_(o["momentum"] * v + (1 - o["dampening"]) * g)
            g = g + o["momentum"] * v if o["nesterov"] else v
        w.sub_(rate[0].to(w.dtype) * g)


class _Adam:
    """w ← w − η m̂ / (√v̂ + ε),  running means of ∂C/∂w and its square   (torch.optim.Adam)"""

    def ready(self, optimizer: torch.optim.Optimizer) -> bool:
        groups = optimizer.param_groups
        return all("exp_avg" in optimizer.state.get(p, {}) for p in _trained(groups))

    def options(self, optimizer: torch.optim.Optimizer) -> Any:
        names = ("betas", "eps", "weight_decay", "amsgrad", "maximize")
        return tuple(tuple(group[n] for n in names) for group in optimizer.param_groups)

    def rates(self, optimizer: torch.optim.Optimizer, steps: int) -> Tensor:
        """(steps, groups, 3): η, η / (1 − β₁ᵗ) and √(1 − β₂ᵗ) at each step t."""
        rows = []
        for ahead in range(1, steps + 1):
            row = []
            for group in optimizer.param_groups:
                lr, (beta1, beta2) = float(group["lr"]), group["betas"]
                first = next(iter(_trained([group])), None)
                t = ahead + (float(optimizer.state[first]["step"]) if first is not None else 0)
                row.append([lr, lr / (1 - beta1**t), math.sqrt(1 - beta2**t)])
            rows.append(row)
        return torch.tensor(rows)

    def count(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for p in _trained(optimizer.param_groups):
            optimizer.state[p]["step"] += steps

    def apply(self, w: Tensor, g: Tensor, state: dict[str, Tensor], rate: Tensor, o: Any) -> None:
        (beta1, beta2), (lr, size, root) = o["betas"], rate.to(w.dtype).unbind(0)
        if o["maximize"]:
            g = -g
        if o["weight_decay"]:
            if o.get("decoupled_weight_decay"):
                w.mul_(1 - lr * o["weight_decay"])
            else:
                g = g + o["weight_decay"] * w
        m, v = state["exp_avg"], state["exp_avg_sq"]
        m.copy_(m + (1 - beta1) * (g - m))
        v.copy_(beta2 * v + (1 - beta2) * g * g)
        if o["amsgrad"]:
            highest = state["max_exp_avg_sq"]
            highest.copy_(torch.maximum(highest, v))
            v = highest
        w.sub_(size * m / (v.sqrt() / root + o["eps"]))


def _trained(groups: list[dict[str, Any]]) -> Iterator[Tensor]:
    return (p for group in groups for p in group["params"] if p.requires_grad)


def _update_of(optimizer: torch.optim.Optimizer) -> Any:
    updates = {torch.optim.SGD: _SGD, torch.optim.Adam: _Adam, torch.optim.AdamW: _Adam}
    update = updates.get(type(optimizer))
    if update is None:
        raise TypeError(
            f"optimizer: expected SGD, Adam or AdamW of torch.optim, got "
            f"{type(optimizer).__name__}; with any other, record each step on a manualbp.Tape and "
            f"call optimizer.step()"
        )
    for group in optimizer.param_groups:
        for option in ("capturable", "differentiable"):
            if group.get(option):
                raise TypeError(f"optimizer: {option}=True has no meaning in a compiled step")
    return update()
