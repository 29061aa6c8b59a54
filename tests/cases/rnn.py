"""Recurrent layers."""

import warnings
from collections.abc import Callable
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from cases.table import *
from manualbp import functional

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def layer(
    function: str,
    note: str = "",
    *,
    steps: int = 4,
    batch: int = 1,
    sizes: tuple[int, ...] | None = None,
    layers: int = 1,
    bidirectional: bool = False,
    bias: bool = True,
    projection: int = 0,
    dropout: float = 0.0,
    batch_first: bool = False,
    pick: int = 0,
    twin: Callable = lambda kernel: kernel,
    without: dict[str, str] | None = None,
) -> Case:
    """One of the outputs as a function of all the tensors; packed where there are `sizes`."""
    rows, into, cells, several = 2 * GATES[function], 1, 2, function == "lstm"
    out, directions = projection or cells, 1 + bidirectional
    runs = layers * directions
    if sizes:
        shape: tuple[int, ...] = (sum(sizes), into)
        batch = sizes[0]
    else:
        shape = (batch, steps, into) if batch_first else (steps, batch, into)
    arguments = [real(*shape), real(runs, batch, out)]
    arguments += [real(runs, batch, cells)] * several
    for run in range(runs):
        width = into if run < directions else out * directions
        arguments += [real(rows, width), real(rows, out), *[real(rows)] * (2 * bias)]
        arguments += [real(projection, cells)] * bool(projection)
    options = (bias, layers, dropout, True, bidirectional)
    packed = (torch.tensor(sizes),) if sizes else ()

    def of(kernel: Callable) -> Callable[..., Tensor]:
        def run(data: Tensor, h: Tensor, *rest: Tensor) -> Tensor:
            hx, params = ((h, rest[0]), rest[1:]) if several else (h, rest)
            last = () if packed else (batch_first,)
            return kernel(data, *packed, hx, params, *options, *last)[pick]

        run.__name__ = function
        return run

    return Case(
        f"{function}-{note}[{pick}]",
        ours=of(getattr(functional, function)),
        theirs=of(quietly if projection else twin(getattr(torch, function))),
        arguments=tuple(arguments),
        random=bool(dropout),
        without=without or {},
    )


def quietly(*arguments: Any) -> tuple[Tensor, ...]:
    """torch's LSTM, which may warn that oneDNN knows no projection."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.lstm(*arguments)


def one_by_one(kernel: Callable) -> Callable[..., tuple[Tensor, ...]]:
    """The packed sequences each alone: torch's packed functions run in no transform."""

    def run(data: Tensor, batch_sizes: Tensor, hx: Any, params: Any, *options: Any) -> Any:
        sizes = batch_sizes.tolist()
        starts = [0, *accumulate(sizes)]
        ran = []
        for b in range(sizes[0]):
            rows = data[[start + b for start, n in zip(starts, sizes, strict=False) if n > b]]
            alone = [h[:, b : b + 1] for h in ([hx] if isinstance(hx, Tensor) else hx)]
            state = alone[0] if isinstance(hx, Tensor) else alone
            ran.append(kernel(rows.unsqueeze(1), state, params, *options, False))
        output = [ran[b][0][t, 0] for t, n in enumerate(sizes) for b in range(n)]
        ends = zip(*(r[1:] for r in ran), strict=True)
        return torch.stack(output), *(torch.cat(e, 1) for e in ends)

    return run


def cell(function: str, *, bias: bool = True, pick: int = 0) -> Case:
    """One step."""
    rows, several = 2 * GATES[function.removesuffix("_cell")], function == "lstm_cell"
    weights = [real(rows, 1), real(rows, 2), *[real(rows)] * (2 * bias)]

    def of(kernel: Callable) -> Callable[..., Tensor]:
        def run(input: Tensor, h: Tensor, *rest: Tensor) -> Tensor:
            if several:
                return kernel(input, (h, rest[0]), *rest[1:])[pick]
            return kernel(input, h, *rest)

        run.__name__ = function
        return run

    return Case(
        f"{function}-{bias=}[{pick}]",
        ours=of(getattr(functional, function)),
        theirs=of(getattr(torch, function)),
        arguments=(real(3, 1), *[real(3, 2)] * (1 + several), *weights),
        without=STEP,
    )


#: what a layer needs for the step before, and a cell only for the state that it starts from
STEP = {"thrifty": "where the state has no gradient, torch does not keep its weight for one step"}
SATURATED = {"precision": "of gates that saturate rounding leaves little, and no two sums alike"}
SHORT = {"thrifty": "of the initial cells alone torch keeps less than a layer for the first step"}
PACKED = {"compiled": "how many rows a step has is read off a tensor"}
NATIVE = PACKED | dict.fromkeys(
    ["forward_mode", "per_example", "jacobians"], "torch's packed functions run in no transform"
)
ONE_BY_ONE = PACKED | {
    "thrifty": "the twin keeps every sequence by itself",
    "autocast": "the twin's output has another precision there than torch's packed one",
}


def packed(
    function: str,
    *sizes: int,
    pick: int = 0,
    bidirectional: bool = False,
    without: dict[str, str] | None = None,
) -> Case:
    return layer(
        function,
        f"packed {sizes}{bidirectional * ' both ways'}",
        sizes=sizes,
        pick=pick,
        bidirectional=bidirectional,
        twin=one_by_one,
        without=ONE_BY_ONE | (without or {}),
    )


CASES = [
    *(layer(f, "plain", batch=2, steps=4 if f == "lstm" else 2) for f in GATES),
    *(layer(f, "last", pick=1, bias=False, batch_first=True) for f in GATES),
    layer("lstm", "cells", pick=2, without=SATURATED),
    layer("lstm", "both ways", layers=2, bidirectional=True, steps=2, without=SHORT),
    layer("lstm", "both ways", bidirectional=True, steps=2, pick=1, without=SHORT | SATURATED),
    layer("lstm", "both ways", bidirectional=True, steps=2, pick=2, without=SHORT),
    layer("gru", "both ways", layers=2, bidirectional=True, steps=2),
    layer("rnn_tanh", "both ways", layers=2, bidirectional=True, steps=2, batch=2, pick=1),
    layer("lstm", "projected", projection=1, batch=2),
    layer("lstm", "projected", projection=1, bias=False, pick=1),
    layer("gru", "packed", sizes=(3, 1), bidirectional=True, without=NATIVE),
    layer("lstm", "packed", sizes=(3, 2, 2), without=NATIVE | SHORT),
    packed("lstm", 3, 1),
    packed("lstm", 2, 1, bidirectional=True),
    packed("lstm", 2, 1, bidirectional=True, pick=2, without=SATURATED),
    packed("gru", 3, 1, bidirectional=True, pick=1),
    packed("rnn_tanh", 2, 2, 1, bidirectional=True, pick=1),
    packed("rnn_relu", 2, 1),
    *(layer(f, "dropout", layers=2, steps=2, dropout=0.5, batch=2, without=w)
      for f, w in (("lstm", SHORT), ("gru", {}))),
    layer("lstm", "nobody", batch=0),
    *(cell("lstm_cell", pick=p, bias=not p) for p in (0, 1)),
    *(cell(f, bias=b)
      for f in ("gru_cell", "rnn_tanh_cell", "rnn_relu_cell") for b in (True, False)),
]  # fmt: skip

MODULES = [
    *(module(n, 3, 4, inputs=(real(5, 2, 3),)) for n in ("RNN", "LSTM", "GRU")),
    module("RNN", 3, 4, inputs=(real(2, 5, 3), real(1, 2, 4)), nonlinearity="relu",
           batch_first=True),
    *(module(n, 3, 4, 2, inputs=(real(5, 2, 3),), bidirectional=True, dropout=0.5)
      for n in ("RNN", "LSTM", "GRU")),
    module("LSTM", 3, 4, inputs=(real(5, 2, 3),), proj_size=2, bias=False),
    *(module(n, 3, 4, inputs=(real(5, 3),)) for n in ("LSTM", "GRU")),
    *(module(n, 3, 4, inputs=(real(2, 3),), without=STEP)
      for n in ("RNNCell", "LSTMCell", "GRUCell")),
    module("RNNCell", 3, 4, inputs=(real(3), real(4)), nonlinearity="relu", bias=False),
]  # fmt: skip
