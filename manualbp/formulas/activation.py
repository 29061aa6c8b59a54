"""Activations: a = σ(z), entry by entry or along one axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manualbp.core.formula import Formula

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "GumbelSoftmax",
    "Hardshrink",
    "Hardsigmoid",
    "Hardswish",
    "Hardtanh",
    "LeakyReLU",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "RReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "StraightThrough",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


class Sigmoid(Formula):
    """a = 1 / (1 + e⁻ᶻ)

    ∂C/∂z = g ⊙ a (1 − a)
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.sigmoid(input)

    @staticmethod
    def grad_input(g: Tensor, output: Tensor) -> Tensor:
        return g * output * (1 - output)


class Tanh(Formula):
    """a = tanh z

    ∂C/∂z = g ⊙ (1 − a²)
    """

    holomorphic = True

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

    opmath = False

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.relu(input)

    @staticmethod
    def grad_input(g: Tensor, output: Tensor) -> Tensor:
        # [z > 0] = [a > 0]. At 0 the slope is 0, and at nan it is 1, as torch's.
        return g.masked_fill(output <= 0, 0)


class ReLU6(Formula):
    """a = min(max(z, 0), 6)

    ∂C/∂z = g ⊙ [0 < z < 6]
    """

    opmath = False

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.nn.functional.relu6(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        return g.masked_fill((input <= 0) | (input >= 6), 0)


class Hardtanh(Formula):
    """a = min(max(z, l), h)

    ∂C/∂z = g ⊙ [l < z < h]
    """

    opmath = False

    @staticmethod
    def forward(input: Tensor, min_val: float, max_val: float) -> Tensor:
        return torch.nn.functional.hardtanh(input, min_val, max_val)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, min_val: float, max_val: float) -> Tensor:
        return g.masked_fill((input <= min_val) | (input >= max_val), 0)


class Threshold(Formula):
    """a = z where z > threshold, else value

    ∂C/∂z = g ⊙ [z > threshold]
    """

    opmath = False

    @staticmethod
    def forward(input: Tensor, threshold: float, value: float) -> Tensor:
        return torch.nn.functional.threshold(input, threshold, value)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, threshold: float) -> Tensor:
        return g.masked_fill(input <= threshold, 0)


class Hardshrink(Formula):
    """a = z where |z| > λ, else 0

    ∂C/∂z = g ⊙ [|z| > λ]
    """

    opmath = False

    @staticmethod
    def forward(input: Tensor, lambd: float) -> Tensor:
        return torch.hardshrink(input, lambd)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, lambd: float) -> Tensor:
        return g.masked_fill(input.abs() <= lambd, 0)


class Softshrink(Formula):
    """a = z − λ where z > λ, z + λ where z < −λ, else 0

    ∂C/∂z = g ⊙ [|z| > λ]
    """

    opmath = False

    @staticmethod
    def forward(input: Tensor, lambd: float) -> Tensor:
        return torch.nn.functional.softshrink(input, lambd)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, lambd: float) -> Tensor:
        return g.masked_fill(input.abs() <= lambd, 0)


class Tanhshrink(Formula):
    """a = z − tanh z

    ∂C/∂z = g ⊙ tanh² z
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.nn.functional.tanhshrink(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        return g * torch.tanh(input).square()


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


class PReLU(Formula):
    """a = max(z, 0) + w min(z, 0),  w one number, or one for each channel (axis 1)

    ∂C/∂z = g ⊙ (1 where z > 0, else w)
    ∂C/∂w = Σ g ⊙ min(z, 0),  over all that share a w
    """

    @staticmethod
    def forward(input: Tensor, weight: Tensor) -> Tensor:
        return torch.prelu(input, weight)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, weight: Tensor) -> Tensor:
        channels = () if weight.numel() == 1 else (-1, *[1] * (input.dim() - 2))
        return torch.where(input > 0, g, g * weight.reshape(channels))

    @staticmethod
    def grad_weight(g: Tensor, input: Tensor, weight: Tensor) -> Tensor:
        share = (g * input).masked_fill(input > 0, 0)
        if weight.numel() == 1:
            return share.sum().reshape(weight.shape)
        return share.sum([axis for axis in range(share.dim()) if axis != 1])

    @staticmethod
    def example_weight(g: Tensor, input: Tensor, weight: Tensor) -> Tensor:
        share = (g * input).masked_fill(input > 0, 0)
        if weight.numel() == 1:
            return share.flatten(1).sum(1).reshape(-1, *weight.shape)
        return share.sum([axis for axis in range(1, share.dim()) if axis != 2])


class RReLU(Formula):
    """a = s z,  s = 1 where z > 0, else drawn from [lower, upper)

    ∂C/∂z = g ⊙ s
    """

    outputs = ("output", "slope")
    opmath = False

    @staticmethod
    def forward(input: Tensor, lower: float, upper: float) -> tuple[Tensor, Tensor]:
        # torch draws one number for each z that is not positive, in the order of memory.
        input = input.contiguous()
        slope = torch.empty_like(input)
        return torch.ops.aten.rrelu_with_noise_functional(input, slope, lower, upper, True)

    @staticmethod
    def grad_input(g_output: Tensor, slope: Tensor) -> Tensor:
        return g_output * slope


class ELU(Formula):
    """a = z where z > 0, else α (eᶻ − 1)

    ∂C/∂z = g ⊙ (1 where z > 0, else a + α)
    """

    @staticmethod
    def forward(input: Tensor, alpha: float) -> Tensor:
        return torch.nn.functional.elu(input, alpha)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, alpha: float) -> Tensor:
        # Not a + α, because for α < 0 the sign of a is not that of z.
        return g * torch.where(input <= 0, alpha * _at_most_0(input).exp(), 1)


class CELU(Formula):
    """a = z where z > 0, else α (e^(z/α) − 1)

    ∂C/∂z = g ⊙ (1 where z > 0, else e^(z/α))
    """

    @staticmethod
    def forward(input: Tensor, alpha: float) -> Tensor:
        return torch.celu(input, alpha)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, alpha: float) -> Tensor:
        return g * (_at_most_0(input) / alpha).exp()


class SELU(Formula):
    """a = λ z where z > 0, else λ α (eᶻ − 1),  λ ≈ 1.0507010,  α ≈ 1.6732632

    ∂C/∂z = g ⊙ (λ where z > 0, else λ α eᶻ)
    """

    # With these two a mean of 0 and a variance of 1 stay as they are.
    SCALE = 1.0507009873554804934193349852946
    ALPHA = 1.6732632423543772848170429916717

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.selu(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        return g * SELU.SCALE * torch.where(input <= 0, SELU.ALPHA * _at_most_0(input).exp(), 1)


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
            cdf = (1 + torch.erf(input * math.sqrt(0.5))) / 2
            density = torch.exp(-input * input / 2) / math.sqrt(2 * math.pi)
            return g * (cdf + input * density)
        # Φ(z) ≈ (1 + tanh u/2) / 2 = σ(u) with u = √(8/π) (z + 0.044715 z³), so Φ′ ≈ u′ σ (1 − σ)
        c, k = math.sqrt(8 / math.pi), 0.044715
        square = input * input
        s = torch.sigmoid(c * input * (1 + k * square))
        return g * s * (1 + input * c * (1 + 3 * k * square) * (1 - s))


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


class Mish(Formula):
    """a = z tanh s,  s = log(1 + eᶻ)

    ∂C/∂z = g ⊙ (tanh s + z σ(z) (1 − tanh² s))
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.nn.functional.mish(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        z = input.clamp(max=40)  # beyond, the slope is 1
        t = torch.tanh(torch.nn.functional.softplus(z))
        return g * (t + z * torch.sigmoid(z) * (1 - t * t))


class Hardsigmoid(Formula):
    """a = min(max(z + 3, 0), 6) / 6

    ∂C/∂z = g ⊙ (1/6 where −3 < z < 3, else 0)
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.nn.functional.hardsigmoid(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        return (g / 6).masked_fill(~(input.abs() < 3), 0)


class Hardswish(Formula):
    """a = z min(max(z + 3, 0), 6) / 6

    ∂C/∂z = g ⊙ (z/3 + 1/2 where −3 < z < 3, 1 where z ≥ 3, else 0)
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.nn.functional.hardswish(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        inner = g * (input / 3 + 0.5)
        return torch.where(input < 3, inner, g).masked_fill(input <= -3, 0)


class Softsign(Formula):
    """a = z / (1 + |z|)

    ∂C/∂z = g / (1 + |z|)²
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.nn.functional.softsign(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        return g / (1 + input.abs()).square()


class GLU(Formula):
    """a = u σ(v),  (u, v) = z,  halved along one axis

    ∂C/∂z = (g ⊙ σ(v), g ⊙ u σ(v) (1 − σ(v)))
    """

    @staticmethod
    def forward(input: Tensor, dim: int) -> Tensor:
        return torch.nn.functional.glu(input, dim)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, dim: int) -> Tensor:
        u, v = input.chunk(2, dim)
        s = torch.sigmoid(v)
        gs = g * s
        return torch.cat((gs, gs * u * (1 - s)), dim)


class Softplus(Formula):
    """a = log(1 + e^(βz)) / β where βz ≤ threshold, else z

    ∂C/∂z = g ⊙ (σ(βz) where βz ≤ threshold, else 1)
    """

    @staticmethod
    def forward(input: Tensor, beta: float, threshold: float) -> Tensor:
        return torch.nn.functional.softplus(input, beta, threshold)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, beta: float, threshold: float) -> Tensor:
        z = input * beta
        return g * torch.where(z > threshold, 1, torch.sigmoid(z))


class LogSigmoid(Formula):
    """a = −log(1 + e⁻ᶻ)

    ∂C/∂z = g ⊙ σ(−z)
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.nn.functional.logsigmoid(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        return g * torch.sigmoid(-input)


class Softmax(Formula):
    """aᵢ = e^zᵢ / Σⱼ e^zⱼ

    ∂C/∂z = a ⊙ (g − Σⱼ gⱼ aⱼ)
    """

    holomorphic = True

    @staticmethod
    def forward(input: Tensor, dim: int) -> Tensor:
        return torch.softmax(input, dim)

    @staticmethod
    def grad_input(g: Tensor, output: Tensor, dim: int) -> Tensor:
        ga = g * output
        return ga - output * ga.sum(dim, keepdim=True)


class Softmin(Formula):
    """aᵢ = e^(−zᵢ) / Σⱼ e^(−zⱼ)

    ∂C/∂z = a ⊙ (Σⱼ gⱼ aⱼ − g)
    """

    @staticmethod
    def forward(input: Tensor, dim: int) -> Tensor:
        return torch.softmax(-input, dim)

    @staticmethod
    def grad_input(g: Tensor, output: Tensor, dim: int) -> Tensor:
        ga = g * output
        return output * ga.sum(dim, keepdim=True) - ga


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


class GumbelSoftmax(Formula):
    """a = softmax((z + γ) / τ),  γ = −log E, E drawn from the exponential distribution

    ∂C/∂z = a ⊙ (g − Σⱼ gⱼ aⱼ) / τ
    """

    @staticmethod
    def forward(logits: Tensor, tau: float, dim: int) -> Tensor:
        # torch draws in the order of the axes, for any strides.
        drawn = torch.empty_like(logits, memory_format=torch.legacy_contiguous_format)
        return ((logits - drawn.exponential_().log()) / tau).softmax(dim)

    @staticmethod
    def grad_logits(g: Tensor, output: Tensor, tau: float, dim: int) -> Tensor:
        ga = g * output
        return (ga - output * ga.sum(dim, keepdim=True)) / tau


class StraightThrough(Formula):
    """a = e_k,  k = argmaxⱼ zⱼ

    ∂C/∂z = g,  as if a were z
    """

    opmath = False

    @staticmethod
    def forward(input: Tensor, dim: int) -> Tensor:
        largest = input.argmax(dim, keepdim=True)
        zeros = torch.zeros_like(input, memory_format=torch.legacy_contiguous_format)
        return zeros.scatter(dim, largest, 1.0)

    @staticmethod
    def grad_input(g: Tensor) -> Tensor:
        return g


def _at_most_0(z: Tensor) -> Tensor:
    """z where z < 0, else 0, because eᶻ overflows; 0 at nan too, as the slope is 1 in torch."""
    return torch.where(z < 0, z, 0)  # its slope at 0 is 0, as in torch's second derivative
