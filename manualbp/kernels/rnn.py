"""Recurrent layers in place: each step writes into its rows of the result of all steps.

Only if all sequences have the same length; otherwise the formula's own methods run.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from manualbp import formulas
from manualbp.core.modes import any_autocast
from manualbp.formulas.rnn import bias_sum, previous_states
from manualbp.kernels import of

aten = torch.ops.aten

#: size of all states together below which making views takes longer than copying
_SMALL = 1 << 12


def _even(
    input: Tensor, hx: Tensor, weight_ih: Tensor, weight_hh: Tensor, batch_sizes: tuple[int, ...]
) -> bool:
    return (
        batch_sizes[0] == batch_sizes[-1]
        and not any_autocast()
        and input.dtype is hx.dtype is weight_ih.dtype is weight_hh.dtype
    )


def _many(input: Tensor, weight_hh: Tensor) -> bool:
    return len(input) * weight_hh.shape[1] >= _SMALL


def _steps(tensor: Tensor, batch_sizes: tuple[int, ...]) -> Tensor:
    """(T N, …) as (T, N, …)."""
    return tensor.reshape(len(batch_sizes), batch_sizes[0], tensor.shape[1])


def _times(batch_sizes: tuple[int, ...], reverse: bool) -> Iterable[int]:
    times = range(len(batch_sizes))
    return reversed(times) if reverse else times


def _start(g_end: Tensor | None, like: Tensor) -> Tensor:
    """A copy of the gradient of a last state, into which the steps write."""
    return torch.zeros_like(like) if g_end is None else g_end.clone()


# ------------------------------------------------------------------------------------------- RNN


@of(formulas.RNN.forward, supported=_even, profitable=_many)
def rnn(
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
    output = F.linear(input, weight_ih, bias_sum(bias_ih, bias_hh))
    z, weight, h = _steps(output, batch_sizes).unbind(), weight_hh.t(), hx
    act = torch.tanh_ if nonlinearity == "tanh" else torch.relu_
    for t in _times(batch_sizes, reverse):
        h = act(z[t].addmm_(h, weight))
    return output, h.clone()


@of(
    formulas.RNN.back_in_time,
    supported=lambda batch_sizes: batch_sizes[0] == batch_sizes[-1],
    profitable=lambda output: output.numel() >= _SMALL,
)
def rnn_back(
    g_output: Tensor | None,
    g_h_n: Tensor | None,
    weight_hh: Tensor,
    output: Tensor,
    batch_sizes: tuple[int, ...],
    reverse: bool,
    nonlinearity: str,
) -> tuple[Tensor, ...]:
    tanh = nonlinearity == "tanh"
    # 1 − a² would lose digits where |a| is nearly 1.
    every = (1 + output).mul_(1 - output) if tanh else torch.empty_like(output)
    delta, a = _steps(every, batch_sizes).unbind(), _steps(output, batch_sizes).unbind()
    g = None if g_output is None else _steps(g_output, batch_sizes).unbind()
    h = _start(g_h_n, a[0])
    for t in _times(batch_sizes, not reverse):
        if g is not None:
            h = h.add_(g[t])
        if tanh:
            delta[t].mul_(h)
        else:
            aten.threshold_backward.grad_input(h, a[t], 0, grad_input=delta[t])
        h = delta[t] @ weight_hh
    return every, every, h


# ------------------------------------------------------------------------------------------ LSTM


@of(
    formulas.LSTM.forward,
    supported=lambda input, hx, weight_ih, weight_hh, batch_sizes, weight_hr: (
        weight_hr is None and _even(input, hx, weight_ih, weight_hh, batch_sizes)
    ),
    profitable=_many,
)
def lstm(
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
    gates = F.linear(input, weight_ih, bias_sum(bias_ih, bias_hh))
    cells = gates.new_empty(len(input), cx.shape[1])
    output = torch.empty_like(cells)
    size, z = cx.shape[1], _steps(gates, batch_sizes)
    each, both, three = z.unbind(), z[..., : 2 * size].unbind(), z[..., 2 * size :].unbind()
    h_t, c_t = _steps(output, batch_sizes).unbind(), _steps(cells, batch_sizes).unbind()
    h, c, weight = hx, cx, weight_hh.t()
    for t in _times(batch_sizes, reverse):
        each[t].addmm_(h, weight)
        i, f = both[t].sigmoid_().chunk(2, 1)
        g, o = three[t].chunk(2, 1)
        c = torch.mul(f, c, out=c_t[t]).addcmul_(i, g.tanh_())
        h = torch.tanh(c, out=h_t[t]).mul_(o.sigmoid_())
    return output, h.clone(), c.clone(), gates, cells


@of(
    formulas.LSTM.back_in_time,
    supported=lambda g_gates, g_cells, weight_hr, batch_sizes: (
        batch_sizes[0] == batch_sizes[-1] and g_gates is g_cells is weight_hr is None
    ),
    profitable=lambda cells: cells.numel() >= _SMALL,
)
def lstm_back(
    g_output: Tensor | None,
    g_h_n: Tensor | None,
    g_c_n: Tensor | None,
    cx: Tensor,
    weight_hh: Tensor,
    gates: Tensor,
    cells: Tensor,
    batch_sizes: tuple[int, ...],
    reverse: bool,
) -> tuple[Tensor, ...]:
    size = cx.shape[1]
    i, f, g, o = gates.chunk(4, 1)
    before = previous_states(cx, cells, batch_sizes, reverse)
    a = cells.tanh()
    # The slopes of all steps at once; δ is written over them.
    every = torch.cat([g, before, i, a], 1)
    of_g, of_o = every[:, 2 * size : 3 * size], every[:, 3 * size :]
    aten.sigmoid_backward.grad_input(
        every[:, : 2 * size], gates[:, : 2 * size], grad_input=every[:, : 2 * size]
    )
    aten.tanh_backward.grad_input(of_g, g, grad_input=of_g)
    aten.sigmoid_backward.grad_input(of_o, o, grad_input=of_o)
    to_cell = _steps(aten.tanh_backward(o, a), batch_sizes).unbind()
    delta = _steps(every, batch_sizes)
    f_t = _steps(f, batch_sizes).unbind()
    of_c = delta[..., : 3 * size].view(*delta.shape[:2], 3, size).unbind()
    of_h, delta_t = delta[..., 3 * size :].unbind(), delta.unbind()
    g_t = None if g_output is None else _steps(g_output, batch_sizes).unbind()
    h, c = _start(g_h_n, cx), _start(g_c_n, cx)
    for t in _times(batch_sizes, not reverse):
        if g_t is not None:
            h = h.add_(g_t[t])
        c = c.addcmul_(h, to_cell[t])
        of_c[t].mul_(c.unsqueeze(1))
        of_h[t].mul_(h)
        c = c.mul_(f_t[t])
        h = delta_t[t] @ weight_hh
    return every, every, h, c


# ------------------------------------------------------------------------------------------- GRU


@of(formulas.GRU.forward, supported=_even, profitable=_many)
def gru(
    input: Tensor,
    hx: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    batch_sizes: tuple[int, ...],
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    size = hx.shape[1]
    z = _steps(F.linear(input, weight_ih, bias_ih), batch_sizes)
    of_ru, of_n = z[..., : 2 * size].unbind(), z[..., 2 * size :].unbind()
    output = z.new_empty(len(input), size)
    gates = z.new_empty(len(input), 5 * size)
    parts = _steps(gates, batch_sizes)
    two, three = parts[..., : 2 * size].unbind(), parts[..., 2 * size :].unbind()
    a, h = _steps(output, batch_sizes).unbind(), hx
    for t in _times(batch_sizes, reverse):
        w = F.linear(h, weight_hh, bias_hh)
        r, u = torch.add(of_ru[t], w[:, : 2 * size], out=two[t]).sigmoid_().chunk(2, 1)
        n, m, d = three[t].chunk(3, 1)
        m.copy_(w[:, 2 * size :])
        torch.addcmul(of_n[t], r, m, out=n).tanh_()
        torch.sub(h, n, out=d)
        h = torch.addcmul(n, u, d, out=a[t])
    return output, h.clone(), gates


@of(
    formulas.GRU.back_in_time,
    supported=lambda g_gates, batch_sizes: g_gates is None and batch_sizes[0] == batch_sizes[-1],
    profitable=lambda gates: gates.numel() >= 5 * _SMALL,
)
def gru_back(
    g_output: Tensor | None,
    g_h_n: Tensor | None,
    weight_hh: Tensor,
    gates: Tensor,
    batch_sizes: tuple[int, ...],
    reverse: bool,
) -> tuple[Tensor, ...]:
    size = weight_hh.shape[1]
    r, u, n, m, d = gates.chunk(5, 1)
    # The slopes of all steps at once; the gradients are written over them.
    of_n = aten.tanh_backward(1 - u, n)
    every = torch.cat([m, d, r], 1)
    of_ru = every[:, : 2 * size]
    aten.sigmoid_backward.grad_input(of_ru, gates[:, : 2 * size], grad_input=of_ru)
    n_t, u_t = _steps(of_n, batch_sizes).unbind(), _steps(u, batch_sizes).unbind()
    echo = _steps(every, batch_sizes)
    parts = echo.view(*echo.shape[:2], 3, size)
    by_n, by_h, echo_t = parts[:, :, ::2].unbind(), parts[:, :, 1].unbind(), echo.unbind()
    g = None if g_output is None else _steps(g_output, batch_sizes).unbind()
    h = _start(g_h_n, u_t[0])
    for t in _times(batch_sizes, not reverse):
        if g is not None:
            h = h.add_(g[t])
        by_n[t].mul_(n_t[t].mul_(h).unsqueeze(1))
        by_h[t].mul_(h)
        h = h.mul_(u_t[t]).addmm_(echo_t[t], weight_hh)
    return torch.cat([of_ru, of_n], 1), every, h
