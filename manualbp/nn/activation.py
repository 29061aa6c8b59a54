"""Activations."""

from torch import Tensor, nn

from manualbp import functional as F

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
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
    "Softmax2d",
    "Softmin",
    "Softplus",
    "Softshrink",
    "Softsign",
    "Tanh",
    "Tanhshrink",
    "Threshold",
]


class Sigmoid(nn.Sigmoid):
    """torch.nn.Sigmoid by formula: a = 1 / (1 + e⁻ᶻ) (formulas.Sigmoid)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Tanh(nn.Tanh):
    """torch.nn.Tanh by formula: a = tanh z (formulas.Tanh)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class ReLU(nn.ReLU):
    """torch.nn.ReLU by formula: a = max(z, 0) (formulas.ReLU)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, self.inplace)


class ReLU6(nn.ReLU6):
    """torch.nn.ReLU6 by formula: a = min(max(z, 0), 6) (formulas.ReLU6)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input, self.inplace)


class Hardtanh(nn.Hardtanh):
    """torch.nn.Hardtanh by formula: a = min(max(z, l), h) (formulas.Hardtanh)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)


class Threshold(nn.Threshold):
    """torch.nn.Threshold by formula: a = z where z > threshold, else value (formulas.Threshold)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value, self.inplace)


class Hardshrink(nn.Hardshrink):
    """torch.nn.Hardshrink by formula: a = z where |z| > λ, else 0 (formulas.Hardshrink)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardshrink(input, self.lambd)


class Softshrink(nn.Softshrink):
    """torch.nn.Softshrink by formula: a = z − λ where z > λ, z + λ where z < −λ, else 0
    (formulas.Softshrink)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softshrink(input, self.lambd)


class Tanhshrink(nn.Tanhshrink):
    """torch.nn.Tanhshrink by formula: a = z − tanh z (formulas.Tanhshrink)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.tanhshrink(input)


class LeakyReLU(nn.LeakyReLU):
    """torch.nn.LeakyReLU by formula: a = max(z, 0) + α min(z, 0) (formulas.LeakyReLU)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)


class PReLU(nn.PReLU):
    """torch.nn.PReLU by formula: a = max(z, 0) + w min(z, 0), w one number, or one for each channel
    (axis 1) (formulas.PReLU)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)


class RReLU(nn.RReLU):
    """torch.nn.RReLU by formula: a = s z, s = 1 where z > 0, else drawn from [lower, upper)
    (formulas.RReLU, in evaluation formulas.LeakyReLU)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)


class ELU(nn.ELU):
    """torch.nn.ELU by formula: a = z where z > 0, else α (eᶻ − 1) (formulas.ELU)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)


class CELU(nn.CELU):
    """torch.nn.CELU by formula: a = z where z > 0, else α (e^(z/α) − 1) (formulas.CELU)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.celu(input, self.alpha, self.inplace)


class SELU(nn.SELU):
    """torch.nn.SELU by formula: a = λ z where z > 0, else λ α (eᶻ − 1), λ ≈ 1.0507010, α ≈
    1.6732632 (formulas.SELU)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.selu(input, self.inplace)


class GELU(nn.GELU):
    """torch.nn.GELU by formula: a = z Φ(z), Φ the normal distribution, or its approximation by tanh
    (formulas.GELU)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, self.approximate)


class SiLU(nn.SiLU):
    """torch.nn.SiLU by formula: a = z σ(z) (formulas.SiLU)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, self.inplace)


class Mish(nn.Mish):
    """torch.nn.Mish by formula: a = z tanh s, s = log(1 + eᶻ) (formulas.Mish)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.mish(input, self.inplace)


class Hardsigmoid(nn.Hardsigmoid):
    """torch.nn.Hardsigmoid by formula: a = min(max(z + 3, 0), 6) / 6 (formulas.Hardsigmoid)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input, self.inplace)


class Hardswish(nn.Hardswish):
    """torch.nn.Hardswish by formula: a = z min(max(z + 3, 0), 6) / 6 (formulas.Hardswish)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input, self.inplace)


class Softsign(nn.Softsign):
    """torch.nn.Softsign by formula: a = z / (1 + |z|) (formulas.Softsign)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softsign(input)


class GLU(nn.GLU):
    """torch.nn.GLU by formula: a = u σ(v), (u, v) = z, halved along one axis (formulas.GLU)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.glu(input, self.dim)


class Softplus(nn.Softplus):
    """torch.nn.Softplus by formula: a = log(1 + e^(βz)) / β where βz ≤ threshold, else z
    (formulas.Softplus)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)


class LogSigmoid(nn.LogSigmoid):
    """torch.nn.LogSigmoid by formula: a = −log(1 + e⁻ᶻ) (formulas.LogSigmoid)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class Softmax(nn.Softmax):
    """torch.nn.Softmax by formula: aᵢ = e^zᵢ / Σⱼ e^zⱼ (formulas.Softmax)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim, _stacklevel=5)


class Softmin(nn.Softmin):
    """torch.nn.Softmin by formula: aᵢ = e^(−zᵢ) / Σⱼ e^(−zⱼ) (formulas.Softmin)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softmin(input, self.dim, _stacklevel=5)


class Softmax2d(nn.Softmax2d):
    """torch.nn.Softmax2d by formula: aᵢ = e^zᵢ / Σⱼ e^zⱼ (formulas.Softmax)."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4):
            raise ValueError(f"Softmax2d: expected 3 or 4 axes, got shape {tuple(input.shape)}")
        return F.softmax(input, -3)


class LogSoftmax(nn.LogSoftmax):
    """torch.nn.LogSoftmax by formula: aᵢ = zᵢ − log Σⱼ e^zⱼ (formulas.LogSoftmax)."""

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim, _stacklevel=5)
