"""A whole training step, forward, backward and update, as one program."""

from __future__ import annotations

import random
import sys
import warnings
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer

from manualbp.core.modes import any_autocast, autocast_of, is_grad_enabled
from manualbp.tape.guards import Guards
from manualbp.tape.program import (
    IndexBound,
    Program,
    Replay,
    bounds_of,
    copies,
    layout,
    memory_of,
    prune,
    raise_explained,
    repeated,
)
from manualbp.tape.tape import Tape
from manualbp.tape.updates import Parameter, refuse_options, update_of

#: most steps in one CUDA graph: each is captured, and more of them gain no speed
STEPS_PER_GRAPH = 8
#: how many states of network and optimizer are cached, and how many programs
STATES, PROGRAMS = 8, 64
#: how many programs for the same inputs are traced before a warning
RETRACES_BEFORE_WARNING = 16
#: passes over the graph of a traced step before it is compiled, each in place
GRAPH_PASSES: list[Callable[[torch.fx.GraphModule], None]] = []


def compile_step(
    net: nn.Module,
    criterion: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    compiler: bool = True,
) -> CompiledStep:
    """One training step as one compiled program: ``cost = step(x, y)``.

    The step is run once on a :class:`~manualbp.Tape` with fake tensors. That gives one flat list of
    operations: those of the formulas, of their rules and of the optimizer, without a Python call
    between them. Inductor compiles it. On CUDA the result is captured as a graph and replayed.

    A program assumes what it was traced with: the shapes, the autocast, which options of the
    optimizer are in use, and everything that the code of network and criterion can read. That is
    each module with its attributes, hooks, mode and tensors, closures, and the globals named. Each
    step compares this first, and is traced again where something has changed. Learning rates,
    momenta, betas and weight decay are inputs of the program: they may change from step to step.
    Side effects of Python (hooks, prints, counters) happen while the step is traced, and not
    afterwards. A program does not notice a changed attribute of a class, nor a value computed from
    outside, as from a file or a clock.

    The step zeroes the gradients and leaves none: there is nothing to clip or to accumulate, and
    a parameter that is not in the optimizer gets none.

    Args:
        net: a network of manualbp's layers.
        criterion: cost of its output and the targets, a single number.
        optimizer: ``SGD``, ``Adam`` or ``AdamW`` of :mod:`torch.optim`. Its state stays in it, as
            after ``optimizer.step()``: save it, load it, go on without the compiled step.
        compiler: False runs the flat program without Inductor.

    Raises:
        TypeError: another optimizer, or an option of it that a program does not support.
    """
    return CompiledStep(net, criterion, optimizer, compiler=compiler)


class CompiledStep:
    """See :func:`compile_step`."""

    def __init__(
        self,
        net: nn.Module,
        criterion: Callable[[Tensor, Tensor], Tensor],
        optimizer: torch.optim.Optimizer,
        *,
        compiler: bool = True,
    ) -> None:
        self._update = update_of(optimizer)
        self._net, self._criterion, self._optimizer = net, criterion, optimizer
        self._compiler = compiler
        self._state: _State | None = None
        self._states: deque[_State] = deque(maxlen=STATES)
        self._programs: dict[Any, Program] = {}
        self._traced: Counter[Any] = Counter()
        #: the attribute that the forward pass wrote while it was last traced
        self._attribute_written: str | None = None
        #: why programs run uncompiled, in the compiler's words; None if they are compiled
        self.uncompiled: str | None = None

    @property
    def has_program(self) -> bool:
        """Whether there is a program yet. If the optimizer has no state, the first step makes that
        instead.
        """
        return bool(self._programs)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Train on one batch: its cost before the update, detached.

        Raises:
            IndexError: on the CPU, a class or an index in ``x`` or ``y`` is out of range.
            RuntimeError: ``x`` or ``y`` requires a gradient; or the step cannot be a program,
                because it depends on values in Python, or writes to attributes.
        """
        cost = self._run(x, y, None)
        return self._eager_step(x, y) if cost is None else cost

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
        length, at, costs = min(len(xs), STEPS_PER_GRAPH), 0, []
        while at < len(xs):
            steps = len(xs) - at
            if xs.is_cuda:  # a remainder goes step by step, to need no graph of its own length
                steps = length if steps >= length else 1
            part = self._run(xs[at : at + steps], ys[at : at + steps], steps)
            if part is None:
                steps, part = 1, self._eager_step(xs[at], ys[at]).reshape(1)
            costs.append(part)
            at += steps
        return costs[0] if len(costs) == 1 else torch.cat(costs)

    def trace(self, x: Tensor, y: Tensor) -> torch.fx.GraphModule:
        """The flat program of one step, to be read: ``print(step.trace(x, y).code)``.

        Raises:
            RuntimeError: the optimizer has no state yet, because its first step makes that.
        """
        state = _State(self._net, self._criterion, self._optimizer, None)
        traced = self._trace(state, self._update.structure(self._optimizer), x, y)
        if traced is None:
            raise RuntimeError(
                "the optimizer has no state yet, which its first step makes: call step(x, y) first"
            )
        return traced.graph

    def _run(self, xs: Tensor, ys: Tensor, steps: int | None) -> Tensor | None:
        """One batch, or ``steps`` of them along a first axis; None if there is no program yet."""
        state = self._state
        if state is None or not state.guards.hold():
            state = self._find_state()
        if not (isinstance(xs, Tensor) and isinstance(ys, Tensor)):
            raise TypeError(
                f"x, y: expected a tensor each, got {type(xs).__name__} and {type(ys).__name__}"
            )
        update, graphed = self._update, xs.is_cuda
        x, y = (xs, ys) if steps is None else (xs[0], ys[0])
        key = (
            steps if graphed else None,
            x.shape,
            x.stride(),
            x.dtype,
            x.device,
            y.shape,
            y.stride(),
            y.dtype,
            y.device,
            any_autocast() and autocast_of(x),
            torch.get_default_dtype(),
            torch._C._len_torch_function_stack(),
            update.structure(self._optimizer),
        )
        call = state.calls.get(key)
        if call is None:
            call = self._make_call(state, key, xs, ys, steps)
            if call is None:
                return None
        if xs.requires_grad or ys.requires_grad:
            _refuse_gradient(xs, ys)
        memory = state.memory
        if xs.untyped_storage().data_ptr() in memory:
            (xs,) = copies([xs])  # because an update would change the batch before it is read
        if ys.untyped_storage().data_ptr() in memory:
            (ys,) = copies([ys])
        for bound in call.bounds:
            bound.check(xs, ys)
        rates = update.rates(self._optimizer, state.parameters, steps or 1, state.precision)
        enabled = is_grad_enabled()
        torch._C._set_grad_enabled(False)
        try:
            program = call.program if steps is None or graphed else repeated(call.program)
            costs = program(*call.tensors, rates, xs, ys)
        finally:
            torch._C._set_grad_enabled(enabled)
        if call.counters:
            torch._foreach_add_(call.counters, steps or 1)
        self._optimizer._opt_called = True  # type: ignore[attr-defined] # as schedulers ask
        return costs

    def _find_state(self) -> _State:
        """The state of network and optimizer now: a cached one that holds, or a new one."""
        last = self._state
        for state in self._states:
            if state.guards.hold():
                self._state = state
                return state
        # A state with a replaced tensor will not hold again, and would keep that tensor alive.
        kept = [state for state in self._states if state.guards.same_tensors()]
        reason = last.guards.difference() if last is not None else None
        self._state = _State(self._net, self._criterion, self._optimizer, reason)
        self._states = deque([self._state, *kept], maxlen=STATES)
        return self._state

    def _make_call(
        self, state: _State, key: Any, xs: Tensor, ys: Tensor, steps: int | None
    ) -> _Call | None:
        """A new program for such inputs; None if the step has to run without one."""
        _refuse_gradient(xs, ys)
        structure = key[-1]
        if any(map(self._update.state_names, structure)) and not self._optimizer.state:
            return None  # the optimizer's own first step makes its state
        x, y = (xs, ys) if steps is None else (xs[0], ys[0])
        traced = self._trace(state, structure, x, y)
        if traced is None:
            return None
        self._traced[key] += 1
        if self._traced[key] == RETRACES_BEFORE_WARNING:
            warnings.warn(
                f"compile_step has traced {RETRACES_BEFORE_WARNING} programs for inputs of the "
                f"same kind. The last one because {state.reason}. Where that changes from step "
                f"to step, keep it in a tensor, or out of the modules",
                stacklevel=4,
            )
        bounds = bounds_of(traced.graph) if xs.device.type == "cpu" else []
        for bound in bounds:  # compiling runs the program once
            bound.check(xs, ys)
        steps_of = [state.parameters[i].step for i in traced.used]
        call = _Call(
            self._program(state, traced, key, xs, ys, steps),
            [state.guards.aliases[i] for i in traced.tensors],
            [count for count in steps_of if count is not None],
            bounds,
        )
        if len(state.calls) == PROGRAMS:
            del state.calls[next(iter(state.calls))]
        state.calls[key] = call
        return call

    def _eager_step(self, x: Tensor, y: Tensor) -> Tensor:
        """A step without a program. In it the optimizer makes its state."""
        self._optimizer.zero_grad()
        with Tape() as tape:
            cost = self._criterion(self._net(x), y)
        tape.backprop(cost)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return cost.detach()

    def _trace(self, state: _State, structure: Any, x: Tensor, y: Tensor) -> _Traced | None:
        """The flat program; None if the optimizer lacks state, or an attribute was written."""
        update, guards = self._update, state.guards
        used: list[int] = []
        buffers = {id(m._buffers) for m in guards.modules}

        def forward(leaves: list[Tensor], x: Tensor, y: Tensor) -> tuple[Tape, Tensor, list[Any]]:
            guards.swap(leaves)
            with Tape() as tape:
                cost = self._criterion(self._net(x), y)
            return tape, cost, guards.found()

        def whole(*flat: Tensor) -> Tensor:
            *tensors, rates, x, y = flat
            before = (x._version, y._version)
            leaves = [
                t.detach().requires_grad_() if i in state.trained else t
                for i, t in enumerate(tensors)
            ]
            tape, cost, found = forward(leaves, x, y)
            tape.backprop(cost)
            with torch.no_grad():
                for (container, key, i), value in zip(guards.places, found, strict=True):
                    if value is leaves[i]:
                        continue
                    # forward may assign a buffer: self.running = 0.9 * self.running + …
                    if not _same_metadata(value, tensors[i]) or id(container) not in buffers:
                        raise _AttributeWritten(f"the tensor {key!r}")
                    tensors[i].copy_(value)
                numbers = update.rows(rates.squeeze(0), len(structure), state.parameters)
                used.clear()
                for i, p in enumerate(state.parameters):
                    g = leaves[p.place].grad
                    if g is None:  # torch's optimizers leave such a parameter alone
                        continue
                    own = {name: tensors[at] for name, at in p.state.items()}
                    if not update.state_names(structure[p.group]) <= own.keys():
                        raise _StateMissing
                    update.apply(tensors[p.place], g, own, numbers[i], structure[p.group])
                    used.append(i)
            if (x._version, y._version) != before:
                raise RuntimeError(
                    "x, y: the network writes into its input, which a compiled step does not do: "
                    "let its first operation not be in place, or give it a copy"
                )
            return cost.detach()

        from torch.fx.experimental.proxy_tensor import make_fx  # slow to import

        rates = update.rates(self._optimizer, state.parameters, 1, state.precision)
        # They share no memory, because x and y may be one tensor now and two in the next step.
        inputs = [
            torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device) for t in (x, y)
        ]
        random_states = _random_states()
        try:
            # With fake tensors nothing is computed, so no weight is updated.
            graph = make_fx(whole, tracing_mode="fake")(
                *guards.aliases, rates.to(x.device), *inputs
            )
        except _StateMissing:
            return None
        except _AttributeWritten as written:
            self._reject(str(written))
            return None
        except Exception as error:
            raise_explained(error)
            raise
        finally:
            guards.swap(guards.tensors)
            left = None if guards.hold() else guards.difference()
            guards.restore()
        if left is not None:
            self._reject(left)
            return None
        if _random_states() != random_states:
            raise RuntimeError(
                "the forward pass draws numbers from Python's or NumPy's random, which in a "
                "program would be the same at each step: draw them with torch"
            )
        self._attribute_written = None
        return _Traced(graph, prune(graph, len(guards.aliases)), used)

    def _reject(self, what: str) -> None:
        """Refuse an attribute written twice: one write may fill a cache, in an eager step."""
        if self._attribute_written is not None:
            raise RuntimeError(
                f"the forward pass writes to attributes at each step ({what}), which a program "
                f"does not: keep it in a buffer, or train on a manualbp.Tape"
            )
        self._attribute_written = what

    def _program(
        self, state: _State, traced: _Traced, key: Any, xs: Tensor, ys: Tensor, steps: int | None
    ) -> Program:
        """The compiled graph, from the cache if the same graph was compiled before."""
        tensors = [state.guards.aliases[i] for i in traced.tensors]
        x, y = (xs, ys) if steps is None else (xs[0], ys[0])
        rates = self._update.rates(self._optimizer, state.parameters, steps or 1, state.precision)
        rates = rates.to(xs.device)
        name = (
            traced.graph.code,
            # The code does not show the values of its constants.
            traced.graph if any(n.op == "get_attr" for n in traced.graph.graph.nodes) else None,
            key,
            rates.shape[1],
            rates.dtype,
            tuple(layout(tensors)),
            xs.is_cuda and tuple(t.data_ptr() for t in tensors),
        )
        program = self._programs.get(name)
        if program is None:
            # Compiling runs the program, which may draw: training must not notice when it was.
            with torch.random.fork_rng(devices=[xs.device] if xs.is_cuda else []):
                program = self._compiled(traced.graph, tensors, rates[:1], x, y)
                if xs.is_cuda:
                    program = program if steps is None else repeated(program)
                    program = Replay(program, tensors, rates, xs, ys)
            if len(self._programs) == PROGRAMS:
                del self._programs[next(iter(self._programs))]
            self._programs[name] = program
        return program

    def _compiled(
        self,
        graph: torch.fx.GraphModule,
        tensors: list[Tensor],
        rates: Tensor,
        x: Tensor,
        y: Tensor,
    ) -> Program:
        program: Program = graph
        if self._compiler:
            try:
                from torch._inductor import config  # slow to import

                for change in GRAPH_PASSES:
                    change(graph)
                # Inductor would otherwise test each instruction set of the processor, for seconds.
                with torch.no_grad(), config.patch({"cpp.vec_isa_ok": True}):
                    # Copies, because the first call, which compiles, updates its inputs, and so
                    # that x and y are two tensors.
                    given: list[Any] = [*copies(tensors), rates, *copies([x]), *copies([y])]
                    program = torch._inductor.compile(graph, given)
                    program(*given)
            except Exception as error:
                self.uncompiled = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
                warnings.warn(
                    f"compile_step found no working compiler ({self.uncompiled}): the step runs as "
                    f"a flat program, uncompiled",
                    stacklevel=6,
                )
                program = graph
        return program


class _StateMissing(Exception):
    """The optimizer has not made the state of a parameter that gets a gradient."""


class _AttributeWritten(Exception):
    """The forward pass has replaced a tensor that is no buffer, or has another shape or dtype."""


class _Traced(NamedTuple):
    graph: torch.fx.GraphModule
    #: the indices of the tensors that it takes
    tensors: list[int]
    #: the indices of the parameters that it updates
    used: list[int]


class _Call(NamedTuple):
    """A program, and the arguments and checks of a call of it."""

    program: Program
    tensors: list[Tensor]
    #: the optimizer's step count of each parameter that the program updates
    counters: list[Tensor]
    bounds: list[IndexBound]


class _State:
    """Network, criterion and optimizer as they are now, and the programs traced from them."""

    def __init__(
        self, net: nn.Module, criterion: Any, optimizer: torch.optim.Optimizer, reason: str | None
    ) -> None:
        #: why the state before it does not hold any more
        self.reason = reason
        own, groups = vars(optimizer), optimizer.param_groups
        hooks = [own["_optimizer_step_pre_hooks"], own["_optimizer_step_post_hooks"]]
        hooks += [vars(torch_optimizer)[f"_global_optimizer_{at}_hooks"] for at in ("pre", "post")]
        refuse_options(groups)
        if any(hooks):
            raise RuntimeError(
                "optimizer: a compiled step does not call the hooks of optimizer.step(); remove "
                "them, and do that before or after step(x, y)"
            )
        self.guards = Guards(
            {"net": net, "criterion": criterion, "optimizer's hooks": hooks},
            entries=[
                (own, "state"),
                (own, "param_groups"),
                *((group, "params") for group in groups),
            ],
            opaque=groups,  # their options may change from step to step
        )
        for kind in self.guards.hooks():
            raise RuntimeError(
                f"{kind}: a compiled step does not call the hooks of tensors; remove them, or "
                f"train on a manualbp.Tape, which does"
            )
        #: the parameters that the optimizer may update; it skips one that gets no gradient
        self.parameters: list[Parameter] = []
        for number, group in enumerate(groups):
            for parameter in group["params"]:
                index = self.guards.index(parameter)
                if index is None or not parameter.requires_grad:
                    continue
                state = optimizer.state[parameter] if parameter in optimizer.state else {}
                places = {
                    name: at
                    for name, value in state.items()
                    if name != "step" and (at := self.guards.index(value)) is not None
                }
                self.parameters.append(Parameter(index, number, places, state.get("step")))
        self.trained = {p.place for p in self.parameters}
        self.calls: dict[Any, _Call] = {}
        aliases = self.guards.aliases
        #: the addresses at which the memory of the tensors begins
        self.memory = {memory_of(t) for t in aliases} - {0}
        #: the dtype of the rates, which torch's optimizers compute as Python's floats
        double = any(aliases[i].dtype in (torch.float64, torch.complex128) for i in self.trained)
        self.precision = torch.float64 if double else torch.float32


def _same_metadata(value: Any, place: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == place.shape and value.dtype == place.dtype


def _random_states() -> list[Any]:
    """The states of the random number generators that a program cannot call."""
    states: list[Any] = [random.getstate()]
    if "numpy" in sys.modules:
        _, numbers, *place = sys.modules["numpy"].random.get_state()
        states += [numbers.tobytes(), place]
    return states


def _refuse_gradient(xs: Tensor, ys: Tensor) -> None:
    for name, t in (("x", xs), ("y", ys)):
        if t.requires_grad:
            raise RuntimeError(
                f"{name}: expected a tensor that requires no gradient, since a compiled step gives "
                f"none to its inputs: pass {name}.detach(), or train on a manualbp.Tape"
            )
