"""Costs: squares, cross-entropies, distances, margins, and their reductions."""

import torch
import torch.nn.functional as F
from torch.autograd import Function

from manualbp.verification.catalogue.specimen import (
    Specimen,
    between,
    fixed,
    integers,
    into,
    real,
    single,
)

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)


# --------------------------------------------------------------------------------------- squares


@right(real(4, 3).wanted(), real(4, 3), met="a target without gradient")
class SquaredError(Function):
    """A mean squared error, for input and target"""

    @staticmethod
    def forward(ctx, input, target):
        ctx.save_for_backward(input, target)
        return (input - target).square().mean()

    @staticmethod
    def backward(ctx, g):
        input, target = ctx.saved_tensors
        by_input = g * 2 * (input - target) / input.numel()
        return by_input, -by_input


@wrong(
    single(4, 3),
    single(4, 3),
    met="a common slip: .mean() on the way there, nothing on the way back",
    says=r"1/n|12\.0* ?×|n = 12",
)
class SquaredErrorSum(SquaredError):
    """A mean squared error whose gradient lacks 1/n"""

    @staticmethod
    def backward(ctx, g):
        input, target = ctx.saved_tensors
        by_input = g * 2 * (input - target)
        return by_input, -by_input


@wrong(
    single(4, 3),
    single(4, 3),
    met="a common slip: the ½ of another convention",
    says=r"0\.50* ?×",
)
class SquaredErrorHalf(SquaredError):
    """A mean squared error with the gradient of half of it"""

    @staticmethod
    def backward(ctx, g):
        input, target = ctx.saved_tensors
        by_input = g * (input - target) / input.numel()
        return by_input, -by_input


@wrong(
    single(4, 3),
    single(4, 3),
    met="a common slip: n counted in rows, not in numbers",
    says=r"3\.0* ?×|1/n",
)
class SquaredErrorRows(SquaredError):
    """A mean squared error whose gradient divides by the number of rows"""

    @staticmethod
    def backward(ctx, g):
        input, target = ctx.saved_tensors
        by_input = g * 2 * (input - target) / len(input)
        return by_input, -by_input


@wrong(
    single(4, 3).wanted(),
    single(4, 3).wanted(),
    met="a common slip: distillation, where the target wants a gradient too",
    argument="target",
    says="zero|None|no gradient",
)
class SquaredErrorTarget(SquaredError):
    """A mean squared error that returns None for a target that wants a gradient"""

    @staticmethod
    def backward(ctx, g):
        input, target = ctx.saved_tensors
        return g * 2 * (input - target) / input.numel(), None


@right(single(5, 3, scale=3), single(5, 3), 1.5, met="two pieces, clamped")
class Huber(Function):
    """A Huber cost by a clamp"""

    @staticmethod
    def forward(ctx, input, target, delta):
        d = input - target
        ctx.save_for_backward(input, target)
        ctx.delta = delta
        beyond = delta * (d.abs() - delta / 2)
        return torch.where(d.abs() < delta, d * d / 2, beyond).mean()

    @staticmethod
    def backward(ctx, g):
        input, target = ctx.saved_tensors
        by_input = g * (input - target).clamp(-ctx.delta, ctx.delta) / input.numel()
        return by_input, -by_input, None


@wrong(
    between(-0.5, 0.5, 5, 3),
    between(-0.5, 0.5, 5, 3),
    1.5,
    met="a common slip: the sign without δ, unseen where δ = 1 or errors are small",
    says="large",
)
class HuberBeyond(Huber):
    """A Huber cost whose gradient is wrong for large errors alone"""

    @staticmethod
    def backward(ctx, g):
        input, target = ctx.saved_tensors
        d = input - target
        by_input = g * torch.where(d.abs() < ctx.delta, d, d.sign()) / d.numel()
        return by_input, -by_input, None


# -------------------------------------------------------------------------------- cross-entropy

LABELS = fixed([0, 2, -100, 1, 4, -100, 3, 2], dtype=torch.int64)


@right(
    single(8, 5),
    LABELS,
    0.1,
    met="indices, one to ignore, label smoothing; mean over those counted",
)
class CrossEntropy(Function):
    """A cross-entropy with an ignored index and label smoothing"""

    @staticmethod
    def forward(ctx, logits, target, smoothing):
        ctx.save_for_backward(logits, target)
        ctx.smoothing = smoothing
        logp = torch.log_softmax(logits, -1)
        counted = target != -100
        picked = logp.gather(1, target.clamp(min=0)[:, None])[:, 0]
        each = -(1 - smoothing) * picked - smoothing * logp.mean(-1)
        return (each * counted).sum() / counted.sum()

    @staticmethod
    def parts(ctx, smoothing=None):
        """p − y, and which rows count."""
        logits, target = ctx.saved_tensors
        smoothing = ctx.smoothing if smoothing is None else smoothing
        classes = torch.arange(logits.shape[1])
        y = (classes == target.clamp(min=0)[:, None]).to(logits) * (1 - smoothing)
        return torch.softmax(logits, -1) - y - smoothing / logits.shape[1], target != -100

    @staticmethod
    def backward(ctx, g):
        error, counted = CrossEntropy.parts(ctx)
        return g * error * counted[:, None] / counted.sum(), None, None


@wrong(
    single(8, 5),
    LABELS,
    0.0,
    met="a common slip: ignored rows left out of the cost alone",
    argument="logits",
)
class CrossEntropyIgnored(CrossEntropy):
    """A cross-entropy whose gradient counts the ignored rows"""

    @staticmethod
    def backward(ctx, g):
        error, counted = CrossEntropy.parts(ctx)
        return g * error / counted.sum(), None, None


@wrong(
    single(8, 5),
    LABELS,
    0.0,
    met="a common slip: the mean over all rows",
    argument="logits",
    says=r"0\.750* ?×",
)
class CrossEntropyMean(CrossEntropy):
    """A cross-entropy whose gradient is a mean over all rows, not over those counted"""

    @staticmethod
    def backward(ctx, g):
        error, counted = CrossEntropy.parts(ctx)
        return g * error * counted[:, None] / len(counted), None, None


@wrong(
    single(8, 5),
    LABELS,
    0.2,
    met="a common slip: label smoothing in one of the two passes",
    argument="logits",
)
class CrossEntropySmoothing(CrossEntropy):
    """A cross-entropy whose gradient ignores label smoothing"""

    @staticmethod
    def backward(ctx, g):
        error, counted = CrossEntropy.parts(ctx, 0.0)
        return g * error * counted[:, None] / counted.sum(), None, None


@wrong(
    single(8, 5),
    LABELS,
    0.1,
    met="unsloth#5230: zero gradients under a label mask, and training looks fine",
    argument="logits",
    says="zero",
)
class CrossEntropyMasked(CrossEntropy):
    """A cross-entropy whose gradient is zero as soon as one row is ignored"""

    @staticmethod
    def backward(ctx, g):
        error, counted = CrossEntropy.parts(ctx)
        return g * error * counted.all() / counted.sum(), None, None


@wrong(
    single(8, 5),
    LABELS,
    0.1,
    met="a common slip where the gradient is computed in forward: loss * 0.5 has no effect",
    argument="logits",
)
class CrossEntropyTakesOne(CrossEntropy):
    """A cross-entropy that takes the incoming gradient for one"""

    @staticmethod
    def backward(ctx, g):
        error, counted = CrossEntropy.parts(ctx)
        return error * counted[:, None] / counted.sum(), None, None


@right(
    single(6, 4).wanted(),
    integers(4, 6),
    between(0.5, 2.0, 4, dtype=torch.float32),
    met="weights of the classes, which want no gradient",
)
class WeightedCrossEntropy(Function):
    """A cross-entropy with weights of classes, which are constants"""

    @staticmethod
    def forward(ctx, logits, target, weight):
        ctx.save_for_backward(logits, target, weight)
        each = F.nll_loss(torch.log_softmax(logits, -1), target, reduction="none")
        return (weight[target] * each).sum() / weight[target].sum()

    @staticmethod
    def backward(ctx, g):
        logits, target, weight = ctx.saved_tensors
        each = weight[target][:, None]
        y = torch.arange(logits.shape[1]) == target[:, None]
        return g * each * (torch.softmax(logits, -1) - y.to(logits)) / each.sum(), None, None


@wrong(
    single(6, 4).wanted(),
    integers(4, 6),
    between(0.5, 2.0, 4, dtype=torch.float32),
    met="a common slip: the weights ignored on the way back",
    argument="logits",
)
class WeightedCrossEntropyIgnored(WeightedCrossEntropy):
    """A cross-entropy whose gradient ignores the weights of classes"""

    @staticmethod
    def backward(ctx, g):
        logits, target, _ = ctx.saved_tensors
        y = torch.arange(logits.shape[1]) == target[:, None]
        return g * (torch.softmax(logits, -1) - y.to(logits)) / len(target), None, None


@right(
    single(5, 3).wanted(),
    between(0.0, 1.0, 5, 3, dtype=torch.float32),
    2.0,
    met="from logits, by logsigmoid; a weight of the positive class",
)
class BinaryCrossEntropy(Function):
    """A binary cross-entropy of logits with a weight of the positive class"""

    @staticmethod
    def forward(ctx, logits, target, weight):
        ctx.save_for_backward(logits, target)
        ctx.weight = weight
        yes, no = F.logsigmoid(logits), F.logsigmoid(-logits)
        return -(weight * target * yes + (1 - target) * no).mean()

    @staticmethod
    def backward(ctx, g):
        logits, target = ctx.saved_tensors
        p, weight = torch.sigmoid(logits), ctx.weight
        by_logits = (1 - target) * p - weight * target * (1 - p)
        return g * by_logits / logits.numel(), None, None


@wrong(
    single(5, 3).wanted(),
    between(0.0, 1.0, 5, 3, dtype=torch.float32),
    2.0,
    met="a common slip: p − y with a weight of the positive class",
    argument="logits",
)
class BinaryCrossEntropyWeight(BinaryCrossEntropy):
    """A binary cross-entropy whose gradient ignores the weight of the positive class"""

    @staticmethod
    def backward(ctx, g):
        logits, target = ctx.saved_tensors
        return g * (torch.sigmoid(logits) - target) / logits.numel(), None, None


@wrong(
    real(6, 3),
    fixed([0.0, 1.0, 1.0, 0.0, 1.0, 0.0]).then(lambda y: y[:, None].expand(6, 3) > 0),
    met="a common slip: (1 − p)² held constant",
    argument="logits",
)
class Focal(Function):
    """A focal cost whose modulating factor is taken as constant"""

    @staticmethod
    def forward(ctx, logits, positive):
        signed = torch.where(positive, logits, -logits)
        ctx.save_for_backward(logits, positive)
        return -((1 - torch.sigmoid(signed)) ** 2 * F.logsigmoid(signed)).mean()

    @staticmethod
    def backward(ctx, g):
        logits, positive = ctx.saved_tensors
        sign = torch.where(positive, 1.0, -1.0).to(logits)
        miss = torch.sigmoid(-sign * logits)
        return -g * sign * miss**3 / logits.numel(), None


# ------------------------------------------------------------------------- distances and margins


@right(
    real(4, 5).then(lambda x: x.log_softmax(-1)),
    real(4, 5).then(lambda x: x.softmax(-1)),
    met="batchmean, for input and target",
)
class KLDivergence(Function):
    """A Kullback-Leibler divergence of log-probabilities"""

    @staticmethod
    def forward(ctx, input, target):
        ctx.save_for_backward(input, target)
        return (target * (target.log() - input)).sum() / len(input)

    @staticmethod
    def backward(ctx, g):
        input, target = ctx.saved_tensors
        by_target = target.log() + 1 - input
        return -g * target / len(input), g * by_target / len(input)


@wrong(
    real(4, 5).then(lambda x: x.log_softmax(-1)),
    real(4, 5).then(lambda x: x.softmax(-1)),
    met="a common slip: y log y taken to have the slope log y",
    argument="target",
)
class KLDivergenceEntropy(KLDivergence):
    """A Kullback-Leibler divergence whose target's gradient lacks a term"""

    @staticmethod
    def backward(ctx, g):
        input, target = ctx.saved_tensors
        return -g * target / len(input), g * (target.log() - input) / len(input)


@wrong(
    single(8, scale=2),
    fixed([1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0]).then(lambda y: y > 0),
    met="a common slip: the margin's mask forgotten",
    argument="score",
)
class Hinge(Function):
    """A hinge whose gradient does not stop beyond the margin"""

    @staticmethod
    def forward(ctx, score, positive):
        sign = torch.where(positive, 1.0, -1.0).to(score)
        ctx.save_for_backward(sign)
        return (1 - sign * score).clamp(min=0).mean()

    @staticmethod
    def backward(ctx, g):
        (sign,) = ctx.saved_tensors
        return -g * sign / sign.numel(), None


@wrong(
    between(0.1, 0.9, 4, 6),
    between(0.1, 0.9, 4, 6),
    met="a common slip: the denominator taken as constant",
)
class Dice(Function):
    """A Dice cost whose denominator is taken as constant"""

    @staticmethod
    def forward(ctx, p, y):
        ctx.save_for_backward(p, y)
        return (1 - 2 * (p * y).sum(-1) / (p + y).sum(-1)).mean()

    @staticmethod
    def backward(ctx, g):
        p, y = ctx.saved_tensors
        by_overlap = -2 * g / (p + y).sum(-1, keepdim=True) / len(p)
        return by_overlap * y, by_overlap * p


@right(
    real(5),
    real(5),
    between(0.5, 2.0, 5),
    met="three inputs with a formula each",
)
class GaussianNLL(Function):
    """A Gaussian negative log-likelihood"""

    @staticmethod
    def forward(ctx, input, target, var):
        ctx.save_for_backward(input, target, var)
        return (var.log() + (input - target).square() / var).mean() / 2

    @staticmethod
    def backward(ctx, g):
        input, target, var = ctx.saved_tensors
        d = input - target
        by_input = g * d / var / d.numel()
        return by_input, -by_input, g * (1 / var - (d / var).square()) / 2 / d.numel()


@wrong(
    real(5),
    real(5),
    between(0.5, 2.0, 5),
    met="a common slip: σ and σ² taken for each other",
    argument="var",
)
class GaussianNLLSigma(GaussianNLL):
    """A Gaussian negative log-likelihood with the gradient of σ in the place of σ²'s"""

    @staticmethod
    def backward(ctx, g):
        input, target, var = ctx.saved_tensors
        d = input - target
        by_input = g * d / var / d.numel()
        return by_input, -by_input, g * (1 / var - d.square() / var**3) / d.numel()


@right(real(4, 3), real(4, 3), met="both inputs, each with its projection")
class CosineDistance(Function):
    """A cosine distance of rows"""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return 1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))

    @staticmethod
    def by(g, a, b):
        length = a.norm(dim=-1, keepdim=True)
        ahat, bhat = a / length, b / b.norm(dim=-1, keepdim=True)
        return -g[:, None] * (bhat - ahat * (ahat * bhat).sum(-1, keepdim=True)) / length

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return CosineDistance.by(g, a, b), CosineDistance.by(g, b, a)


@wrong(real(4, 3), real(4, 3), met="a common slip: b's length for a's", argument="a")
class CosineDistanceLength(CosineDistance):
    """A cosine distance whose first gradient is divided by the other's length"""

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        ratio = a.norm(dim=-1, keepdim=True) / b.norm(dim=-1, keepdim=True)
        return CosineDistance.by(g, a, b) * ratio, CosineDistance.by(g, b, a)
