"""The tests are tested: each wrong formula fails the property that is there to catch it."""

import properties
import pytest
import torch
from cases import Case, constant, fixed, quiet, real
from torch import Tensor
from torch._dynamo.exc import Unsupported
from torch.autograd.gradcheck import GradcheckError

from manualbp import formulas

F = torch.nn.functional


class Sigmoid(formulas.Sigmoid):
    """The right one: whatever is wrong below is wrong by its one changed rule."""


class OffByATenthOfAPercent(Sigmoid):
    @staticmethod
    def grad_input(g, output):
        return 1.001 * g * output * (1 - output)


class OffByOneInAMillion(Sigmoid):
    @staticmethod
    def grad_input(g, output):
        return (1 + 1e-6) * g * output * (1 - output)


class SinglePrecisionInside(Sigmoid):
    @staticmethod
    def grad_input(g, output):
        return (g.float() * output.float() * (1 - output.float())).double()


class SinglePrecisionReturned(Sigmoid):
    @staticmethod
    def grad_input(g, output):
        return (g * output * (1 - output)).float()


class SlopeDropped(Sigmoid):
    @staticmethod
    def grad_input(g):
        return g.clone()


class WrongSign(Sigmoid):
    @staticmethod
    def grad_input(g, output):
        return -g * output * (1 - output)


class GradientTakenForOnes(Sigmoid):
    @staticmethod
    def grad_input(g, output):
        return output * (1 - output)


class WritesIntoTheGradient(Sigmoid):
    @staticmethod
    def grad_input(g, output):
        return g.mul_(output * (1 - output))


class WritesIntoItsInput(Sigmoid):
    @staticmethod
    def forward(input):
        return torch.sigmoid(input.clamp_(max=10.0).mul_(1.0))


class ValueOff(Sigmoid):
    @staticmethod
    def forward(input):
        return torch.sigmoid(input) * (1 + 1e-8)


class KeepsTooMuch(Sigmoid):
    @staticmethod
    def grad_input(g, input, output):
        return g * output * (1 - output)


class TakesTheGradientForContiguous(Sigmoid):
    @staticmethod
    def grad_input(g, output):
        return (g.view(-1) * (output * (1 - output)).reshape(-1)).reshape(output.shape)


class Detached(Sigmoid):
    @staticmethod
    def grad_input(g, output):
        return g * (output * (1 - output)).detach()


class BranchesOnData(Sigmoid):
    @staticmethod
    def grad_input(g, output):
        return g * output * (1 - output) if (output > 0).all() else torch.zeros_like(g)


class RemembersTheLastCall(Sigmoid):
    last: Tensor

    @staticmethod
    def forward(input):
        RemembersTheLastCall.last = torch.sigmoid(input)
        return RemembersTheLastCall.last.clone()

    @staticmethod
    def grad_input(g):
        last = RemembersTheLastCall.last
        return g * last * (1 - last)


class Overflows(formulas.Softplus):
    @staticmethod
    def forward(input, beta, threshold):
        return (1 + input.exp()).log()


class NanWhenSaturated(formulas.Softplus):
    @staticmethod
    def grad_input(g, input):
        return g * input.exp() / (1 + input.exp())


class OtherSideOfTheKink(formulas.ReLU):
    @staticmethod
    def grad_input(g, input):
        return g * (input >= 0)


class MissingTranspose(formulas.Linear):
    @staticmethod
    def grad_input(delta, weight):
        return delta @ weight.mT


class BiasNotSummed(formulas.Linear):
    @staticmethod
    def grad_bias(delta):
        return delta


class BiasOfOneExample(formulas.Linear):
    @staticmethod
    def grad_bias(delta):
        return delta[0]


class WeightAndInputSwapped(formulas.Linear):
    @staticmethod
    def grad_weight(delta, input):
        return input.mT @ delta


class MeanForgotten(formulas.SquaredError):
    @staticmethod
    def grad_input(g, input, target):
        return 2 * (input - target) * g


class HandWritten(torch.autograd.Function):
    """Keeps its input where autograd does not see it."""

    @staticmethod
    def forward(ctx, input):
        ctx.input = input.detach().clone()
        return torch.sigmoid(input)

    @staticmethod
    def backward(ctx, g):
        s = torch.sigmoid(ctx.input)
        return g * s * (1 - s)


# ------------------------------------------------------------------- what each should be


def sigmoid(formula: type) -> Case:
    return Case(formula.__name__, formula.apply, torch.sigmoid, (real(4, 3),))


def softplus(formula: type) -> Case:
    return Case(
        formula.__name__,
        lambda input: formula.apply(input, 1, 20),
        F.softplus,
        (real(4),),
        special=[(fixed([1000.0, -1000.0]),)],
    )


def relu(formula: type) -> Case:
    return Case(formula.__name__, formula.apply, F.relu, (real(4),), special=[(fixed([0.0]),)])


class InHalfPrecision(formulas.Mish):
    opmath = False

    @staticmethod
    def grad_input(g, input):  # with u = eᶻ, tanh s = w q and σ(z) (1 − tanh² s) = 4 u (u + 1) q²
        u = input.clamp(max=20).exp()
        w = u * (u + 2)
        q = 1 / (w + 2)
        return g * (w * q + 4 * input * u * (u + 1) * q * q)


class EpsOfTheInput(formulas.RMSNorm):
    opmath = False


class DifferenceOfLargeSums(formulas.FixedBatchNorm):
    @staticmethod
    def grad_weight(g, input, running_mean, running_var, eps):
        rstd = (running_var + eps).rsqrt()
        return ((g * input).sum(0) - running_mean * g.sum(0)) * rstd


class BitsTimesACondition(formulas.Where):
    @staticmethod
    def grad_input(g, condition):
        return (g.view(torch.int64) * condition).view(g.dtype)

    @staticmethod
    def grad_other(g, condition):
        return (g.view(torch.int64) * ~condition).view(g.dtype)


class AView(formulas.Tile):
    @staticmethod
    def forward(input, repeats, shape):
        return input.expand(2, 3)


def mish(formula: type) -> Case:
    return Case(formula.__name__, formula.apply, F.mish, (real(4, 3),))


def rms_norm(formula: type) -> Case:
    return Case(
        formula.__name__,
        lambda x, w: formula.apply(x, (3,), w, None),
        lambda x, w: F.rms_norm(x, (3,), w),
        (real(4, 3), real(3)),
    )


def batch_norm(formula: type) -> Case:
    def far(generator: torch.Generator) -> Tensor:
        return real(8, 3)(generator) + 1e4

    statistics = constant(fixed([1e4, 1e4, 1e4])), constant(fixed([1.0, 1.5, 0.5]))
    return Case(
        formula.__name__,
        lambda x, w, b, mean, var: formula.apply(x, w, b, mean, var, 0.1),
        lambda x, w, b, mean, var: F.batch_norm(x, mean, var, w, b, eps=0.1),
        (far, real(3), real(3), *statistics),
    )


def where(formula: type) -> Case:
    return Case(
        formula.__name__,
        quiet(formula.apply),
        quiet(torch.where),
        (fixed([[1, 0, 1]], torch.uint8), real(4, 3), real(4, 3)),
    )


def tile(formula: type) -> Case:
    return Case(
        formula.__name__,
        lambda x: formula.apply(x, (2, 1), x.shape),
        lambda x: x.repeat(2, 1),
        (real(1, 3),),
    )


def linear(formula: type) -> Case:
    return Case(formula.__name__, formula.apply, F.linear, (real(3, 3), real(3, 3), real(3)))


def squared_error(formula: type) -> Case:
    return Case(
        formula.__name__,
        lambda input, target: formula.apply(input, target, "mean"),
        lambda input, target: (input - target).square().sum(-1).mean(),
        (real(4, 3), real(4, 3)),
    )


DIFFERS = (AssertionError, "not close|not equal")
NUDGED = (GradcheckError, "Jacobian mismatch")

CAUGHT = [
    (sigmoid, OffByATenthOfAPercent, properties.gradient, NUDGED),
    (sigmoid, OffByATenthOfAPercent, properties.same_gradient, DIFFERS),
    (sigmoid, OffByOneInAMillion, properties.same_gradient, DIFFERS),
    (sigmoid, SinglePrecisionInside, properties.same_gradient, DIFFERS),
    (sigmoid, SinglePrecisionReturned, properties.own_shapes, (AssertionError, "float32")),
    (sigmoid, SlopeDropped, properties.gradient, NUDGED),
    (sigmoid, WrongSign, properties.gradient, NUDGED),
    (sigmoid, GradientTakenForOnes, properties.same_gradient, DIFFERS),
    (sigmoid, WritesIntoTheGradient, properties.inputs_unchanged, DIFFERS),
    (sigmoid, WritesIntoItsInput, properties.inputs_unchanged, (TypeError, "in place")),
    (sigmoid, ValueOff, properties.value, DIFFERS),
    (sigmoid, KeepsTooMuch, properties.thrifty, (AssertionError, "192 bytes, torch 96")),
    (sigmoid, TakesTheGradientForContiguous, properties.strides, (RuntimeError, "view size")),
    (sigmoid, Detached, properties.second_order, NUDGED),
    (sigmoid, Detached, properties.same_second_order, DIFFERS),
    (sigmoid, BranchesOnData, properties.per_example, (RuntimeError, "data-dependent")),
    (sigmoid, BranchesOnData, properties.compiled, (Unsupported, "ata-dependent")),
    (sigmoid, RemembersTheLastCall, properties.threads, DIFFERS),
    (sigmoid, HandWritten, properties.same_gradient, None),
    (sigmoid, HandWritten, properties.second_order, NUDGED),
    (sigmoid, HandWritten, properties.same_second_order, DIFFERS),
    (sigmoid, HandWritten, properties.forward_mode, (RuntimeError, "setup_context")),
    (sigmoid, HandWritten, properties.freed, (AssertionError, "sight")),
    (sigmoid, HandWritten, properties.explicit, (AssertionError, "not a formula of ours")),
    (softplus, Overflows, properties.special_values, DIFFERS),
    (softplus, NanWhenSaturated, properties.saturated, (AssertionError, "isfinite")),
    (relu, OtherSideOfTheKink, properties.special_values, DIFFERS),
    (linear, MissingTranspose, properties.gradient, NUDGED),
    (linear, MissingTranspose, properties.same_gradient, DIFFERS),
    (linear, BiasNotSummed, properties.own_shapes, (AssertionError, "Size")),
    (linear, BiasOfOneExample, properties.gradient, NUDGED),
    (linear, WeightAndInputSwapped, properties.same_gradient, DIFFERS),
    (squared_error, MeanForgotten, properties.gradient, NUDGED),
    (mish, InHalfPrecision, properties.precision, (AssertionError, "float16, inputs of 10")),
    (rms_norm, EpsOfTheInput, properties.precision, (AssertionError, "float16, inputs of")),
    (batch_norm, DifferenceOfLargeSums, properties.precision, (AssertionError, "float32")),
    (where, BitsTimesACondition, properties.same_gradient, DIFFERS),
    (tile, AView, properties.aliases, (AssertionError, "True")),
]


@pytest.mark.parametrize(
    ("case", "wrong", "holds", "error"),
    [pytest.param(*row, id=f"{row[1].__name__}-{row[2].__name__}") for row in CAUGHT],
)
def test_a_wrong_formula_is_caught(case, wrong, holds, error):
    if error is None:
        holds(case(wrong))  # what this property cannot see, another does
    else:
        with pytest.raises(error[0], match=error[1]):
            holds(case(wrong))


RIGHT = {
    sigmoid: Sigmoid,
    softplus: formulas.Softplus,
    relu: formulas.ReLU,
    linear: formulas.Linear,
    squared_error: formulas.SquaredError,
    mish: formulas.Mish,
    rms_norm: formulas.RMSNorm,
    batch_norm: formulas.FixedBatchNorm,
    where: formulas.Where,
    tile: formulas.Tile,
}


@pytest.mark.parametrize(
    ("case", "holds"),
    dict.fromkeys((case, holds) for case, _, holds, _ in CAUGHT),
    ids=lambda value: value.__name__,
)
def test_the_right_one_passes(case, holds):
    holds(case(RIGHT[case]))


def test_finite_differences_alone_would_not_do():
    """Torch's default tolerance accepts 0.1 %; even ours accepts a single-precision detour."""
    x = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(OffByATenthOfAPercent.apply, x)
    assert torch.autograd.gradcheck(SinglePrecisionInside.apply, x, **properties.NUDGE)


def test_ones_as_upstream_gradient_hide_a_wrong_rule():
    """Why every upstream gradient here is without pattern."""
    x = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    wrong, right = (
        torch.autograd.grad(f(x).sum(), x) for f in (GradientTakenForOnes.apply, torch.sigmoid)
    )
    torch.testing.assert_close(wrong, right)
