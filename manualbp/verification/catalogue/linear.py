"""Linear maps, products of matrices, and functions of one matrix."""

import torch
from torch.autograd import Function

from manualbp.verification.catalogue.specimen import Specimen, into, real, single

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)


def square_root(matrix):
    """A well-conditioned positive definite matrix."""
    return matrix @ matrix.mT + matrix.shape[-1] * torch.eye(matrix.shape[-1], dtype=matrix.dtype)


# --------------------------------------------------------------------------------- linear layers


@right(single(6, 4), single(5, 4), single(5), met="torch's own example of extending autograd")
class Linear(Function):
    """A linear layer, forward(ctx, …), its bias optional"""

    @staticmethod
    def forward(ctx, x, weight, bias=None):
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        y = x @ weight.t()
        return y if bias is None else y + bias

    @staticmethod
    def by_bias(ctx, g):
        return g.sum(0) if ctx.has_bias and ctx.needs_input_grad[2] else None

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        by_x = by_weight = None
        if ctx.needs_input_grad[0]:
            by_x = g @ weight
        if ctx.needs_input_grad[1]:
            by_weight = g.t() @ x
        return by_x, by_weight, Linear.by_bias(ctx, g)


@wrong(
    real(6, 4),
    real(4, 4),
    real(4),
    met="a common slip: a square weight hides the transpose",
    argument="x",
)
class LinearInputTransposed(Linear):
    """A linear layer whose input's gradient has the weight transposed"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g @ weight.t(), g.t() @ x, Linear.by_bias(ctx, g)


@wrong(
    single(6, 4),
    single(4, 4),
    single(4),
    met="a common slip: a square weight hides the transpose",
    argument="weight",
    says="transpos",
)
class LinearWeightTransposed(Linear):
    """A linear layer whose weight's gradient is transposed"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g @ weight, x.t() @ g, Linear.by_bias(ctx, g)


@wrong(
    single(8, 4),
    single(5, 4),
    single(5),
    met="a common slip: the mean over the batch taken here and in the cost",
    argument="bias",
    says=r"1/n|0\.1250* ?×|n = 8",
)
class LinearBiasMean(Linear):
    """A linear layer whose bias's gradient is a mean where a sum belongs"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return g @ weight, g.t() @ x, g.mean(0) if ctx.has_bias else None


@wrong(
    real(6, 4),
    real(5, 4),
    None,
    met="a common slip: the branch without a bias written apart",
    argument="weight",
    says=r"2\.0* ?×|bias",
)
class LinearWithoutBias(Linear):
    """A linear layer that is wrong only when bias is None"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        if ctx.has_bias:
            return g @ weight, g.t() @ x, Linear.by_bias(ctx, g)
        return g @ weight, 2 * g.t() @ x, None


@wrong(
    single(6, 4),
    single(5, 4),
    single(5),
    met="a common slip: gradients gathered in a list, those not wanted left out",
    kinds="raises wrong",
    says="alone|only|grad",
)
class LinearGradientsShift(Linear):
    """A linear layer that returns fewer gradients where one input alone wants one"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        gradients = []
        if ctx.needs_input_grad[0]:
            gradients.append(g @ weight)
        if ctx.needs_input_grad[1]:
            gradients.append(g.t() @ x)
        if ctx.needs_input_grad[2]:
            gradients.append(g.sum(0))
        return tuple(gradients)


@wrong(
    single(6, 4),
    single(5, 4),
    single(5),
    met="a common slip: the indices of needs_input_grad, which only a frozen weight shows",
    argument="bias",
    kinds="wrong raises",
    says="alone|only|zero|None",
)
class LinearFrozenWeight(Linear):
    """A linear layer whose bias gets no gradient where its weight is frozen"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        by_x = g @ weight if ctx.needs_input_grad[0] else None
        by_weight = by_bias = None
        if ctx.needs_input_grad[1]:
            by_weight, by_bias = g.t() @ x, Linear.by_bias(ctx, g)
        return by_x, by_weight, by_bias


@wrong(
    real(6, 4),
    real(5, 4),
    real(5),
    met="a common slip: a kernel whose row index is off by one",
    argument="x",
    says="row|roll|order|swap|perm|example",
)
class LinearRowsRolled(Linear):
    """A linear layer whose input's gradients belong to the row before"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return (g @ weight).roll(1, 0), g.t() @ x, Linear.by_bias(ctx, g)


@wrong(
    single(5, 4),
    single(3, 4),
    single(3),
    met="a common slip: a stride that came from the end",
    argument="x",
    says="row|order|revers|swap|perm|example",
)
class LinearRowsReversed(Linear):
    """A linear layer whose input's gradients stand in reverse order"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return (g @ weight).flip(0), g.t() @ x, Linear.by_bias(ctx, g)


@wrong(
    single(5, 4),
    single(3, 4),
    single(3),
    met="a common slip: a kernel without its offset for the row",
    argument="x",
    says="first|equal|row 0",
)
class LinearRowsFirst(Linear):
    """A linear layer whose input's gradients all equal the first row's"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        return (g @ weight)[:1].expand_as(x), g.t() @ x, Linear.by_bias(ctx, g)


@right(single(2, 3, 4), single(5, 4), single(5), met="any number of leading axes, by reshape")
class LinearRows(Function):
    """A linear layer for any number of leading axes, in the setup_context style"""

    @staticmethod
    def forward(x, weight, bias):
        return x @ weight.T + bias

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        rows = g.flatten(0, -2)
        return g @ weight, rows.T @ x.flatten(0, -2), rows.sum(0)


@wrong(
    single(3, 4, 4),
    single(5, 4),
    single(5),
    met="a common slip: batch first in one factor, time first in the other",
    argument="weight",
)
class LinearRowsShuffled(LinearRows):
    """A linear layer whose weight's gradient pairs the rows of two different orders"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        rows = g.flatten(0, -2)
        return g @ weight, rows.T @ x.transpose(0, 1).flatten(0, -2), rows.sum(0)


@wrong(
    single(2, 3, 4),
    single(5, 4),
    single(5),
    met="FlagGems #5392 met it in a layer norm: two axes taken for granted",
    kinds="raises",
)
class LinearTwoAxes(LinearRows):
    """A linear layer whose backward unpacks two axes, and is given three"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        n, _ = g.shape
        return g @ weight, g.t() @ x.reshape(n, -1), g.sum(0)


@right(single(5, 4), single(6, 4), single(2, 4), single(6, 2), met="LoRA, written as one Function")
class LowRank(Function):
    """A linear layer with a low-rank update, y = x Wᵀ + 2 (x Dᵀ) Uᵀ"""

    @staticmethod
    def forward(ctx, x, weight, down, up):
        ctx.save_for_backward(x, weight, down, up)
        return x @ weight.T + 2 * (x @ down.T) @ up.T

    @staticmethod
    def backward(ctx, g):
        x, weight, down, up = ctx.saved_tensors
        by_x = g @ weight + 2 * (g @ up) @ down
        return by_x, g.T @ x, 2 * (g @ up).T @ x, 2 * g.T @ (x @ down.T)


@wrong(
    single(5, 4),
    single(6, 4),
    single(2, 4),
    single(6, 2),
    met="a common slip: the update's scale applied to one of its two factors",
    argument="down",
    says=r"0\.50* ?×",
)
class LowRankScale(LowRank):
    """A low-rank update whose scale is forgotten in one gradient"""

    @staticmethod
    def backward(ctx, g):
        x, weight, down, up = ctx.saved_tensors
        by_x = g @ weight + 2 * (g @ up) @ down
        return by_x, g.T @ x, (g @ up).T @ x, 2 * g.T @ (x @ down.T)


@wrong(
    single(5, 4),
    single(6, 4),
    single(2, 4),
    single(6, 2),
    met="a common slip: the input's second path forgotten",
    argument="x",
)
class LowRankPath(LowRank):
    """A low-rank update through which no gradient reaches the input"""

    @staticmethod
    def backward(ctx, g):
        x, weight, down, up = ctx.saved_tensors
        return g @ weight, g.T @ x, 2 * (g @ up).T @ x, 2 * g.T @ (x @ down.T)


# ------------------------------------------------------------------------------------- products


@right(real(3, 4, 2), real(3, 2, 5), met="batched, with .mT")
class BatchedProduct(Function):
    """A batched product of matrices"""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g @ b.mT, a.mT @ g


@wrong(
    real(2, 3, 3),
    real(2, 3, 3),
    met="a common slip: square matrices hide the transpose",
    argument="a",
)
class BatchedProductTransposed(BatchedProduct):
    """A batched product whose first gradient lacks the transpose"""

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g @ b, a.mT @ g


@wrong(
    single(3, 3),
    single(3, 3),
    met="a common slip: the two results returned in the other order",
    says="swap|order|other",
)
class ProductSwapped(BatchedProduct):
    """A product of square matrices that returns its gradients in the wrong order"""

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return a.mT @ g, g @ b.mT


@right(single(5, 3), met="one tensor used twice")
class Gram(Function):
    """A Gram matrix x xᵀ"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x @ x.T

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (g + g.T) @ x


@wrong(single(5, 3), met="a common slip: one of the two uses of x", argument="x")
class GramOnce(Gram):
    """A Gram matrix whose gradient counts one of the two uses of x"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g @ x


@wrong(single(5, 3), met="a common slip: a symmetric gradient taken for granted", argument="x")
class GramSymmetric(Gram):
    """A Gram matrix whose gradient is right for symmetric gradients alone"""

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * g @ x


@right(real(6, 3), real(3, 3), met="x used twice around a weight")
class QuadraticForm(Function):
    """A quadratic form xᵀ A x for each row"""

    @staticmethod
    def forward(ctx, x, matrix):
        ctx.save_for_backward(x, matrix)
        return ((x @ matrix) * x).sum(-1)

    @staticmethod
    def backward(ctx, g):
        x, matrix = ctx.saved_tensors
        scaled = g[:, None] * x
        return scaled @ (matrix + matrix.T), scaled.T @ x


@wrong(real(6, 3), real(3, 3), met="a common slip: 2 A x is right for symmetric A", argument="x")
class QuadraticFormSymmetric(QuadraticForm):
    """A quadratic form whose gradient takes the matrix for symmetric"""

    @staticmethod
    def backward(ctx, g):
        x, matrix = ctx.saved_tensors
        scaled = g[:, None] * x
        return 2 * scaled @ matrix, scaled.T @ x


# --------------------------------------------------------------------------- of a single matrix


@right(real(3, 3), met="ill-conditioned where the matrix is, and right")
class Inverse(Function):
    """An inverse, from its output"""

    @staticmethod
    def forward(ctx, matrix):
        inverse = torch.linalg.inv(matrix)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx, g):
        (inverse,) = ctx.saved_tensors
        return -inverse.mT @ g @ inverse.mT


@wrong(real(3, 3), met="a common slip: the minus dropped", argument="matrix", says="sign")
class InverseSign(Inverse):
    """An inverse whose gradient lacks its minus"""

    @staticmethod
    def backward(ctx, g):
        (inverse,) = ctx.saved_tensors
        return inverse.mT @ g @ inverse.mT


@right(real(2, 3, 3), met="cofactors, right where the matrix is singular too")
class Determinant(Function):
    """A determinant of 3 × 3 matrices, by cross products"""

    @staticmethod
    def forward(ctx, matrix):
        ctx.save_for_backward(matrix)
        return torch.linalg.det(matrix)

    @staticmethod
    def cofactors(matrix):
        a, b, c = matrix.unbind(-2)
        rows = torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)
        return torch.stack(rows, -2)

    @staticmethod
    def backward(ctx, g):
        (matrix,) = ctx.saved_tensors
        return g[..., None, None] * Determinant.cofactors(matrix)


@wrong(
    real(2, 3, 3),
    met="a common slip: the adjugate for the cofactors",
    argument="matrix",
    says="transpos",
)
class DeterminantTransposed(Determinant):
    """A determinant whose gradient is transposed"""

    @staticmethod
    def backward(ctx, g):
        (matrix,) = ctx.saved_tensors
        return g[..., None, None] * Determinant.cofactors(matrix).mT


@right(real(4, 4).then(square_root), met="by Cholesky's factor, defined off symmetric matrices too")
class LogDeterminant(Function):
    """A log-determinant of the symmetric part, by Cholesky's factor"""

    @staticmethod
    def forward(ctx, matrix):
        ctx.save_for_backward(matrix)
        factor = torch.linalg.cholesky((matrix + matrix.mT) / 2)
        return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @staticmethod
    def backward(ctx, g):
        (matrix,) = ctx.saved_tensors
        return g[..., None, None] * torch.linalg.inv((matrix + matrix.mT) / 2)


@right(real(3, 3), real(3, 2), met="a solve with the transposed matrix on the way back")
class Solve(Function):
    """A linear system"""

    @staticmethod
    def forward(ctx, matrix, b):
        y = torch.linalg.solve(matrix, b)
        ctx.save_for_backward(matrix, y)
        return y

    @staticmethod
    def backward(ctx, g):
        matrix, y = ctx.saved_tensors
        by_b = torch.linalg.solve(matrix.mT, g)
        return -by_b @ y.mT, by_b


@wrong(
    real(3, 3),
    real(3, 2),
    met="a common slip: the forward solve reused on the way back",
)
class SolveTransposed(Solve):
    """A linear system solved with the matrix itself on the way back"""

    @staticmethod
    def backward(ctx, g):
        matrix, y = ctx.saved_tensors
        by_b = torch.linalg.solve(matrix, g)
        return -by_b @ y.mT, by_b
