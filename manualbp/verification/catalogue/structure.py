"""What goes in and out: several outputs, which inputs want a gradient, strides, batches."""

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from manualbp.verification.catalogue.specimen import (
    Specimen,
    fixed,
    into,
    real,
    single,
)

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)


# --------------------------------------------------------------------------------- several outputs


@right(real(4, 3), met="two outputs, each with a gradient that may be absent")
class SinCos(Function):
    """A sine and a cosine, without materialised gradients"""

    @staticmethod
    def forward(ctx, x):
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        return x.sin(), x.cos()

    @staticmethod
    def backward(ctx, g_sin, g_cos):
        (x,) = ctx.saved_tensors
        by_x = None
        if g_sin is not None:
            by_x = g_sin * x.cos()
        if g_cos is not None:
            by_cos = -g_cos * x.sin()
            by_x = by_cos if by_x is None else by_x + by_cos
        return by_x


@wrong(
    real(4, 3),
    met="a common slip: elif for if",
    argument="x",
    says="two outputs|both|output",
)
class SinCosEither(SinCos):
    """A sine and a cosine, wrong only where both outputs are used"""

    @staticmethod
    def backward(ctx, g_sin, g_cos):
        (x,) = ctx.saved_tensors
        if g_sin is not None:
            return g_sin * x.cos()
        elif g_cos is not None:
            return -g_cos * x.sin()


@wrong(
    real(4, 3),
    met="a common slip: set_materialize_grads(False) without a look for None",
    kinds="raises",
)
class SinCosUndefined(SinCos):
    """A sine and a cosine whose backward raises where one output is not used"""

    @staticmethod
    def backward(ctx, g_sin, g_cos):
        (x,) = ctx.saved_tensors
        return g_sin * x.cos() - g_cos * x.sin()


@right(single(4, 6), met="mean and variance, both with a gradient")
class Moments(Function):
    """A mean and a variance, two outputs"""

    @staticmethod
    def forward(ctx, x):
        mean, var = x.mean(-1), x.var(-1, unbiased=False)
        ctx.save_for_backward(x)
        return mean, var

    @staticmethod
    def backward(ctx, g_mean, g_var):
        (x,) = ctx.saved_tensors
        centred = x - x.mean(-1, keepdim=True)
        return (g_mean[:, None] + 2 * g_var[:, None] * centred) / x.shape[-1]


@wrong(
    single(4, 6),
    met="a common slip: the second output thought to be for show",
    argument="x",
    says="output|term|var",
)
class MomentsFirst(Moments):
    """A mean and a variance whose second gradient is ignored"""

    @staticmethod
    def backward(ctx, g_mean, g_var):
        (x,) = ctx.saved_tensors
        return (g_mean[:, None] / x.shape[-1]).expand_as(x)


@right(single(4, 6), met="values and indices, mark_non_differentiable")
class Maximum(Function):
    """A maximum of each row, with its index"""

    @staticmethod
    def forward(ctx, x):
        values, indices = x.max(-1)
        ctx.mark_non_differentiable(indices)
        ctx.save_for_backward(indices)
        ctx.size = x.shape[-1]
        return values, indices

    @staticmethod
    def backward(ctx, g, _):
        (indices,) = ctx.saved_tensors
        columns = torch.arange(ctx.size)
        return g[:, None] * (columns == indices[:, None])


@right(single(4, 6), 0.5, met="a float mask as an output, mark_non_differentiable")
class Threshold(Function):
    """A threshold that returns its mask as floats"""

    @staticmethod
    def forward(ctx, x, least):
        mask = (x > least).to(x)
        ctx.mark_non_differentiable(mask)
        ctx.save_for_backward(mask)
        return x * mask, mask

    @staticmethod
    def backward(ctx, g, _):
        (mask,) = ctx.saved_tensors
        return g * mask, None


@right(single(6, 4), 2, met="a list of outputs, as many as an int says")
def in_parts(x, parts):
    """A function that returns a list of tensors, each through a Function"""
    return [Maximum.apply(part)[0] for part in x.chunk(parts)]


# ------------------------------------------------------------------- which inputs, in which order


@right(single(4, 3), "mean", None, met="a string and None among the arguments")
class Reduced(Function):
    """A squared length reduced as a string says, with None for a weight"""

    @staticmethod
    def forward(ctx, x, reduction, weight):
        ctx.reduction = reduction
        ctx.save_for_backward(x, weight)
        each = x.square() if weight is None else weight * x.square()
        return each.mean() if reduction == "mean" else each.sum()

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        scale = 1 / x.numel() if ctx.reduction == "mean" else 1.0
        by_x = 2 * scale * g * x
        if weight is None:
            return by_x, None, None
        by_weight = scale * g * x.square() if ctx.needs_input_grad[2] else None
        return by_x * weight, None, by_weight


@wrong(
    single(4, 3),
    "mean",
    single(4, 3),
    met="a common slip: one value of an option forgotten",
    says=r"12\.0* ?×|1/n|n = 12",
)
class ReducedSum(Reduced):
    """A squared length whose gradient takes any reduction for a sum"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return 2 * g * x * weight, None, g * x.square()


@right(single(4, 3), single(4, 3), met="a condition as a bool tensor")
class Select(Function):
    """A choice between two tensors by the sign of their sum"""

    @staticmethod
    def forward(ctx, a, b):
        ctx.first = a + b > 0
        return torch.where(ctx.first, a, 3 * b)

    @staticmethod
    def backward(ctx, g):
        return g * ctx.first, 3 * g * ~ctx.first


@right(single(4, 3).wanted(), single(4, 3), met="what wants no gradient gets None")
class ProductOfWanted(Function):
    """A product that looks which of its factors want a gradient"""

    @staticmethod
    def forward(ctx, a, b):
        wants_a, wants_b, *_ = ctx.needs_input_grad
        ctx.save_for_backward(b if wants_a else None, a if wants_b else None)
        return a * b

    @staticmethod
    def backward(ctx, g):
        b, a = ctx.saved_tensors
        return None if b is None else g * b, None if a is None else g * a


@wrong(
    single(4, 3),
    single(4, 3),
    met="a common slip: the second factor taken for a constant",
    argument="b",
    says="zero|None|no gradient",
)
class ProductNone(ProductOfWanted):
    """A product that returns None for a factor that wants a gradient"""

    @staticmethod
    def backward(ctx, g):
        b, _ = ctx.saved_tensors
        return g * b, None


@wrong(
    single(4, 3),
    single(4, 3),
    met="a common slip: what is saved depends on who wants it, read in the wrong order",
    says="alone|only",
)
class ProductAlone(Function):
    """A product that is wrong only where one factor alone wants a gradient"""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        if all(ctx.needs_input_grad):
            return g * b, g * a
        by_wanted = g * (a if ctx.needs_input_grad[0] else b)
        return tuple(by_wanted if wanted else None for wanted in ctx.needs_input_grad)


@wrong(
    single(4, 3),
    single(4, 3),
    met="a common slip: the condition negated",
)
class SelectOther(Select):
    """A choice whose gradient goes to the one that was not chosen"""

    @staticmethod
    def backward(ctx, g):
        return g * ~ctx.first, 3 * g * ctx.first


@wrong(
    single(4, 3),
    2,
    met="a common slip: no None for an argument that is no tensor",
    kinds="raises",
)
class PowerTooFew(Function):
    """A power that returns one gradient for two arguments"""

    @staticmethod
    def forward(ctx, x, n):
        ctx.save_for_backward(x)
        ctx.n = n
        return x**n

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * ctx.n * x ** (ctx.n - 1)


@wrong(
    single(4, 3),
    met="snntorch#411: a tutorial's backward unpacks what was not saved under that name",
    kinds="raises",
)
class SpikeUndefined(Function):
    """A fast sigmoid whose backward uses a name that does not exist"""

    @staticmethod
    def forward(ctx, mem):
        ctx.save_for_backward(mem)
        return mem / (1 + mem.abs())

    @staticmethod
    def backward(ctx, g):
        (spk,) = ctx.saved_tensors  # noqa: RUF059
        return g / (1 + membrane.abs()) ** 2  # noqa: F821


@wrong(
    single(4, 3),
    single(3),
    met="a common slip: .sum() for .sum(0)",
    kinds="raises wrong",
    argument="bias",
)
class BiasScalar(Function):
    """A bias whose gradient is summed to a single number"""

    @staticmethod
    def forward(ctx, x, bias):
        return x + bias

    @staticmethod
    def backward(ctx, g):
        return g, g.sum()


# ------------------------------------------------------------------------------------- strides


class Cubed(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * g * x**2


@wrong(
    single(4, 3),
    met="reliability, rule 2: .view(-1) of a gradient that comes from .t() or .sum()",
    kinds="raises",
    says="strid|contiguous|expanded|transposed|view",
)
class CubedView(Cubed):
    """A cube whose backward calls view on the incoming gradient"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (3 * g.view(-1) * x.reshape(-1) ** 2).reshape(x.shape)


@wrong(
    single(4, 3),
    met="FlagGems#1084: a non-contiguous gradient read as contiguous, 1000 % error",
    kinds="wrong raises",
    argument="x",
    says="strid|contiguous|expanded|transposed|narrow",
)
class CubedStorage(Cubed):
    """A cube whose backward reads the incoming gradient by its storage"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        rows, columns = g.shape
        if g.untyped_storage().nbytes() < g.numel() * g.element_size():
            g = g.contiguous()
        return 3 * g.as_strided((rows, columns), (columns, 1)) * x**2


@wrong(
    single(3, 4).then(torch.t),
    met="flash-attention#355 is of this kind: strides of what was saved taken for granted",
    argument="x",
)
class CubedSavedStorage(Cubed):
    """A cube whose backward reads its saved input by its storage"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * g * x.as_strided(x.shape, (x.shape[1], 1)) ** 2


@right(single(4, 3).then(torch.t), met="any strides, by reshape")
class CubedReshape(Cubed):
    """A cube that flattens whatever strides arrive"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (3 * g.reshape(-1) * x.reshape(-1) ** 2).reshape(x.shape)


# -------------------------------------------------------------------------------------- batches


@wrong(
    single(5, 4),
    single(3, 4),
    met="a common slip: a short cut for batches of one that nobody tries",
    argument="x",
    says="one|n = 1|single",
)
class LinearOfOne(Function):
    """A linear layer that is wrong only for batches of one"""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        if len(x) == 1:
            return (g[0] @ weight.abs())[None], torch.outer(g[0], x[0])
        return g @ weight, g.T @ x


@wrong(
    single(1, 4),
    single(4),
    met="a common slip: .squeeze() for .squeeze(1), seen for batches of one alone",
    kinds="raises wrong",
    argument="weight",
)
class DotSqueezed(Function):
    """A dot product for each row whose squeeze drops the batch axis too"""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g[:, None] * weight, (g[:, None] * x).squeeze().sum(0)


@wrong(
    single(3, 4, 5),
    1,
    met="a common slip: an option that the backward pass does not read",
    argument="x",
)
class CumulativeSumDim(Function):
    """A cumulative sum whose gradient takes the last axis whatever dim says"""

    @staticmethod
    def forward(ctx, x, dim):
        return x.cumsum(dim)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return g.flip(-1).cumsum(-1).flip(-1), None


@wrong(
    single(6, 3),
    fixed([0, 2, 1, 0, 2, 2], dtype=torch.int64),
    3,
    met="a common slip: the gradient of the sum",
    argument="x",
)
class SegmentMean(Function):
    """A mean over segments whose gradient forgets to divide by their sizes"""

    @staticmethod
    def forward(ctx, x, segment, count):
        sizes = torch.bincount(segment, minlength=count)
        ctx.save_for_backward(segment)
        total = x.new_zeros(count, x.shape[1]).index_add_(0, segment, x)
        return total / sizes.clamp(min=1)[:, None]

    @staticmethod
    def backward(ctx, g):
        (segment,) = ctx.saved_tensors
        return g[segment], None, None


@wrong(
    single(6, 3),
    met="FlagGems#4985 is of this kind: sizes that no block divides",
    argument="x",
    says="zero|row|example",
)
class CubedBlocks(Cubed):
    """A cube whose gradient leaves out the rows after the last whole block of four"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        rows = torch.arange(len(x)) < len(x) // 4 * 4
        return 3 * g * x**2 * rows[:, None]
