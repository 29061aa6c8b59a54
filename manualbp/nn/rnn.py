"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from torch import nn

from manualbp import functional as F
from manualbp.functional._override import not_compiled

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]


def _by_formula(forward: Any) -> Callable[..., Any]:
    """torch's own ``forward``, in which ``_VF``, the kernels that it calls, are our functions."""
    here = {**forward.__globals__, "_VF": F}
    return FunctionType(forward.__code__, here, "forward", forward.__defaults__)


class RNN(nn.RNN):
    """torch.nn.RNN by formula: hₜ = σ(zₜ), zₜ = xₜ Wᵀ + b + hₜ₋₁ W′ᵀ + b′, σ = tanh or max(·, 0)
    (formulas.RNN)."""

    forward = not_compiled(_by_formula(nn.RNN.forward))


class LSTM(nn.LSTM):
    """torch.nn.LSTM by formula: hₜ = aₜ W″ᵀ, a = o ⊙ tanh cₜ, cₜ = f ⊙ cₜ₋₁ + i ⊙ g, (i, f, g, o) =
    (σ, σ, tanh, σ)(zₜ) (formulas.LSTM)."""

    forward = not_compiled(_by_formula(nn.LSTM.forward))


class GRU(nn.GRU):
    """torch.nn.GRU by formula: hₜ = n + u ⊙ d, d = hₜ₋₁ − n, r, u = σ(zₜ + mₜ), n = tanh(zₜ + r ⊙
    mₜ), m = h₋ W′ᵀ + b′ (formulas.GRU)."""

    forward = not_compiled(_by_formula(nn.GRU.forward))


class RNNCell(nn.RNNCell):
    """torch.nn.RNNCell by formula: hₜ = σ(zₜ), zₜ = xₜ Wᵀ + b + hₜ₋₁ W′ᵀ + b′, σ = tanh or max(·,
    0) (formulas.RNN)."""

    forward = _by_formula(nn.RNNCell.forward)


class LSTMCell(nn.LSTMCell):
    """torch.nn.LSTMCell by formula: hₜ = aₜ W″ᵀ, a = o ⊙ tanh cₜ, cₜ = f ⊙ cₜ₋₁ + i ⊙ g, (i, f, g,
    o) = (σ, σ, tanh, σ)(zₜ) (formulas.LSTM)."""

    forward = _by_formula(nn.LSTMCell.forward)


class GRUCell(nn.GRUCell):
    """torch.nn.GRUCell by formula: hₜ = n + u ⊙ d, d = hₜ₋₁ − n, r, u = σ(zₜ + mₜ), n = tanh(zₜ + r
    ⊙ mₜ), m = h₋ W′ᵀ + b′ (formulas.GRU)."""

    forward = _by_formula(nn.GRUCell.forward)
