"""The updates of torch's optimizers, as operations of a program."""

from __future__ import annotations

import math
from array import array
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Parameter(NamedTuple):
    """A parameter that the optimizer may update."""

    #: its index among the program's tensors
    place: int
    group: int
    #: the index of each tensor of its state
    state: dict[str, int]
    step: Tensor | None


class _Update:
    """The update of one optimizer. Its rates are an input of the program, and may change."""

    def __init__(self) -> None:
        self._last: tuple[Any, Tensor] | None = None

    def structure(self, optimizer: torch.optim.Optimizer) -> tuple[Any, ...]:
        """For each group, the options that decide which operations the program has."""
        return tuple([self._options(group) for group in optimizer.param_groups])

    def rates(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: list[Parameter],
        steps: int,
        precision: torch.dtype,
    ) -> Tensor:
        """(steps, \\*): the numbers of each step."""
        key = (self._numbers(optimizer.param_groups, parameters, steps), steps, precision)
        if self._last is None or self._last[0] != key:
            self._last = key, _tensor(key[0], steps, precision)
        return self._last[1]

    def state_names(self, options: Any) -> set[str]:
        """The names of the state that an update of a group with these options needs."""
        raise NotImplementedError

    def rows(self, rates: Tensor, groups: int, parameters: list[Parameter]) -> list[Any]:
        """For each parameter, its numbers among the ``rates`` of one step."""
        raise NotImplementedError

    def apply(
        self, w: Tensor, g: Tensor, state: dict[str, Tensor], row: tuple[Tensor, ...], options: Any
    ) -> None:
        """Write into the weight and its state."""
        raise NotImplementedError

    def _options(self, group: dict[str, Any]) -> tuple[Any, ...]:
        raise NotImplementedError

    def _numbers(
        self, groups: list[dict[str, Any]], parameters: list[Parameter], steps: int
    ) -> list[float]:
        """The rates of all steps, one step after the other."""
        raise NotImplementedError


class SGD(_Update):
    """w ← w − η v,  v ← μ v + (1 − τ) ∂C/∂w   (torch.optim.SGD)"""

    def _options(self, group: dict[str, Any]) -> tuple[Any, ...]:
        g = group
        return g["momentum"] != 0, g["weight_decay"] != 0, g["nesterov"], g["maximize"]

    def state_names(self, options: Any) -> set[str]:
        return {"momentum_buffer"} if options[0] else set()

    def _numbers(
        self, groups: list[dict[str, Any]], parameters: list[Parameter], steps: int
    ) -> list[float]:
        """η, μ, 1 − τ and the weight decay of each group; the same for every step."""
        row: list[float] = []
        for g in groups:
            row += [float(g["lr"]), g["momentum"], 1 - g["dampening"], g["weight_decay"]]
        return row * steps

    def rows(self, rates: Tensor, groups: int, parameters: list[Parameter]) -> list[Any]:
        numbers = rates.unbind(0)
        return [numbers[4 * p.group : 4 * p.group + 4] for p in parameters]

    def apply(
        self, w: Tensor, g: Tensor, state: dict[str, Tensor], row: tuple[Tensor, ...], options: Any
    ) -> None:
        lr, momentum, undamped, weight_decay = row
        has_momentum, has_decay, nesterov, maximize = options
        g = _upcast(g)
        if maximize:
            g = -g
        if has_decay:
            g = g + weight_decay * _upcast(w)
        if has_momentum:
            v = momentum * _upcast(state["momentum_buffer"]) + undamped * g
            state["momentum_buffer"].copy_(v)
            g = g + momentum * v if nesterov else v
        w.sub_(lr * g)


class Adam(_Update):
    """w ← w − η m̂ / (√v̂ + ε),  running means of ∂C/∂w and its square   (torch.optim.Adam)"""

    def _options(self, group: dict[str, Any]) -> tuple[Any, ...]:
        decoupled = bool(group.get("decoupled_weight_decay"))
        return group["weight_decay"] != 0, decoupled, group["amsgrad"], group["maximize"]

    def state_names(self, options: Any) -> set[str]:
        return {"exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if options[2] else [])}

    def _numbers(
        self, groups: list[dict[str, Any]], parameters: list[Parameter], steps: int
    ) -> list[float]:
        """For each step: of each group 1 − β₁, β₂, 1 − β₂, ε, λ and 1 − η λ, with λ the weight
        decay; of each parameter η / (1 − β₁ᵗ) and √(1 − β₂ᵗ).
        """
        tensors = [p.step for p in parameters if p.step is not None]
        counts = iter(torch.stack(tensors).tolist() if tensors else ())
        done = [0.0 if p.step is None else next(counts) for p in parameters]
        of_groups: list[float] = []
        corrected = []
        for g in groups:
            lr, (beta1, beta2), decay = float(g["lr"]), map(float, g["betas"]), g["weight_decay"]
            corrected.append((lr, beta1, beta2))
            of_groups += [1 - beta1, beta2, 1 - beta2, g["eps"], decay, 1 - lr * decay]
        numbers: list[float] = []
        for step in range(1, steps + 1):
            known: dict[Any, tuple[float, float]] = {}
            numbers += of_groups
            for p, before in zip(parameters, done, strict=True):
                pair = known.get((p.group, before))
                if pair is None:
                    (lr, beta1, beta2), t = corrected[p.group], before + step
                    pair = lr / (1 - beta1**t), math.sqrt(1 - beta2**t)
                    known[p.group, before] = pair
                numbers += pair
        return numbers

    def rows(self, rates: Tensor, groups: int, parameters: list[Parameter]) -> list[Any]:
        numbers = rates.unbind(0)
        of_parameters = numbers[6 * groups :]
        return [
            (*numbers[6 * p.group : 6 * p.group + 6], *of_parameters[2 * i : 2 * i + 2])
            for i, p in enumerate(parameters)
        ]

    def apply(
        self, w: Tensor, g: Tensor, state: dict[str, Tensor], row: tuple[Tensor, ...], options: Any
    ) -> None:
        one_minus_beta1, beta2, one_minus_beta2, eps, weight_decay, shrink, size, root = row
        has_decay, decoupled, amsgrad, maximize = options
        if w.is_complex():  # torch updates real and imaginary part as two parameters
            w, g, *values = map(torch.view_as_real, (w, g, *state.values()))
            state = dict(zip(state, values, strict=True))
        g = _upcast(g)
        if maximize:
            g = -g
        if has_decay and decoupled:
            w.mul_(shrink)
        elif has_decay:
            g = g + weight_decay * _upcast(w)
        m, v = _upcast(state["exp_avg"]), _upcast(state["exp_avg_sq"])
        m = m + one_minus_beta1 * (g - m)
        v = beta2 * v + one_minus_beta2 * g * g
        state["exp_avg"].copy_(m)
        state["exp_avg_sq"].copy_(v)
        if amsgrad:
            v = torch.maximum(_upcast(state["max_exp_avg_sq"]), v)
            state["max_exp_avg_sq"].copy_(v)
        w.sub_(size * m / (v.sqrt() / root + eps))


def _upcast(t: Tensor) -> Tensor:
    """Half precision as float32, in which torch's kernels compute."""
    return t.float() if t.dtype in (torch.float16, torch.bfloat16) else t


def _tensor(numbers: list[float], steps: int, precision: torch.dtype) -> Tensor:
    # torch.tensor(numbers) takes twice as long.
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
