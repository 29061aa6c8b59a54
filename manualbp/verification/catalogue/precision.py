"""Right in exact arithmetic: cancellation, overflow, less precision than the input, autocast."""

import math

import torch
import torch.nn.functional as F
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from manualbp.verification.catalogue.specimen import (
    Specimen,
    between,
    fixed,
    into,
    real,
    single,
)

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)


# -------------------------------------------------------------------------------- infinite or nan


@right(
    fixed([-30.0, -4.0, -0.5, 0.1, 2.0, 30.0], dtype=torch.float32),
    met="snntorch PR#433: σ (1 − σ)",
)
class Steep(Function):
    """A steep sigmoid by σ (1 − σ), at any input"""

    @staticmethod
    def forward(ctx, x):
        y = torch.sigmoid(25 * x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return 25 * g * y * (1 - y)


@wrong(
    fixed([-4.0, -0.5, 0.1, 2.0], dtype=torch.float32),
    met="snntorch#427: exp(−25 x) is infinite for x < −3.5, inf/inf = NaN",
    kinds="nan",
    argument="x",
)
class SteepOverflow(Steep):
    """A steep sigmoid by exp(−25 x), which overflows"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sigmoid(25 * x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        e = torch.exp(-25 * x)
        return g * 25 * e / (e + 1) ** 2


@wrong(
    fixed([-2.0, 0.5, 30.0, 120.0], dtype=torch.float32),
    met="a common slip: the slope of log(1 + exp(x)) as it stands",
    kinds="nan",
    argument="x",
)
class SoftplusOverflow(Function):
    """A softplus whose slope is exp(x) / (1 + exp(x))"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.softplus(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x.exp() / (1 + x.exp())


@right(single(3, 4, shift=500.0), met="the maximum taken out, by torch")
class LogSumExp(Function):
    """A log-sum-exp of large numbers"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.logsumexp(-1)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g[:, None] * torch.softmax(x, -1)


@wrong(
    single(3, 4, shift=100.0),
    met="a common slip: the maximum taken out on the way there alone",
    kinds="nan",
    argument="x",
)
class LogSumExpOverflow(LogSumExp):
    """A log-sum-exp whose gradient does not take the maximum out"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g[:, None] * x.exp() / x.exp().sum(-1, keepdim=True)


@right(fixed([[2.0, -1.0, 3.0], [0.0, 4.0, 5.0]]), met="products of the others, not y / x")
class Product(Function):
    """A product of each row, right where a factor is zero"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.prod(-1)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        others = [torch.cat([x[:, :i], x[:, i + 1 :]], 1).prod(1) for i in range(x.shape[1])]
        return g[:, None] * torch.stack(others, 1)


@wrong(
    fixed([[2.0, -1.0, 3.0], [0.0, 4.0, 5.0]]),
    met="a common slip: y / x where x is zero",
    kinds="nan",
    argument="x",
)
class ProductDivided(Product):
    """A product of each row whose gradient divides by a factor that is zero"""

    @staticmethod
    def forward(ctx, x):
        y = x.prod(-1)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return (g * y)[:, None] / x


@wrong(
    fixed([-2.0, 0.0, 0.5, 3.0]),
    met="a common slip: the quotient rule at 0, where the slope is 0",
    kinds="nan",
    argument="x",
)
class SincAtZero(Function):
    """A sin(x) / x whose gradient is 0 / 0 at zero"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sinc(x / math.pi)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x * x.cos() - x.sin()) / (x * x)


@wrong(
    fixed([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]),
    met="a common slip: a length of zero guarded on the way there alone",
    kinds="nan wrong",
    argument="x",
)
class NormalizeAtZero(Function):
    """Rows of length one, guarded at zero in forward alone"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x / x.norm(dim=-1, keepdim=True).clamp(min=0.1)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        length = x.norm(dim=-1, keepdim=True)
        y = x / length
        return (g - y * (g * y).sum(-1, keepdim=True)) / length


@wrong(
    single(2, 3),
    fixed([[True, True, False], [False, False, False]], dtype=torch.bool),
    met="a common slip: a row of padding alone, mended on the way there",
    kinds="nan",
    argument="scores",
)
class PaddedSoftmax(Function):
    """A masked softmax whose gradient is NaN in a row that is masked altogether"""

    @staticmethod
    def forward(ctx, scores, mask):
        p = torch.softmax(scores.masked_fill(~mask, -math.inf), -1)
        ctx.save_for_backward(p)
        return p.nan_to_num()

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (p,) = ctx.saved_tensors
        return p * (g - (g * p).sum(-1, keepdim=True)), None


# ------------------------------------------------------------------------------------ cancellation


@right(between(-0.02, 0.02, 8, dtype=torch.float32), met="a series where the quotient cancels")
class Versine(Function):
    """(1 − cos x) / x² near zero, by a series where that is closer"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sinc(x / (2 * math.pi)).square() / 2

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        near = x.abs() < 1
        far = torch.where(near, torch.ones_like(x), x)
        quotient = far.sin() / far**2 - 2 * (1 - far.cos()) / far**3
        terms = [(-1) ** k * 2 * k / math.factorial(2 * k + 2) for k in range(1, 10)]
        series = sum(c * x ** (2 * k + 1) for k, c in enumerate(terms))
        return g * torch.where(near, series, quotient)


@wrong(
    between(-0.02, 0.02, 8, dtype=torch.float32),
    met="a common slip: the quotient rule where both terms nearly cancel",
    kinds="imprecise wrong",
    argument="x",
)
class VersineCancels(Versine):
    """(1 − cos x) / x² near zero, with a gradient that cancels"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x.sin() / x**2 - 2 * (1 - x.cos()) / x**3)


@right(between(12.0, 15.0, 6, dtype=torch.float32), met="σ(−x), not 1 − σ(x)")
class LogSigmoid(Function):
    """A log-sigmoid whose slope is σ(−x)"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.logsigmoid(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(-x)


@wrong(
    between(12.0, 15.0, 6, dtype=torch.float32),
    met="a common slip: 1 − σ(x), which loses its digits where σ is close to 1",
    kinds="imprecise wrong",
    argument="x",
)
class LogSigmoidCancels(LogSigmoid):
    """A log-sigmoid whose slope is 1 − σ(x), for large x"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 - torch.sigmoid(x))


@wrong(
    single(6, 3, shift=1000.0),
    met="a common slip: the variance as E[x²] − E[x]², far from zero",
    kinds="imprecise wrong nan",
    argument="x",
)
class StandardizeCancels(Function):
    """A batch norm whose gradient's variance is E[x²] − E[x]²"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        centred = x - x.mean(0)
        return centred * (centred.square().mean(0) + 1e-5).rsqrt()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        rstd = (x.square().mean(0) - x.mean(0).square() + 1e-5).rsqrt()
        xhat = (x - x.mean(0)) * rstd
        return rstd * (g - g.mean(0) - xhat * (g * xhat).mean(0))


# --------------------------------------------------------------------------------- less precision


class Swish(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def slope(x):
        s = torch.sigmoid(x)
        return s + x * s * (1 - s)


@wrong(
    real(4, 3),
    met="reliability, rule 10: a float32 intermediate, 1e-8, and no warning",
    kinds="imprecise",
    argument="x",
)
class SwishThroughSingle(Swish):
    """A swish that goes through float32 on the way back, where its input is float64"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (g.float() * Swish.slope(x.float())).to(x.dtype)


@wrong(
    real(4, 3),
    met="reliability, rule 10: a gradient of another dtype, which the engine casts silently",
    kinds="imprecise",
    argument="x",
)
class SwishReturnsSingle(Swish):
    """A swish that returns a float32 gradient for a float64 input"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (g * Swish.slope(x)).float()


@wrong(
    between(0.05, 1.0, 4, 3),
    met="a common slip: log(x + ε) with the slope of log x",
    argument="x",
)
class LogGuarded(Function):
    """A logarithm guarded by ε in forward alone"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x + 1e-3).log()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g / x


@wrong(
    single(4, 3),
    met="pytorch#87979 is of this kind: a backward in half precision for a forward in float32",
    kinds="imprecise wrong",
    argument="x",
)
class SwishThroughHalf(Swish):
    """A swish that goes through bfloat16 on the way back, where its input is float32"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (g.bfloat16() * Swish.slope(x.bfloat16())).to(x.dtype)


@wrong(
    single(4, 3),
    single(5, 3),
    met="activations kept in half precision to save memory, as ActNN does on purpose",
    kinds="imprecise wrong",
    argument="weight",
)
class LinearKeptInHalf(Function):
    """A linear layer that keeps its input in half precision"""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x.half(), weight)
        return x @ weight.T

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g @ weight, g.T @ x.to(g.dtype)


@wrong(
    single(4, 3),
    met="a common slip: a fast path for float32, the reference in float64",
    kinds="wrong imprecise",
    argument="x",
    says="float32|single",
)
class SwishFastInSingle(Swish):
    """A swish with an approximate slope in float32 alone"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        if x.dtype == torch.float32:
            s = (x / 6 + 0.5).clamp(0, 1)
            return g * (s + x * s * (1 - s))
        return g * Swish.slope(x)


@wrong(
    single(4, 3),
    single(5, 3),
    met="a common slip: a loss scale of one's own under autocast, never taken off again",
    says="autocast",
)
class LinearScaledUnderAutocast(Function):
    """A linear layer whose gradients keep a loss scale under autocast alone"""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.scale = 1024.0 if torch.is_autocast_enabled(x.device.type) else 1.0
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        g = ctx.scale * g.to(x.dtype)
        return g @ weight, g.T @ x


@right(single(4, 3), single(5, 3), met="torch.amp's decorators, for the CPU")
class LinearUnderAutocast(Function):
    """A linear layer with custom_fwd and custom_bwd"""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g @ weight, g.T @ x


@right(single(4, 3), single(3), met="torch.amp's decorators, inputs cast to float32")
class SoftmaxInSingle(Function):
    """A weighted softmax that asks autocast for float32"""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, x, weight):
        p = torch.softmax(x * weight, -1)
        ctx.save_for_backward(x, weight, p)
        return p

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, g):
        x, weight, p = ctx.saved_tensors
        by_z = p * (g - (g * p).sum(-1, keepdim=True))
        return by_z * weight, (by_z * x).sum(0)


@right(
    real(4, 3, dtype=torch.bfloat16),
    met="bfloat16 inputs, computed in float32 and rounded once, as torch's own kernels",
)
class SwishOfHalf(Swish):
    """A swish of bfloat16 that computes in float32"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return (wide * torch.sigmoid(wide)).to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        if x.dtype in (torch.bfloat16, torch.float16):
            return (g.float() * Swish.slope(x.float())).to(x.dtype)
        return g * Swish.slope(x)


@right(single(4, 3), met="a kernel that exists for float32 alone")
class CubeSingle(Function):
    """A cube that takes float32 alone, and raises otherwise"""

    @staticmethod
    def forward(ctx, x):
        if x.dtype != torch.float32:
            raise TypeError(f"CubeSingle takes float32, not {x.dtype}")
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * g * x * x


@wrong(
    single(4, 3),
    met="DCNv2#13: float32 alone, where people cannot tell wrong from imprecise",
    argument="x",
    says=r"0\.66\d* ?×",
)
class CubeSingleFactor(CubeSingle):
    """A cube that takes float32 alone, with 2 in the place of 3"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * g * x * x
