"""Normalisation: layers, batches, groups, root mean squares, unit lengths."""

import torch
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from manualbp.verification.catalogue.specimen import Specimen, into, real, single

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)

EPS = 1e-5


def normalized(x, dim):
    """x̂, and one over the standard deviation."""
    centred = x - x.mean(dim, keepdim=True)
    rstd = (centred.square().mean(dim, keepdim=True) + EPS).rsqrt()
    return centred * rstd, rstd


def through(g, xhat, rstd, dim):
    """∂C/∂x, where g arrives at x̂."""
    return rstd * (g - g.mean(dim, keepdim=True) - xhat * (g * xhat).mean(dim, keepdim=True))


# ----------------------------------------------------------------------------------------- batch


@right(single(6, 3), single(3), single(3), met="recomputes its statistics from the saved input")
class BatchNorm(Function):
    """A batch norm that recomputes its statistics"""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        xhat, _ = normalized(x, 0)
        return xhat * weight + bias

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        xhat, rstd = normalized(x, 0)
        return through(g * weight, xhat, rstd, 0), (g * xhat).sum(0), g.sum(0)


@wrong(single(6, 3), single(3), single(3), met="a common slip: μ taken as constant", argument="x")
class BatchNormMean(BatchNorm):
    """A batch norm without the term of its mean"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        xhat, rstd = normalized(x, 0)
        h = g * weight
        by_x = rstd * (h - xhat * (h * xhat).mean(0))
        return by_x, (g * xhat).sum(0), g.sum(0)


@wrong(single(6, 3), single(3), single(3), met="a common slip: σ taken as constant", argument="x")
class BatchNormVariance(BatchNorm):
    """A batch norm without the term of its variance"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        xhat, rstd = normalized(x, 0)
        h = g * weight
        return rstd * (h - h.mean(0)), (g * xhat).sum(0), g.sum(0)


@wrong(real(6, 3), real(3), real(3), met="a common slip: 1/n missing in one term", argument="x")
class BatchNormSum(BatchNorm):
    """A batch norm whose mean's term is a sum"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        xhat, rstd = normalized(x, 0)
        h = g * weight
        by_x = rstd * (h - h.sum(0) - xhat * (h * xhat).mean(0))
        return by_x, (g * xhat).sum(0), g.sum(0)


class TrainedBatchNorm(Function):
    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, training):
        ctx.save_for_backward(x, weight, mean.clone(), var.clone())
        ctx.training = training
        if training:
            xhat, _ = normalized(x, 0)
        else:
            xhat = (x - mean) * (var + EPS).rsqrt()
        return xhat * weight + bias

    @staticmethod
    def parts(ctx, g, training):
        x, weight, mean, var = ctx.saved_tensors
        h = g * weight
        if training:
            xhat, rstd = normalized(x, 0)
            by_x = through(h, xhat, rstd, 0)
        else:
            rstd = (var + EPS).rsqrt()
            xhat, by_x = (x - mean) * rstd, h * rstd
        return by_x, (g * xhat).sum(0), g.sum(0), None, None, None

    @staticmethod
    def backward(ctx, g):
        return TrainedBatchNorm.parts(ctx, g, ctx.training)


@right(single(6, 3, shift=1.0), met="a module that keeps running statistics, in both modes")
class BatchNormLayer(nn.Module):
    """A batch norm as a module, with running statistics that it updates"""

    function = TrainedBatchNorm

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.bias = nn.Parameter(torch.randn(3))
        self.register_buffer("running_mean", torch.randn(3))
        self.register_buffer("running_var", torch.rand(3) + 0.5)

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.running_mean.lerp_(x.mean(0), 0.1)
                self.running_var.lerp_(x.var(0, unbiased=False), 0.1)
        statistics = self.running_mean, self.running_var
        return self.function.apply(x, self.weight, self.bias, *statistics, self.training)


class RunningInTraining(TrainedBatchNorm):
    @staticmethod
    def backward(ctx, g):
        return TrainedBatchNorm.parts(ctx, g, False)


@wrong(
    single(6, 3, shift=1.0),
    met="a common slip: the running statistics used in training mode",
)
class BatchNormRunning(BatchNormLayer):
    """A batch norm in training mode whose gradient uses the running statistics"""

    function = RunningInTraining


class BatchInEvaluation(TrainedBatchNorm):
    @staticmethod
    def backward(ctx, g):
        return TrainedBatchNorm.parts(ctx, g, True)


@wrong(
    single(6, 3, shift=1.0),
    met="a common slip: eval mode forgotten, which fine-tuning with frozen statistics meets",
    says="eval",
)
class BatchNormEvaluation(BatchNormLayer):
    """A batch norm that is right in training mode and wrong in eval mode"""

    function = BatchInEvaluation


# ----------------------------------------------------------------------------------------- layer


@right(single(2, 3, 5), single(5), single(5), met="x̂ and 1/σ kept, once_differentiable")
class LayerNorm(Function):
    """A layer norm that keeps x̂ and 1/σ and says once_differentiable"""

    @staticmethod
    def forward(ctx, x, weight, bias):
        xhat, rstd = normalized(x, -1)
        ctx.save_for_backward(xhat, rstd, weight)
        return xhat * weight + bias

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        xhat, rstd, weight = ctx.saved_tensors
        rows = tuple(range(g.dim() - 1))
        return through(g * weight, xhat, rstd, -1), (g * xhat).sum(rows), g.sum(rows)


@wrong(
    single(2, 3, 5),
    single(5),
    single(5),
    met="FlagGems#5392: layer_norm_backward assumes a 2-D input",
    argument="x",
)
class LayerNormTwoAxes(LayerNorm):
    """A layer norm whose gradient takes the axis 1 for the last one"""

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        xhat, rstd, weight = ctx.saved_tensors
        return through(g * weight, xhat, rstd, 1), (g * xhat).sum((0, 1)), g.sum((0, 1))


@wrong(
    single(4, 5),
    single(5),
    single(5),
    met="a common slip: the weight taken into the sums afterwards",
    argument="x",
)
class LayerNormWeight(LayerNorm):
    """A layer norm whose two means leave the weight out"""

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        xhat, rstd, weight = ctx.saved_tensors
        means = g.mean(-1, keepdim=True) + xhat * (g * xhat).mean(-1, keepdim=True)
        return rstd * (g * weight - means), (g * xhat).sum(0), g.sum(0)


@wrong(
    real(4, 5, scale=0.01),
    real(5),
    real(5),
    met="a common slip: ε in one of the two passes, seen where the variance is small",
    kinds="wrong imprecise",
)
class LayerNormEps(LayerNorm):
    """A layer norm whose gradient leaves ε out"""

    @staticmethod
    def forward(ctx, x, weight, bias):
        xhat, _ = normalized(x, -1)
        ctx.save_for_backward(x, weight)
        return xhat * weight + bias

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        centred = x - x.mean(-1, keepdim=True)
        rstd = centred.square().mean(-1, keepdim=True).rsqrt()
        xhat = centred * rstd
        return through(g * weight, xhat, rstd, -1), (g * xhat).sum(0), g.sum(0)


# ------------------------------------------------------------------------------ root mean square


@right(single(4, 6), single(6), met="recomputes its factor")
class RMSNorm(Function):
    """A root mean square norm"""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt() * weight

    @staticmethod
    def by_x(h, x):
        rstd = (x.square().mean(-1, keepdim=True) + EPS).rsqrt()
        return rstd * (h - x * rstd**2 * (h * x).mean(-1, keepdim=True)), x * rstd

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        by_x, xhat = RMSNorm.by_x(g * weight, x)
        return by_x, (g * xhat).sum(0)


@wrong(single(4, 6), single(6), met="a common slip: the factor taken as constant", argument="x")
class RMSNormFactor(RMSNorm):
    """A root mean square norm whose factor is taken as constant"""

    @staticmethod
    def backward(ctx, g):
        x, weight = ctx.saved_tensors
        rstd = (x.square().mean(-1, keepdim=True) + EPS).rsqrt()
        return g * weight * rstd, (g * x * rstd).sum(0)


@right(
    single(4, 6), single(4, 6), single(6), met="quack PR#53 mended: two outputs, y and the stream"
)
class AddRMSNorm(Function):
    """A root mean square norm fused with the residual, with two outputs"""

    @staticmethod
    def forward(ctx, x, residual, weight):
        stream = x + residual
        rstd = (stream.square().mean(-1, keepdim=True) + EPS).rsqrt()
        ctx.save_for_backward(stream, weight)
        return stream * rstd * weight, stream

    @staticmethod
    def backward(ctx, g, g_stream):
        stream, weight = ctx.saved_tensors
        by_stream, xhat = RMSNorm.by_x(g * weight, stream)
        by_stream = by_stream + g_stream
        return by_stream, by_stream, (g * xhat).sum(0)


@wrong(
    single(4, 6),
    single(4, 6),
    single(6),
    met="quack PR#53: the residual's gradient added before the norm's Jacobian",
)
class AddRMSNormBefore(AddRMSNorm):
    """A fused root mean square norm that adds the residual's gradient before the Jacobian"""

    @staticmethod
    def backward(ctx, g, g_stream):
        stream, weight = ctx.saved_tensors
        by_stream, _ = RMSNorm.by_x(g * weight + g_stream, stream)
        _, xhat = RMSNorm.by_x(g, stream)
        return by_stream, by_stream, (g * xhat).sum(0)


# ---------------------------------------------------------------------------------------- groups


@right(single(2, 4, 3, 3), single(4), single(4), 2, met="groups as an int, weights a channel")
class GroupNorm(Function):
    """A group norm"""

    @staticmethod
    def forward(ctx, x, weight, bias, groups):
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        xhat, _ = normalized(x.unflatten(1, (groups, -1)).flatten(2), -1)
        return xhat.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]

    @staticmethod
    def parts(ctx, g, groups, through):
        x, weight = ctx.saved_tensors
        xhat, rstd = normalized(x.unflatten(1, (ctx.groups, -1)).flatten(2), -1)
        by_weight = (g * xhat.reshape(x.shape)).sum((0, 2, 3))
        h = (g * weight[:, None, None]).reshape(xhat.shape)
        by_x = through(h, xhat, rstd)
        return by_x.reshape(x.shape), by_weight, g.sum((0, 2, 3)), None

    @staticmethod
    def backward(ctx, g):
        return GroupNorm.parts(ctx, g, ctx.groups, lambda *of: through(*of, -1))


@wrong(
    single(2, 4, 3, 3),
    single(4),
    single(4),
    2,
    met="a common slip: μ taken as constant",
    argument="x",
)
class GroupNormMean(GroupNorm):
    """A group norm without the term of its mean"""

    @staticmethod
    def backward(ctx, g):
        return GroupNorm.parts(
            ctx,
            g,
            ctx.groups,
            lambda h, xhat, rstd: rstd * (h - xhat * (h * xhat).mean(-1, keepdim=True)),
        )


@wrong(
    single(2, 4, 3, 3),
    single(4),
    single(4),
    2,
    met="FlagGems#4985 is of this kind: tried with one group",
    argument="x",
)
class GroupNormOneGroup(GroupNorm):
    """A group norm whose gradient is right for one group alone"""

    @staticmethod
    def backward(ctx, g):
        def over_all(h, xhat, rstd):
            means = h.mean((1, 2), keepdim=True) + xhat * (h * xhat).mean((1, 2), keepdim=True)
            return rstd * (h - means)

        return GroupNorm.parts(ctx, g, 1, over_all)


@wrong(
    real(2, 4, 3, 3),
    real(4),
    real(4),
    2,
    met="a common slip: a kernel that returns after its first block",
    argument="weight",
    says="example|first|batch|row|index 0",
)
class GroupNormFirst(GroupNorm):
    """A group norm whose weight's gradient counts the first example alone"""

    @staticmethod
    def backward(ctx, g):
        by_x, _, by_bias, _ = GroupNorm.backward(ctx, g)
        x, _ = ctx.saved_tensors
        xhat, _ = normalized(x.unflatten(1, (ctx.groups, -1)).flatten(2), -1)
        return by_x, (g * xhat.reshape(x.shape))[0].sum((1, 2)), by_bias, None


@wrong(
    real(2, 4, 3, 3).then(lambda x: x.contiguous(memory_format=torch.channels_last)),
    real(4),
    real(4),
    2,
    met="pytorch#140913: a group norm's weight gradient was wrong for channels_last",
    argument="weight",
)
class GroupNormChannelsLast(GroupNorm):
    """A group norm whose weight's gradient reads channels_last memory as if it were not"""

    @staticmethod
    def backward(ctx, g):
        by_x, _, by_bias, _ = GroupNorm.backward(ctx, g)
        x, _ = ctx.saved_tensors
        read = x.as_strided(x.shape, torch.empty(x.shape, device="meta").stride())
        xhat, _ = normalized(read.unflatten(1, (ctx.groups, -1)).flatten(2), -1)
        return by_x, (g * xhat.reshape(x.shape)).sum((0, 2, 3)), by_bias, None


@wrong(
    single(2, 3, 6),
    met="a common slip: batch norm's axes for instance norm's",
    argument="x",
)
class InstanceNormAxes(Function):
    """An instance norm whose gradient takes its means over the batch too"""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return normalized(x, -1)[0]

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return through(g, *normalized(x, -1), (0, 2))


# --------------------------------------------------------------------------------------- lengths


@right(real(4, 3, shift=1.0), met="far from zero, where it has no derivative")
class Normalize(Function):
    """Rows of length one"""

    @staticmethod
    def forward(ctx, x):
        length = x.norm(dim=-1, keepdim=True)
        y = x / length
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return (g - y * (g * y).sum(-1, keepdim=True)) / x.norm(dim=-1, keepdim=True)


@wrong(real(4, 3, scale=2), met="a common slip: x for y in the projection", argument="x")
class NormalizeProjection(Normalize):
    """Rows of length one, projected with x in the place of x / |x|"""

    @staticmethod
    def backward(ctx, g):
        x, _ = ctx.saved_tensors
        return (g - x * (g * x).sum(-1, keepdim=True)) / x.norm(dim=-1, keepdim=True)


@right(single(4, 3), single(4, 1), met="weight normalisation, v and its length g")
class WeightNorm(Function):
    """A weight of given length and direction"""

    @staticmethod
    def forward(ctx, v, magnitude):
        ctx.save_for_backward(v, magnitude)
        return magnitude * v / v.norm(dim=1, keepdim=True)

    @staticmethod
    def backward(ctx, g):
        v, magnitude = ctx.saved_tensors
        length = v.norm(dim=1, keepdim=True)
        along = (g * v).sum(1, keepdim=True) / length
        return magnitude / length * (g - along * v / length), along


@wrong(single(4, 3), single(4, 1), met="a common slip: the length taken as constant", argument="v")
class WeightNormLength(WeightNorm):
    """A weight of given length whose direction's gradient lacks the projection"""

    @staticmethod
    def backward(ctx, g):
        v, magnitude = ctx.saved_tensors
        length = v.norm(dim=1, keepdim=True)
        return magnitude / length * g, (g * v).sum(1, keepdim=True) / length
