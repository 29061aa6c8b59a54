"""Softmax, attention, its positions and its masks, gated units, dropout."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from manualbp.verification.catalogue.specimen import Specimen, fixed, into, real, single

WRONG: list[Specimen] = []
RIGHT: list[Specimen] = []
wrong, right = into(WRONG, kinds="wrong"), into(RIGHT)


# -------------------------------------------------------------------------------------- softmax


@right(single(4, 5), -1, met="from its output, the axis as an int")
class Softmax(Function):
    """A softmax from its output"""

    @staticmethod
    def forward(ctx, x, dim):
        p = torch.softmax(x, dim)
        ctx.save_for_backward(p)
        ctx.dim = dim
        return p

    @staticmethod
    def backward(ctx, g):
        (p,) = ctx.saved_tensors
        return p * (g - (g * p).sum(ctx.dim, keepdim=True)), None


@wrong(single(4, 5), -1, met="a common slip: the sigmoid-like diagonal alone", argument="x")
class SoftmaxSum(Softmax):
    """A softmax's gradient without its sum term"""

    @staticmethod
    def backward(ctx, g):
        (p,) = ctx.saved_tensors
        return p * g, None


@wrong(real(4, 4), 0, met="a common slip: dim=-1 written out on the way back", argument="x")
class SoftmaxOtherAxis(Softmax):
    """A softmax over axis 0 whose gradient sums over the last axis"""

    @staticmethod
    def backward(ctx, g):
        (p,) = ctx.saved_tensors
        return p * (g - (g * p).sum(-1, keepdim=True)), None


@wrong(
    single(4, 5),
    -1,
    met="a common slip: tried on a single row",
    argument="x",
)
class SoftmaxAllRows(Softmax):
    """A softmax's gradient that sums over all rows, right for batches of one"""

    @staticmethod
    def backward(ctx, g):
        (p,) = ctx.saved_tensors
        return p * (g - (g * p).sum()), None


@wrong(
    single(4, 5),
    2.0,
    met="a common slip: the temperature ignored on the way back",
    argument="x",
    says=r"2\.0* ?×",
)
class SoftmaxTemperature(Function):
    """A softmax with a temperature, which the gradient ignores"""

    @staticmethod
    def forward(ctx, x, temperature):
        p = torch.softmax(x / temperature, -1)
        ctx.save_for_backward(p)
        return p

    @staticmethod
    def backward(ctx, g):
        (p,) = ctx.saved_tensors
        return p * (g - (g * p).sum(-1, keepdim=True)), None


@right(real(4, 5), met="the logarithm kept, the probabilities by exp")
class LogSoftmax(Function):
    """A log-softmax from its output"""

    @staticmethod
    def forward(ctx, x):
        y = torch.log_softmax(x, -1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g - y.exp() * g.sum(-1, keepdim=True)


@wrong(real(4, 5), met="a common slip: cross-entropy's p − y for any gradient", argument="x")
class LogSoftmaxOfCost(LogSoftmax):
    """A log-softmax's gradient that is right where the gradient sums to one"""

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g - y.exp()


# ------------------------------------------------------------------------------------- attention


@right(
    single(2, 3, 4),
    single(2, 3, 4),
    single(2, 3, 4),
    False,
    met="recomputes its probabilities, as flash attention does",
)
class Attention(Function):
    """Attention that recomputes its probabilities, causal or not"""

    @staticmethod
    def probabilities(q, k, causal):
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if causal:
            ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(ahead, -math.inf)
        return torch.softmax(scores, -1)

    @staticmethod
    def forward(ctx, q, k, v, causal):
        ctx.save_for_backward(q, k, v)
        ctx.causal = causal
        return Attention.probabilities(q, k, causal) @ v

    @staticmethod
    def by_scores(g, p, v):
        by_p = g @ v.mT
        return p * (by_p - (by_p * p).sum(-1, keepdim=True))

    @staticmethod
    def backward(ctx, g):
        q, k, v = ctx.saved_tensors
        p = Attention.probabilities(q, k, ctx.causal)
        scaled = Attention.by_scores(g, p, v) / math.sqrt(q.shape[-1])
        return scaled @ k, scaled.mT @ q, p.mT @ g, None


@wrong(
    single(2, 3, 4),
    single(2, 3, 4),
    single(2, 3, 4),
    False,
    met="a common slip: the scale applied to one of two gradients",
    argument="q",
    says=r"2\.0* ?×",
)
class AttentionScale(Attention):
    """An attention that forgets the scale in the gradient of its queries"""

    @staticmethod
    def backward(ctx, g):
        q, k, v = ctx.saved_tensors
        p = Attention.probabilities(q, k, ctx.causal)
        by_scores = Attention.by_scores(g, p, v)
        return by_scores @ k, (by_scores / math.sqrt(q.shape[-1])).mT @ q, p.mT @ g, None


@wrong(
    single(2, 3, 4),
    single(2, 3, 4),
    single(2, 3, 4),
    False,
    met="a common slip: as many keys as queries hide the transpose",
    argument="v",
)
class AttentionValue(Attention):
    """An attention whose values' gradient lacks the transpose"""

    @staticmethod
    def backward(ctx, g):
        by_q, by_k, _, _ = Attention.backward(ctx, g)
        q, k, _ = ctx.saved_tensors
        return by_q, by_k, Attention.probabilities(q, k, ctx.causal) @ g, None


@wrong(
    real(2, 4, 3),
    real(2, 4, 3),
    real(2, 4, 3),
    True,
    met="a common slip: the recomputation does not know of causal",
)
class AttentionCausal(Attention):
    """A causal attention whose recomputation on the way back is not causal"""

    @staticmethod
    def backward(ctx, g):
        ctx.causal = False
        return Attention.backward(ctx, g)


@wrong(
    real(2, 3, 3),
    real(2, 3, 3),
    real(2, 3, 3),
    False,
    met="a common slip: the correction term of the softmax summed over the queries",
)
class AttentionCorrection(Attention):
    """An attention whose softmax is corrected along the queries"""

    @staticmethod
    def backward(ctx, g):
        q, k, v = ctx.saved_tensors
        p = Attention.probabilities(q, k, ctx.causal)
        by_p = g @ v.mT
        scaled = p * (by_p - (by_p * p).sum(-2, keepdim=True)) / math.sqrt(q.shape[-1])
        return scaled @ k, scaled.mT @ q, p.mT @ g, None


MASK = fixed([[True, True, False], [True, False, True], [True, True, True]], dtype=torch.bool)


@right(
    single(2, 3, 4),
    single(2, 3, 4),
    single(2, 3, 4),
    MASK,
    met="probabilities kept, once_differentiable, a bool mask as an argument",
)
class MaskedAttention(Function):
    """A masked attention that keeps its probabilities"""

    @staticmethod
    def forward(ctx, q, k, v, mask):
        scores = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~mask, -math.inf)
        p = torch.softmax(scores, -1)
        ctx.save_for_backward(q, k, v, p)
        return p @ v

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        q, k, v, p = ctx.saved_tensors
        scaled = Attention.by_scores(g, p, v) / math.sqrt(q.shape[-1])
        return scaled @ k, scaled.mT @ q, p.mT @ g, None


@wrong(
    single(2, 3, 4),
    single(2, 3, 4),
    single(2, 3, 4),
    MASK,
    met="a common slip: the mask ignored where probabilities are recomputed",
)
class MaskedAttentionIgnored(MaskedAttention):
    """A masked attention whose gradient ignores the mask"""

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        q, k, v, _ = ctx.saved_tensors
        p = torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1)
        scaled = Attention.by_scores(g, p, v) / math.sqrt(q.shape[-1])
        return scaled @ k, scaled.mT @ q, p.mT @ g, None


@right(single(2, 4, 3), single(2, 2, 3), met="one key head for two query heads, summed")
class SharedKeys(Function):
    """Scores of grouped queries, the shared keys' gradients summed"""

    @staticmethod
    def forward(ctx, q, k):
        ctx.save_for_backward(q, k)
        return q * k.repeat_interleave(2, 1)

    @staticmethod
    def backward(ctx, g):
        q, k = ctx.saved_tensors
        return g * k.repeat_interleave(2, 1), (g * q).unflatten(1, (-1, 2)).sum(2)


@wrong(
    single(2, 4, 3),
    single(2, 2, 3),
    met="a common slip: repeat_interleave undone by a stride",
    argument="k",
)
class SharedKeysFirst(SharedKeys):
    """Scores of grouped queries whose keys get the first query head's gradient alone"""

    @staticmethod
    def backward(ctx, g):
        q, k = ctx.saved_tensors
        return g * k.repeat_interleave(2, 1), (g * q)[:, ::2]


@wrong(
    single(2, 4, 3),
    single(2, 2, 3),
    met="a common slip: repeat for repeat_interleave, on the way back alone",
    argument="k",
)
class SharedKeysOrder(SharedKeys):
    """Scores of grouped queries that sum their keys' gradients over the wrong heads"""

    @staticmethod
    def backward(ctx, g):
        q, k = ctx.saved_tensors
        return g * k.repeat_interleave(2, 1), (g * q).unflatten(1, (2, -1)).sum(1)


@wrong(
    single(2, 3, 4),
    2,
    met="a common slip: heads merged without the transpose back",
    argument="x",
)
class SplitHeads(Function):
    """Heads split off whose gradients are merged in the wrong order"""

    @staticmethod
    def forward(ctx, x, heads):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()

    @staticmethod
    def backward(ctx, g):
        n, heads, length, size = g.shape
        return g.reshape(n, length, heads * size), None


@right(single(2, 3, 4), met="the rotation by the opposite angle")
class Rotary(Function):
    """Rotary positions"""

    @staticmethod
    def turned(x, sign):
        half = x.shape[-1] // 2
        angle = sign * torch.outer(
            torch.arange(x.shape[-2], dtype=x.dtype), 1 / (1 + torch.arange(half, dtype=x.dtype))
        )
        a, b = x[..., :half], x[..., half:]
        c, s = angle.cos(), angle.sin()
        return torch.cat([a * c - b * s, a * s + b * c], -1)

    @staticmethod
    def forward(ctx, x):
        return Rotary.turned(x, 1)

    @staticmethod
    def backward(ctx, g):
        return Rotary.turned(g, -1)


@wrong(single(2, 3, 4), met="a common slip: the same rotation on the way back", argument="x")
class RotaryAgain(Rotary):
    """Rotary positions whose gradient is rotated the same way"""

    @staticmethod
    def backward(ctx, g):
        return Rotary.turned(g, 1)


# ----------------------------------------------------------------------------------- gated units


@right(single(4, 3), single(4, 3), met="Liger's: the SiLU recomputed")
class SwiGLU(Function):
    """A gated unit, SiLU(a) b"""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(a, b)
        return F.silu(a) * b

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        s = torch.sigmoid(a)
        return g * b * s * (1 + a * (1 - s)), g * a * s


@wrong(
    single(4, 3),
    single(4, 3),
    met="Triton-distributed#180: every row's gradient written to row 0",
    says="row|first|zero|example",
)
class SwiGLURowZero(SwiGLU):
    """A gated unit that writes every row's gradient to row 0"""

    @staticmethod
    def backward(ctx, g):
        written = []
        for gradient in SwiGLU.backward(ctx, g):
            rows = torch.zeros_like(gradient)
            rows[0] = gradient.sum(0)
            written.append(rows)
        return tuple(written)


@wrong(
    single(4, 3),
    single(4, 3),
    met="unsloth#3314: the two gradients' names taken for each other",
    says="swap|order|other",
)
class SwiGLUSwapped(SwiGLU):
    """A gated unit that returns the gradients of its gate and of its value exchanged"""

    @staticmethod
    def backward(ctx, g):
        by_a, by_b = SwiGLU.backward(ctx, g)
        return by_b, by_a


@wrong(single(4, 3), single(4, 3), met="a common slip: the gate's slope forgotten", argument="a")
class SwiGLUSlope(SwiGLU):
    """A gated unit whose gate has no slope"""

    @staticmethod
    def backward(ctx, g):
        a, b = ctx.saved_tensors
        return g * b, g * F.silu(a)


# --------------------------------------------------------------------------------------- dropout


@right(single(6, 5), 0.25, met="torch's generator, the scaled mask kept")
class Dropout(Function):
    """A dropout that keeps its mask"""

    @staticmethod
    def forward(ctx, x, p):
        mask = torch.empty_like(x).bernoulli_(1 - p) / (1 - p)
        ctx.save_for_backward(mask)
        ctx.p = p
        return x * mask

    @staticmethod
    def backward(ctx, g):
        (mask,) = ctx.saved_tensors
        return g * mask, None


@wrong(
    single(6, 5),
    0.25,
    met="a common slip: the mask drawn anew to save memory, its seed not kept",
    argument="x",
    kinds="wrong nondeterministic",
)
class DropoutDrawn(Dropout):
    """A dropout that draws another mask on the way back"""

    @staticmethod
    def backward(ctx, g):
        return g * torch.empty_like(g).bernoulli_(1 - ctx.p) / (1 - ctx.p), None


@wrong(
    single(6, 5),
    0.25,
    met="a common slip: the mask kept without its scale",
    argument="x",
    says=r"0\.750* ?×",
)
class DropoutScale(Dropout):
    """A dropout whose gradient forgets 1 / (1 − p)"""

    @staticmethod
    def backward(ctx, g):
        (mask,) = ctx.saved_tensors
        return g * (mask > 0), None


class ModeDropout(Function):
    @staticmethod
    def forward(ctx, x, p, training):
        ctx.p, ctx.training = p, training
        mask = torch.empty_like(x).bernoulli_(1 - p) if training else torch.ones_like(x)
        ctx.save_for_backward(mask)
        return x * mask / (1 - p) if training else x.clone()

    @staticmethod
    def backward(ctx, g):
        (mask,) = ctx.saved_tensors
        return g * mask / (1 - ctx.p), None, None


@wrong(
    single(6, 5),
    met="a common slip: the scale applied in both modes",
    argument="x",
    says="eval",
)
class DropoutEvaluation(nn.Module):
    """A dropout whose gradient is scaled in eval mode too"""

    def forward(self, x):
        return ModeDropout.apply(x, 0.25, self.training)


@right(single(6, 5), met="a module with both modes")
class DropoutLayer(nn.Module):
    """A dropout as a module, which does nothing in eval mode"""

    def forward(self, x):
        return Dropout.apply(x, 0.25) if self.training else x
