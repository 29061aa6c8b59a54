"""Activations: a = σ(z), entry by entry or along one axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manualbp.formula import Formula

__all__ = [
    "ELU",
    "GELU",
    "LeakyReLU",
    "LogSoftmax",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
]


class Sigmoid(Formula):
    """a = 1 / (1 + e⁻ᶻ)

    ∂C/∂z = g ⊙ a (1 − a)
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.sigmoid(input)

    @staticmethod
    def grad_input(g: Tensor, output: Tensor) -> Tensor:
        # a − a² in one pass over memory; a (1 − a) would take two.
        return g * torch.addcmul(output, output, output, value=-1)


class Tanh(Formula):
    """a = tanh z

    ∂C/∂z = g ⊙ (1 − a²)
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.tanh(input)

    @staticmethod
    def grad_input(g: Tensor, output: Tensor) -> Tensor:
        return g * (1 - output * output)


class ReLU(Formula):
    """a = max(z, 0)

    ∂C/∂z = g ⊙ [z > 0]
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.relu(input)

    @staticmethod
    def grad_input(g: Tensor, output: Tensor) -> Tensor:
        # [z > 0] = [a > 0]; at the kink the slope is 0, as torch has it, and a NaN passes g on.
        return g.masked_fill(output <= 0, 0)


class LeakyReLU(Formula):
    """a = max(z, 0) + α min(z, 0)

    ∂C/∂z = g ⊙ (1 where z > 0, else α)
    """

    @staticmethod
    def forward(input: Tensor, negative_slope: float) -> Tensor:
        return torch.nn.functional.leaky_relu(input, negative_slope)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, negative_slope: float) -> Tensor:
        return torch.where(input > 0, g, g * negative_slope)


class ELU(Formula):
    """a = z where z > 0, else α (eᶻ − 1)

    ∂C/∂z = g ⊙ (1 where z > 0, else a + α)
    """

    @staticmethod
    def forward(input: Tensor, alpha: float) -> Tensor:
        return torch.nn.functional.elu(input, alpha)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, alpha: float) -> Tensor:
        # Not a + α from the output: for a negative α its sign does not tell that of z.
        return g * torch.where(input <= 0, alpha * input.clamp(max=0).exp(), 1.0)


class GELU(Formula):
    """a = z Φ(z),  Φ the normal distribution, or its approximation by tanh

    ∂C/∂z = g ⊙ (Φ(z) + z Φ′(z))
    """

    @staticmethod
    def forward(input: Tensor, approximate: str) -> Tensor:
        return torch.nn.functional.gelu(input, approximate=approximate)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, approximate: str) -> Tensor:
        if approximate == "none":
            cdf = 0.5 * (1 + torch.erf(input * math.sqrt(0.5)))
            density = torch.exp(-0.5 * input * input) * (1 / math.sqrt(2 * math.pi))
        else:  # Φ(z) ≈ (1 + tanh u) / 2 with u = √(2/π) (z + 0.044715 z³)
            c, k = math.sqrt(2 / math.pi), 0.044715
            square = input * input
            tanh = torch.tanh(c * input * (1 + k * square))
            cdf = 0.5 * (1 + tanh)
            density = 0.5 * (1 - tanh * tanh) * c * (1 + 3 * k * square)
        return g * (cdf + input * density)


class SiLU(Formula):
    """a = z σ(z)

    ∂C/∂z = g ⊙ σ(z) (1 + z (1 − σ(z)))
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.nn.functional.silu(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        s = torch.sigmoid(input)
        return g * s * (1 + input * (1 - s))


class Softplus(Formula):
    """a = log(1 + e^βz) / β where βz ≤ threshold, else z

    ∂C/∂z = g ⊙ (σ(βz) where βz ≤ threshold, else 1)
    """

    @staticmethod
    def forward(input: Tensor, beta: float, threshold: float) -> Tensor:
        return torch.nn.functional.softplus(input, beta, threshold)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, beta: float, threshold: float) -> Tensor:
        z = input * beta
        return torch.where(z > threshold, g, g * torch.sigmoid(z))


class Softmax(Formula):
    """aᵢ = e^zᵢ / Σⱼ e^zⱼ

    ∂C/∂z = a ⊙ (g − Σⱼ gⱼ aⱼ)
    """

    @staticmethod
    def forward(input: Tensor, dim: int) -> Tensor:
        return torch.softmax(input, dim)

    @staticmethod
    def grad_input(g: Tensor, output: Tensor, dim: int) -> Tensor:
        ga = g * output
        return ga - output * ga.sum(dim, keepdim=True)


class LogSoftmax(Formula):
    """aᵢ = zᵢ − log Σⱼ e^zⱼ

    ∂C/∂z = g − eᵃ Σⱼ gⱼ
    """

    @staticmethod
    def forward(input: Tensor, dim: int) -> Tensor:
        return torch.log_softmax(input, dim)

    @staticmethod
    def grad_input(g: Tensor, output: Tensor, dim: int) -> Tensor:
        return g - output.exp() * g.sum(dim, keepdim=True)
