"""The updates of torch's optimizers, as operations of a program."""

from __future__ import annotations

import math
from array import array
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Parameter(NamedTuple):
    """One that the optimizer may update."""

    place: int
    group: int
    #: the places of its state's tensors
    state: dict[str, int]
    step: Tensor | None


class SGD:
    """w ← w − η v,  v ← μ v + (1 − τ) ∂C/∂w   (torch.optim.SGD)"""

    def __init__(self) -> None:
        self._last: tuple[Any, Tensor] | None = None

    def structure(self, optimizer: torch.optim.Optimizer) -> tuple[Any, ...]:
        """For each group, what of an update there is at all."""
        return tuple(
            [
                (g["momentum"] != 0, g["weight_decay"] != 0, g["nesterov"], g["maximize"])
                for g in optimizer.param_groups
            ]
        )

    def state_names(self, structure: Any) -> set[str]:
        """The state that an update needs."""
        return {"momentum_buffer"} if structure[0] else set()

    def rates(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: list[Parameter],
        steps: int,
        precision: torch.dtype,
    ) -> Tensor:
        """(steps, 4 groups): η, μ, 1 − τ and the weight decay of each group."""
        row = []
        for g in optimizer.param_groups:
            row += [float(g["lr"]), g["momentum"], 1 - g["dampening"], g["weight_decay"]]
        if self._last is None or self._last[0] != (row, steps, precision):
            self._last = (row, steps, precision), _tensor(row * steps, steps, precision)
        return self._last[1]

    def rows(self, rate: Tensor, groups: int, parameters: list[Parameter]) -> list[Any]:
        """What ``apply`` takes for each parameter, of one step's numbers."""
        each = rate.unbind(0)
        return [each[4 * p.group : 4 * p.group + 4] for p in parameters]

    def apply(
        self, w: Tensor, g: Tensor, state: dict[str, Tensor], rate: tuple[Tensor, ...], o: Any
    ) -> None:
        (lr, momentum, undamped, decay), (moves, decays, nesterov, maximize) = rate, o
        g = _upcast(g)
        if maximize:
            g = -g
        if decays:
            g = g + decay * _upcast(w)
        if moves:
            v = momentum * _upcast(state["momentum_buffer"]) + undamped * g
            state["momentum_buffer"].copy_(v)
            g = g + momentum * v if nesterov else v
        w.sub_(lr * g)


class Adam:
    """w ← w − η m̂ / (√v̂ + ε),  running means of ∂C/∂w and its square   (torch.optim.Adam)"""

    def structure(self, optimizer: torch.optim.Optimizer) -> tuple[Any, ...]:
        return tuple(
            [
                (
                    g["weight_decay"] != 0,
                    bool(g.get("decoupled_weight_decay")),
                    g["amsgrad"],
                    g["maximize"],
                )
                for g in optimizer.param_groups
            ]
        )

    def state_names(self, structure: Any) -> set[str]:
        return {"exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if structure[2] else [])}

    def rates(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: list[Parameter],
        steps: int,
        precision: torch.dtype,
    ) -> Tensor:
        """(steps, 6 groups + 2 parameters): of each group 1 − β₁, β₂, 1 − β₂, ε, the weight decay
        and what that leaves of a weight; of each parameter η / (1 − β₁ᵗ) and √(1 − β₂ᵗ).
        """
        counted = [p.step for p in parameters if p.step is not None]
        counts = iter(torch.stack(counted).tolist() if counted else ())
        done = [0.0 if p.step is None else next(counts) for p in parameters]
        rates: list[float] = []
        groups = []
        for g in optimizer.param_groups:
            lr, (beta1, beta2), decay = float(g["lr"]), map(float, g["betas"]), g["weight_decay"]
            groups.append((lr, beta1, beta2))
            rates += [1 - beta1, beta2, 1 - beta2, g["eps"], decay, 1 - lr * decay]
        shared, all_rates = rates, []
        for step in range(1, steps + 1):
            known: dict[Any, tuple[float, float]] = {}
            all_rates += shared
            for p, before in zip(parameters, done, strict=True):
                pair = known.get((p.group, before))
                if pair is None:
                    (lr, beta1, beta2), t = groups[p.group], before + step
                    pair = lr / (1 - beta1**t), math.sqrt(1 - beta2**t)
                    known[p.group, before] = pair
                all_rates += pair
        return _tensor(all_rates, steps, precision)

    def rows(self, rate: Tensor, groups: int, parameters: list[Parameter]) -> list[Any]:
        each = rate.unbind(0)
        own = each[6 * groups :]
        return [
            (*each[6 * p.group : 6 * p.group + 6], *own[2 * i : 2 * i + 2])
            for i, p in enumerate(parameters)
        ]

    def apply(
        self, w: Tensor, g: Tensor, state: dict[str, Tensor], rate: tuple[Tensor, ...], o: Any
    ) -> None:
        new1, beta2, new2, eps, decay, left, size, root = rate
        decays, decoupled, amsgrad, maximize = o
        if w.is_complex():  # its parts are parameters by themselves
            w, g, *values = map(torch.view_as_real, (w, g, *state.values()))
            state = dict(zip(state, values, strict=True))
        g = _upcast(g)
        if maximize:
            g = -g
        if decays and decoupled:
            w.mul_(left)
        elif decays:
            g = g + decay * _upcast(w)
        m, v = _upcast(state["exp_avg"]), _upcast(state["exp_avg_sq"])
        m = m + new1 * (g - m)
        v = beta2 * v + new2 * g * g
        state["exp_avg"].copy_(m)
        state["exp_avg_sq"].copy_(v)
        if amsgrad:
            v = torch.maximum(_upcast(state["max_exp_avg_sq"]), v)
            state["max_exp_avg_sq"].copy_(v)
        w.sub_(size * m / (v.sqrt() / root + eps))


def _upcast(t: Tensor) -> Tensor:
    """As torch's kernels compute with it."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def _tensor(numbers: list[float], steps: int, precision: torch.dtype) -> Tensor:
    # Twice as fast as torch.tensor(numbers).
    kind = "d" if precision is torch.float64 else "f"
    return torch.frombuffer(array(kind, numbers), dtype=precision).view(steps, -1)


def update_of(optimizer: torch.optim.Optimizer) -> Any:
    updates = {torch.optim.SGD: SGD, torch.optim.Adam: Adam, torch.optim.AdamW: Adam}
    update = updates.get(type(optimizer))
    if update is None:
        raise TypeError(
            f"optimizer: expected SGD, Adam or AdamW of torch.optim, got "
            f"{type(optimizer).__name__}; with any other, record each step on a manualbp.Tape and "
            f"call optimizer.step()"
        )
    refuse_options(optimizer.param_groups)
    return update()


def refuse_options(groups: list[dict[str, Any]]) -> None:
    for group in groups:
        for option in ("capturable", "differentiable"):
            if group.get(option):
                raise TypeError(f"optimizer: {option}=True has no meaning in a compiled step")
