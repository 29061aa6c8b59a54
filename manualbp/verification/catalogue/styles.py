"""Ways to write and to call one; kinks met exactly; functions that are badly conditioned."""

from functools import partial
from importlib.util import find_spec

import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from manualbp.core.formula import Formula
from manualbp.verification.catalogue.elementwise import LeakyReLU, Sigmoid
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


# ------------------------------------------------------------------------------ how it is written


class NumpyTanh(Function):
    """A tanh in NumPy, there and back, which says once_differentiable"""

    @staticmethod
    def forward(ctx, x):
        import numpy as np

        y = np.tanh(x.detach().numpy())
        ctx.save_for_backward(x)
        return torch.from_numpy(np.asarray(y))

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        import numpy as np

        (x,) = ctx.saved_tensors
        slope = 1 - np.tanh(x.numpy()) ** 2
        return torch.from_numpy(np.asarray(g.numpy() * slope))


class NumpyTanhSingle(NumpyTanh):
    """A tanh in NumPy whose way back is in float32, where its input is float64"""

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        import numpy as np

        (x,) = ctx.saved_tensors
        slope = 1 - np.tanh(x.numpy().astype(np.float32)) ** 2
        return torch.from_numpy(np.asarray(g.numpy().astype(np.float32) * slope)).to(g.dtype)


if find_spec("numpy") is not None:
    right(single(4, 3), met="the tutorials' NumPy extension")(NumpyTanh)
    wrong(
        real(4, 3),
        met="a common slip in a NumPy extension: np.float32 for any input",
        kinds="imprecise",
        argument="x",
    )(NumpyTanhSingle)


@right(real(4, 3), real(3), met="a formula with broadcasting and a shared intermediate")
class GatedSum(Formula):
    """A Formula with two arguments that broadcast and an intermediate that rules share"""

    broadcasts = True

    @staticmethod
    def forward(input, weight):
        return torch.tanh(input + weight)

    @staticmethod
    def slope(input, weight):
        return 1 - torch.tanh(input + weight).square()

    @staticmethod
    def grad_input(g, slope):
        return g * slope

    @staticmethod
    def grad_weight(g, slope):
        return g * slope


@wrong(
    real(4, 3),
    real(3),
    met="a common slip: the 2 of a square that is not there",
    argument="weight",
    says=r"2\.0* ?×",
)
class GatedSumTwice(GatedSum):
    """A Formula one of whose two rules has a factor too many"""

    @staticmethod
    def grad_weight(g, slope):
        return 2 * g * slope


@right(single(4, 3), single(4, 3), single(4, 3), met="any number of tensors, *tensors")
class SumOf(Function):
    """A sum of squares of any number of tensors"""

    @staticmethod
    def forward(ctx, *tensors):
        ctx.save_for_backward(*tensors)
        return sum(t * t for t in tensors)

    @staticmethod
    def backward(ctx, g):
        return tuple(2 * g * t for t in ctx.saved_tensors)


@right(single(4, 3), [0, 2], met="a list of ints among the arguments")
class Columns(Function):
    """A choice of columns by a list of ints"""

    @staticmethod
    def forward(ctx, x, columns):
        ctx.save_for_backward(x)
        ctx.columns = columns
        return x[:, columns].square()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        part = 2 * g * x[:, ctx.columns]
        index = torch.tensor(ctx.columns)
        return torch.zeros_like(x).index_add(1, index, part), None


@right(single(), single(4), met="a number without axes")
class Shifted(Function):
    """A scaled vector whose scale is a tensor without axes"""

    @staticmethod
    def forward(ctx, scale, x):
        ctx.save_for_backward(scale, x)
        return scale * x

    @staticmethod
    def backward(ctx, g):
        scale, x = ctx.saved_tensors
        return (g * x).sum(), g * scale


@right(single(4, 3), met="an output that is expanded, of stride zero")
class RowSums(Function):
    """Sums of rows, repeated by expand"""

    @staticmethod
    def forward(ctx, x):
        return x.sum(-1, keepdim=True).expand_as(x)

    @staticmethod
    def backward(ctx, g):
        return g.sum(-1, keepdim=True).expand_as(g)


@right(single(4, 3), met="outputs that are no tensors, and None")
class WithCount(Function):
    """A ReLU that returns a number and None beside its tensor"""

    @staticmethod
    def forward(ctx, x):
        ctx.mask = x > 0
        return x * ctx.mask, int(ctx.mask.numel()), None

    @staticmethod
    def backward(ctx, g, *_):
        return g * ctx.mask


@right(
    single(4, 3).then(torch.Tensor.half), met="float16 on the CPU, one multiplication, rounded once"
)
class DoubleOfHalf(Function):
    """A doubling of float16 numbers"""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g


@right(single(4, 3), met="a count of calls, an integer buffer")
class Counting(nn.Module):
    """A module that counts its calls in a buffer of integers"""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))
        self.scale = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))
        self.shift = nn.Parameter(torch.zeros(3), requires_grad=False)

    def forward(self, x):
        if self.training:
            self.calls += 1
        return Sigmoid.apply(x * self.scale + self.shift)


@right(single(4, 3), met="a module that returns several tensors")
class TwoHeads(nn.Module):
    """A module that returns a tuple"""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 1)

    def forward(self, x):
        x = Sigmoid.apply(x)
        return self.first(x), self.second(x)


# ------------------------------------------------------------------------------- how it is called


RIGHT += [
    Specimen(
        name="A Function's apply itself",
        subject=lambda: Sigmoid.apply,
        inputs=RIGHT[0].inputs,
        met="sigmoid = Sigmoid.apply",
    ),
    Specimen(
        name="A partial of a function",
        subject=lambda: partial(lambda slope, x: LeakyReLU.apply(x, slope), 0.2),
        inputs=RIGHT[0].inputs,
        met="options bound by functools.partial",
    ),
]


# ------------------------------------------------------------------------------- kinks, met exactly


@right(
    fixed([[0.0, -1.0, 2.0], [0.5, 0.0, 0.0]]),
    met="zeros from a layer before: half of a ReLU's inputs are exactly zero",
)
class ReLUAtZero(Function):
    """A ReLU at inputs some of which are exactly zero"""

    @staticmethod
    def forward(ctx, x):
        y = x.clamp(min=0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * (y > 0)


@right(fixed([[1.0, 1.0, 0.0], [2.0, -1.0, 2.0]]), met="ties, which quantised inputs have")
class MaxOfTies(Function):
    """A maximum of rows with ties"""

    @staticmethod
    def forward(ctx, x):
        y, index = x.max(-1)
        ctx.save_for_backward(index)
        ctx.columns = x.shape[-1]
        return y

    @staticmethod
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        return g[:, None] * (torch.arange(ctx.columns) == index[:, None])


@right(fixed([-2.0, -1.0, 0.0, 1.0, 3.0]), -1.0, 1.0, met="inputs exactly at the bounds")
class ClampAtBounds(Function):
    """A clamp at inputs exactly at its bounds"""

    @staticmethod
    def forward(ctx, x, low, high):
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        low, high = ctx.bounds
        return g * ((x >= low) & (x <= high)), None, None


@wrong(
    fixed([-2.0, -1.0, 0.0, 1.0, 3.0]),
    -1.0,
    1.0,
    met="a common slip: one of two bounds forgotten, at inputs where kinks are many",
    argument="x",
)
class ClampOneBound(ClampAtBounds):
    """A clamp at its bounds whose gradient knows the upper one alone"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (x <= ctx.bounds[1]), None, None


# ------------------------------------------------------------------------------- badly conditioned


@right(real(4, 3), met="a steep function, where a step of 1e-3 is too long")
class FastSine(Function):
    """A sine of 100 x"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (100 * x).sin()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 100 * g * (100 * x).cos()


@wrong(real(4, 3), met="a common slip: the inner derivative", argument="x", says=r"0\.010* ?×|100")
class FastSineInner(FastSine):
    """A sine of 100 x whose gradient lacks the inner derivative"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (100 * x).cos()


def in_units(x):
    return x * torch.tensor([1e3, 1e-3, 1.0, 1e5], dtype=x.dtype)


def per_unit(x):
    return x / torch.tensor([1e3, 1e-3, 1.0, 1e5], dtype=x.dtype)


@right(
    real(3, 4).then(in_units),
    real(4).then(per_unit),
    met="inputs in physical units",
)
class Units(Function):
    """A weighted sum of squares of numbers in units of 1e5 beside 1e-3"""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return (x * weight).square().sum(-1)

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        delta = 2 * g[:, None] * x * weight
        return delta * weight, (delta * x).sum(0)


@wrong(
    real(3, 4).then(in_units),
    real(4).then(per_unit),
    met="a wrong entry a million times smaller than the others, which a norm over all hides",
    argument="weight",
)
class UnitsSmall(Units):
    """A weighted sum of squares whose gradient is wrong for the smallest unit alone"""

    @staticmethod
    def backward(ctx, g):
        by_x, by_weight = Units.backward(ctx, g)
        wrong_for = torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=g.dtype)
        return by_x, by_weight * wrong_for


@right(
    fixed([[1 / (i + j + 1) for j in range(4)] for i in range(4)]),
    met="a Hilbert matrix, of condition 1.6e4",
)
class HilbertInverse(Function):
    """An inverse of a badly conditioned matrix"""

    @staticmethod
    def forward(ctx, matrix):
        inverse = torch.linalg.inv(matrix)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx, g):
        (inverse,) = ctx.saved_tensors
        return -inverse.mT @ g @ inverse.mT


@right(between(1e-6, 1e-4, 6), met="slopes that grow without bound towards the edge")
class LogNearZero(Function):
    """A logarithm of numbers close to zero"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.log()

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g / x


@right(between(1e-5, 1e-3, 6), met="a square root close to its edge")
class RootNearZero(Function):
    """A square root of numbers close to zero, from its output"""

    @staticmethod
    def forward(ctx, x):
        y = x.sqrt()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g / (2 * y)


@right(real(2, 3, scale=3.0), met="values from e⁻⁹ to e⁹ side by side")
class ExpRange(Function):
    """An exponential over many orders of magnitude"""

    @staticmethod
    def forward(ctx, x):
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y
