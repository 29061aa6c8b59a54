"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from torch import nn

from manualbp import functional as F

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]


def _by_formula(forward: Any) -> Callable[..., Any]:
    """torch's own ``forward``, in which ``_VF``, the kernels that it calls, are our functions."""
    here = {**forward.__globals__, "_VF": F}
    return FunctionType(forward.__code__, here, "forward", forward.__defaults__)


class RNN(nn.RNN):
    forward = _by_formula(nn.RNN.forward)


class LSTM(nn.LSTM):
    forward = _by_formula(nn.LSTM.forward)


class GRU(nn.GRU):
    forward = _by_formula(nn.GRU.forward)


class RNNCell(nn.RNNCell):
    forward = _by_formula(nn.RNNCell.forward)


class LSTMCell(nn.LSTMCell):
    forward = _by_formula(nn.LSTMCell.forward)


class GRUCell(nn.GRUCell):
    forward = _by_formula(nn.GRUCell.forward)
