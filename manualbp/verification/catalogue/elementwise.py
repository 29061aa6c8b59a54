"""Activations and arithmetic: one number at a time, and broadcasting."""

import math

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from manualbp.core.formula import Formula
from manualbp.verification.catalogue.specimen import Specimen, between, into, real, single

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)


# ---------------------------------------------------------------------------------- activations


@right(real(4, 3), met="the tutorials' style: forward(ctx, …), the output saved")
class Sigmoid(Function):
    """A sigmoid from its output, forward(ctx, …)"""

    @staticmethod
    def forward(ctx, x):
        y = torch.sigmoid(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y * (1 - y)


@wrong(single(4, 3), met="a common slip: the minus of exp(−z)", argument="x", says="sign")
class SigmoidSign(Sigmoid):
    """A sigmoid's gradient with the wrong sign"""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y * (y - 1)


@wrong(real(4, 3), met="a common slip: the output is kept, and taken for the input", argument="x")
class SigmoidTwice(Sigmoid):
    """A sigmoid's gradient that takes the sigmoid of the saved output once more"""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        s = torch.sigmoid(y)
        return g * s * (1 - s)


@wrong(single(4, 3), met="a common slip: tried with .sum() alone", argument="x")
class SigmoidTakesOnes(Sigmoid):
    """A sigmoid's gradient that takes the incoming gradient for ones"""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return y * (1 - y)


@wrong(single(4, 3), met="a common slip: the formula for a, with z saved", argument="x")
class SigmoidOfInput(Function):
    """A sigmoid's gradient a (1 − a) with the input in the place of the output"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.sigmoid(x)

    @staticmethod
    def backward(ctx, g):
        (a,) = ctx.saved_tensors
        return g * a * (1 - a)


@right(single(2, 5), met="the style torch.func needs")
class Tanh(Function):
    """A tanh in the setup_context style"""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return torch.tanh(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx, g):
        _, y = ctx.saved_tensors
        return g * (1 - y * y)


@wrong(single(2, 5), met="a common slip: 1 − x² where 1 − y² was meant", argument="x")
class TanhOfInput(Tanh):
    """A tanh's gradient 1 − x², of the input"""

    @staticmethod
    def backward(ctx, g):
        x, _ = ctx.saved_tensors
        return g * (1 - x * x)


@wrong(
    real(2, 5),
    met="gradcheck's rtol of 1e-3 accepts it: reliability table, 0.1 % seen in 0 of 69",
    argument="x",
    says=r"1\.001|0\.1 ?%",
)
class TanhPerMille(Tanh):
    """A tanh's gradient that is 0.1 % too large"""

    @staticmethod
    def backward(ctx, g):
        _, y = ctx.saved_tensors
        return 1.001 * g * (1 - y * y)


@right(single(3, 4), met="recomputes the sigmoid from the saved input, as memory-saving code does")
class SiLU(Function):
    """A SiLU that recomputes its sigmoid"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return g * (s + x * s * (1 - s))


@wrong(single(3, 4), met="a common slip: half of the product rule", argument="x")
class SiLUTerm(SiLU):
    """A SiLU's gradient without the term of the sigmoid's own slope"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.sigmoid(x)


@right(real(3, 4), met="a formula of this project's kind")
class GELU(Formula):
    """A GELU as a Formula"""

    @staticmethod
    def forward(input):
        return input * 0.5 * (1 + torch.erf(input / math.sqrt(2)))

    @staticmethod
    def grad_input(g, input):
        density = torch.exp(-input * input / 2) / math.sqrt(2 * math.pi)
        return g * (0.5 * (1 + torch.erf(input / math.sqrt(2))) + input * density)


@wrong(
    real(3, 4),
    met="a common slip: approximate='tanh' in one of the two passes",
    argument="input",
)
class GELUMixed(GELU):
    """A GELU by erf with the gradient of the one by tanh"""

    @staticmethod
    def grad_input(g, input):
        k = math.sqrt(2 / math.pi)
        t = torch.tanh(k * (input + 0.044715 * input**3))
        slope = k * (1 + 3 * 0.044715 * input * input)
        return g * (0.5 * (1 + t) + 0.5 * input * (1 - t * t) * slope)


@right(single(3, 4), met="an intermediate kept to save work, which rules out a second derivative")
class Mish(Function):
    """A mish that keeps an intermediate and says once_differentiable"""

    @staticmethod
    def forward(ctx, x):
        t = torch.tanh(torch.nn.functional.softplus(x))
        ctx.save_for_backward(x, t)
        return x * t

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, t = ctx.saved_tensors
        return g * (t + x * (1 - t * t) * torch.sigmoid(x))


@wrong(single(3, 4), met="a placeholder that was never filled in", argument="x", says="zero")
class MishZero(Mish):
    """A mish whose gradient is a placeholder of zeros"""

    @staticmethod
    def backward(ctx, g):
        return torch.zeros_like(g)


@right(single(4, 3), 0.1, met="an option as a plain number; the output alone is kept")
class LeakyReLU(Function):
    """A leaky ReLU with its slope as a plain number"""

    @staticmethod
    def forward(ctx, x, slope):
        y = torch.where(x > 0, x, slope * x)
        ctx.save_for_backward(y)
        ctx.slope = slope
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return torch.where(y > 0, g, ctx.slope * g), None


@wrong(single(4, 3), 0.1, met="a common slip: ReLU's gradient", argument="x", says="negative")
class LeakyReLUSlope(LeakyReLU):
    """A leaky ReLU whose gradient is zero where the input is negative"""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (y > 0), None


@wrong(
    between(0.2, 2.0, 4, 3),
    1.5,
    met="a common slip, never seen by tests on positive inputs",
    argument="x",
    says="negative",
)
class ELUNegative(Function):
    """An ELU whose gradient forgets the exponential, seen where the input is negative alone"""

    @staticmethod
    def forward(ctx, x, alpha):
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        return torch.where(x > 0, x, alpha * torch.expm1(x))

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return torch.where(x > 0, g, ctx.alpha * g), None


@right(single(5, 3, scale=2), met="three pieces with two kinks")
class Hardswish(Function):
    """A hard swish in three pieces"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * (x + 3).clamp(0, 6) / 6

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        slope = torch.where(x > 3, torch.ones_like(x), (2 * x + 3) / 6)
        return g * torch.where(x < -3, torch.zeros_like(x), slope)


@wrong(
    between(-2.0, 2.0, 5, 3),
    met="a common slip: the middle piece used beyond 3",
    argument="x",
    says="large",
)
class HardswishBeyond(Hardswish):
    """A hard swish whose gradient is wrong beyond 3 alone"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * torch.where(x < -3, torch.zeros_like(x), (2 * x + 3) / 6)


@wrong(
    real(3, 4),
    met="a common slip: the constants retyped with fewer digits in the backward pass",
    argument="x",
    kinds="wrong imprecise",
)
class SELUDigits(Function):
    """A SELU whose gradient has its constants to five digits"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        alpha, scale = 1.6732632423543772848, 1.0507009873554804934
        return scale * torch.where(x > 0, x, alpha * torch.expm1(x))

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * 1.0507 * torch.where(x > 0, torch.ones_like(x), 1.67326 * x.exp())


# ----------------------------------------------------------------------------------- arithmetic


@right(real(3, 4), met="the first Function of most people")
class Square(Function):
    """A square"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g


@wrong(real(3, 4), met="a common slip: the exponent left above", argument="x", says=r"0\.50* ?×")
class SquareHalf(Square):
    """A square's gradient without the 2"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return x * g


@wrong(
    single(3, 4),
    met="a common slip: both uses of x counted by the formula that counts them already",
    argument="x",
    says=r"2\.0* ?×",
)
class SquareTwice(Square):
    """A square's gradient counted for each of the two uses"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * x * g + 2 * x * g


@wrong(real(3, 4), met="a common slip: the slope forgotten altogether", argument="x")
class ExpIdentity(Function):
    """An exponential that hands the incoming gradient on"""

    @staticmethod
    def forward(ctx, x):
        return x.exp()

    @staticmethod
    def backward(ctx, g):
        return g


@right(real(3, 4), met="a kink at 0")
class Abs(Function):
    """An absolute value"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.abs()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x.sign()


@wrong(real(3, 4), met="a common slip, not seen where gradients are positive", argument="x")
class AbsOfGradient(Abs):
    """An absolute value whose backward takes the absolute value of the gradient too"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g.abs() * x.sign()


@right(between(0.5, 2.0, 3, 4), real(3, 4), met="two tensors, a formula for each, needs_input_grad")
class Power(Function):
    """A power, for base and exponent"""

    @staticmethod
    def forward(ctx, base, exponent):
        y = base**exponent
        ctx.save_for_backward(base, exponent, y)
        return y

    @staticmethod
    def by_base(g, base, exponent):
        slope = exponent * base ** (exponent - 1)
        return g * torch.where(exponent == 0, torch.zeros_like(slope), slope)

    @staticmethod
    def backward(ctx, g):
        base, exponent, y = ctx.saved_tensors
        by_base = by_exponent = None
        if ctx.needs_input_grad[0]:
            by_base = Power.by_base(g, base, exponent)
        if ctx.needs_input_grad[1]:
            by_exponent = g * torch.xlogy(y, base)
        return by_base, by_exponent


@wrong(
    between(0.5, 2.0, 3, 4),
    real(3, 4),
    met="a common slip: the exponential's rule for any base",
    argument="exponent",
)
class PowerLog(Power):
    """A power whose exponent's gradient lacks the logarithm"""

    @staticmethod
    def backward(ctx, g):
        base, exponent, y = ctx.saved_tensors
        return Power.by_base(g, base, exponent), g * y


@right(real(3, 4), between(1.0, 2.0, 4), met="broadcasting undone by sum_to_size")
class Divide(Function):
    """A quotient that undoes its broadcasting"""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a / b

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return (g / b).sum_to_size(a.shape), (-g * a / (b * b)).sum_to_size(b.shape)


@wrong(real(3, 4), between(1.2, 2.0, 4), met="a common slip: b not squared", argument="b")
class DivideOnce(Divide):
    """A quotient whose denominator's gradient is divided by b once"""

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g / b, (-g * a / b).sum(0)


@wrong(single(3, 4), single(3, 4), met="a common slip: a + b's rule", argument="b", says="sign")
class SubtractSign(Function):
    """A difference whose second gradient has the wrong sign"""

    @staticmethod
    def forward(ctx, a, b):
        return a - b

    @staticmethod
    def backward(ctx, g):
        return g, g


@wrong(
    real(3, 4),
    real(3, 4),
    met="a common slip: the two results returned in the other order",
    says="swap|order|other",
)
class ATan2Swapped(Function):
    """An arc tangent of y / x that returns its two gradients in the wrong order"""

    @staticmethod
    def forward(ctx, y, x):
        ctx.save_for_backward(y, x)
        return torch.atan2(y, x)

    @staticmethod
    def backward(ctx, g):
        y, x = ctx.saved_tensors
        square = x * x + y * y
        return -g * y / square, g * x / square


@wrong(single(3, 4), single(3, 4), met="a common slip: > for <", says="swap|other")
class MaximumSwapped(Function):
    """A maximum whose gradient goes to the smaller of the two"""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return torch.maximum(a, b)

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g * (a < b), g * (a > b)


# --------------------------------------------------------------------------------- broadcasting


@right(single(5, 4), single(4), met="a layer scale: one number a feature")
class Scale(Function):
    """A scale for each feature, summed over the rows"""

    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(x, scale)
        return x * scale

    @staticmethod
    def backward(ctx, g):
        x, scale = ctx.saved_tensors
        return g * scale, (g * x).sum(0)


@wrong(real(4, 4), real(4), met="a common slip: dim=1 for dim=0", argument="scale")
class ScaleOtherAxis(Scale):
    """A scale whose gradient is summed over the wrong axis of a square input"""

    @staticmethod
    def backward(ctx, g):
        x, scale = ctx.saved_tensors
        return g * scale, (g * x).sum(1)


@wrong(
    single(5, 4),
    single(4),
    met="a common slip: .mean(0) for .sum(0)",
    argument="scale",
    says=r"1/n|0\.20* ?×|n = 5",
)
class ScaleMean(Scale):
    """A scale whose gradient is averaged over the rows, an extra 1/n"""

    @staticmethod
    def backward(ctx, g):
        x, scale = ctx.saved_tensors
        return g * scale, (g * x).mean(0)


@wrong(single(5, 4), single(4), met="a common slip: tried on one row", argument="scale")
class ScaleFirstRow(Scale):
    """A scale whose gradient counts the first row alone, so it is right for batches of one"""

    @staticmethod
    def backward(ctx, g):
        x, scale = ctx.saved_tensors
        return g * scale, g[0] * x[0]


class ChannelScale(Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(x, scale)
        return x * scale[:, None, None]

    @staticmethod
    def backward(ctx, g):
        x, scale = ctx.saved_tensors
        return g * scale[:, None, None], g * x


@wrong(
    single(2, 3, 4, 5),
    single(3),
    met="a common slip: the engine sums what broadcasts to the left, and here nothing does",
    kinds="raises wrong",
    argument="scale",
)
class ChannelScaleRaises(ChannelScale):
    """A scale for each channel whose gradient is not summed, so that its shape is refused"""


@wrong(
    real(2, 3, 4, 3),
    real(3),
    met="a common slip: the engine's own summing hides the shape",
    argument="scale",
)
class ChannelScaleSilent(ChannelScale):
    """A scale for each channel, not summed, which the engine then sums over the wrong axes"""
