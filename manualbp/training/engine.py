"""How a step is computed: by autograd in Lightning's own loop, on a tape, or as one program.

The last two take several batches from the loader at a time, because Lightning's overhead is longer
than a small network's whole step. Lightning's counters, limits and checkpoints still count batches
and updates; only its callbacks see a call as one batch.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from manualbp.tape.compiled_step import compile_step
from manualbp.tape.tape import Tape
from manualbp.training.errors import UserError
from manualbp.training.monitor import Cost

Engine = Literal["autograd", "tape", "step"]
StepFunction = Callable[[Tensor, Tensor], Tensor]

COMPILER = True  # False: the program of `step` runs as it was traced
CALL = 64  # batches a call at most,
EXAMPLES = 8192  # and examples, since a call's are copied into one tensor


def check_engine(trainer: pl.Trainer, engine: str) -> None:
    """Raise `UserError` if the trainer has an option that only autograd's loop supports."""
    if engine == "autograd":
        return
    requirement = None
    if not isinstance(trainer.strategy, SingleDeviceStrategy):
        requirement = (
            f"one process on one device; {trainer.world_size} with "
            f"{type(trainer.strategy).__name__} would each follow their own gradients",
            "--trainer.devices 1 --trainer.strategy auto",
        )
    elif trainer.accumulate_grad_batches != 1:
        requirement = ("an update a batch", "leave out --trainer.accumulate_grad_batches")
    elif trainer.gradient_clip_val:
        requirement = ("gradients as they are", "leave out --trainer.gradient_clip_val")
    elif getattr(trainer.precision_plugin, "scaler", None) is not None:
        requirement = ("costs that need no scaling", "--trainer.precision bf16-mixed")
    if requirement:
        expected, mend = requirement
        raise UserError(
            f"--model.engine {engine} expects {expected}\n"
            f"  mend: {mend}, or --model.engine autograd"
        )


class TapeStep:
    """One step on a tape, with the optimizer's update."""

    notice: str | None = None  # nothing to tell

    def __init__(self, net: nn.Module, cost: Cost, optimizer: torch.optim.Optimizer) -> None:
        self.net, self.cost, self.optimizer = net, cost, optimizer

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.update(*self.forward(x, y))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tape, Tensor]:
        with Tape() as tape:
            cost = self.cost(self.net(x), y)
        return tape, cost

    def update(self, tape: Tape, cost: Tensor) -> Tensor:
        # Zeroed before, not after, because the search for a NaN reads the last gradients.
        self.optimizer.zero_grad()
        tape.backprop(cost)
        self.optimizer.step()
        return cost.detach()


class ProgramStep:
    """One step as a program, compiled at the first step of each shape.

    Attributes:
        notice: a message about the compilation, for the console, once it has ended.
    """

    def __init__(self, net: nn.Module, cost: Cost, optimizer: torch.optim.Optimizer) -> None:
        try:
            self.step = compile_step(net, cost, optimizer, compiler=COMPILER)
        except TypeError as error:
            raise UserError(
                f"--model.engine step: {error}\n  mend: --model.engine tape, which takes any"
            ) from None
        self.tape = TapeStep(net, cost, optimizer)
        self.compiled = not COMPILER  # no compilation is to be timed
        self.run: StepFunction = self.step
        self.notice: str | None = None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        return self.run(x, y) if self.compiled else self._compile(x, y)

    def _compile(self, x: Tensor, y: Tensor) -> Tensor:
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the notice below repeats compile_step's warning
            cost = self.step(x, y)
        # If the optimizer has no state yet, its first step makes that, without a program.
        self.compiled = self.step.has_program
        if self.compiled:
            took = time.perf_counter() - started
            self.notice = f"step: one program for a whole step, compiled in {took:.1f} s"
        if self.step.uncompiled:
            reason = self.step.uncompiled
            self.notice = f"step: no working compiler ({reason}), so on the tape, slower"
            self.run = self.tape
        return cost


def step_of(
    engine: str, net: nn.Module, cost: Cost, optimizer: torch.optim.Optimizer
) -> TapeStep | ProgramStep:
    kind = TapeStep if engine == "tape" else ProgramStep
    return kind(net, cost, optimizer)


# Several steps at a time.


class Snapshot:
    """A copy of all that steps change, which can be restored."""

    def __init__(
        self, net: nn.Module, optimizer: torch.optim.Optimizer, schedulers: list[Any]
    ) -> None:
        self.optimizer, self.schedulers = optimizer, schedulers
        self.known = set(optimizer.state)
        states = (value for state in optimizer.state.values() for value in state.values())
        self.tensors = [*net.parameters(), *net.buffers()]
        self.tensors += [value for value in states if isinstance(value, Tensor)]
        self.values = [tensor.detach().clone() for tensor in self.tensors]
        self.gradients = [(p, p.grad) for p in net.parameters()]
        self.options = [dict(group) for group in optimizer.param_groups]
        self.schedules = [copy.deepcopy(scheduler.state_dict()) for scheduler in schedulers]
        self.random = torch.get_rng_state()
        cuda = next((t.device for t in self.tensors if t.is_cuda), None)
        self.random_cuda = None if cuda is None else (torch.cuda.get_rng_state(cuda), cuda)

    def restore(self) -> None:
        with torch.no_grad():
            for tensor, value in zip(self.tensors, self.values, strict=True):
                tensor.copy_(value)
        for parameter in self.optimizer.state.keys() - self.known:
            del self.optimizer.state[parameter]
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        for group, options in zip(self.optimizer.param_groups, self.options, strict=True):
            group.update(options)
        for scheduler, schedule in zip(self.schedulers, self.schedules, strict=True):
            scheduler.load_state_dict(copy.deepcopy(schedule))
        torch.set_rng_state(self.random)
        if self.random_cuda is not None:
            torch.cuda.set_rng_state(*self.random_cuda)


class FailedStep(NamedTuple):
    """A step with a cost or weight that is not finite: its index in the call, and its batch."""

    place: int
    batch: tuple[Tensor, Tensor]


def train_batches(
    step: TapeStep | ProgramStep, tape: TapeStep, xs: Tensor, ys: Tensor, schedulers: list[Any]
) -> Tensor | FailedStep:
    """Train on batches, one after the other; return their costs, or the first step that failed.

    Costs are checked once, after all steps. If a cost or a weight is not finite, the steps are
    repeated on the tape up to the first that failed. Network, optimizer, schedulers and gradients
    are then as they were at its start.
    """
    net, optimizer = tape.net, tape.optimizer
    before, costs = Snapshot(net, optimizer, schedulers), []
    pairs = list(zip(xs.unbind(), ys.unbind(), strict=True))
    for x, y in pairs:
        costs.append(step(x, y))
        for scheduler in schedulers:
            scheduler.step()
    together = torch.stack(costs)
    finite = [t.detach().isfinite().all() for t in (together, *net.parameters())]
    if torch.stack(finite).all():
        return together
    before.restore()
    for place, (x, y) in enumerate(pairs):
        # The forward pass updates running statistics too, and draws random numbers.
        start = Snapshot(net, optimizer, schedulers)
        taped, cost = tape.forward(x, y)
        if not cost.isfinite():
            start.restore()
            return FailedStep(place, (x, y))
        tape.update(taped, cost)
        for scheduler in schedulers:
            scheduler.step()
    # The last update made weights nan or infinite; or dropout, drawn again, gave another result.
    place = int(together.isfinite().long().cumprod(0).sum())
    return FailedStep(place, pairs[min(place, len(pairs) - 1)])


def next_call_size(trainer: pl.Trainer, batch_size: int) -> Callable[[], int] | None:
    """A function that returns the number of batches of the next call; None for single batches."""
    module = trainer.lightning_module
    if module is None or module.automatic_optimization:
        return None
    most = max(1, min(CALL, EXAMPLES // batch_size))
    loop = trainer.fit_loop.epoch_loop

    def count() -> int:
        # Up to the next batch at which Lightning acts, and to a multiple of `most`.
        at = loop.batch_progress.current.ready
        ends = [most - at % most, trainer.num_training_batches - at]
        if trainer.max_steps >= 0:
            ends.append(trainer.max_steps - trainer.global_step)
        left = getattr(trainer.checkpoint_callback, "steps_left", None)
        if left and (steps := left(trainer.global_step)):
            ends.append(steps)
        every = getattr(trainer, "val_check_batch", None)
        if every and every != float("inf"):
            done = at
            if trainer.check_val_every_n_epoch is None:
                done = loop.batch_progress.total.ready
            ends.append(every - done % every)
        return max(1, int(min(ends)))

    return count


def count_steps(trainer: pl.Trainer, steps: int) -> None:
    """Advance Lightning's counters to `steps` batches and updates; it has counted one batch."""
    loop = trainer.fit_loop.epoch_loop
    ready = loop.batch_progress.current.ready + steps - 1
    loop.batch_progress.increment_by(steps - 1, ready >= trainer.num_training_batches)
    loop.manual_optimization.optim_step_progress.increment_by(steps)
    loop._batches_that_stepped += steps - 1


def sync_progress(checkpoint: dict[str, Any]) -> None:
    """Copy the count of updates from one of Lightning's two loops to the other."""
    loops = checkpoint.get("loops", {}).get("fit_loop")
    if loops is None:
        return
    automatic = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]
    manual = loops["epoch_loop.manual_optimization.optim_step_progress"]
    ours, theirs = sorted((automatic, manual), key=lambda steps: steps["total"]["completed"])
    for span in ("total", "current"):
        ours[span].update(theirs[span])
