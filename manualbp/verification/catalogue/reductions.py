"""Sums, extremes, orders and indices: many numbers to few, or the same ones elsewhere."""

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from manualbp.verification.catalogue.specimen import Specimen, fixed, integers, into, real, single

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)


# ----------------------------------------------------------------------------------------- sums


@right(single(8, 3), 0, met="the axis as an int, broadcast by expand")
class Mean(Function):
    """A mean over an axis"""

    @staticmethod
    def forward(ctx, x, dim):
        ctx.shape, ctx.dim = x.shape, dim
        return x.mean(dim)

    @staticmethod
    def backward(ctx, g):
        return g.unsqueeze(ctx.dim).expand(ctx.shape) / ctx.shape[ctx.dim], None


@wrong(
    single(8, 3),
    0,
    met="a common slip: sum's rule",
    argument="x",
    says=r"1/n|8\.0* ?×|n = 8",
)
class MeanSum(Mean):
    """A mean whose gradient lacks 1/n"""

    @staticmethod
    def backward(ctx, g):
        return g.unsqueeze(ctx.dim).expand(ctx.shape), None


@wrong(
    real(8, 3),
    met="a common slip: 1/n in both passes",
    argument="x",
    says=r"1/n|0\.0417* ?×|n = 24",
)
class SumMean(Function):
    """A sum of everything whose gradient has an extra 1/n"""

    @staticmethod
    def forward(ctx, x):
        ctx.shape = x.shape
        return x.sum()

    @staticmethod
    def backward(ctx, g):
        return (g / ctx.shape.numel()).expand(ctx.shape)


@wrong(
    real(3, 4),
    met="a common slip: the divisor n for n − 1",
    argument="x",
    says=r"0\.750* ?×",
)
class VarianceDivisor(Function):
    """A variance by n − 1 whose gradient divides by n"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.var(-1)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * g[:, None] * (x - x.mean(-1, keepdim=True)) / x.shape[-1]


@right(single(4, 3), met="the sum over what follows")
class CumulativeSum(Function):
    """A cumulative sum, backwards on the way back"""

    @staticmethod
    def forward(ctx, x):
        return x.cumsum(-1)

    @staticmethod
    def backward(ctx, g):
        return g.flip(-1).cumsum(-1).flip(-1)


@wrong(single(4, 3), met="a common slip: the same direction on the way back", argument="x")
class CumulativeSumForwards(CumulativeSum):
    """A cumulative sum whose gradient is summed in the same direction"""

    @staticmethod
    def backward(ctx, g):
        return g.cumsum(-1)


@right(real(4, 3, shift=2.0), met="far from zero, where it has no derivative")
class Length(Function):
    """A length of each row"""

    @staticmethod
    def forward(ctx, x):
        y = x.norm(dim=-1)
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        # Zero at zero, as torch has it.
        return (g / y.where(y > 0, 1.0))[:, None] * x


@wrong(real(4, 3, shift=2.0), met="a common slip: the length's square's rule", argument="x")
class LengthSquare(Length):
    """A length whose gradient is not divided by it"""

    @staticmethod
    def backward(ctx, g):
        x, _ = ctx.saved_tensors
        return g[:, None] * x


# ------------------------------------------------------------------------------- orders and picks


@right(single(2, 6), met="scatter by the indices, which are marked as not differentiable")
class Sort(Function):
    """A sort of each row, with its indices"""

    @staticmethod
    def forward(ctx, x):
        y, indices = x.sort(-1)
        ctx.mark_non_differentiable(indices)
        ctx.save_for_backward(indices)
        return y, indices

    @staticmethod
    def backward(ctx, g, _):
        (indices,) = ctx.saved_tensors
        return torch.zeros_like(g).scatter(-1, indices, g)


@wrong(
    single(2, 6),
    met="a common slip: gather for scatter, the permutation for its inverse",
    argument="x",
)
class SortGather(Sort):
    """A sort whose gradient is permuted the same way once more"""

    @staticmethod
    def backward(ctx, g, _):
        (indices,) = ctx.saved_tensors
        return g.gather(-1, indices)


@right(single(3, 6), 2, met="the k largest, scattered back")
class TopK(Function):
    """The k largest of each row"""

    @staticmethod
    def forward(ctx, x, k):
        y, indices = x.topk(k, -1)
        ctx.save_for_backward(indices)
        ctx.shape = x.shape
        return y

    @staticmethod
    def backward(ctx, g):
        (indices,) = ctx.saved_tensors
        return g.new_zeros(ctx.shape).scatter(-1, indices, g), None


@wrong(single(3, 6), 2, met="a common slip: the indices not used", argument="x")
class TopKFront(TopK):
    """The k largest, whose gradients go to the first k"""

    @staticmethod
    def backward(ctx, g):
        padding = g.new_zeros(*ctx.shape[:-1], ctx.shape[-1] - g.shape[-1])
        return torch.cat([g, padding], -1), None


@right(single(3, 2), single(3, 4), met="split by the sizes of the forward pass")
class Concatenate(Function):
    """A concatenation along the last axis"""

    @staticmethod
    def forward(ctx, a, b):
        ctx.sizes = [a.shape[-1], b.shape[-1]]
        return torch.cat([a, b], -1)

    @staticmethod
    def backward(ctx, g):
        return g.split(ctx.sizes, -1)


@wrong(
    single(3, 2),
    single(3, 2),
    met="a common slip: the parts taken in the other order, of equal sizes",
    says="swap|order|other",
)
class ConcatenateSwapped(Concatenate):
    """A concatenation whose parts' gradients are exchanged"""

    @staticmethod
    def backward(ctx, g):
        by_a, by_b = g.split(ctx.sizes, -1)
        return by_b, by_a


INDEX = fixed([[1, 3, 1], [0, 1, 4]], dtype=torch.int64)


@right(INDEX, single(5, 3), met="integers first, a weight looked up")
class Embedding(Function):
    """An embedding, whose first argument is integers"""

    @staticmethod
    def forward(ctx, index, weight):
        ctx.save_for_backward(index)
        ctx.rows = weight.shape[0]
        return weight[index]

    @staticmethod
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        by_weight = g.new_zeros(ctx.rows, g.shape[-1])
        return None, by_weight.index_add(0, index.reshape(-1), g.reshape(-1, g.shape[-1]))


@wrong(
    INDEX,
    single(5, 3),
    met="a common slip: grad[index] = g, where an index comes twice",
    argument="weight",
)
class EmbeddingAssigned(Embedding):
    """An embedding whose repeated indices overwrite one another"""

    @staticmethod
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        by_weight = g.new_zeros(ctx.rows, g.shape[-1])
        by_weight[index.reshape(-1)] = g.reshape(-1, g.shape[-1])
        return None, by_weight


@wrong(
    INDEX,
    single(5, 3),
    met="a common slip: scale_grad_by_freq as if it were the derivative",
    argument="weight",
)
class EmbeddingFrequency(Embedding):
    """An embedding whose gradients are divided by how often an index comes"""

    @staticmethod
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        _, by_weight = Embedding.backward(ctx, g)
        counts = torch.bincount(index.reshape(-1), minlength=ctx.rows).clamp(min=1)
        return None, by_weight / counts[:, None]


@right(single(4, 5), integers(5, 4), met="picks a number of each row, as a likelihood does")
class Pick(Function):
    """A pick of one number of each row"""

    @staticmethod
    def forward(ctx, x, index):
        ctx.save_for_backward(index)
        ctx.columns = x.shape[1]
        return x.gather(1, index[:, None])[:, 0]

    @staticmethod
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        return g[:, None] * (torch.arange(ctx.columns) == index[:, None]), None


@wrong(
    single(4, 5),
    integers(4, 4).then(lambda i: i.sort().values),
    met="a common slip: an index off by one",
    argument="x",
)
class PickNext(Pick):
    """A pick whose gradient lands one column further"""

    @staticmethod
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        return g[:, None] * (torch.arange(ctx.columns) == index[:, None] + 1), None


@right(INDEX, single(5, 3), met="sparse=True: a gradient of the rows that were looked up")
class SparseEmbedding(Embedding):
    """An embedding whose gradient is a sparse tensor"""

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        (index,) = ctx.saved_tensors
        rows = g.reshape(-1, g.shape[-1])
        shape = ctx.rows, g.shape[-1]
        made = torch.sparse_coo_tensor(index.reshape(1, -1), rows, shape, check_invariants=True)
        return None, made
