"""Recurrent layers: the functions of ``torch._VF`` that :class:`torch.nn.LSTM` and others call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor

from manualbp import formulas
from manualbp.core.formula import Formula
from manualbp.core.modes import any_autocast, autocast_of
from manualbp.core.source import HALF, in_single
from manualbp.functional._common import dealiased
from manualbp.functional._dropout import dropout as drop_out
from manualbp.functional._shape import cat

__all__ = [
    "gru",
    "gru_cell",
    "lstm",
    "lstm_cell",
    "rnn_relu",
    "rnn_relu_cell",
    "rnn_tanh",
    "rnn_tanh_cell",
]

Tensors = Sequence[Tensor]

# ----------------------------------------------------------------------------- all time steps


@overload
def lstm(
    input: Tensor,
    hx: Tensors,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]: ...
@overload
def lstm(
    data: Tensor,
    batch_sizes: Tensor,
    hx: Tensors,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, Tensor, Tensor]: ...
def lstm(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor, Tensor]:
    """h = o ⊙ tanh c, c = f ⊙ c₋ + i ⊙ g: (T, N, in) → (T, N, out), and the last h and c.

    ``hx`` is (h₀, c₀), each (layers · directions, N, out); packed, the steps lie along one axis.
    """
    output, h, c = _run(torch.lstm, formulas.LSTM, arguments, named)
    return output, h, c


@overload
def gru(
    input: Tensor,
    hx: Tensor,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]: ...
@overload
def gru(
    data: Tensor,
    batch_sizes: Tensor,
    hx: Tensor,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, Tensor]: ...
def gru(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
    """h = n + u ⊙ (h₋ − n): (T, N, in) → (T, N, out), and the last h.

    ``hx`` is h₀, (layers · directions, N, out); packed, the steps lie along one axis.
    """
    output, h = _run(torch.gru, formulas.GRU, arguments, named)
    return output, h


@overload
def rnn_tanh(
    input: Tensor,
    hx: Tensor,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]: ...
@overload
def rnn_tanh(
    data: Tensor,
    batch_sizes: Tensor,
    hx: Tensor,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, Tensor]: ...
def rnn_tanh(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
    """h = tanh(x Wᵀ + b + h₋ W′ᵀ + b′): (T, N, in) → (T, N, out), the last h; as :func:`gru`."""
    output, h = _run(torch.rnn_tanh, formulas.RNN, arguments, named, "tanh")
    return output, h


@overload
def rnn_relu(
    input: Tensor,
    hx: Tensor,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor]: ...
@overload
def rnn_relu(
    data: Tensor,
    batch_sizes: Tensor,
    hx: Tensor,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, Tensor]: ...
def rnn_relu(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
    """h = max(x Wᵀ + b + h₋ W′ᵀ + b′, 0): (T, N, in) → (T, N, out), the last h; as :func:`gru`."""
    output, h = _run(torch.rnn_relu, formulas.RNN, arguments, named, "relu")
    return output, h


def _run(
    theirs: Callable[..., Any],
    formula: type[Formula],
    arguments: tuple[Any, ...],
    named: dict[str, Any],
    *options: str,
) -> tuple[Tensor, ...]:
    """The layers, called by either of torch's two signatures: padded or packed."""
    if _is_exporting():
        return theirs(*arguments, **named)
    packed = "batch_sizes" in named or (len(arguments) > 3 and not isinstance(arguments[3], bool))
    output, *ends = (_packed if packed else _padded)(formula, options, *arguments, **named)
    if options:  # the rule of RNN saves the output, and torch's may be written to in place
        output = output.clone()
    return output, *ends


def _is_exporting() -> bool:
    """Whether ``torch.export`` or ``torch.jit.trace`` records the forward pass.

    torch's single operation is then recorded, because it holds for any number of time steps. A
    record of the formula holds for one number.
    """
    return torch.compiler.is_exporting() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]


def _padded(
    formula: type[Formula],
    options: tuple[str, ...],
    input: Tensor,
    hx: Tensor | Tensors,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    if batch_first:
        input = input.transpose(0, 1)
    steps, batch = input.shape[:2]
    if not steps:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    states = [hx] if isinstance(hx, Tensor) else list(hx)
    if len(states) == 2 and any_autocast() and batch and input.dtype is not torch.double:
        # torch's autocast casts the states of an LSTM too, unless it has a projection.
        h, c = states
        states = [s.to(autocast_of(input)) for s in states] if h.shape == c.shape else states
    data = input.reshape(steps * batch, input.shape[2])
    sizes = (batch,) * steps
    how = (has_biases, num_layers, dropout, train, bidirectional)
    output, *ends = _layers(formula, options, data, sizes, states, params, *how)
    output = output.view(steps, batch, output.shape[1])
    return output.transpose(0, 1) if batch_first else output, *ends


def _packed(
    formula: type[Formula],
    options: tuple[str, ...],
    data: Tensor,
    batch_sizes: Tensor,
    hx: Tensor | Tensors,
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, ...]:
    states = [hx] if isinstance(hx, Tensor) else list(hx)
    sizes = tuple(batch_sizes.tolist())
    how = (has_biases, num_layers, dropout, train, bidirectional)
    return _layers(formula, options, data, sizes, states, params, *how)


def _layers(
    formula: type[Formula],
    options: tuple[str, ...],
    data: Tensor,
    sizes: tuple[int, ...],
    states: list[Tensor],
    params: Tensors,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, ...]:
    """The output of the last layer, and the last states of every layer and direction."""
    directions = 2 if bidirectional else 1
    runs = num_layers * directions
    for state in states:
        if state.shape[:2] != (runs, sizes[0]):
            raise RuntimeError(
                f"Expected hidden size ({runs}, {sizes[0]}, *), got {list(state.shape)}"
            )
    each = len(params) // runs
    ends = []
    for layer in range(num_layers):
        if layer and train and dropout:
            data = drop_out(data, dropout)
        outputs = []
        for run in range(layer * directions, (layer + 1) * directions):
            weights = _weights(params[run * each : (run + 1) * each], has_biases, len(states) == 2)
            started = [state[run] for state in states]
            reverse = run % directions == 1
            given = (data, *started, *weights, sizes, reverse, *options)
            output, *rest = _in_opmath(formula, given)
            outputs.append(output)
            ends.append(rest[: len(states)])
        data = cat(outputs, 1) if bidirectional else output
    lasts = ([end.unsqueeze(0) for end in each] for each in zip(*ends, strict=True))
    return data, *(last[0] if runs == 1 else cat(last) for last in lasts)


def _in_opmath(formula: type[Formula], arguments: tuple[Any, ...]) -> tuple[Tensor, ...]:
    """A layer of half precision is computed in single precision, as torch's kernels do."""
    dtype = arguments[0].dtype
    if dtype not in HALF or any_autocast():
        return formula.apply(*arguments)
    return tuple([output.to(dtype) for output in formula.apply(*in_single(*arguments))])


def _weights(weights: Tensors, has_biases: bool, projects: bool) -> list[Tensor | None]:
    """W, W′, b, b′ and, for an LSTM, the projection; None for those that are absent."""
    count = 4 if has_biases else 2
    listed: list[Tensor | None] = [*weights[:count], *[None] * (4 - count)]
    if projects:
        listed.append(weights[count] if len(weights) > count else None)
    return listed


# ------------------------------------------------------------------------------- one time step


def lstm_cell(
    input: Tensor,
    hx: Tensors,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of :func:`lstm`: (N, in) → h and c, each (N, out)."""
    h, c = _step(torch.lstm_cell, formulas.LSTM, input, hx, (w_ih, w_hh, b_ih, b_hh, None))
    return h, c


def gru_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of :func:`gru`: (N, in) → (N, out)."""
    return _step(torch.gru_cell, formulas.GRU, input, hx, (w_ih, w_hh, b_ih, b_hh))[0]


def rnn_tanh_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of :func:`rnn_tanh`: (N, in) → (N, out)."""
    return _step(torch.rnn_tanh_cell, formulas.RNN, input, hx, (w_ih, w_hh, b_ih, b_hh), "tanh")[0]


def rnn_relu_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of :func:`rnn_relu`: (N, in) → (N, out)."""
    return _step(torch.rnn_relu_cell, formulas.RNN, input, hx, (w_ih, w_hh, b_ih, b_hh), "relu")[0]


def _step(
    theirs: Callable[..., Any],
    formula: type[Formula],
    input: Tensor,
    hx: Tensor | Tensors,
    weights: tuple[Tensor | None, ...],
    *options: str,
) -> Tensors:
    """The states after a layer of a single step."""
    if _is_exporting():
        after = theirs(input, hx, *weights[:4])
        return [after] if isinstance(after, Tensor) else after
    states = [hx] if isinstance(hx, Tensor) else list(hx)
    if input.dim() != 2:
        raise RuntimeError(f"Expected 2D input (batch x feature), but got {input.dim()}D input")
    batch = input.shape[0]
    for state in states:
        if state.dim() != 2:  # torch's cells let some broadcast
            raise NotImplementedError(
                f"hx: expected a hidden state of shape (N, out); got {tuple(state.shape)}"
            )
        if state.shape[0] != batch:
            raise RuntimeError(
                f"Input batch size {batch} doesn't match hidden batch size {state.shape[0]}"
            )
    states = [dealiased(state, input) for state in states]
    states[1:] = [dealiased(c, states[0]) for c in states[1:]]
    after = _in_opmath(formula, (input, *states, *weights, (batch,), False, *options))
    return after[1 : 1 + len(states)]
