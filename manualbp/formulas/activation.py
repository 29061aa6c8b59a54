"""Activations: a = σ(z), entry by entry or along one axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from manualbp.core.formula import Formula
from manualbp.core.gate import zeroed

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
        # a − a² in one pass over memory; a (1 − a) would take two.
        return g * torch.addcmul(output, output, output, value=-1)


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
        return torch.addcmul(g, g * output, output, value=-1)  # g − (g a) a: two passes, not three


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
        # [z > 0] = [a > 0]; at the kink the slope is 0, as torch has it, and a NaN passes g on.
        return zeroed(g, output <= 0)


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
        return zeroed(g, (input <= 0) | (input >= 6))


class Hardtanh(Formula):
    """a = min(max(z, low), high)

    ∂C/∂z = g ⊙ [low < z < high]
    """

    opmath = False

    @staticmethod
    def forward(input: Tensor, min_val: float, max_val: float) -> Tensor:
        return torch.nn.functional.hardtanh(input, min_val, max_val)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, min_val: float, max_val: float) -> Tensor:
        return zeroed(g, (input <= min_val) | (input >= max_val))


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
        return zeroed(g, input <= threshold)


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
        return zeroed(g, input.abs() <= lambd)


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
        return zeroed(g, input.abs() <= lambd)


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
        # tanh z = 2 σ(2z) − 1, and σ is the quicker one; but it is nan at large complex numbers.
        if input.is_complex():
            return g * torch.tanh(input).square()
        return g * torch.sigmoid(2 * input).mul(2).sub_(1).square()


class LeakyReLU(Formula):
    """a = max(z, 0) + α min(z, 0)

    ∂C/∂z = g ⊙ (1 where z > 0, else α)
    """

    @staticmethod
    def forward(input: Tensor, negative_slope: float) -> Tensor:
        return torch.nn.functional.leaky_relu(input, negative_slope)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, negative_slope: float) -> Tensor:
        return g * _bent(input, 1.0, negative_slope)


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
        share = g * input.clamp(max=0)
        if weight.numel() == 1:
            return share.sum().reshape(weight.shape)
        return share.sum([axis for axis in range(share.dim()) if axis != 1])


class RReLU(Formula):
    """a = r z,  r = 1 where z > 0, else drawn from [lower, upper)

    ∂C/∂z = g ⊙ r
    """

    outputs = ("output", "slope")
    opmath = False

    @staticmethod
    def forward(input: Tensor, lower: float, upper: float) -> tuple[Tensor, Tensor]:
        # torch's own draw, one number for each z that is not positive, in its order in memory.
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
        # Not a + α from the output: for a negative α its sign does not tell that of z.
        return g * _exponential(input, 1.0, alpha)


class CELU(Formula):
    """a = z where z > 0, else α (e^(z/α) − 1)

    ∂C/∂z = g ⊙ (1 where z > 0, else e^(z/α))
    """

    @staticmethod
    def forward(input: Tensor, alpha: float) -> Tensor:
        return torch.celu(input, alpha)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor, alpha: float) -> Tensor:
        # Where z > 0 this is e⁰; a NaN passes g on, as torch has it.
        return g * input.nan_to_num(nan=0.0).clamp(max=0).div_(alpha).exp_()


class SELU(Formula):
    """a = λ z where z > 0, else λ α (eᶻ − 1),  λ ≈ 1.05, α ≈ 1.67

    ∂C/∂z = g ⊙ (λ where z > 0, else λ α eᶻ)
    """

    # The pair that leaves a mean of 0 and a variance of 1 as they are.
    SCALE = 1.0507009873554804934193349852946
    ALPHA = 1.6732632423543772848170429916717

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.selu(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        return g * _exponential(input, SELU.SCALE, SELU.SCALE * SELU.ALPHA)


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
            cdf = (input * math.sqrt(0.5)).erf_().mul_(0.5).add_(0.5)
            density = (input * input).mul_(-0.5).exp_()
            return g * torch.addcmul(cdf, input, density, value=1 / math.sqrt(2 * math.pi))
        # Φ(z) ≈ (1 + tanh u/2) / 2 = σ(u) with u = √(8/π) (z + 0.044715 z³), so Φ′ ≈ u′ σ (1 − σ)
        c, k = math.sqrt(8 / math.pi), 0.044715
        square = input * input
        s = (square * (c * k)).add_(c).mul_(input).sigmoid_()
        u_prime = square.mul_(3 * c * k).add_(c)
        return g * u_prime.mul_(input).mul_(1 - s).add_(1).mul_(s)


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
        return g * (1 - s).mul_(input).add_(1).mul_(s)


class Mish(Formula):
    """a = z tanh s,  s = log(1 + eᶻ)

    ∂C/∂z = g ⊙ (tanh s + z σ(z) (1 − tanh² s))
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.nn.functional.mish(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        # With u = eᶻ, w = u (u + 2) and q = 1 / (w + 2):
        # tanh s = w q and σ(z) (1 − tanh² s) = 4 u (u + 1) q².
        z = input.clamp(max=20)  # beyond, the slope is 1
        u = z.exp()
        w = u * (u + 2)
        q = (w + 2).reciprocal_()
        return g * (u + 1).mul_(u).mul_(z).mul_(4).mul_(q).add_(w).mul_(q)


class Hardsigmoid(Formula):
    """a = min(max(z + 3, 0), 6) / 6

    ∂C/∂z = g ⊙ (1/6 where −3 < z < 3, else 0)
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.nn.functional.hardsigmoid(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        return zeroed(g * (1 / 6), ~(input.abs() < 3))


class Hardswish(Formula):
    """a = z min(max(z + 3, 0), 6) / 6

    ∂C/∂z = g ⊙ (z/3 + 1/2 where −3 < z < 3, 1 above, 0 below)
    """

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return torch.nn.functional.hardswish(input)

    @staticmethod
    def grad_input(g: Tensor, input: Tensor) -> Tensor:
        slope = (input / 3 + 0.5).masked_fill(input <= -3, 0)
        return torch.where(input < 3, g * slope, g)


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
    """a = u σ(v),  (u, v) = z, halved along one axis

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
        return torch.cat((gs, (1 - s).mul_(u) * gs), dim)


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
        return g * _bent(z - threshold, 1.0, torch.sigmoid(z))


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
        return torch.addcmul(ga, output, ga.sum(dim, keepdim=True), value=-1)


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
        return torch.addcmul(ga, output, ga.sum(dim, keepdim=True), value=-1).neg_()


class LogSoftmax(Formula):
    """aᵢ = zᵢ − log Σⱼ e^zⱼ

    ∂C/∂z = g − eᵃ Σⱼ gⱼ
    """

    @staticmethod
    def forward(input: Tensor, dim: int) -> Tensor:
        return torch.log_softmax(input, dim)

    @staticmethod
    def grad_input(g: Tensor, output: Tensor, dim: int) -> Tensor:
        return torch.addcmul(g, output.exp(), g.sum(dim, keepdim=True), value=-1)


class GumbelSoftmax(Formula):
    """a = softmax((z + γ) / τ),  γ = −log E, E drawn from the exponential distribution

    ∂C/∂z = a ⊙ (g − Σⱼ gⱼ aⱼ) / τ
    """

    @staticmethod
    def forward(logits: Tensor, tau: float, dim: int) -> Tensor:
        # torch's own draw, in the order of the axes whatever the layout.
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


def _bent(z: Tensor, above: float, below: Tensor | float) -> Tensor:
    """``above`` where z > 0, else ``below``: sums of products take far less time than a choice."""
    positive = z.detach().sign().relu_()
    return (1 - positive).mul_(below).add_(positive, alpha=above)


def _exponential(z: Tensor, above: float, below: float) -> Tensor:
    """``above`` where z > 0, else ``below`` eᶻ; a NaN counts as above, as torch has it."""
    z = z.nan_to_num(nan=1.0)
    return _bent(z, above, z.clamp(max=0).exp() * below)
