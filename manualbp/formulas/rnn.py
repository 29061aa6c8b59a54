"""Recurrent layers: a formula is one layer in one direction, over all steps of all sequences.

The steps lie one after the other along axis 0, each with one row for every sequence that is under
way, as in a ``PackedSequence``: step t has ``batch_sizes[t]`` rows, which never become more.
``reverse`` runs time backwards. The state before the first step of a sequence is its row of ``hx``,
and the one after its last is its row of ``h_n``.

A rule runs time the other way, a gradient entering where ``h_n`` left. It collects δ, the gradient
of the weighted sums, of every step, so that the gradient of a weight is one product over them all.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from manualbp.core.formula import Formula
from manualbp.formulas.linear import products, squares_of_products

__all__ = ["GRU", "LSTM", "RNN"]


class _Recurrent(Formula):
    """zₜ = xₜ Wᵀ + b + hₜ₋₁ W′ᵀ + b′,  δ the gradient of xₜ Wᵀ + b, δ′ of hₜ₋₁ W′ᵀ + b′

    ∂C/∂x = δ W
    ∂C/∂W = Σₜ δₜᵀ xₜ
    ∂C/∂W′ = Σₜ δ′ₜᵀ hₜ₋₁
    ∂C/∂b = Σₙₜ δₙₜ
    ∂C/∂b′ = Σₙₜ δ′ₙₜ
    """

    holomorphic = True

    # ∂C/∂x, ∂C/∂W and ∂C/∂b; a subclass states h, `back_in_time`, `before` and ∂C/∂h₀.

    @staticmethod
    def delta(back_in_time: tuple[Tensor, ...]) -> Tensor:
        """δ of every step, the gradient of x Wᵀ + b."""
        return back_in_time[0]

    @staticmethod
    def echo(back_in_time: tuple[Tensor, ...]) -> Tensor:
        """δ′ of every step, the gradient of h W′ᵀ + b′."""
        return back_in_time[1]

    @staticmethod
    def grad_input(delta: Tensor, weight_ih: Tensor) -> Tensor:
        return delta @ weight_ih

    @staticmethod
    def grad_weight_ih(delta: Tensor, input: Tensor) -> Tensor:
        return delta.t() @ input

    @staticmethod
    def grad_weight_hh(echo: Tensor, before: Tensor) -> Tensor:
        return echo.t() @ before

    @staticmethod
    def grad_bias_ih(delta: Tensor) -> Tensor:
        return delta.sum(0)

    @staticmethod
    def grad_bias_hh(echo: Tensor) -> Tensor:
        return echo.sum(0)

    @staticmethod
    def example_weight_ih(delta: Tensor, input: Tensor) -> Tensor:
        return products(delta, input)

    @staticmethod
    def square_weight_ih(delta: Tensor, input: Tensor) -> Tensor:
        return squares_of_products(delta, input)

    @staticmethod
    def example_weight_hh(echo: Tensor, before: Tensor) -> Tensor:
        return products(echo, before)

    @staticmethod
    def square_weight_hh(echo: Tensor, before: Tensor) -> Tensor:
        return squares_of_products(echo, before)

    @staticmethod
    def example_bias_ih(delta: Tensor) -> Tensor:
        return delta.sum(1)

    @staticmethod
    def example_bias_hh(echo: Tensor) -> Tensor:
        return echo.sum(1)


class RNN(_Recurrent):
    """hₜ = σ(zₜ),  zₜ = xₜ Wᵀ + b + hₜ₋₁ W′ᵀ + b′,  σ = tanh or max(·, 0)

    ∂C/∂h₀ ≙ δ₁ W′,  δₜ = (∂C/∂hₜ + δₜ₊₁ W′) ⊙ σ′(zₜ),  δ′ = δ
    """

    outputs = ("output", "h_n")

    @staticmethod
    def forward(
        input: Tensor,
        hx: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor | None,
        bias_hh: Tensor | None,
        batch_sizes: tuple[int, ...],
        reverse: bool,
        nonlinearity: str,
    ) -> tuple[Tensor, Tensor]:
        act = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]
        states, output = _SequenceState(hx), []
        z = F.linear(input, weight_ih, bias_sum(bias_ih, bias_hh))
        for (z_t,) in _steps(batch_sizes, reverse, z):
            h = states.at_step(z_t)
            states.current = h = act(z_t + h @ weight_hh.t())
            output.append(h)
        return _cat_steps(output, reverse), states.end()

    @staticmethod
    def back_in_time(
        g_output: Tensor,
        g_h_n: Tensor,
        weight_hh: Tensor,
        output: Tensor,
        batch_sizes: tuple[int, ...],
        reverse: bool,
        nonlinearity: str,
    ) -> tuple[Tensor, ...]:
        """δ of every step, twice, and ∂C/∂h₀."""
        tanh = nonlinearity == "tanh"
        slope = _tanh_slope(output) if tanh else output <= 0
        states, delta = _SequenceState(g_h_n), []
        for g_t, slope_t in _steps(batch_sizes, not reverse, g_output, slope):
            d = g_t + states.at_step(g_t)
            d = d * slope_t if tanh else d.masked_fill(slope_t, 0)
            states.current = d @ weight_hh
            delta.append(d)
        every = _cat_steps(delta, not reverse)
        return every, every, states.end()

    @staticmethod
    def before(hx: Tensor, output: Tensor, batch_sizes: tuple[int, ...], reverse: bool) -> Tensor:
        """hₜ₋₁ of every step."""
        return previous_states(hx, output, batch_sizes, reverse)

    @staticmethod
    def grad_hx(back_in_time: tuple[Tensor, ...]) -> Tensor:
        return back_in_time[2]


class LSTM(_Recurrent):
    """hₜ = aₜ W″ᵀ,  a = o ⊙ tanh cₜ,  cₜ = f ⊙ cₜ₋₁ + i ⊙ g,  (i, f, g, o) = (σ, σ, tanh, σ)(zₜ)

    ∂C/∂h₀ ≙ δ₁ W′,  δ′ = δ
    ∂C/∂c₀ ≙ ∂C/∂c₁ ⊙ f₁,  ∂C/∂cₜ += ∂C/∂cₜ₊₁ ⊙ fₜ₊₁ + ∂C/∂aₜ ⊙ o ⊙ (1 − tanh² cₜ)
    ∂C/∂W″ ≙ Σₜ ∂C/∂hₜᵀ aₜ,  ∂C/∂hₜ += δₜ₊₁ W′
    """

    outputs = ("output", "h_n", "c_n", "gates", "cells")

    @staticmethod
    def forward(
        input: Tensor,
        hx: Tensor,
        cx: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor | None,
        bias_hh: Tensor | None,
        weight_hr: Tensor | None,
        batch_sizes: tuple[int, ...],
        reverse: bool,
    ) -> tuple[Tensor, ...]:
        states, memories = _SequenceState(hx), _SequenceState(cx)
        output, gates, cells = [], [], []
        z = F.linear(input, weight_ih, bias_sum(bias_ih, bias_hh))
        for (z_t,) in _steps(batch_sizes, reverse, z):
            h, c = states.at_step(z_t), memories.at_step(z_t)
            i, f, g, o = (z_t + h @ weight_hh.t()).chunk(4, 1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            memories.current = c = f * c + i * g
            a = o * c.tanh()
            states.current = h = a if weight_hr is None else a @ weight_hr.t()
            output.append(h)
            gates.append(torch.cat([i, f, g, o], 1))
            cells.append(c)
        every = (_cat_steps(steps, reverse) for steps in (output, gates, cells))
        return next(every), states.end(), memories.end(), *every

    @staticmethod
    def back_in_time(
        g_output: Tensor,
        g_h_n: Tensor,
        g_c_n: Tensor,
        g_gates: Tensor,
        g_cells: Tensor,
        cx: Tensor,
        weight_hh: Tensor,
        weight_hr: Tensor | None,
        gates: Tensor,
        cells: Tensor,
        batch_sizes: tuple[int, ...],
        reverse: bool,
    ) -> tuple[Tensor, ...]:
        """δ of every step, twice, ∂C/∂h₀, ∂C/∂c₀, and ∂C/∂hₜ of every step."""
        # The slopes of all steps are computed at once; only the gradients need a loop.
        i, f, g, o = gates.chunk(4, 1)
        a = cells.tanh()
        slope = torch.cat([i * (1 - i), f * (1 - f), _tanh_slope(g), o * (1 - o)], 1)
        reach = slope * torch.cat([g, previous_states(cx, cells, batch_sizes, reverse), i, a], 1)
        known = (g_output, g_cells, g_gates * slope, o * _tanh_slope(a), reach, f)
        states, memories = _SequenceState(g_h_n), _SequenceState(g_c_n)
        delta, above = [], []
        for g_h, g_c, d, to_cell, to_gates, f_t in _steps(batch_sizes, not reverse, *known):
            h = g_h + states.at_step(g_h)
            above.append(h)
            h = h if weight_hr is None else h @ weight_hr
            c = g_c + memories.at_step(g_c) + h * to_cell
            d = d + torch.cat([c, c, c, h], 1) * to_gates
            states.current, memories.current = d @ weight_hh, c * f_t
            delta.append(d)
        every = _cat_steps(delta, not reverse)
        ends = (states.end(), memories.end())
        return every, every, *ends, *([] if weight_hr is None else [_cat_steps(above, not reverse)])

    @staticmethod
    def thought(gates: Tensor, cells: Tensor) -> Tensor:
        """a = o ⊙ tanh c, of every step."""
        return gates.chunk(4, 1)[3] * cells.tanh()

    @staticmethod
    def before(
        hx: Tensor,
        thought: Tensor,
        weight_hr: Tensor | None,
        batch_sizes: tuple[int, ...],
        reverse: bool,
    ) -> Tensor:
        # h is computed again from the gates and the cells, and not saved.
        h = thought if weight_hr is None else F.linear(thought, weight_hr)
        return previous_states(hx, h, batch_sizes, reverse)

    @staticmethod
    def grad_hx(back_in_time: tuple[Tensor, ...]) -> Tensor:
        return back_in_time[2]

    @staticmethod
    def grad_cx(back_in_time: tuple[Tensor, ...]) -> Tensor:
        return back_in_time[3]

    @staticmethod
    def above(back_in_time: tuple[Tensor, ...]) -> Tensor:
        """∂C/∂hₜ of every step."""
        return back_in_time[4]

    @staticmethod
    def grad_weight_hr(above: Tensor, thought: Tensor) -> Tensor:
        return above.t() @ thought

    @staticmethod
    def example_weight_hr(above: Tensor, thought: Tensor) -> Tensor:
        return products(above, thought)

    @staticmethod
    def square_weight_hr(above: Tensor, thought: Tensor) -> Tensor:
        return squares_of_products(above, thought)


class GRU(_Recurrent):
    """hₜ = n + u ⊙ d,  d = hₜ₋₁ − n,  r, u = σ(zₜ + mₜ),  n = tanh(zₜ + r ⊙ mₜ),  m = h₋ W′ᵀ + b′

    ∂C/∂h₀ ≙ ∂C/∂h₁ ⊙ u₁ + δ′₁ W′,  ∂C/∂hₜ += ∂C/∂hₜ₊₁ ⊙ uₜ₊₁ + δ′ₜ₊₁ W′,  δ′ = ∂C/∂m
    """

    outputs = ("output", "h_n", "gates")

    @staticmethod
    def forward(
        input: Tensor,
        hx: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        bias_ih: Tensor | None,
        bias_hh: Tensor | None,
        batch_sizes: tuple[int, ...],
        reverse: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        states, output, gates = _SequenceState(hx), [], []
        z = F.linear(input, weight_ih, bias_ih)
        two = 2 * weight_hh.shape[1]
        for (z_t,) in _steps(batch_sizes, reverse, z):
            h = states.at_step(z_t)
            m = F.linear(h, weight_hh, bias_hh)
            r, u = (z_t[:, :two] + m[:, :two]).sigmoid().chunk(2, 1)
            m = m[:, two:]
            n = (z_t[:, two:] + r * m).tanh()
            d = h - n
            states.current = h = n + u * d
            output.append(h)
            gates.append(torch.cat([r, u, n, m, d], 1))
        return _cat_steps(output, reverse), states.end(), _cat_steps(gates, reverse)

    @staticmethod
    def back_in_time(
        g_output: Tensor,
        g_h_n: Tensor,
        g_gates: Tensor,
        weight_hh: Tensor,
        gates: Tensor,
        batch_sizes: tuple[int, ...],
        reverse: bool,
    ) -> tuple[Tensor, ...]:
        """δ of every step, ∂C/∂m, which is r ⊙ δ in n and δ in r and u, and ∂C/∂h₀."""
        r, u, n, m, d = gates.chunk(5, 1)
        g_r, g_u, g_n, g_m, g_d = g_gates.chunk(5, 1)
        slope_r, slope_u, slope_n = r * (1 - r), u * (1 - u), _tanh_slope(n)
        known = (
            g_output,
            (g_n - g_d) * slope_n,
            (1 - u) * slope_n,
            torch.cat([g_r * slope_r, g_u * slope_u, g_m], 1),
            torch.cat([m * slope_r, d * slope_u, r], 1),
            g_d,
            u,
        )
        states, delta_n, echo = _SequenceState(g_h_n), [], []
        for g_h, g_n, to_n, g_m, to_m, g_d, u_t in _steps(batch_sizes, not reverse, *known):
            h = g_h + states.at_step(g_h)
            n = g_n + h * to_n
            m = g_m + torch.cat([n, h, n], 1) * to_m
            states.current = g_d + h * u_t + m @ weight_hh
            delta_n.append(n)
            echo.append(m)
        of_m = _cat_steps(echo, not reverse)
        of_n = _cat_steps(delta_n, not reverse)
        return torch.cat([of_m[:, : -of_n.shape[1]], of_n], 1), of_m, states.end()

    @staticmethod
    def before(gates: Tensor) -> Tensor:
        # h is computed again from d and n, and not saved.
        _, _, n, _, d = gates.chunk(5, 1)
        return n + d

    @staticmethod
    def grad_hx(back_in_time: tuple[Tensor, ...]) -> Tensor:
        return back_in_time[2]


class _SequenceState:
    """The state that one step passes to the next, with a row for each sequence still running."""

    def __init__(self, start: Tensor) -> None:
        self.start = start
        #: the state after the last step
        self.current = start[:0]
        self.ended: list[Tensor] = []

    def at_step(self, step: Tensor) -> Tensor:
        """The state before a step; ``step`` has a row for each sequence that runs then."""
        have, want = self.current.shape[0], step.shape[0]
        if have == want:
            return self.current
        if have > want:
            self.ended.append(self.current[want:])
            return self.current[:want]
        begin = self.start[have:want]
        return torch.cat([self.current, begin]) if have else begin

    def end(self) -> Tensor:
        """The state in which each sequence ended."""
        return torch.cat([self.current, *reversed(self.ended)]) if self.ended else self.current


def _steps(
    batch_sizes: tuple[int, ...], reverse: bool, *tensors: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """The rows of each step, in the order of time."""
    parts = zip(*(t.split_with_sizes(batch_sizes) for t in tensors), strict=True)
    return reversed(list(parts)) if reverse else parts


def _cat_steps(steps: list[Tensor], reverse: bool) -> Tensor:
    return torch.cat(steps[::-1] if reverse else steps)


def previous_states(
    start: Tensor, states: Tensor, batch_sizes: tuple[int, ...], reverse: bool
) -> Tensor:
    """The state before each step, where ``states`` are those after it."""
    batch = batch_sizes[0]
    if batch_sizes[-1] == batch:  # all sequences have one length: the states, shifted by a step
        return torch.cat([states[batch:], start] if reverse else [start, states[:-batch]])
    state_of, found = _SequenceState(start), []
    for (state,) in _steps(batch_sizes, reverse, states):
        found.append(state_of.at_step(state))
        state_of.current = state
    return _cat_steps(found, reverse)


def _tanh_slope(a: Tensor) -> Tensor:
    """1 − a², without the cancellation that loses digits where |a| is nearly 1."""
    return (1 - a) * (1 + a)


def bias_sum(bias_ih: Tensor | None, bias_hh: Tensor | None) -> Tensor | None:
    if bias_ih is None or bias_hh is None:
        return bias_hh if bias_ih is None else bias_ih
    return bias_ih + bias_hh
